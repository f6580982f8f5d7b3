"""The full stack for its tests: every engine real, one set for the whole session, started by the native launcher.

Small and patient: the machine has two cores. `CLAIMHOUSE_TEST_STACK` names a folder in which the stack is kept, and
kept running, between runs; without it a temporary one is used and everything is stopped at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.stack import book as books
from tests.stack.book import Book

from claimhouse.distributed.native import Stack
from claimhouse.distributed.topology import Topology

SCHEMA = """
CREATE TABLE claim (id int PRIMARY KEY, status text, amount numeric(12,2), opened date, at timestamptz, note text,
                    tags text[], ok bool, doc jsonb, raw bytea);
CREATE TABLE line (claim int, no int, amount numeric(12,2), PRIMARY KEY (claim, no));
CREATE TABLE log (a text, b int);
ALTER TABLE log REPLICA IDENTITY FULL;
INSERT INTO claim SELECT i, 'open', i * 1.25, date '2026-01-01' + i,
       timestamptz '2026-01-01 00:00:00.123456+00' + i * interval '1 hour', 'n' || i, ARRAY['a', 'b' || i], i % 2 = 0,
       '{"a": 1}', '\\x00ff' FROM generate_series(1, 100) i;
INSERT INTO line SELECT i, 1, i FROM generate_series(1, 100) i;
INSERT INTO log VALUES ('x', 1), ('x', 1);
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All engines up, the tables of SCHEMA copied and visible in Trino."""
    kept = os.environ.get("CLAIMHOUSE_TEST_STACK")
    folder = Path(kept) if kept else Path("/var/tmp") / f"claimhouse-stack-{os.getpid()}"
    made = Stack.create(folder, Topology(flush_every=10.0), say=print)
    try:
        made.up(["postgres", "kafka", "s3", "glue", "connect", "trino"])
        with psycopg.connect(made.admin_dsn) as conn:
            if conn.execute("SELECT to_regclass('public.claim')").fetchone() == (None,):
                conn.execute(SCHEMA)
        made.up(["spark"])
        until(lambda: len(made.trino.run("SHOW TABLES FROM main__public")) >= 3, within=300)
        yield made
    finally:
        if not kept:
            made.down()
            made.forget()


@pytest.fixture
def source(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the source, autocommit."""
    with psycopg.connect(stack.admin_dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def book(stack: Stack) -> Book:
    """The demo book in Trino, in a lake of its own."""
    return books.make(stack)


def until(true: Callable[[], object], *, within: float = 120, every: float = 0.5) -> Any:
    """Wait for something to become true, and give it. Fails with the last answer or error."""
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = true()
            if last:
                return last
        except Exception as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"not within {within:.0f} s; last: {last!r}")
