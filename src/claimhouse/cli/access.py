"""`claimhouse access`: who looked at which claim or row, as the lake keeps it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, settings_for
from claimhouse.cli.talk import columns, emit, say


def access(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only readings of this claim or key value.")
    ] = None,
    who: Annotated[str | None, typer.Option("--who", metavar="NAME", help="Only this reader's.")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DATE", help="The first day (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="The last day (UTC).")] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List who looked at which claim or row in the console, when, and as of which moment; no value is kept.

    \b
    Examples:
      claimhouse access CLM-2025-006101
      claimhouse access --who mw --from 2026-03-01 --json
    """
    from claimhouse.lake.access import read
    from claimhouse.lake.lake import open_lake

    settings = settings_for(config, lake)
    opened = open_lake(settings.lake.location, settings.storage_options())
    found = [
        a
        for a in read(opened, _day("--from", first), _day("--to", last))
        if (key is None or key in a.key.values()) and (who is None or a.who == who)
    ]
    if as_json:
        emit([asdict(a) for a in found])
        return
    if not found:
        say("nobody is on record")
        return
    rows = (
        (a.when, a.who, a.what, ", ".join(a.key.values()), a.at, a.by, "" if a.found else "not found") for a in found
    )
    print(columns(["when", "who", "what", "key", "as of", "by", ""], rows))


def _day(option: str, text: str | None) -> date | None:
    from claimhouse.errors import UsageError

    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{option} is a date such as 2026-03-31") from None
