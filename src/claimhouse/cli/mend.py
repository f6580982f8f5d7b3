"""`claimhouse resync` and `claimhouse repair`: tables copied anew, or compared and corrected after a loss."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import columns, emit, say

if TYPE_CHECKING:
    from claimhouse.lake.lake import Lake
    from claimhouse.lake.registry import Registry, TableState
    from claimhouse.settings import Settings, Source


def resync(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="Which: claim, sales.order; or patterns.")],
    source: SourceOption = None,
    lake: LakeOption = None,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long to wait for the copies; 0 only asks for them.")
    ] = "1h",
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy tables anew, while the others stream on and readers see the old copy until the new one is complete.

    For a table that was stopped by an error once its cause is gone (its dead letters are answered by the copy), or one
    that verify found to differ. A running `claimhouse run` does it; where none runs, it is done here, once.

    \b
    Examples:
      claimhouse resync claim --source service=claims --lake ./lake
      claimhouse resync 'billing.*' --wait 0
    """
    from claimhouse.lake.lake import open_lake
    from claimhouse.lake.snapshot import take
    from claimhouse.pipeline.admission import insist_embedded
    from claimhouse.pipeline.resync import ask
    from claimhouse.postgres.publication import slot_state
    from claimhouse.postgres.server import connect
    from claimhouse.settings import only, seconds

    patience = seconds("--wait", wait) if wait != "0" else 0.0
    settings = settings_for(config, lake)
    chosen, found = only(settings, source, name)
    opened = open_lake(settings.lake.location, settings.storage_options())
    registry = take(opened, chosen).registry
    wanted = _matching(registry, tables)
    before = {state.folder: state.copies_begun for state in wanted}
    with connect(found.dsn.reveal()) as conn:
        slot = slot_state(conn, registry.slot)
        here = patience and (slot is None or slot.active_pid is None)
        if here:
            insist_embedded(opened, chosen)
        for state in wanted:
            ask(conn, state.oid)
    say(f"{chosen}: asked for new copies of {', '.join(state.label for state in wanted)}")
    if here:
        _capture_once(settings, chosen, found)
    elif patience:
        _await(opened, chosen, before, patience)
    copied = {f: state for f, state in take(opened, chosen).registry.tables.items() if f in before}
    rows = [
        (state.label, state.status, state.copies[-1].rows if state.copies else 0, _done(state, before[folder]))
        for folder, state in copied.items()
    ]
    if as_json:
        emit([{"table": label, "status": status, "rows": n, "copied": done} for label, status, n, done in rows])
    elif patience:
        told = [(*row, "yes" if done else "not yet") for *row, done in rows]
        print(columns(["table", "status", "rows", "copied"], told))
    if patience and not all(done for *_, done in rows):
        raise typer.Exit(1)


def repair(
    source: SourceOption = None,
    lake: LakeOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what is lost.")] = False,
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on after the replication slot was lost, dropped or moved: a new slot, and every table compared and corrected.

    Only rows that differ come into the lake (a table without a key is copied anew). The single versions between are
    lost: moments in between are named as not exact, and refused. Earlier history stays as it is. Exits 0 where nothing
    is lost, 1 where --yes is to be said, 2 where the distributed runtime captures the source: its slot is Debezium's.

    \b
    Examples:
      claimhouse repair --source service=claims --lake ./lake
      claimhouse repair --source service=claims --lake ./lake --yes
    """
    from claimhouse.errors import SlotLost
    from claimhouse.lake.lake import open_lake
    from claimhouse.lake.snapshot import take
    from claimhouse.pipeline.admission import insist_continuous, insist_embedded
    from claimhouse.postgres.server import Capabilities, connect
    from claimhouse.settings import only

    settings = settings_for(config, lake)
    chosen, found = only(settings, source, name)
    opened = open_lake(settings.lake.location, settings.storage_options())
    insist_embedded(opened, chosen)
    seen = take(opened, chosen)
    told = None
    with connect(found.dsn.reveal()) as conn:
        try:
            insist_continuous(conn, found.dsn.reveal(), Capabilities.of(conn), seen.registry, seen.mark)
        except SlotLost as error:
            told = str(error)
    if told is not None and yes:
        _capture_once(settings, chosen, found, repair=True)
    tables = [s for s in seen.registry.tables.values() if s.status not in ("errored", "gone")]
    if as_json:
        emit({"source": chosen, "lost": told, "tables": len(tables), "done": told is not None and yes})
    elif told is None:
        say(f"{chosen}: nothing is lost; the slot goes on where the lake ends")
    elif yes:
        say(f"{chosen}: {len(tables)} tables were compared and corrected; next: claimhouse run")
    else:
        rows = sum(s.copies[-1].rows for s in tables if s.copies)
        print(told)
        say(f"{len(tables)} tables with about {rows:,} rows would be compared; next: the same with --yes")
    if told is not None and not yes:
        raise typer.Exit(1)


def _matching(registry: Registry, patterns: list[str]) -> list[TableState]:
    from claimhouse.errors import UsageError
    from claimhouse.postgres.catalog import matches

    known = [s for s in registry.tables.values() if s.status != "gone"]
    found = [s for s in known if any(matches(pattern, s.schema, s.name) for pattern in patterns)]
    if not found:
        raise UsageError(
            f"no captured table matches {', '.join(patterns)}", hint="claimhouse status --offline lists them"
        )
    return found


def _capture_once(settings: Settings, name: str, source: Source, *, repair: bool = False) -> None:
    from claimhouse.cli.run import capture_of, in_words, stopping

    def tell(kind: str, fields: dict[str, object]) -> None:
        if kind not in ("cut", "copy", "compare") and (words := in_words(kind, fields)):
            say(words)

    capture = capture_of(settings, name, source, once=True, tell=tell)
    capture.options.repair = repair
    with stopping() as stop:
        capture.run(stop)


def _await(lake: Lake, source: str, before: dict[str, int], patience: float) -> None:
    """Until the running capture has copied them all, telling how far it is."""
    from claimhouse.lake.snapshot import take

    deadline, told = time.monotonic() + patience, time.monotonic()
    while time.monotonic() < deadline:
        tables = take(lake, source).registry.tables
        if all(_done(tables[folder], number) for folder, number in before.items()):
            return
        if time.monotonic() - told > 2:
            told = time.monotonic()
            under_way = [tables[f] for f, number in before.items() if not _done(tables[f], number)]
            say("copying " + ", ".join(f"{s.label}: {s.copies[-1].rows if s.copies else 0:,} rows" for s in under_way))
        time.sleep(0.2)


def _done(state: TableState, before: int) -> bool:
    """Whether a copy that was begun since is complete."""
    return any(c.number > before and c.exact_from is not None for c in state.copies)
