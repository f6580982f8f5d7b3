"""A server that was promoted, or restored from a backup, goes on only from where the lake is."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest
from tests.strangers.test_odd_schemas import Lake

from claimhouse.errors import SourceLost
from claimhouse.postgres.embedded import Embedded


def promoted(server: Embedded) -> None:
    """The stopped server as a standby that is promoted: its history goes on under another timeline."""
    (server.data / "standby.signal").touch()
    server.start()
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        assert conn.execute("SELECT pg_promote()").fetchone() == (True,)


@pytest.mark.case("R8", "R9")
def test_a_promoted_server_goes_on_where_the_lake_is_and_is_refused_where_it_lacks_what_the_lake_has(
    tmp_path: Path,
) -> None:
    server = Embedded(tmp_path / "server", fast=True).start()
    try:
        lake, backup = Lake(server.dsn, tmp_path), tmp_path / "backup"
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
        lake.capture()
        server.stop()
        promoted(server)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("INSERT INTO t VALUES (2)")
        lake.capture()
        lake.capture()
        assert lake.rows("SELECT id FROM t") == [(1,), (2,)]

        server.stop()
        shutil.copytree(server.data, backup)
        server.start()
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("INSERT INTO t VALUES (3)")
        lake.capture()
        server.stop()
        shutil.copytree(backup, server.data, dirs_exist_ok=True)
        for lost in server.data.glob("pg_wal/*"):
            if lost.is_file() and not (backup / "pg_wal" / lost.name).exists():
                lost.unlink()
        promoted(server)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("INSERT INTO t SELECT generate_series(10, 40000)")  # beyond where the lake ends
        with pytest.raises(SourceLost, match=r"goes another way since .*timeline 3, was 2"):
            lake.capture()
        assert lake.rows("SELECT id FROM t") == [(1,), (2,), (3,)]
    finally:
        server.stop()
