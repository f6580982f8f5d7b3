"""`query --engine trino --at …` gives what `query --at …` gives, at every moment that both know. Real engines.

The stack's own tables go through keys that change, deletes, a truncate and values out of line; the demo book, in a lake
of the embedded runtime, through its simulator.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.stack import book as books
from tests.stack.book import Book
from tests.stack.conftest import until

from claimhouse.change import lsn_text
from claimhouse.distributed.asking import TrinoSession
from claimhouse.distributed.native import Stack
from claimhouse.distributed.topology import s3_options
from claimhouse.distributed.trino import TrinoError
from claimhouse.errors import NotExact, QueryError
from claimhouse.lake.lake import Lake, open_lake
from claimhouse.query.session import Session

pytestmark = pytest.mark.stack
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MOVED = """
CREATE TABLE moved (id int PRIMARY KEY, n int, at timestamptz, day date, body text, tags text[]);
ALTER TABLE moved ALTER body SET STORAGE EXTERNAL;
INSERT INTO moved SELECT i, i, timestamptz '2026-01-01 00:00:00.123456+00' + i * interval '1 hour',
       date '2026-01-01' + i, repeat('body ' || i, CASE WHEN i IN (6, 7) THEN 1 ELSE 1000 END), ARRAY['a', 'b' || i]
       FROM generate_series(1, 40) i;
"""
STEPS = (
    ["UPDATE moved SET n = n + 1 WHERE id <= 10"],  # leaves the body out
    ["DELETE FROM moved WHERE id = 5", "UPDATE moved SET id = 105 WHERE id = 6"],
    ["UPDATE moved SET id = 5 WHERE id = 7", "UPDATE moved SET n = 7 WHERE id = 5"],  # a key that another row had
    ["INSERT INTO moved (id, n) VALUES (6, 600)", "DELETE FROM moved WHERE id = 105"],
    ["UPDATE moved SET body = repeat('new ', 2000) WHERE id BETWEEN 8 AND 12"],
    ["UPDATE moved SET n = NULL WHERE id BETWEEN 8 AND 12", "INSERT INTO log VALUES ('past', 1), ('past', 1)"],
    ["DELETE FROM log WHERE ctid = (SELECT min(ctid) FROM log WHERE a = 'past')"],
    ["UPDATE line SET amount = amount + 0.25 WHERE claim BETWEEN 50 AND 60", "DELETE FROM line WHERE claim = 61"],
    ["TRUNCATE moved", "INSERT INTO moved (id, body) VALUES (1, 'after')"],
    ["UPDATE moved SET n = 1"],
)
MINE = f"moved_{os.getpid()}"  # a kept stack has the tables of earlier runs
TABLES = (MINE, "log", "line")


@pytest.fixture
def lake(stack: Stack) -> Lake:
    return open_lake(stack.topology.lake, s3_options(stack.topology, stack.secrets))


def plain(value: Any) -> Any:
    """A value as both can be compared by: Trino's Delta times are rounded to the millisecond."""
    if isinstance(value, datetime):
        return (value - EPOCH + timedelta(microseconds=500)) // timedelta(milliseconds=1) if value.tzinfo else value
    return value


def rows(table: Any) -> list[str]:
    return sorted(repr({k: plain(v) for k, v in row.items()}) for row in table.to_pylist())


def by_duckdb(lake: Lake, at: str | None, table: str) -> list[str]:
    with Session(lake, at=at) as session:
        return rows(session.sql(f"SELECT * FROM {table}").arrow())


def by_trino(folder: Path, at: str | None, table: str) -> list[str]:
    with TrinoSession(folder, at=at) as session:
        return rows(session.sql(f"SELECT * FROM {table}").read_all())


def position(source: psycopg.Connection[Any]) -> int:
    row = source.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    assert row is not None
    return row[0]


def flushed(stack: Stack) -> int:
    return json.loads((stack.folder / "run" / "job.json").read_text())["flush"]["end_lsn"]


def test_past_moments_are_the_same_on_both_engines(stack: Stack, source: psycopg.Connection[Any], lake: Lake) -> None:
    source.execute(MOVED.replace("moved", MINE).encode())
    until(lambda: len(by_trino(stack.folder, None, MINE)) == 40, within=300, every=2)
    moments: list[str] = [lsn_text(position(source))]
    for number, statements in enumerate(STEPS):
        here, xid = transaction(source, statements)
        moments.append(f"xid:{xid}" if number % 2 else lsn_text(here))
        if number % 3 == 1:
            moments.append(datetime.now(UTC).isoformat())
            source.execute("INSERT INTO log VALUES ('between', 1)")
    beyond: dict[int, dict[str, list[str]]] = {}  # states that were read out of the tail, before they were flushed
    for number in range(30):
        if len(beyond) == 2:
            break
        here, _ = transaction(
            source, [f"UPDATE moved SET n = {number}", f"DELETE FROM line WHERE claim = {70 + number}"]
        )
        source.execute("INSERT INTO log VALUES ('on', 1)")  # a position is known once something came after it
        until(lambda here=here: visible(stack, here), within=180, every=0.2)
        with TrinoSession(stack.folder, at=lsn_text(here)) as session:
            if "tail_events" in session.written("SELECT * FROM line"):
                beyond[here] = {t: rows(session.sql(f"SELECT * FROM {t}").read_all()) for t in TABLES}
    assert len(beyond) == 2, "every state was flushed before it could be read out of the tail"
    last = position(source)

    def moved_on() -> bool:
        source.execute("INSERT INTO log VALUES ('later', 1)")  # an idle source gives nothing to flush
        return flushed(stack) > last

    until(moved_on, within=240, every=2)
    seen: set[tuple[str, ...]] = set()
    for at in moments:
        for table in TABLES:
            ours = by_duckdb(lake, at, table)
            assert by_trino(stack.folder, at, table) == ours, (at, table)
            seen.add((table, *ours))
    assert len(seen) >= 12, "the moments differ"
    for lsn, read in beyond.items():
        for table, found in read.items():
            assert found == by_duckdb(lake, lsn_text(lsn), table), (lsn_text(lsn), table)
    with Session(lake) as session:
        cuts = {snapshot.mark.cut for snapshot in session.snapshots.values()}
    for cut in cuts:
        for at in (f"cut:{cut}", f"cut:{cut - 1}"):
            assert by_trino(stack.folder, at, MINE) == by_duckdb(lake, at, MINE), at


def transaction(source: psycopg.Connection[Any], statements: list[str]) -> tuple[int, int]:
    """(the position after it, its id)."""
    with source.transaction():
        for statement in statements:
            source.execute(statement.replace("moved", MINE).encode())
        told = source.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert told is not None
    return position(source), told[0]


def visible(stack: Stack, lsn: int) -> bool:
    """Whether Trino's past reaches that far."""
    try:
        with TrinoSession(stack.folder, at=lsn_text(lsn)):
            return True
    except NotExact:
        return False


def test_the_present_is_what_the_views_show(stack: Stack, source: psycopg.Connection[Any]) -> None:
    def same() -> bool:
        with TrinoSession(stack.folder) as session:
            told = session.sql("SELECT claim, no, amount FROM public.line ORDER BY 1, 2").read_all()
        expected = source.execute("SELECT claim, no, amount FROM line ORDER BY 1, 2").fetchall()
        assert [tuple(r.values()) for r in told.to_pylist()] == expected
        return True

    until(same, within=120)


def test_a_value_that_came_with_neither_key_nor_row_fails_rather_than_being_null(
    stack: Stack, source: psycopg.Connection[Any]
) -> None:
    source.execute(f"INSERT INTO {MINE} (id, body) VALUES (900, repeat('kept ', 2000))".encode())
    source.execute(f"UPDATE {MINE} SET id = 901 WHERE id = 900".encode())
    at = position(source)
    source.execute("INSERT INTO log VALUES ('on', 1)")
    until(lambda: visible(stack, at), within=120)
    with TrinoSession(stack.folder, at=lsn_text(at)) as session:
        assert session.sql(f"SELECT id FROM {MINE} WHERE id = 901").read_all().num_rows == 1
        with pytest.raises(QueryError, match=r"a large value of public\.moved_\d+ came with a change of its row's key"):
            session.sql(f"SELECT body FROM {MINE} WHERE id = 901").read_all()


def test_moments_that_are_not_known_are_refused_as_by_the_embedded_engine(
    stack: Stack, source: psycopg.Connection[Any], lake: Lake
) -> None:
    far = lsn_text(position(source) + (1 << 34))
    for at in (far, "xid:99999999", "cut:99999999", "2999-01-01"):
        with pytest.raises(NotExact) as ours:
            Session(lake, at=at)
        with pytest.raises(NotExact) as theirs:
            TrinoSession(stack.folder, at=at)
        assert str(theirs.value) == str(ours.value)
    with pytest.raises(NotExact, match="is not known at 0/1"):
        by_trino(stack.folder, "0/1", "claim")


def test_errors_name_the_lake_and_what_to_do_next(stack: Stack) -> None:
    with TrinoSession(stack.folder) as session:
        with pytest.raises(QueryError, match="table claims does not exist") as caught:
            session.sql("SELECT * FROM claims")
        assert "did you mean claim" in str(caught.value.hint)
        with pytest.raises(QueryError, match=r"trino: column 'colour' cannot be resolved"):
            session.sql("SELECT colour FROM claim").read_all()
        with pytest.raises(QueryError, match="trino: ") as caught:
            session.sql("SELECT CAST(status AS integer) FROM claim").read_all()
        assert "open" not in str(caught.value)
    with TrinoSession(stack.folder, url="http://127.0.0.1:9") as session, pytest.raises(TrinoError, match=":9"):
        session.sql("SELECT 1").read_all()


def test_versions_of_a_log_tell_what_each_flush_brought(stack: Stack) -> None:
    """The statements of docs/full-stack.md."""
    run, log = stack.trino.run, "main__public__log"
    flushes = run(
        f"SELECT flush, cut, element_at(changes, 'public/{MINE}') FROM main__control.flushes"
        f" WHERE element_at(changes, 'public/{MINE}') IS NOT NULL ORDER BY flush DESC LIMIT 3"
    )
    assert flushes
    for _, cut, version in flushes:
        held = run(f"SELECT count(*), max(_cut) <= {cut} FROM {log}.{MINE} FOR VERSION AS OF {version}")
        assert held == [(run(f"SELECT count(*) FROM {log}.{MINE} WHERE _cut <= {cut}")[0][0], True)]
    history = run(
        "SELECT version, CAST(element_at(operation_metrics, 'num_added_rows') AS bigint)"
        f" FROM {log}.\"{MINE}$history\" WHERE operation = 'WRITE' AND version > 0 ORDER BY version DESC LIMIT 3"
    )
    assert history
    for version, added in history:
        now, before = (run(f"SELECT count(*) FROM {log}.{MINE} FOR VERSION AS OF {v}") for v in (version, version - 1))
        assert now[0][0] - before[0][0] == added


def claimhouse(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "claimhouse", *words], capture_output=True, check=False)


def test_the_command_line_prints_the_same_formats_and_fails_with_2(stack: Stack) -> None:
    asked = ["query", "--engine", "trino", "--folder", str(stack.folder)]
    done = claimhouse(*asked, "--format", "csv", "SELECT count(*) AS n, min(id) AS least FROM claim WHERE id < 3")
    assert (done.returncode, done.stdout) == (0, b"n,least\r\n2,1\r\n"), done.stderr
    done = claimhouse(*asked, "--json", "--at", "0/1", "SELECT 1 AS one")
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"one": 1}]), done.stderr
    wrong = (
        ["SELECT * FROM nothing"],
        ["--at", "2999-01-01", "SELECT 1"],
        ["--trino", "http://127.0.0.1:9", "SELECT 1"],
    )
    for words in wrong:
        done = claimhouse(*asked, *words)
        assert done.returncode == 2 and b"hint: " in done.stderr and b"Traceback" not in done.stderr


@pytest.fixture(scope="module")
def folder(book: Book, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack's folder that names the demo book's lake and source. (Another test had Glue forget them.)"""
    books.publish(stack, book.lake)
    yield book.folder(stack, tmp_path_factory.mktemp("book"))


@pytest.mark.parametrize("table", ["claim", "exposure", "payment", "payment_line", "reserve_txn", "party"])
def test_the_demo_books_past_is_the_same_on_both_engines(book: Book, folder: Path, table: str) -> None:
    transactions = book.transactions()
    assert len(transactions) > 100
    chosen = [transactions[len(transactions) * part // 5] for part in range(1, 5)]
    moments = [lsn_text(t["end_lsn"]) for t in chosen] + [
        f"xid:{chosen[1]['xid']}",
        chosen[2]["committed_at"].isoformat(),
    ]
    moments += [f"cut:{chosen[3]['cut']}", lsn_text(chosen[0]["end_lsn"] - 1)]
    seen: set[tuple[str, ...]] = set()
    for at in moments:
        ours = by_duckdb(book.lake, at, table)
        assert by_trino(folder, at, table) == ours, at
        seen.add(tuple(ours))
    assert table == "party" or len(seen) > 1, "the moments differ"
