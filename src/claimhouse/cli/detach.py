"""`claimhouse detach`: take from the server whatever claimhouse put there, after saying what that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import emit, say

if TYPE_CHECKING:
    from claimhouse.settings import Settings


def detach(
    source: SourceOption = None,
    lake: LakeOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")] = False,
    slot: Annotated[
        str | None, typer.Option("--slot", metavar="NAME", help="The slot, where the lake that knew it is gone.")
    ] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove slot, publication and DDL trigger from the server; the lake stays and can be queried.

    A slot that nobody reads makes the server keep its WAL until its disk is full: detach when a source is no longer
    captured. A later `run` into the same lake refuses to go on, since changes would be missing.

    \b
    Examples:
      claimhouse detach --source service=claims --lake ./lake
      claimhouse detach --source service=claims --lake ./lake --yes
      claimhouse detach --source service=claims --slot claimhouse_main_0a1b2c3d --yes
    """
    from claimhouse.postgres.publication import detach as take_away
    from claimhouse.postgres.server import connect
    from claimhouse.settings import only

    settings = settings_for(config, lake)
    chosen, found = only(settings, source, name)
    slot, publication = (slot, None) if slot is not None else names_of(settings, chosen, found.publication)
    with connect(found.dsn.reveal()) as conn:
        statements = take_away(conn, slot, publication, dry_run=not yes)
    if as_json:
        emit({"source": chosen, "done": yes, "statements": statements})
        return
    for statement in statements:
        print(f"{statement};")
    if not statements:
        say(f"{chosen}: nothing of ours is on the server")
    elif yes:
        say(f"{chosen}: done; the lake stays as it is")
    else:
        say(f"{chosen}: this is what would be run; next: the same with --yes")


def names_of(settings: Settings, source: str, publication: str | None) -> tuple[str, str | None]:
    """(slot, publication or None if it is not ours to drop) of a source, as its lake knows them.

    Raises NotALake, LakeError.
    """
    from claimhouse.lake.lake import open_lake
    from claimhouse.lake.snapshot import take
    from claimhouse.lake.tail import cut_numbers
    from claimhouse.postgres.publication import default_name

    lake = open_lake(settings.lake.location, settings.storage_options())
    default = default_name(source, lake.lake_id)
    if not cut_numbers(lake, source):
        known = settings.source.get(source)
        return (known.slot if known and known.slot else default), None if publication else default
    registry = take(lake, source).registry
    ours = registry.publication == default and publication in (None, default)
    return registry.slot, registry.publication if ours else None
