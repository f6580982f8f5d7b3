"""Several named sources in one lake: captured side by side, joined in one query, failing one by one."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from claimhouse.cli.guard import guarded


@pytest.fixture
def billing(postgres: Any) -> Iterator[str]:
    """The DSN of a second database on the same server."""
    name = f"test_{secrets.token_hex(5)}"
    postgres.execute(f"CREATE DATABASE {name}")
    dsn = make_conninfo(postgres.dsn, dbname=name)
    yield dsn
    with psycopg.connect(dsn, autocommit=True) as conn:
        free = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active"
        while conn.execute(free).fetchone() != (0,):
            time.sleep(0.05)
        mine = (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        )
        conn.execute(mine)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def two(postgres: Any, billing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Settings with the sources `claims` and `billing`, a table in each; the second one's DSN."""
    monkeypatch.chdir(tmp_path)
    postgres.execute(
        "CREATE TABLE claim (id int PRIMARY KEY, holder text); INSERT INTO claim VALUES (1, 'a'), (2, 'b')"
    )
    with psycopg.connect(billing, autocommit=True) as conn:
        conn.execute("CREATE TABLE invoice (claim_id int PRIMARY KEY, total int); INSERT INTO invoice VALUES (2, 20)")
    Path("claimhouse.toml").write_text(
        f"[source.claims]\ndsn = {json.dumps(postgres.dsn)}\n[source.billing]\ndsn = {json.dumps(billing)}\n"
    )
    return billing


def ask(capsys: pytest.CaptureFixture[str], sql: str) -> Any:
    capsys.readouterr()
    assert guarded(["query", "--json", sql]) == 0
    return json.loads(capsys.readouterr().out)


JOINED = (
    "SELECT c.holder, i.total FROM claims.public.claim c JOIN billing.public.invoice i ON i.claim_id = c.id ORDER BY 1"
)


def test_two_databases_are_captured_by_one_command_and_joined_in_one_query(
    two: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(["run", "--once"]) == 0
    assert ask(capsys, JOINED) == [{"holder": "b", "total": 20}]
    assert guarded(["status"]) == 0
    assert guarded(["detach"]) == 2  # one of them must be named
    assert "choose: --source claims or --source billing" in capsys.readouterr().err


def test_a_source_that_cannot_be_reached_leaves_the_other_captured(
    two: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Path("claimhouse.toml")
    settings.write_text(settings.read_text().replace(json.dumps(two), '"host=127.0.0.1 port=1 connect_timeout=2"'))
    assert guarded(["run", "--once"]) == 2
    assert "error: source billing:" in capsys.readouterr().err
    assert ask(capsys, "SELECT count(*) AS n FROM claims.public.claim") == [{"n": 2}]


def test_stopping_one_source_leaves_the_other_live(two: str, postgres: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["run", "--once"]) == 0
    runs = {
        name: subprocess.Popen([sys.executable, "-m", "claimhouse", "run", "--source", name], stderr=subprocess.PIPE)
        for name in ("claims", "billing")
    }
    try:
        with psycopg.connect(two, autocommit=True) as conn:
            conn.execute("INSERT INTO invoice VALUES (1, 10)")
        deadline = time.monotonic() + 60
        while len(ask(capsys, JOINED)) < 2:
            assert time.monotonic() < deadline
        runs["billing"].send_signal(signal.SIGTERM)
        runs["billing"].communicate(timeout=60)
        assert runs["billing"].returncode == 0
        postgres.execute("INSERT INTO claim VALUES (3, 'c')")
        while ask(capsys, "SELECT count(*) AS n FROM claims.public.claim") != [{"n": 3}]:
            assert time.monotonic() < deadline
        assert len(ask(capsys, JOINED)) == 2
    finally:
        for run in runs.values():
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.communicate(timeout=60)
