"""The options that several commands share, spelled once, and the settings that result from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from claimhouse.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file. [default: claimhouse.toml, if it is there]"),
]
LakeOption = Annotated[
    str | None, typer.Option("--lake", metavar="PATH", help="The lake: a folder or s3://bucket/prefix.")
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="DSN|NAME", help="A PostgreSQL connection string, or a source's name in the settings."
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The source's name in the lake. [default: main]")
]
NoAccessLogOption = Annotated[
    bool,
    typer.Option("--no-access-log", help="Do not write down who read what: for a lake that may only be read."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings_for(config: Path | None, lake: str | None = None, **flags: object) -> Settings:
    """The settings with this command's options on top; says aloud what should not be in the file."""
    from claimhouse.cli.talk import warn
    from claimhouse.settings import load

    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    if lake is not None:
        given["lake.location"] = lake
    settings = load(config, given)
    for text in settings.warnings():
        warn(text)
    return settings
