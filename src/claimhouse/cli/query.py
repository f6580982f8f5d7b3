"""`claimhouse query`: one reading statement over one cut, in the format that was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from claimhouse.cli.options import ConfigOption, LakeOption, settings_for
from claimhouse.cli.talk import say, warn

_BINARY = ("parquet", "arrow")


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One reading statement; - reads it from stdin.")],
    lake: LakeOption = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="table, json, csv, parquet, arrow or markdown. [default: table]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to a file, not stdout.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="MOMENT", help="A past moment: 0/16B3748, xid:4711, cut:17, an ISO time or a date."
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Answer SQL over the lake, all tables at one cut; nothing is ever written.

    Tables of schema public by their bare name, every table as schema.table in the source's spelling, with several
    sources as source.schema.table.

    \b
    Examples:
      claimhouse query "SELECT status, count(*) FROM claim GROUP BY ALL"
      claimhouse query --lake ./lake --format json "SELECT * FROM payment LIMIT 3"
      claimhouse query --at 2026-03-31 "SELECT sum(amount) FROM payment"
      claimhouse query --format parquet --output claims.parquet "FROM claim"
      echo "SELECT 1" | claimhouse query -
    """
    from claimhouse.errors import UsageError
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.formats import write
    from claimhouse.query.session import Session

    settings = settings_for(config, lake, query__format="json" if as_json else format)
    chosen = settings.query.format
    if chosen in _BINARY and output is None and sys.stdout.isatty():
        raise UsageError(f"{chosen} is not for a terminal", hint="add --output FILE, or send stdout to a file")
    text = sys.stdin.read() if sql == "-" else sql
    found = open_lake(settings.lake.location, settings.storage_options())
    with Session(found, at=at, zone=settings.query.zone) as session:
        answer = session.sql(text)
        for warning in session.warnings:
            warn(warning)
        with _opened(output) as out:
            rows = write(answer.reader(), chosen, out)
    if output is not None:
        say(f"wrote {rows:,} rows to {output}")


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Where the answer goes; a file appears under its name only when it is whole."""
    from claimhouse.errors import UsageError

    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
