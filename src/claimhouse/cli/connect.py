"""`claimhouse connect`: snippets by which other engines read a table so that it fits together with the others."""

from __future__ import annotations

from typing import Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, settings_for
from claimhouse.cli.talk import emit, say


def connect(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table as in SQL: claim, sales.Order.")],
    lake: LakeOption = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="polars, duckdb, spark, trino or dbt. [default: all]")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print recipes that read a table by Polars, DuckDB, Spark, Trino and dbt.

    All recipes of one flush read one consistent set of versions: two tables read by them are at the same transaction.

    \b
    Examples:
      claimhouse connect claim
      claimhouse connect sales.Order --lake ./lake --engine polars > orders.py
      claimhouse connect claim --json
    """
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.recipes import recipes

    settings = settings_for(config, lake)
    found = recipes(open_lake(settings.lake.location, settings.storage_options()), table, engine)
    if as_json:
        emit(found)
        return
    for number, (name, text) in enumerate(found.items()):
        if engine is None:
            print(("\n" if number else "") + f"=== {name}")
        print(text)
    say("the recipes name the newest flush: run this again for a newer one")
