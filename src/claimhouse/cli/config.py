"""`claimhouse config show`: the settings as they hold, and where each value came from."""

from __future__ import annotations

from typing import Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, settings_for
from claimhouse.cli.talk import columns, emit

app = typer.Typer(help="Show the settings as they hold.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Show the settings as they hold."""


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also print where each value came from.")] = False,
    config: ConfigOption = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print every setting with its value; passwords are masked.

    \b
    Examples:
      claimhouse config show
      claimhouse config show --origin
      claimhouse config show --json
    """
    from claimhouse.settings import shown

    rows = shown(settings_for(config, lake))
    if as_json:
        emit([{"name": n, "value": v, "origin": o} if origin else {"name": n, "value": v} for n, v, o in rows])
    elif origin:
        print(columns(["setting", "value", "origin"], rows))
    else:
        print(columns(["setting", "value"], [row[:2] for row in rows]))
