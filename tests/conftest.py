"""One PostgreSQL for the whole session, and a database of its own for each test that asks for one.

The server lives in a folder that a watcher process removes when this process ends, however it ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from claimhouse.postgres.embedded import Embedded

_WATCH = """
import sys
from claimhouse.postgres.embedded import Embedded
sys.stdin.read()
Embedded(sys.argv[1]).remove()
"""


def pytest_configure() -> None:
    """Whoever asks the run to end lets the fixtures end what they started; asked twice is asked once."""

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


@dataclass
class Database:
    """A fresh database: `dsn` as superuser, `conn` (autocommit) and `execute` into it."""

    dsn: str
    name: str
    conn: psycopg.Connection[Any]
    roles: list[str] = field(default_factory=list)

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """The rows of the (last) statement, none where it has no result."""
        cursor = self.conn.execute(statement, parameters)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def connect(self, **changes: Any) -> psycopg.Connection[Any]:
        """Another connection (not autocommit unless asked): the caller closes it."""
        return psycopg.connect(self.dsn, **changes)

    def role(self, attributes: str = "LOGIN REPLICATION") -> str:
        """The DSN of a new role that may do only what its attributes say, and read all tables there are now."""
        name, password = f"role_{secrets.token_hex(4)}", secrets.token_hex(8)
        self.execute(f"CREATE ROLE {name} {attributes} PASSWORD '{password}'")
        for (schema,) in self.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'"):
            quoted = '"' + schema.replace('"', '""') + '"'
            self.execute(f"GRANT USAGE ON SCHEMA {quoted} TO {name}")
            self.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {quoted} TO {name}")
        self.roles.append(name)
        return make_conninfo(self.dsn, user=name, password=password)


@contextmanager
def served(folder: Path, programs: Path | None = None) -> Iterator[Embedded]:
    """A server on the folder, gone at the end: not crash-safe, so tests that pull its plug start one of their own."""
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    running = Embedded(folder, fast=True, programs=programs).start()
    yield running
    running.stop(wait=5.0)
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The session's server."""
    programs = os.environ.get("CLAIMHOUSE_TEST_PROGRAMS")  # the bin folder of another PostgreSQL, 14 to 18
    with served(tmp_path_factory.mktemp("postgres"), Path(programs) if programs else None) as running:
        yield running


@contextmanager
def emptied(server: Embedded) -> Iterator[Database]:
    """An empty database; its slots, its roles and itself are dropped afterwards."""
    name = f"test_{secrets.token_hex(5)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = make_conninfo(server.dsn, dbname=name)
        conn = psycopg.connect(dsn, autocommit=True)
        database = Database(dsn, name, conn)
        yield database
        conn.close()
        _drop(admin, database)


@pytest.fixture
def postgres(server: Embedded) -> Iterator[Database]:
    """A database of the test's own."""
    with emptied(server) as database:
        yield database


def _drop(admin: psycopg.Connection[Any], database: Database) -> None:
    name = database.name
    for _ in range(200):
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        with suppress(psycopg.errors.ObjectInUse):
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name]
            )
            break
        time.sleep(0.02)
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    for role in database.roles:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
