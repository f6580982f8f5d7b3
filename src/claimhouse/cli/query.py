"""`claimhouse query`: one reading statement over one cut, by DuckDB or a stack's Trino, in the format asked for."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from claimhouse.cli.options import ConfigOption, LakeOption, NoAccessLogOption, settings_for
from claimhouse.cli.reading import Reading, login
from claimhouse.cli.talk import say, warn

if TYPE_CHECKING:
    from claimhouse.query.session import Session

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
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence", help="Beside --output FILE, FILE.evidence.json: query, moment, rows, hash, who and when."
        ),
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="MOMENT", help="A past moment: 0/16B3748, xid:4711, cut:17, an ISO time or a date."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="duckdb, or trino: a full stack's own.")
    ] = "duckdb",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            envvar="CLAIMHOUSE_STACK",
            metavar="PATH",
            help="With --engine trino: where the stack keeps all it has. [default: .stack]",
        ),
    ] = None,
    trino: Annotated[
        str | None,
        typer.Option("--trino", metavar="URL", help="With --engine trino: its address, if it is not the stack's own."),
    ] = None,
    no_access_log: NoAccessLogOption = False,
    config: ConfigOption = None,
) -> None:
    """Answer SQL over the lake, all tables at one cut; nothing is ever written.

    Tables of schema public by their bare name, every table as schema.table in the source's spelling, with several
    sources as source.schema.table. Beside each table: claim__history, every version of every row with valid_from and
    valid_to, and claim__log, every change as it came.

    \b
    Examples:
      claimhouse query "SELECT status, count(*) FROM claim GROUP BY ALL"
      claimhouse query --lake ./lake --format json "SELECT * FROM payment LIMIT 3"
      claimhouse query --at 2026-03-31 "SELECT sum(amount) FROM payment"
      claimhouse query "SELECT status, valid_from, valid_to FROM claim__history WHERE claim_id = 4711"
      claimhouse query --format parquet --output claims.parquet "FROM claim"
      claimhouse query --at xid:4711 --format csv --output paid.csv --evidence "FROM payment"
      echo "SELECT 1" | claimhouse query -
      claimhouse query --engine trino --at 2026-03-31 "SELECT count(*) FROM claim"
    """
    from claimhouse.errors import UsageError
    from claimhouse.lake.lake import open_lake
    from claimhouse.query.formats import write
    from claimhouse.query.session import Session

    settings = settings_for(config, lake, query__format="json" if as_json else format)
    chosen = settings.query.format
    if chosen in _BINARY and output is None and sys.stdout.isatty():
        raise UsageError(f"{chosen} is not for a terminal", hint="add --output FILE, or send stdout to a file")
    if evidence and (output is None or engine != "duckdb"):
        raise UsageError("--evidence goes with --output FILE and the engine duckdb")
    text = sys.stdin.read() if sql == "-" else sql
    with ExitStack() as stack:
        if _by_trino(engine, lake, folder, trino):
            from claimhouse.distributed.asking import TrinoSession

            asked = stack.enter_context(
                TrinoSession(folder or Path(".stack"), at=at, zone=settings.query.zone, url=_url(trino))
            )
            reader, session = asked.sql(text), None
        else:
            found = open_lake(settings.lake.location, settings.storage_options())
            asked = session = stack.enter_context(Session(found, at=at, zone=settings.query.zone))
            answer = session.sql(text)
            reading = Reading(found, "query", at, audited=settings.query.access_log and not no_access_log)
            reading.note(", ".join("/".join((t.source, t.schema, t.name)) for t in session.read), {"sql": text})
            reader = answer.reader()
            reading.kept()
        for warning in asked.warnings:
            warn(warning)
        cut: list[str] = []
        with _opened(output) as out:
            rows = write(reader, chosen, out, cut=cut)
        if cut:
            say(f"long values of {', '.join(cut)} are cut: --format csv or json has them whole")
        if output is not None:
            said = f", as of {_positions(session)}" if session else ""
            say(f"wrote {rows:,} rows to {output}{said}")
        if evidence and session is not None and output is not None:
            _vouch(session, text, output, rows, chosen)


def _positions(session: Session) -> str:
    return ", ".join(f"{source} {position}" for source, position in session.positions.items())


def _vouch(session: Session, text: str, output: Path, rows: int, form: str) -> None:
    """The evidence beside an answer's file: what was asked, as of when, by whom, and the file's hash."""
    from claimhouse.query.evidence import evidence

    told = evidence(session, text, output, rows=rows, form=form, who=login())
    beside = output.with_name(output.name + ".evidence.json")
    with _opened(beside) as file:
        file.write((json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())
    say(f"evidence in {beside}: sha256 {told['file']['sha256']}")


def _by_trino(engine: str, lake: str | None, folder: Path | None, trino: str | None) -> bool:
    """Whether Trino is asked. Raises UsageError for options that do not go together."""
    from claimhouse.errors import UsageError

    if engine not in ("duckdb", "trino"):
        raise UsageError(f"no engine is called {engine}", hint="one of: duckdb, trino")
    if engine == "trino" and lake is not None:
        raise UsageError("--lake does not go with --engine trino", hint="a stack reads its own lake: --folder PATH")
    if engine == "duckdb" and trino is not None:
        raise UsageError("--trino goes with --engine trino alone", hint="add --engine trino")
    return engine == "trino"


def _url(trino: str | None) -> str | None:
    from claimhouse.errors import UsageError

    if trino is not None and not trino.startswith(("http://", "https://")):
        raise UsageError("--trino is an address like http://127.0.0.1:8080")
    return trino.rstrip("/") if trino else None


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Where the answer goes; a file appears under its name only when it is whole. A device or a pipe is written to."""
    from claimhouse.errors import UsageError

    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = output.resolve()  # of a link, what it leads to
    whole = target.is_file() or not target.exists()
    part = target.with_name(f".{target.name}.{os.getpid()}") if whole else target
    try:
        with part.open("wb") as file:
            yield file
        if whole:
            part.replace(target)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        if whole:
            part.unlink(missing_ok=True)
