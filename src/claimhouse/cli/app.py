"""The list of commands, in the order in which a newcomer needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from claimhouse.cli import (
    access,
    config,
    connect,
    console,
    demo,
    detach,
    doctor,
    figures,
    fraud,
    history,
    init,
    mend,
    query,
    run,
    stack,
    status,
    verify,
)

app = typer.Typer(
    name="claimhouse",
    help="Every committed change of PostgreSQL claims databases in a Delta lake: now, and at any past moment.",
    epilog="Start with: claimhouse demo (a database of its own), or claimhouse init.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"claimhouse {version('claimhouse')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Every committed change of PostgreSQL claims databases in a Delta lake: now, and at any past moment."""


app.command()(demo.demo)
app.command()(init.init)
app.command()(doctor.doctor)
app.command()(run.run)
app.command()(query.query)
app.command()(history.history)
app.command()(history.diff)
app.command()(status.status)
app.command()(console.console)
app.command()(access.access)
app.command()(figures.figures)
app.command()(figures.triangle)
app.command()(verify.verify)
app.command()(mend.resync)
app.command()(mend.repair)
app.command()(connect.connect)
app.command()(detach.detach)
app.add_typer(fraud.app, name="fraud")
app.add_typer(config.app, name="config")
app.add_typer(stack.app, name="stack")
