"""Databases to measure on, and the programs that come with PostgreSQL."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from claimhouse.postgres.embedded import Embedded

WIDE = (
    "CREATE TABLE wide (id bigint PRIMARY KEY, a int, b bigint, c text, d numeric(12,2), e timestamptz,"
    " f date, g boolean, h float8, i uuid, j varchar(40))"
)


def database(server: Embedded) -> str:
    """A fresh database's DSN."""
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return make_conninfo(server.dsn, dbname=name)


def fill_wide(conn: psycopg.Connection, rows: int) -> None:
    """Rows of eleven mixed columns into the table of `WIDE`, in one transaction."""
    conn.execute(
        "INSERT INTO wide SELECT g, g %% 1000, g * 7, 'text of row ' || g, g / 100.0, now(), date '2026-01-01',"
        " g %% 2 = 0, g / 3.0, gen_random_uuid(), 'varchar ' || g FROM generate_series(1, %s) g",
        (rows,),
    )


def update_wide(server: Embedded, dsn: str, folder: Path, rows: int, updates: int) -> None:
    """So many transactions that each update one row of `wide`, by four clients."""
    script = folder / "update.sql"
    script.write_text(f"\\set id random(1, {rows})\nUPDATE wide SET a = a + 1, d = d + 1 WHERE id = :id;\n")
    pgbench(server, dsn, "-n", "-f", str(script), "-c", "4", "-t", str(updates // 4))


def pgbench(server: Embedded, dsn: str, *arguments: str, folder: Path | None = None) -> str:
    """Runs pgbench; what it prints."""
    command = [str(server.programs / "pgbench"), *arguments, dsn]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


def drop_slots(dsn: str, slots: Sequence[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for slot in slots:
            conn.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def new_slot(conn: psycopg.Connection) -> str:
    """A slot of its own for a reader to compare with; its name."""
    name = f"reference_{secrets.token_hex(4)}"
    conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    return name


def drain_slot(server: Embedded, dsn: str, slot: str, publication: str, end: int) -> None:
    """pg_recvlogical from a slot to /dev/null, up to a position."""
    endpos = f"{end >> 32:X}/{end & 0xFFFFFFFF:X}"
    subprocess.run([*_recvlogical(server, dsn, slot, publication), "--endpos", endpos], check=True, capture_output=True)


@contextmanager
def draining(server: Embedded, dsn: str, slot: str, publication: str, *, core: int | None = None) -> Iterator[None]:
    """pg_recvlogical from a slot to /dev/null beside us, on a core of its own if asked."""
    with subprocess.Popen(_recvlogical(server, dsn, slot, publication), stderr=subprocess.DEVNULL) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield
        finally:
            process.terminate()


def _recvlogical(server: Embedded, dsn: str, slot: str, publication: str) -> list[str]:
    options = ("proto_version=1", f"publication_names={publication}", "messages=true")
    given = [word for option in options for word in ("-o", option)]
    program = str(server.programs / "pg_recvlogical")
    return [program, "-d", dsn, "-S", slot, "--start", "-f", "/dev/null", "--no-loop", *given]
