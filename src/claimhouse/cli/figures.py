"""`claimhouse figures` and `claimhouse triangle`: what the book comes to, now or as of a past moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, LakeOption, NoAccessLogOption, settings_for
from claimhouse.cli.reading import Reading
from claimhouse.cli.talk import say, warn

if TYPE_CHECKING:
    import pyarrow as pa

    from claimhouse.marts import Model
    from claimhouse.query.session import Session
    from claimhouse.settings import Settings

_FOR_PEOPLE = ("table", "markdown")
_MEASURES = ("paid", "incurred", "counts", "log")
_UNEVEN = (
    "the newest diagonal is not complete at this valuation, and chain ladder takes it as it stands: "
    "value at the end of a period, as with --valuation 2025-12-31"
)

AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="MOMENT", help="A past moment: 0/16B3748, xid:4711, cut:17, an ISO time or a date."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FILE",
        help="Where the tables hold what figures read. [default: the shipped one that fits]",
    ),
]
ValuationOption = Annotated[
    str | None,
    typer.Option("--valuation", metavar="DATE", help="Later money does not count. [default: the day of the moment]"),
]
LineOption = Annotated[str | None, typer.Option("--line", metavar="LINE", help="Only this line of business.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="FORMAT", help="table, json, csv, parquet, arrow or markdown. [default: table]"),
]


def figures(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The figure; without it, the list of them.")
    ] = None,
    lake: LakeOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    valuation: ValuationOption = None,
    line: LineOption = None,
    claim: Annotated[str | None, typer.Option("--claim", metavar="NUMBER", help="For reserve_history.")] = None,
    prior: Annotated[str | None, typer.Option("--prior", metavar="DATE", help="For reserve_development.")] = None,
    threshold: Annotated[str | None, typer.Option("--threshold", metavar="AMOUNT", help="For large_losses.")] = None,
    format: FormatOption = None,
    sql: Annotated[
        str | None, typer.Option("--sql", metavar="ENGINE", help="Print its SQL for duckdb, spark or trino.")
    ] = None,
    no_access_log: NoAccessLogOption = False,
    config: ConfigOption = None,
) -> None:
    """Print a figure: paid, incurred, ratios, backlog and others; without a name, which there are and which are off.

    \b
    Examples:
      claimhouse figures
      claimhouse figures loss_ratio --line motor
      claimhouse figures large_losses --threshold 50000 --at 2026-03-31
      claimhouse figures reserve_history --claim CLM-2025-006101 --format csv
      claimhouse figures totals --sql trino
    """
    given = {"valuation": valuation, "line": line, "claim": claim, "prior": prior, "threshold": threshold}
    settings = settings_for(config, lake, query__format=format)
    form = settings.query.format
    with _opened(settings, at, model) as (session, chosen):
        if name is None:
            _list(session, chosen, form)
        elif sql is not None:
            print(_sql(chosen, name, sql))
        else:
            found = _asked(session, chosen, name, given)
            if claim is not None:
                reading = Reading(session.lake, "figures", at, audited=settings.query.access_log and not no_access_log)
                reading.note("claim", {"claim_number": claim}, found=found.num_rows > 0)
                reading.kept()
            _print(session, found, form)


def triangle(
    measure: Annotated[str, typer.Argument(metavar="[MEASURE]", help="paid, incurred, counts or log.")] = "paid",
    lake: LakeOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    valuation: ValuationOption = None,
    line: LineOption = None,
    origin: Annotated[str, typer.Option("--origin", help="Accident periods: year, half, quarter or month.")] = "year",
    development: Annotated[
        str, typer.Option("--development", help="Steps of age: year, half, quarter or month.")
    ] = "year",
    ratios: Annotated[bool, typer.Option("--ratios", help="Link ratios in place of values.")] = False,
    reserve: Annotated[
        bool, typer.Option("--reserve", help="Chain ladder and Mack's error (extra `reserving`).")
    ] = False,
    format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a loss triangle: accident periods down, ages in months across. Formats for programs have a row per cell.

    \b
    Examples:
      claimhouse triangle
      claimhouse triangle incurred --line motor --valuation 2025-12-31 --ratios
      claimhouse triangle --origin quarter --development quarter --format csv
      claimhouse triangle incurred --at 2026-03-31 --valuation 2026-03-31
      claimhouse triangle paid --valuation 2025-12-31 --reserve
    """
    from claimhouse.errors import UsageError
    from claimhouse.marts import reserving

    if measure not in _MEASURES:
        raise UsageError(f"there is no triangle of {measure}", hint=f"one of: {', '.join(_MEASURES)}")
    given: dict[str, Any] = {"valuation": valuation, "line": line}
    given |= {"origin_months": _months(origin), "development_months": _months(development)}
    settings = settings_for(config, lake, query__format=format)
    form = settings.query.format
    with _opened(settings, at, model) as (session, chosen):
        found = _asked(session, chosen, f"triangle_{measure}", given)
        _tell_left_out(session, chosen, given)
        if reserve:
            if not all(found["complete"].to_pylist()):
                warn(_UNEVEN)
            found = reserving.reserve(found)
        elif form in _FOR_PEOPLE:
            found = reserving.grid(found, "link_ratio" if ratios else "value")
        _print(session, found, form)


@contextmanager
def _opened(settings: Settings, at: str | None, model: str | None) -> Iterator[tuple[Session, Model]]:
    """The session and the model that were asked for."""
    from claimhouse.lake.lake import open_lake
    from claimhouse.marts import fitting, load
    from claimhouse.query.session import Session

    found = open_lake(settings.lake.location, settings.storage_options())
    with Session(found, at=at, zone=settings.query.zone) as session:
        chosen = load(model) if model else fitting(session)
        if model is None:
            say(f"model {chosen.name}: {chosen.title}")
        yield session, chosen


def _asked(session: Session, model: Model, name: str, given: dict[str, Any]) -> pa.Table:
    from claimhouse.marts import figures as ask

    return ask(session, model, name, {key: value for key, value in given.items() if value is not None})


def _tell_left_out(session: Session, model: Model, given: dict[str, Any]) -> None:
    """Warn of claims that the triangle has no place for."""
    from datetime import date

    from claimhouse.marts import left_out
    from claimhouse.marts.runner import day_of

    valuation = date.fromisoformat(given["valuation"][:10]) if given["valuation"] else day_of(session)
    if "claim_input" in model.inputs and (count := left_out(session, model, valuation, given["line"])):
        warn(f"{count:,} claims are left out: lost 80 years before the valuation or earlier, or dated a year from now")


def _list(session: Session, model: Model, form: str) -> None:
    import pyarrow as pa

    from claimhouse.marts import available

    states = available(model, session)
    rows = [
        {"figure": a.name, "what": a.title, "state": "on" if a.on else f"off: {'; '.join(a.missing)}"} for a in states
    ]
    _print(session, pa.Table.from_pylist(rows), form)


def _sql(model: Model, name: str, engine: str) -> str:
    from claimhouse.marts import compose, find

    return compose.render(compose.compose(find(name), model), engine, pretty=True).sql


def _print(session: Session, table: pa.Table, form: str) -> None:
    from claimhouse.query.formats import write

    for warning in session.warnings:
        warn(warning)
    shown = _rounded(table) if form in _FOR_PEOPLE else table
    write(shown.to_reader(), form, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _rounded(table: pa.Table) -> pa.Table:
    """Doubles as people read them: money to two places, ratios to four, and nothing where there is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, column in enumerate(table.columns):
        if pa.types.is_floating(column.type):
            numbers = [v for v in column.to_pylist() if v is not None and v == v]
            places = 2 if max(map(abs, numbers), default=0) >= 1000 else 4
            rounded = pc.round(pc.if_else(pc.is_nan(column), None, column), places)
            table = table.set_column(place, table.schema.names[place], rounded)
    return table


def _months(period: str) -> int:
    from claimhouse.errors import UsageError

    months = {"year": 12, "half": 6, "quarter": 3, "month": 1}
    if period not in months:
        raise UsageError(f"there is no period {period}", hint=f"one of: {', '.join(months)}")
    return months[period]
