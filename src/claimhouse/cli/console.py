"""`claimhouse console`: a lake as pages, on this machine, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import ConfigOption, LakeOption, NoAccessLogOption, SourceOption, settings_for
from claimhouse.cli.reading import login
from claimhouse.cli.talk import say

if TYPE_CHECKING:
    from claimhouse.console.slot import SlotWatch
    from claimhouse.settings import Settings


def console(
    lake: LakeOption = None,
    source: SourceOption = None,
    port: Annotated[int, typer.Option("--port", metavar="N", help="Port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Listen beyond loopback: a TLS proxy stands in front.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option("--proxy-name", metavar="HOST", help="A Host name that the proxy is called by.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME|FILE", help="Where figures find their inputs.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Who signs dispositions. [default: the login name]")
    ] = None,
    no_access_log: NoAccessLogOption = False,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="PATH", help="Take the address's token from a file: it stays the same."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    config: ConfigOption = None,
) -> None:
    """Serve the live page: overview, claims, fraud queue, figures and tables, now or at any past moment.

    Prints its address on stdout; the token in it is asked for once. Reads only the lake; a source is asked for its
    slot's health alone. Who saw which claim or row is kept in the lake: see claimhouse access.

    \b
    Examples:
      claimhouse console --lake ./lake
      claimhouse console --lake ./lake --source service=claims --open
      claimhouse console --lake s3://bucket/lake --port 8123
    """
    from claimhouse.errors import UsageError

    try:
        from claimhouse.console.app import Console
        from claimhouse.console.server import listen
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the console needs {error.name}, which is not installed", hint="pip install 'claimhouse[console]'"
        ) from None
    from claimhouse.lake.lake import open_lake
    from claimhouse.marts import load

    settings = settings_for(config, lake)
    opened = open_lake(settings.lake.location, settings.storage_options())
    made = Console(
        opened,
        zone=settings.query.zone,
        user=user or login(),
        model=load(Path(model) if "/" in model else model) if model else None,
        slot=_slot(settings, source),
        audited=settings.query.access_log and not no_access_log,
    )
    token = {} if token_file is None else {"token": lambda: _token(token_file)}
    served = listen(made, host=host, port=port, names=tuple(name or ()), behind_proxy=behind_proxy, **token)
    say(f"the console of {opened.location} listens; Ctrl-C ends it")
    print(served.url, flush=True)
    if open_it:
        import webbrowser

        webbrowser.open(served.url)
    served.run()


def _token(file: Path) -> str:
    from claimhouse.errors import UsageError

    try:
        found = file.read_text().strip()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint="it holds the console's token") from None
    if len(found) < 20 or not found.isascii() or not found.isprintable():
        raise UsageError(f"{file} holds no token", hint="put at least 20 random letters and digits into it")
    return found


def _slot(settings: Settings, source: str | None) -> SlotWatch | None:
    """Who asks the source for its slot, None where no source was named."""
    if source is None:
        return None
    from claimhouse.console.slot import SlotWatch
    from claimhouse.settings import choose

    chosen = choose(settings, source, None)
    return SlotWatch(next(iter(chosen.values())).dsn)
