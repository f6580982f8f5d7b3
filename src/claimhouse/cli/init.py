"""`claimhouse init`: write the settings file, never a password into it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from claimhouse.cli.options import LakeOption, NameOption
from claimhouse.cli.talk import say, warn


def init(
    source: Annotated[str | None, typer.Option("--source", metavar="DSN", help="The database to capture.")] = None,
    lake: LakeOption = None,
    name: NameOption = None,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The file to write.")] = Path(
        "claimhouse.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write claimhouse.toml, with every setting and its default in it.

    \b
    Examples:
      claimhouse init
      claimhouse init --source postgresql://app@db.example/claims --lake ./lake
      claimhouse init --source service=claims --name claims --lake s3://bucket/lake
    """
    from claimhouse import settings
    from claimhouse.dsn import Dsn, without_password
    from claimhouse.errors import UsageError

    name = name or settings.DEFAULT_SOURCE
    settings.check_name(name)
    dsn = Dsn(source or "")
    if dsn.has_password:
        warn("the password was left out of the file: give it by PGPASSWORD, a service file or a passfile")
    text = render({"lake.location": lake, "source.<name>.dsn": without_password(dsn.reveal()) or None}, name)
    try:
        with config.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{config} is there already", hint="add --force to replace it") from None
    except OSError as error:
        raise UsageError(f"{config} cannot be written: {error.strerror}") from None
    say(f"wrote {config}")
    say("next: claimhouse doctor" if source else f"next: set [source.{name}] dsn in it, then claimhouse doctor")


def render(values: dict[str, str | None], name: str) -> str:
    """The settings file: what is given as a setting, the rest as comments that show the default."""
    from claimhouse.settings import table

    lines = ["# claimhouse settings. Passwords do not belong here: use PGPASSWORD, a service file or a passfile."]
    section = ""
    for row in table():
        head, _, key = row.name.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"[{head.replace('<name>', name)}]"]
        given = values.get(row.name)
        shown = _toml(given if given is not None else row.default, listed=key == "tables")
        lines += [f"# {row.doc}", f"{'' if given is not None else '# '}{key} = {shown}"]
    return "\n".join(lines) + "\n"


def _toml(text: str, listed: bool) -> str:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"[{quoted if text else ''}]" if listed else quoted
