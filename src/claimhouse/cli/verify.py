"""`claimhouse verify`: prove that lake and source are equal, or name the rows that differ, never their values."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import columns, emit, printable, say, warn

if TYPE_CHECKING:
    from claimhouse.verify import Report


def verify(
    source: SourceOption = None,
    lake: LakeOption = None,
    tables: Annotated[
        list[str] | None, typer.Option("--tables", metavar="PATTERN", help="Tables to compare. Repeatable.")
    ] = None,
    one_snapshot: Annotated[
        bool, typer.Option("--one-snapshot", help="Compare all tables at one moment; holds VACUUM back meanwhile.")
    ] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long a running capture may take to catch up.")
    ] = "30s",
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare source and lake row by row, every column, while both are live.

    Chunk by chunk, each one short transaction on the source. Names the keys and columns that differ. Exits 1 on any
    difference. A `run` must be live beside it, unless the source rests.

    \b
    Examples:
      claimhouse verify --source service=claims --lake ./lake
      claimhouse verify --lake ./lake --source service=claims --tables claim --tables payment
      claimhouse verify --one-snapshot --json
    """
    from claimhouse.settings import choose, seconds

    patience = seconds("--wait", wait)
    settings = settings_for(config, lake)
    reports = []
    for chosen, found in choose(settings, source, name).items():
        from claimhouse.verify import VerifyOptions
        from claimhouse.verify import verify as compare

        options = VerifyOptions(
            source=chosen,
            dsn=found.dsn.reveal(),
            location=settings.lake.location,
            storage_options=settings.storage_options(),
            tables=tables or found.tables,
            wait=patience,
            one_snapshot=one_snapshot,
        )
        reports.append(compare(options, _progress(quiet=as_json or not sys.stderr.isatty())))
    if as_json:
        emit([as_data(report) for report in reports])
    else:
        for report in reports:
            tell(report)
    if any(report.differing for report in reports):
        raise typer.Exit(1)


def as_data(report: Report) -> dict[str, Any]:
    """A report for programs."""
    from dataclasses import asdict

    whole = {"source": report.source, "rows": report.rows, "differing": report.differing, "ok": not report.differing}
    return {**whole, "longest_transaction_seconds": report.longest, "held_seconds": report.held} | {
        "tables": [asdict(table) for table in report.tables]
    }


def tell(report: Report) -> None:
    """A report for a person: one row per table, then the rows that differ."""
    rows = [(t.table, t.rows, t.chunks, t.differing, f"{t.seconds:.1f} s") for t in report.tables]
    print(columns(["table", "rows", "chunks", "differing", "time"], rows))
    for difference in report.differences:
        key = ", ".join(f"{name} {value}" for name, value in difference.key.items())
        where = f" in {', '.join(difference.columns)}" if difference.columns else ""
        print(printable(f"{difference.table}: {difference.kind}{where}" + (f", key {key}" if key else "")))
    told = len(report.differences)
    if report.differing > told:
        print(f"and {report.differing - told:,} more")
    if not report.tables:
        warn(f"{report.source}: no table was compared")
    say(f"{report.source}: {verdict(report)}")


def verdict(report: Report) -> str:
    """The outcome in a sentence."""
    held = f"; the source was held back for {report.held:.1f} s" if report.held is not None else ""
    longest = f"; longest transaction on the source {report.longest:.2f} s" if report.held is None else ""
    found = f"{report.differing:,} rows differ" if report.differing else "no difference"
    return f"{found} in {report.rows:,} rows of {len(report.tables)} tables{longest}{held}"


def _progress(*, quiet: bool) -> Callable[[str, int], None] | None:
    """Tells at most once a second how far it is, on a terminal."""
    if quiet:
        return None
    told = [time.monotonic()]

    def tell(table: str, rows: int) -> None:
        if time.monotonic() - told[0] > 1:
            told[0] = time.monotonic()
            say(f"{table}: {rows:,} rows compared")

    return tell
