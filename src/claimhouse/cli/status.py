"""`claimhouse status`: what the lake holds, and where a commit is on its way from the server to a query.

Lag is told hop by hop (server → slot → cut → Delta), since one number does not say where to look. Without a source that
can be asked, the lake's own hops are told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import byte_count, columns, emit, say, warn

if TYPE_CHECKING:
    from claimhouse.query.status import LakeStatus, SourceStatus
    from claimhouse.settings import Settings


def status(
    lake: LakeOption = None,
    source: SourceOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Tell what the lake knows; ask no server.")] = False,
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show lag per hop, slot, cuts, flushes, and tables with rows, versions, files and errors.

    Exits 1 if a table is errored, a dead letter is open, or a slot is lost.

    \b
    Examples:
      claimhouse status --lake ./lake
      claimhouse status --lake ./lake --source service=claims
      claimhouse status --offline --json
    """
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.status import status as lake_status

    settings = settings_for(config, lake)
    told = lake_status(open_lake(settings.lake.location, settings.storage_options()))
    asked = {} if offline else servers(settings, told, source, name)
    lost = [n for n, server in asked.items() if server.get("wal_status") == "lost"]
    if as_json:
        emit({**told.to_json(), "servers": asked, "ok": told.ok and not lost})
    else:
        print_status(told, asked)
    if not told.ok or lost:
        raise typer.Exit(1)


def servers(settings: Settings, told: LakeStatus, source: str | None, name: str | None) -> dict[str, dict[str, Any]]:
    """What the servers say of each source's slot; one that cannot be asked is warned about and left out."""
    from claimhouse.errors import ClaimhouseError, UsageError
    from claimhouse.settings import choose

    try:
        chosen = choose(settings, source, name)
    except UsageError:
        if source is not None:
            raise
        return {}
    found = {}
    for status in told.sources:
        if status.source in chosen:
            try:
                found[status.source] = ask(chosen[status.source].dsn.reveal(), status)
            except ClaimhouseError as error:
                warn(f"{status.source}: the server was not asked: {error}")
    return found


def ask(dsn: str, status: SourceStatus) -> dict[str, Any]:
    """The server's view of one source: positions as LSN, distances in bytes. Raises SourceError, SourceGone."""
    from claimhouse.change import lsn_text, parse_lsn
    from claimhouse.postgres.publication import slot_state
    from claimhouse.postgres.server import connect, current_lsn

    with connect(dsn) as conn:
        here = current_lsn(conn)
        slot = slot_state(conn, status.slot)
    told: dict[str, Any] = {
        "at": lsn_text(here),
        "cut_behind_bytes": max(here - parse_lsn(status.end_lsn), 0),
        "wal_status": slot.wal_status if slot else "lost",
    }
    if slot is not None:
        confirmed = slot.confirmed_flush_lsn
        told |= {
            "confirmed": lsn_text(confirmed) if confirmed is not None else None,
            "confirmed_behind_bytes": slot.behind_bytes,
            "retained_bytes": slot.retained_bytes,
            "safe_wal_bytes": slot.safe_wal_size,
            "active_pid": slot.active_pid,
            "inactive_since": slot.inactive_since,
        }
    return told


def print_status(told: LakeStatus, asked: dict[str, dict[str, Any]]) -> None:
    """The state for a person: per source its hops, then its tables."""
    print(f"lake {told.location}, id {told.lake_id}")
    for source in told.sources:
        print(f"\n{source.source}: slot {source.slot}, cut {source.cut}, flush {source.flush}")
        print(columns(["hop", "position", "behind", "when"], hops(source, asked.get(source.source))))
        print()
        print(columns(TABLE_HEAD, table_rows(source)))
        for table in source.tables:
            if table.error:
                warn(f"{table.schema}.{table.name} is errored: {table.error}")
            for column, lost in table.lossy.items():
                warn(f"{table.schema}.{table.name}.{column} loses in the stream: {lost}")
        if source.dead_letters:
            warn(f"{len(source.dead_letters)} open dead letters")
    for name in told.empty:
        say(f"{name}: no cut yet")


def hops(source: SourceStatus, server: dict[str, Any] | None) -> list[tuple[object, ...]]:
    """One row per hop, from the server to the Delta tables."""
    rows: list[tuple[object, ...]] = []
    if server is not None:
        reader = f"read by process {server['active_pid']}" if server.get("active_pid") else "nobody reads it"
        state = server["wal_status"]
        health = reader if state == "reserved" else f"{state}, {reader}"
        rows.append(("server", server["at"], "", ""))
        rows.append(("slot", server.get("confirmed"), byte_count(server.get("confirmed_behind_bytes")), health))
    behind = byte_count(server["cut_behind_bytes"]) if server is not None else ""
    rows.append(("newest cut", source.end_lsn, behind, _ago(source.cut_at)))
    rows.append(("Delta tables", f"cut {source.flushed_cut}", f"{source.tail_cuts} cuts", _ago(source.flushed_at)))
    return rows


TABLE_HEAD = ["table", "status", "rows", "in tail", "log version", "current version", "files", "MB", "dead letters"]


def table_rows(source: SourceStatus) -> list[tuple[object, ...]]:
    return [
        (
            f"{t.schema}.{t.name}",
            t.status,
            t.rows,
            t.tail_rows,
            t.changes_version,
            t.current_version,
            t.files,
            f"{t.bytes / 1e6:,.1f}",
            t.dead_letters,
        )
        for t in source.tables
    ]


def _ago(when: str | None) -> str:
    if when is None:
        return ""
    from datetime import datetime

    seconds = time.time() - datetime.fromisoformat(when).timestamp()
    return f"{seconds:,.1f} s ago" if seconds < 600 else when
