"""`claimhouse history` and `claimhouse diff`: what became of a row, and what changed between two moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, settings_for
from claimhouse.cli.talk import columns, emit, printable, say, warn

if TYPE_CHECKING:
    from claimhouse.query.difference import Difference
    from claimhouse.query.session import Session

_WORDS = {"r": "copied", "c": "inserted", "u": "updated", "d": "deleted", "t": "truncated"}


def history(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="claim, or schema.table.")],
    key: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="The row's key, a value per key column, or column=value.")
    ],
    lake: LakeOption = None,
    at: Annotated[str | None, typer.Option("--at", metavar="MOMENT", help="As it was known then.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Every version of one row: when it came, by which transaction, and what changed; through key changes and deletes.

    \b
    Examples:
      claimhouse history claim 4711
      claimhouse history policy_version policy_id=12 version=3 --json
      claimhouse history claim 4711 --at 2026-03-31
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
        shape = session.states[name].shape_at(session.positions[name.source].lsn)
        versions = versions_of(session, name, _key([c.name for c in shape.key], key))
    rows = [
        {
            "operation": _WORDS[v.op],
            "lsn": lsn_text(v.lsn),
            "committed_at": v.committed_at.isoformat() if v.committed_at else None,
            "xid": v.xid,
            "changed": list(v.changed),
            "key": v.key,
            "moved_to": v.moved_to,
            "values": single(v.values),
        }
        for v in versions
    ]
    if as_json:
        emit(rows)
    elif rows:
        head = ["operation", "lsn", "committed at", "transaction", "changed"]
        print(
            columns(
                head, [[r["operation"], r["lsn"], r["committed_at"], str(r["xid"] or ""), _changed(r)] for r in rows]
            )
        )
    if not rows:
        say("no such row, neither now nor before")
        raise typer.Exit(1)


def diff(
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="claim, or schema.table.")] = None,
    begin: Annotated[str | None, typer.Option("--from", metavar="MOMENT", help="The earlier moment.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="The later one. [default: now]")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every table.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Rows told one by one, per table.")] = 20,
    lake: LakeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """What differs between two moments: rows that came, went or changed, by key and column.

    \b
    Examples:
      claimhouse diff claim --from 2026-03-31
      claimhouse diff --all --from cut:17 --to cut:42 --json
    """
    from claimhouse.errors import UsageError
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.render import single
    from claimhouse.query.session import Session

    if begin is None or (table is None) != every:
        raise UsageError("diff needs a table (or --all) and --from", hint="claimhouse diff claim --from 2026-03-31")
    settings = settings_for(config, lake)
    found = open_lake(settings.lake.location, settings.storage_options())
    zone = settings.query.zone
    with Session(found, at=begin, zone=zone) as old, Session(found, at=end, zone=zone) as new:
        told = _differences(old, new, table)
    if as_json:
        emit([d.to_json(limit) for d in told])
        return
    print(columns(["table", "added", "removed", "changed"], [[d.table, d.added, d.removed, d.changed] for d in told]))
    for difference in told:
        for row in difference.rows[:limit]:
            key = ", ".join(f"{name}={single(value)}" for name, value in row.key.items())
            line = f"  {difference.table}  {row.kind:7}  {key}  {', '.join(row.columns)}"
            print(printable(line).replace("\n", " "))


def _differences(old: Session, new: Session, table: str | None) -> list[Difference]:
    from claimhouse.errors import LakeError, QueryError, UsageError
    from claimhouse.query.difference import difference

    if table is not None:
        name = new.names.find(new.path(table))
        if name is None:
            raise UsageError(f"there is no table {table}")
        return [difference(old, new, name)]
    found: list[Difference] = []
    for name in new.tables():
        try:
            found.append(difference(old, new, name))
        except (LakeError, QueryError) as error:
            warn(f"{name.schema}.{name.name} is left out: {error}")
    return found


def _key(names: list[str], given: list[str]) -> dict[str, str]:
    from claimhouse.errors import UsageError

    if all("=" in g and g.partition("=")[0] in names for g in given):
        return {name: value for name, _, value in (g.partition("=") for g in given)}
    if len(given) != len(names):
        raise UsageError(f"the key is ({', '.join(names)}): {len(names)} values, not {len(given)}")
    return dict(zip(names, given, strict=True))


def _changed(row: dict[str, Any]) -> str:
    moved = f" -> {', '.join(row['moved_to'].values())}" if row["moved_to"] else ""
    return ", ".join(row["changed"]) + moved
