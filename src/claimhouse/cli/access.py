"""`claimhouse access`: who read what, as the lake keeps it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, settings_for
from claimhouse.cli.talk import clipped, columns, emit, fail, say

if TYPE_CHECKING:
    from claimhouse.lake.access import Access
    from claimhouse.lake.lake import Lake


def access(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only readings of this claim, key value or table.")
    ] = None,
    who: Annotated[str | None, typer.Option("--who", metavar="NAME", help="Only this reader's.")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DATE", help="The first day (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="The last day (UTC).")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Follow the hashes from reading to reading; exit 1 where they break.")
    ] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List who read what on the page and the command line, when, and as of which moment; never a value that was seen.

    \b
    Examples:
      claimhouse access CLM-2025-006101
      claimhouse access --who mw --from 2026-03-01 --json
      claimhouse access --check
    """
    from claimhouse.lake.access import read
    from claimhouse.lake.lake import open_lake

    settings = settings_for(config, lake)
    opened = open_lake(settings.lake.location, settings.storage_options())
    if check:
        _check(opened, as_json)
        return
    found = [
        a
        for a in read(opened, _day("--from", first), _day("--to", last))
        if _of(a, key) and (who is None or a.who == who)
    ]
    if as_json:
        emit([asdict(a) for a in found])
        return
    if not found:
        say("nobody is on record")
        return
    rows = (
        (a.when, a.who, clipped(a.what, 60), clipped(", ".join(a.key.values()), 80), a.at, a.by, _note(a))
        for a in found
    )
    print(columns(["when", "who", "what", "key", "as of", "by", ""], rows))


def _of(access: Access, key: str | None) -> bool:
    """Whether a reading was of that claim, row or table; in a statement it stands somewhere."""
    if key is None or key in access.key.values() or key in access.key.get("sql", ""):
        return True
    return any(key in (what, what.rpartition("/")[2]) for what in access.what.split(", "))


def _note(access: Access) -> str:
    return "" if access.found else "not found"


def _check(lake: Lake, as_json: bool) -> None:
    """Tell whether the record is whole; exit 1 where it is not."""
    from claimhouse.errors import LakeError
    from claimhouse.lake import access

    try:
        chain = access.check(lake)
    except LakeError as error:
        if as_json:
            emit({"ok": False, "error": str(error)})
        else:
            fail(str(error), error.hint)
        raise typer.Exit(1) from None
    if as_json:
        emit({"ok": True, **asdict(chain)})
    elif not chain.readings:
        say("nobody is on record")
    else:
        print(f"{chain.readings:,} readings from {chain.first} to {chain.last} are as they were written")
        print(f"the newest has the hash {chain.head}: kept elsewhere, it vouches for all before it")


def _day(option: str, text: str | None) -> date | None:
    from claimhouse.errors import UsageError

    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{option} is a date such as 2026-03-31") from None
