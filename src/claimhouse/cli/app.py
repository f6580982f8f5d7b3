"""The list of commands, in the order in which a newcomer needs them."""

from __future__ import annotations

from collections.abc import Callable
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


# What a command is for, in words that the list of commands has room for on a narrow terminal.
COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (demo.demo, "A claims database of its own, captured and shown live."),
    (init.init, "Write claimhouse.toml with every setting."),
    (doctor.doctor, "Check a server; print the SQL that mends it."),
    (run.run, "Capture every committed change into the lake."),
    (query.query, "SQL over the lake, now or at a past moment."),
    (history.history, "Every version of one row, and who changed it when."),
    (history.diff, "What changed between two moments."),
    (status.status, "Lag per hop, slots, and the state of each table."),
    (console.console, "The live page of a lake."),
    (access.access, "Who read what, and when."),
    (figures.figures, "Paid, incurred, loss ratios, backlog and others."),
    (figures.triangle, "Loss triangles, link ratios and reserves."),
    (verify.verify, "Prove row by row that the lake is the source."),
    (mend.resync, "Copy tables anew while the others stream on."),
    (mend.repair, "Go on after a slot was lost."),
    (connect.connect, "Recipes for Polars, DuckDB, Spark, Trino, dbt."),
    (detach.detach, "Leave a server as it was before."),
)
for made, brief in COMMANDS:
    app.command(short_help=brief)(made)
app.add_typer(fraud.app, name="fraud", short_help="Indicators on claims: run rules, read the queue, decide.")
app.add_typer(config.app, name="config", short_help="The settings as they hold.")
app.add_typer(stack.app, name="stack", short_help="Debezium, Kafka, Spark, S3, Glue and Trino.")
