"""`claimhouse history` and `claimhouse diff`: what became of a row, and what changed between two moments."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NoAccessLogOption, settings_for
from claimhouse.cli.reading import Reading
from claimhouse.cli.talk import clipped, columns, emit, say, warn

if TYPE_CHECKING:
    from claimhouse.query.difference import Difference
    from claimhouse.query.names import TableName
    from claimhouse.query.session import Session

_WORDS = {"r": "copied", "c": "inserted", "u": "updated", "d": "deleted", "t": "truncated"}
_TOLD = 60  # characters of a value in a table for people
Line = dict[str, str | None]

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="table, or a row per changed column: csv, markdown, parquet, arrow."
    ),
]


def history(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="claim, or schema.table.")],
    key: Annotated[
        list[str],
        typer.Argument(metavar="KEY...", help="The row's key, a value per key column, or column=value of any column."),
    ],
    lake: LakeOption = None,
    at: Annotated[str | None, typer.Option("--at", metavar="MOMENT", help="As it was known then.")] = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    no_access_log: NoAccessLogOption = False,
    config: ConfigOption = None,
) -> None:
    """Every version of one row: when it came, by which transaction, and what changed; through key changes and deletes.

    \b
    Examples:
      claimhouse history claim 4711
      claimhouse history claim claim_number=CLM-2025-006101
      claimhouse history policy_version policy_id=12 version=3 --json
      claimhouse history claim 4711 --at 2026-03-31 --format csv
    """
    from claimhouse.change import lsn_text
    from claimhouse.errors import UsageError
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.history import history as versions_of
    from claimhouse.query.render import single
    from claimhouse.query.session import Session

    settings = settings_for(config, lake)
    found = open_lake(settings.lake.location, settings.storage_options())
    with Session(found, at=at, zone=settings.query.zone) as session:
        name = session.names.find(session.path(table))
        if name is None:
            raise UsageError(f"there is no table {table}")
        asked, wanted = _key(session, name, key)
        versions = versions_of(session, name, wanted)
        reading = Reading(found, "history", at, audited=settings.query.access_log and not no_access_log)
        reading.note("/".join((name.source, name.schema, name.name)), wanted | asked, found=bool(versions))
        for warning in session.warnings:
            warn(warning)
    rows: list[dict[str, Any]] = []
    for place, v in enumerate(versions):
        before = versions[place - 1].values if place else {}
        rows.append(
            {
                "operation": _WORDS[v.op],
                "lsn": lsn_text(v.lsn),
                "committed_at": v.committed_at.isoformat() if v.committed_at else None,
                "xid": v.xid,
                "changed": list(v.changed),
                "before": {c: single(before.get(c)) for c in v.changed},
                "key": v.key,
                "moved_to": v.moved_to,
                "values": single(v.values),
            }
        )
    reading.kept()
    if not rows:
        say("no such row, neither now nor before")
        raise typer.Exit(1)
    if as_json or format == "json":
        emit(rows)
    elif format not in (None, "table"):
        _write([line for row in rows for line in _lines(row)], format)
    else:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """A line per version, and one per further column that it changed."""
    told = []
    for row in rows:
        lines = list(_lines(row))
        for place, line in enumerate(lines):
            head = [line["operation"], line["lsn"], line["committed_at"], line["xid"]] if not place else [""] * 4
            told.append([*head, *(_shown(line, n) for n in ("column", "before", "after"))])
    print(columns(["operation", "lsn", "committed at", "transaction", "column", "before", "after"], told))


def _lines(row: dict[str, Any]) -> Iterator[Line]:
    """A version, once for each column that it changed."""
    head = {n: None if row[n] is None else str(row[n]) for n in ("operation", "lsn", "committed_at", "xid")}
    changes = [(c, _text(row["before"][c]), _text(row["values"].get(c))) for c in row["changed"]]
    if row["moved_to"]:
        changes += [(c, row["key"].get(c), v) for c, v in row["moved_to"].items() if c not in row["changed"]]
    for column, before, after in changes or [(None, None, None)]:
        yield {**head, "column": column, "before": before, "after": after}


def diff(
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="claim, or schema.table.")] = None,
    begin: Annotated[str | None, typer.Option("--from", metavar="MOMENT", help="The earlier moment.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="The later one. [default: now]")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every table.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Rows told one by one, per table.")] = 20,
    lake: LakeOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    no_access_log: NoAccessLogOption = False,
    config: ConfigOption = None,
) -> None:
    """What differs between two moments: rows that came, went or changed, by key and column, before and after.

    \b
    Examples:
      claimhouse diff claim --from 2026-03-31
      claimhouse diff --all --from cut:17 --to cut:42 --json
      claimhouse diff payment --from xid:4711 --limit 100000 --format csv
    """
    from claimhouse.errors import UsageError
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.session import Session

    if begin is None or (table is None) != every:
        raise UsageError("diff needs a table (or --all) and --from", hint="claimhouse diff claim --from 2026-03-31")
    settings = settings_for(config, lake)
    found = open_lake(settings.lake.location, settings.storage_options())
    zone = settings.query.zone
    with Session(found, at=begin, zone=zone) as old, Session(found, at=end, zone=zone) as new:
        reading = Reading(found, "diff", end, audited=settings.query.access_log and not no_access_log)
        reading.note(table or "every table", {"from": begin, "to": end or "now"})
        told = _differences(old, new, table, limit)
        moments = [f"{s} from {old.positions[s]} to {p}" for s, p in new.positions.items() if s in old.positions]
        for warning in dict.fromkeys(old.warnings + new.warnings):
            warn(warning)
    reading.kept()
    say(", ".join(moments))
    if as_json or format == "json":
        emit([d.to_json(limit) for d in told])
    elif format not in (None, "table"):
        _write([line for d in told for line in _changes(d, limit)], format)
    else:
        _print_differences(told, limit)


def _print_differences(told: list[Difference], limit: int) -> None:
    print(columns(["table", "added", "removed", "changed"], [[d.table, d.added, d.removed, d.changed] for d in told]))
    rows = [line for d in told for line in _changes(d, limit, of_changed_alone=True)]
    if rows:
        print()
        names = ("table", "row", "key", "column", "before", "after")
        print(columns(names, ([_shown(line, name) for name in names] for line in rows)))
    left = {d.table: len(d.rows) - limit for d in told if len(d.rows) > limit}
    if left:
        say(f"{sum(left.values()):,} more rows differ in {', '.join(left)}: --limit N tells more")


def _changes(found: Difference, limit: int, *, of_changed_alone: bool = False) -> Iterator[Line]:
    """A line per row and column; of rows that came or went every column, or none where only the changed count."""
    from claimhouse.query.render import single

    for row in found.rows[:limit]:
        key = ", ".join(f"{name}={single(value)}" for name, value in row.key.items())
        head: Line = {"table": found.table, "from": found.begin, "to": found.end, "row": row.kind, "key": key}
        names: Iterable[str | None] = row.columns if row.kind == "changed" else {**row.before, **row.after}
        if of_changed_alone and row.kind != "changed":
            names = ()
        for column in names or (None,):
            values = {"before": row.before.get(column or ""), "after": row.after.get(column or "")}
            yield {**head, "column": column, **values}


def _differences(old: Session, new: Session, table: str | None, values: int) -> list[Difference]:
    from claimhouse.errors import LakeError, QueryError, UsageError
    from claimhouse.query.difference import difference

    if table is not None:
        name = new.names.find(new.path(table))
        if name is None:
            raise UsageError(f"there is no table {table}")
        return [difference(old, new, name, values)]
    found: list[Difference] = []
    for name in new.tables():
        try:
            found.append(difference(old, new, name, values))
        except (LakeError, QueryError) as error:
            warn(f"{name.schema}.{name.name} is left out: {error}")
    return found


def _key(session: Session, name: TableName, given: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(what was asked for, the key that it means).

    The arguments are the key's values in order, column=value of each, or column=value of others that find the row.
    """
    from claimhouse.errors import UsageError
    from claimhouse.query.history import key_by

    shape = session.states[name].shape_at(session.positions[name.source].lsn)
    names, all_names = [c.name for c in shape.key], [c.name for c in shape.columns]
    if all("=" in g and g.partition("=")[0] in all_names for g in given):
        asked = {column: value for column, _, value in (g.partition("=") for g in given)}
        return asked, asked if set(asked) == set(names) or not names else key_by(session, name, asked)
    if len(given) != len(names) and names:
        raise UsageError(
            f"the key is ({', '.join(names)}): {len(names)} values, not {len(given)}",
            hint="or find the row by any column: column=value",
        )
    asked = dict(zip(names, given, strict=False))
    return asked, asked


def _write(lines: list[Line], form: str | None) -> None:
    """Lines of text in a format for programs; nothing where there is none but a heading cannot be told."""
    import pyarrow as pa

    from claimhouse.query.formats import write

    names = list(lines[0]) if lines else ["table", "from", "to", "row", "key", "column", "before", "after"]
    table = pa.Table.from_pylist(lines, schema=pa.schema([(n, pa.string()) for n in names]))
    write(table.to_reader(), form or "csv", sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _shown(line: Line, name: str) -> str:
    """A cell for people: NULL where a changed column had or got none."""
    value = line[name]
    null = value is None and name in ("before", "after") and line.get("column") is not None
    return "NULL" if null else clipped(value or "", _TOLD)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
