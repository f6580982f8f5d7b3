"""`docker compose up` in a fresh clone, and a change travels from postgres to trino through every engine's container.

The tests run in the order in which they stand: a user's day, from the first `up` over two crashes to `down` and `up`.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from tests.compose.conftest import phase
from tests.compose.engine import ROOT, Engine

from claimhouse.distributed.metabase import DATABASE, EMAIL, Api
from claimhouse.distributed.trino import Trino

pytestmark = pytest.mark.compose
ONCE = {"init", "plugins"}  # they do their work and end
VIEWS = "main__public"
COUNTS = " UNION ALL ".join(f"SELECT '{t}', count(*) FROM %s.{t}" for t in ("claim", "party", "payment", "reserve_txn"))
COUNTS += " ORDER BY 1"
# What a kernel of JupyterLab can do: the variables are those of the server's own process.
KERNEL = """
import contextlib, os, pathlib
for found in pathlib.Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):
        words = dict(w.split("=", 1) for w in found.read_text().split("\\0") if "=" in w)
        if "JUPYTER_TOKEN" in words:
            os.environ |= words
import pyspark, claimhouse, claimhouse.spark
with claimhouse.open(os.environ["CLAIMHOUSE_LAKE_LOCATION"]) as lake:
    print(lake.lake.location, lake.table("claim").count() > 0)
"""


def test_up_alone_brings_every_service_up_healthy(up: Engine) -> None:
    services = up.services()
    assert {n: s["ExitCode"] for n, s in services.items() if n in ONCE} == dict.fromkeys(ONCE, 0)
    assert {n: s["Health"] for n, s in services.items() if s["Health"] != "healthy"} == dict.fromkeys(ONCE, "")
    listening = [p["URL"] for s in services.values() for p in s["Publishers"] if p["PublishedPort"]]
    assert listening and set(listening) == {"127.0.0.1"}


def test_the_claims_book_is_in_trino(up: Engine, trino: Trino, source: psycopg.Connection[Any]) -> None:
    with phase("the book in trino"):
        tables = source.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        until(lambda: trino.run(f"SHOW TABLES FROM {VIEWS}"), tables, within=600, every=3)
        until(lambda: trino.run(COUNTS % ((VIEWS,) * 4)), source.execute(COUNTS % (("public",) * 4)).fetchall())


def test_status_finds_every_hop_well(up: Engine) -> None:
    told = up.compose("exec", "-T", "pyspark-app", "python", "-m", "claimhouse.distributed.compose", "status", "/data")
    assert [line.split()[1] for line in told.splitlines()] == ["ok"] * 8


def test_jupyterlab_has_the_notebooks_and_reads_the_lake(up: Engine) -> None:
    names = sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
    inside = "import os; print(*sorted(n for n in os.listdir('/notebooks') if n.endswith('.ipynb')), sep='\\n')"
    assert up.compose("exec", "-T", "jupyter-lab", "python", "-c", inside).splitlines() == names
    assert up.compose("exec", "-T", "jupyter-lab", "python", "-c", KERNEL).split() == ["s3://claimhouse/lake", "True"]


def test_metabase_is_provisioned(up: Engine) -> None:
    password = up.compose("exec", "-T", "provision", "cat", "/stack/secrets/metabase")
    metabase = Api("http://127.0.0.1:3000")
    metabase.await_ready(within=10)
    assert not metabase.enter(EMAIL, password), "nobody had made the admin"
    assert [d["name"] for d in metabase.ask("GET", "/api/database")["data"]] == [DATABASE]


def test_the_page_shows_claims_and_the_rules_their_hits(up: Engine) -> None:
    token = up.compose("exec", "-T", "console", "cat", "/stack/secrets/console")

    def page(path: str) -> dict[str, Any]:
        asked = urllib.request.Request(f"http://127.0.0.1:8090{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    with phase("the page"):
        assert page("/claims.json")["rows"]
        until(lambda: bool(page("/fraud.json")["rows"]), True)


def test_a_committed_change_travels_from_postgres_to_trino(trino: Trino, source: psycopg.Connection[Any]) -> None:
    commit(source, "first")
    with phase("a change"):
        until(lambda: arrived(trino, "first"))


def test_a_change_arrives_though_the_job_was_killed(up: Engine, trino: Trino, source: psycopg.Connection[Any]) -> None:
    job = up.services()["pyspark-app"]["Name"]
    os.kill(int(up.docker("inspect", "--format", "{{.State.Pid}}", job)), signal.SIGKILL)
    commit(source, "while the job was away")
    with phase("a change though the job was killed"):
        until(lambda: arrived(trino, "while the job was away"))
    assert up.docker("inspect", "--format", "{{.RestartCount}}", job).strip() == "1"


def test_a_change_arrives_though_connect_was_killed(up: Engine, trino: Trino, source: psycopg.Connection[Any]) -> None:
    up.compose("kill", "connect")
    commit(source, "while connect was away")
    with phase("a change though connect was killed"):
        up.compose("up", "--wait", "--wait-timeout", "300")
        until(lambda: arrived(trino, "while connect was away"))


def test_down_and_up_gives_the_same_rows(up: Engine, trino: Trino, source: psycopg.Connection[Any]) -> None:
    before = rows(trino)
    assert [name for _, name, *_ in before["people"]] == ["first", "while the job was away", "while connect was away"]
    source.close()
    with phase("down"):
        up.compose("down")
    assert up.services() == {}
    with phase("second up"):
        up.compose("up", "--wait", "--wait-timeout", "400")
    until(lambda: rows(trino), before)
    with psycopg.connect(dsn(up), autocommit=True) as again:
        commit(again, "after all that")
        until(lambda: arrived(trino, "after all that"))


def test_the_book_lives_on(up: Engine, trino: Trino) -> None:
    count = f"SELECT count(*) FROM {VIEWS}.reserve_txn"
    before = trino.run(count)[0][0]
    up.compose("run", "--detach", "--name", "living", "--env", "BOOK_RATE=20", "book")
    try:
        with phase("the book's own changes"):
            until(lambda: trino.run(count)[0][0] >= before + 20, True)
    finally:
        up.docker("kill", "living")


@pytest.fixture(scope="module")
def trino(up: Engine) -> Trino:
    return Trino("http://127.0.0.1:8080", catalog="claimhouse")


@pytest.fixture(scope="module")
def source(up: Engine) -> psycopg.Connection[Any]:
    """The database as a user reaches it: the published port, the password that init made."""
    return psycopg.connect(dsn(up), autocommit=True)


def dsn(up: Engine) -> str:
    password = up.compose("exec", "-T", "postgres", "cat", "/stack/secrets/postgres_admin")
    return f"postgresql://postgres:{password}@127.0.0.1:5432/claims"


def commit(source: psycopg.Connection[Any], name: str) -> None:
    """One transaction over two tables."""
    with source.transaction():
        made = source.execute(
            "INSERT INTO party (kind, name, phone, created_at, updated_at)"
            " VALUES ('person', %s, 'new', now(), now()) RETURNING party_id",
            (name,),
        ).fetchone()
        assert made is not None
        source.execute(
            "INSERT INTO bank_account (party_id, routing_number, account_number, valid_from)"
            " VALUES (%s, '021000021', %s, current_date)",
            (made[0], name),
        )


def arrived(trino: Trino, name: str) -> bool:
    """The transaction is there once, with both its rows."""
    sql = f"SELECT a.account_number FROM {VIEWS}.party p JOIN {VIEWS}.bank_account a USING (party_id) WHERE p.name = "
    return trino.run(f"{sql} '{name}'") == [(name,)]


def rows(trino: Trino) -> dict[str, Any]:
    """How many of everything, and the rows that came as changes, to the position of their last one."""
    columns = "party_id, name, phone, created_at, _end_lsn, _committed_at"
    people = trino.run(f"SELECT {columns} FROM {VIEWS}.party WHERE phone = 'new' ORDER BY 1")
    return {"people": people, "counts": trino.run(COUNTS % ((VIEWS,) * 4))}


def until(what: Callable[[], object], is_: object = True, *, within: float = 300, every: float = 1) -> None:
    """Wait for something to become true, or so. Fails with the last answer or error."""
    deadline, last = time.monotonic() + within, None
    while time.monotonic() < deadline:
        try:
            last = what()
        except Exception as error:
            last = error
        if last == is_:
            return
        time.sleep(every)
    raise AssertionError(f"not within {within:.0f} s; last: {last!r}")
