"""Puts a book into PostgreSQL: schema, rows by COPY, then keys between tables and indexes; all in one transaction.

Loading is idempotent: the comment on table claim tells that a book is there and what made it, and `load` then leaves
everything alone (the simulator has long since moved it on). Labels go to a file beside the demo, never into the source.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.csv as csv
from psycopg import sql

from claimhouse.claims.book import AS_OF, ORDER, Book, id_column, labels, lookalikes, make_book
from claimhouse.errors import NotReady, SourceError, SourceGone

_MARK = "claimhouse demo book "
_SPLIT = "-- after the rows:"


@dataclass(frozen=True)
class Loaded:
    """What `load` did: rows per table now, whether the book was there already, seconds taken, the labels' file."""

    rows: dict[str, int]
    already: bool
    seconds: float
    seed: int
    scale: float
    as_of: date
    labels: Path | None

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def load(dsn: str, scale: float = 1.0, seed: int = 7, *, as_of: date = AS_OF, labels_to: Path | None = None) -> Loaded:
    """Load the demo book into the database at `dsn`, schema public, unless one is there.

    `labels_to`: a folder that gets `labels.csv` and `lookalikes.csv`. Raises NotReady when tables of the same names
    hold something else, SourceGone when the server cannot be reached, SourceError when it refuses.
    """
    began = time.perf_counter()
    try:
        with psycopg.connect(dsn, application_name="claimhouse demo") as conn:
            conn.execute("SET search_path = public")
            if there := loaded_book(conn):
                seed, scale, as_of = there
            else:
                book = make_book(seed, scale, as_of)
                scale = book.scale
                _fill(conn, book)
                if labels_to is not None:
                    write_labels(book, labels_to)
            rows = _counts(conn)
            conn.commit()
            if not there:
                conn.autocommit = True
                conn.execute("ANALYZE")
    except psycopg.OperationalError as error:
        raise SourceGone(f"the database cannot be reached: {_first_line(error)}", hint="check the DSN") from error
    except psycopg.Error as error:
        raise SourceError(f"the book cannot be loaded: {_first_line(error)}", hint="use an empty database") from error
    place = labels_to / "labels.csv" if labels_to is not None and (labels_to / "labels.csv").exists() else None
    return Loaded(rows, bool(there), time.perf_counter() - began, seed, scale, as_of, place)


def loaded_book(conn: psycopg.Connection) -> tuple[int, float, date] | None:
    """Seed, scale and date of the book in this database, None if it has none.

    Raises NotReady when a table of the same name is not of a demo book.
    """
    row = conn.execute("SELECT obj_description(to_regclass('public.claim'), 'pg_class')").fetchone()
    comment = str(row[0] or "") if row else ""
    if comment.startswith(_MARK):
        made = json.loads(comment[len(_MARK) :])
        return made["seed"], made["scale"], date.fromisoformat(made["as_of"])
    same_name = "SELECT t FROM unnest(%s::text[]) t WHERE to_regclass('public.' || t) IS NOT NULL"
    taken = conn.execute(same_name, [list(ORDER)])
    if names := [r[0] for r in taken]:
        raise NotReady(f"tables of other making are in the way: {', '.join(names)}", hint="use an empty database")
    return None


def schema_parts() -> tuple[str, str]:
    """schema.sql in two: the tables, and what is made once they are filled."""
    text = files("claimhouse.claims").joinpath("schema.sql").read_text(encoding="utf-8")
    before, after = text.split(_SPLIT, 1)
    return before, "--" + after


def as_csv(table: pa.Table) -> bytes:
    """Rows as CSV the way COPY reads them: strings quoted, NULL empty and unquoted."""
    out = io.BytesIO()
    csv.write_csv(table, out, csv.WriteOptions(include_header=False))
    return out.getvalue()


def _fill(conn: psycopg.Connection, book: Book) -> None:
    before, after = schema_parts()
    conn.execute(before.encode())
    with conn.cursor() as cursor:
        for name, table in book.tables.items():
            columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
            copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(name), columns)
            with cursor.copy(copy) as to:
                to.write(as_csv(table))
            if id_column(name) == table.column_names[0]:
                cursor.execute(
                    "SELECT setval(pg_get_serial_sequence(%s, %s), greatest(1, %s), %s)",
                    [name, id_column(name), table.num_rows, table.num_rows > 0],
                )
    conn.execute(after.encode())
    made = json.dumps({"seed": book.seed, "scale": book.scale, "as_of": book.as_of.isoformat()})
    conn.execute(sql.SQL("COMMENT ON TABLE claim IS {}").format(_MARK + made))


def _counts(conn: psycopg.Connection) -> dict[str, int]:
    one = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {}, count(*) FROM {}").format(name, sql.Identifier(name)) for name in ORDER
    )
    return dict(conn.execute(one).fetchall())


def write_labels(book: Book, folder: Path) -> None:
    """Write `labels.csv` and `lookalikes.csv` (claim_id, claim_number, kind, rule) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("labels", labels(book)), ("lookalikes", lookalikes(book))):
        csv.write_csv(table, folder / f"{name}.csv")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
