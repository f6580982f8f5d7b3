"""The commands on a real server and a real lake, from the first copy to detach."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from claimhouse.cli.guard import guarded
from claimhouse.distributed.streaming import Streaming
from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take

SECRET_ROW = "Erika-Mustermann-4711"


class Shell:
    """Runs command lines in this process; keeps what they printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self.capsys.readouterr()
        code = guarded(arguments)
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def json(self, *arguments: str) -> Any:
        self(*arguments, "--json")
        return json.loads(self.out)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("CLAIMHOUSE_", "PG"))]:
        monkeypatch.delenv(name)
    return Shell(capsys)


@pytest.fixture
def captured(postgres: Any, shell: Shell) -> Any:
    """A database with three tables, settings that name it, and one run done."""
    postgres.execute(
        "CREATE TABLE claim (id int PRIMARY KEY, holder text, amount numeric(12,2), big int8, seen timestamptz);"
        f"INSERT INTO claim VALUES (1, '{SECRET_ROW}', 10.50, 9007199254740993, '2026-01-02 03:04:05.678901Z'),"
        "  (2, NULL, NULL, NULL, NULL);"
        'CREATE SCHEMA "Sales"; CREATE TABLE "Sales"."Order" (n int PRIMARY KEY, x float8);'
        "INSERT INTO \"Sales\".\"Order\" VALUES (1, 'NaN'), (2, 'Infinity');"
        "CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (7), (7)"
    )
    Path("claimhouse.toml").write_text(f"[source.main]\ndsn = {json.dumps(postgres.dsn)}\n")
    assert shell("run", "--once") == 0, shell.err
    return postgres


@pytest.fixture
def live(captured: Any) -> Iterator[subprocess.Popen[str]]:
    """`claimhouse run` in a process of its own, stopped by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "claimhouse", "run", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_run_once_tells_on_stderr_and_leaves_stdout_empty(captured: Any, shell: Shell) -> None:
    captured.execute("INSERT INTO claim (id) VALUES (3)")
    assert shell("run", "--once") == 0
    assert shell.out == ""
    assert "next: claimhouse query" in shell.err
    assert "claimhouse detach" in shell.err
    assert shell("query", "SELECT count(*) AS n FROM claim", "--format", "csv") == 0
    assert shell.out.split() == ["n", "3"]


def test_query_json_is_an_array_of_objects_with_every_digit(captured: Any, shell: Shell) -> None:
    assert shell("query", "--json", "SELECT * FROM claim ORDER BY id") == 0
    assert '"big": 9007199254740993' in shell.out or '"big":9007199254740993' in shell.out
    first, second = json.loads(shell.out)
    assert (first["amount"], first["seen"]) == (10.5, "2026-01-02T03:04:05.678901Z")
    assert second == {"id": 2, "holder": None, "amount": None, "big": None, "seen": None}
    assert json.loads(shell.out) == shell.json("query", "FROM main.public.claim ORDER BY id")
    assert shell.json("query", 'SELECT x FROM "Sales"."Order" ORDER BY n') == [{"x": "NaN"}, {"x": "Infinity"}]


@pytest.mark.parametrize("format", ["table", "csv", "markdown", "json"])
def test_text_formats_print_the_answer_and_nothing_else(captured: Any, shell: Shell, format: str) -> None:
    assert shell("query", "SELECT 42 AS answer", "--format", format) == 0
    assert "42" in shell.out
    assert shell.err == ""


def test_binary_formats_are_readable_from_a_pipe_and_from_a_file(captured: Any, tmp_path: Path, shell: Shell) -> None:
    command = [sys.executable, "-m", "claimhouse", "query", "FROM claim ORDER BY id", "--format", "arrow"]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert pa.ipc.open_stream(piped.stdout).read_all().column("big").to_pylist() == [9007199254740993, None]
    assert shell("query", "FROM claim", "--format", "parquet", "--output", "claim.parquet") == 0
    assert "wrote 2 rows" in shell.err
    assert pq.read_table(tmp_path / "claim.parquet").num_rows == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_evidence_beside_a_file_says_what_was_asked_as_of_when_and_vouches_for_the_file(
    captured: Any, tmp_path: Path, shell: Shell
) -> None:
    asked = ["query", "SELECT id FROM claim ORDER BY id", "--format", "csv"]
    assert shell(*asked, "--output", "claim.csv", "--evidence") == 0
    told = json.loads((tmp_path / "claim.csv.evidence.json").read_text())
    assert told["file"]["sha256"] == hashlib.sha256((tmp_path / "claim.csv").read_bytes()).hexdigest()
    assert (told["query"], told["rows"], told["tables"]) == (asked[1], 2, ["main/public/claim"])
    captured.execute("DELETE FROM claim")
    assert shell("run", "--once") == 0
    assert shell(*asked, "--at", told["ask_again"]["at"], "--output", "again.csv") == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "claim.csv").read_bytes()
    assert shell(*asked, "--evidence") == 2 and "--output" in shell.err


def test_what_the_command_line_reads_is_on_record_unless_told_otherwise(captured: Any, shell: Shell) -> None:
    for read in (
        ["query", "SELECT holder FROM claim"],
        ["history", "claim", "big=9007199254740993"],
        ["query", "SELECT 1"],
    ):
        assert shell(*read) == 0
        assert shell(*read, "--no-access-log") == 0
    at = shell.json("query", "SELECT max(_cut) AS cut FROM claim__log", "--no-access-log")[0]["cut"]
    at = f"cut:{at}"
    assert shell("diff", "claim", "--from", at, "--to", at) == 0
    query, history, diff = shell.json("access")
    assert (query["by"], query["what"], query["key"]) == (
        "cli.query",
        "main/public/claim",
        {"sql": "SELECT holder FROM claim"},
    )
    assert (history["by"], history["key"]) == ("cli.history", {"id": "1", "big": "9007199254740993"})
    assert (diff["by"], diff["key"], diff["at"]) == ("cli.diff", {"from": at, "to": at}, at)
    assert shell("access", "--check") == 0 and "3 readings" in shell.out
    assert SECRET_ROW not in str([query, history, diff])


def test_a_reading_that_cannot_be_put_on_record_is_said_to_be_on_none(
    captured: Any, shell: Shell, tmp_path: Path
) -> None:
    folder = tmp_path / "lake/control/access"
    folder.write_text("in the way")
    assert shell("query", "FROM claim") == 0 and SECRET_ROW in shell.out
    assert "not on record" in shell.err and "--no-access-log" in shell.err
    with Path("claimhouse.toml").open("a") as settings:
        settings.write("[query]\naccess_log = false\n")
    assert shell("query", "FROM claim") == 0 and SECRET_ROW in shell.out and shell.err == ""


def test_a_wrong_column_is_answered_with_those_of_like_names(captured: Any, shell: Shell) -> None:
    assert shell("query", "SELECT holdr FROM claim") == 2
    assert '"holder"' in shell.err and SECRET_ROW not in shell.err


def test_a_table_for_people_cuts_long_values_and_says_so(captured: Any, shell: Shell) -> None:
    assert shell("query", "SELECT repeat('x', 500) AS much, 1 AS few") == 0
    assert max(map(len, shell.out.splitlines())) < 120 and "much are cut" in shell.err
    assert shell("query", "--format", "csv", "SELECT repeat('x', 500) AS much") == 0
    assert "x" * 500 in shell.out and shell.err == ""


def test_a_failing_query_leaves_no_file(captured: Any, tmp_path: Path, shell: Shell) -> None:
    assert shell("query", "SELECT error('no') FROM claim", "--output", "out.csv", "--format", "csv") == 2
    assert not [p for p in tmp_path.iterdir() if "out.csv" in p.name]
    assert shell("query", "SELECT 1", "--output", "missing/out.csv", "--format", "csv") == 2
    assert "cannot be written" in shell.err


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "SELECT * FROM nothing", "DROP TABLE claim", "SELECT 1; SELECT 2", "", "FROM read_csv('/etc/passwd')"],
)
def test_a_query_that_is_wrong_or_not_allowed_exits_2(captured: Any, shell: Shell, sql: str) -> None:
    assert shell("query", sql) == 2
    assert shell.out == ""
    assert shell.err.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "oracle"], "no engine is called oracle"),
        (["--engine", "trino", "--lake", "x"], "--lake does not go with --engine trino"),
        (["--trino", "http://127.0.0.1:1"], "--trino goes with --engine trino alone"),
        (["--engine", "trino", "--trino", "127.0.0.1:1"], "--trino is an address"),
        (["--engine", "trino"], "no stack at"),
    ],
)
def test_a_query_of_an_engine_that_is_not_there_exits_2_with_the_way_out(
    options: list[str], told: str, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLAIMHOUSE_STACK", raising=False)
    assert shell("query", *options, "SELECT 1") == 2
    assert told in shell.err and (told == "--trino is an address" or "hint: " in shell.err)


def test_a_query_is_read_from_stdin(captured: Any) -> None:
    command = [sys.executable, "-m", "claimhouse", "query", "-", "--format", "csv"]
    done = subprocess.run(command, input="SELECT 1 AS one", text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["one", "1"]


def test_where_there_is_no_lake_every_reader_says_so(shell: Shell) -> None:
    for command in (["query", "SELECT 1"], ["status"], ["connect", "claim"]):
        assert shell(*command, "--lake", "nowhere") == 2, command
        assert "is no lake" in shell.err
        assert "hint: " in shell.err


def test_status_tells_each_hop_and_each_table(captured: Any, shell: Shell) -> None:
    assert shell("status") == 0
    for word in ("server", "slot", "newest cut", "Delta tables", "public.claim", "Sales.Order", "live"):
        assert word in shell.out
    told = shell.json("status")
    assert told["ok"] is True
    assert told["servers"]["main"]["wal_status"] == "reserved"
    rows = {t["name"]: t["rows"] for t in told["sources"][0]["tables"]}
    assert rows == {"claim": 2, "Order": 2, "keyless": 2}


def test_status_without_the_server_tells_what_the_lake_knows(captured: Any, shell: Shell) -> None:
    assert shell("status", "--offline") == 0
    Path("claimhouse.toml").write_text('[source.main]\ndsn = "host=127.0.0.1 port=1 connect_timeout=2"\n')
    assert shell("status") == 0
    assert "warning: main: the server was not asked" in shell.err


DROP_SLOTS = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"


def _let_go(captured: Any) -> None:
    """Until the server has let go of the slot, a moment after the run."""
    free = "SELECT bool_and(NOT active) FROM pg_replication_slots WHERE database = current_database()"
    deadline = time.monotonic() + 20
    while captured.execute(free) != [(True,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.case("R6")
def test_a_dropped_slot_is_a_finding_of_status_and_stops_run(captured: Any, shell: Shell) -> None:
    _let_go(captured)
    captured.execute(DROP_SLOTS)
    assert shell("status") == 1
    assert shell("run", "--once") == 2
    assert "missing" in shell.err


@pytest.mark.case("R6")
def test_repair_says_what_is_lost_and_goes_on_where_told(captured: Any, shell: Shell) -> None:
    assert shell("repair") == 0
    assert "nothing is lost" in shell.err
    _let_go(captured)
    captured.execute(DROP_SLOTS)
    captured.execute("DELETE FROM claim WHERE id = 2")
    assert shell("repair") == 1
    assert "missing" in shell.out and "--yes" in shell.err
    told = shell.json("repair", "--yes")
    assert told["done"] and told["tables"] == 3 and "missing" in told["lost"]
    assert shell("run", "--once") == 0
    assert shell.json("query", "SELECT count(*) AS n FROM claim") == [{"n": 1}]
    assert shell("verify") == 0


@pytest.mark.case("L10")
def test_a_source_of_the_distributed_runtime_keeps_its_slot_whatever_the_embedded_one_is_asked(
    captured: Any, shell: Shell
) -> None:
    _let_go(captured)
    lake = open_lake("lake")
    Streaming(lake, "main", lambda: None).prepare(take(lake, "main").mark.end_lsn, "none")
    slots = "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()"
    ((slot, held),) = captured.execute(slots)
    captured.execute("INSERT INTO claim VALUES (3)")
    captured.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (slot,))  # as Debezium confirms
    moved = captured.execute(slots)
    for command in (["repair"], ["repair", "--yes"], ["run", "--once"], ["resync", "claim"]):
        assert shell(*command) == 2
        assert "captured by the distributed runtime" in shell.err and "stack up" in shell.err
    assert shell("resync", "claim", "--wait", "0") == 0  # the stack reads it when it runs
    assert captured.execute(slots) == moved != [(slot, held)]


def test_resync_copies_a_table_anew_without_a_running_capture(captured: Any, shell: Shell) -> None:
    _let_go(captured)
    assert shell("resync", "claim", "Sales.*", "--json") == 0, shell.err
    told = json.loads(shell.out)
    assert [(t["table"], t["rows"], t["copied"]) for t in told] == [("Sales.Order", 2, True), ("public.claim", 2, True)]
    assert shell("verify") == 0


@pytest.mark.case("N7")
def test_resync_is_done_by_the_capture_that_runs(captured: Any, live: subprocess.Popen[str], shell: Shell) -> None:
    active = "SELECT bool_or(active) FROM pg_replication_slots WHERE database = current_database()"
    deadline = time.monotonic() + 20
    while captured.execute(active) != [(True,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shell("resync", "claim", "--wait", "60s") == 0, shell.err
    assert "yes" in shell.out
    assert live.poll() is None


def test_resync_of_what_is_not_captured_exits_2(captured: Any, shell: Shell) -> None:
    assert shell("resync", "nothing") == 2
    assert "no captured table matches nothing" in shell.err


def test_doctor_names_what_is_missing_with_sql_that_mends_it(captured: Any, shell: Shell) -> None:
    assert shell("doctor") == 1
    assert 'ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL;' in shell.out
    found = shell.json("doctor")
    assert {f["level"] for f in found} <= {"ok", "info", "warn", "error"}
    assert shell("doctor", "--sql", "identity") == 0
    for statement in shell.out.strip().splitlines():
        captured.execute(statement)
    assert not [f for f in shell.json("doctor") if f["code"] == "identity" and f["level"] == "warn"]
    assert shell("doctor", "--sql", "nonsense") == 2


def test_doctor_of_a_server_that_is_not_there_exits_2(shell: Shell) -> None:
    assert shell("doctor", "--source", "host=127.0.0.1 port=1 connect_timeout=2") == 2


def test_the_trigger_that_doctor_prints_can_be_installed_as_printed(captured: Any, shell: Shell) -> None:
    assert shell("doctor", "--sql", "ddl") == 0
    captured.execute(shell.out)
    assert not [f for f in shell.json("doctor") if f["code"] == "ddl" and f["level"] != "ok"]


@pytest.mark.case("R10")
def test_verify_beside_a_live_run_finds_no_difference_and_sigterm_drains(
    captured: Any, live: subprocess.Popen[str], shell: Shell
) -> None:
    captured.execute("UPDATE claim SET amount = 11 WHERE id = 1; INSERT INTO claim (id) VALUES (3)")
    assert shell("verify", "--tables", "claim", "--tables", "Sales.*") == 0, shell.err
    assert "no difference in 5 rows of 2 tables" in shell.err
    told = shell.json("verify", "--tables", "claim", "--one-snapshot")
    assert told[0]["ok"] is True
    assert told[0]["held_seconds"] > 0
    live.send_signal(signal.SIGTERM)
    out, err = live.communicate(timeout=30)
    assert live.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "summary"
    assert "Traceback" not in err


def test_a_query_beside_a_live_run_shows_what_was_just_committed(
    captured: Any, live: subprocess.Popen[str], shell: Shell
) -> None:
    deadline = time.monotonic() + 60  # of a busy machine: each query is a process of its own
    captured.execute("INSERT INTO claim (id) VALUES (99)")
    while shell.json("query", "SELECT count(*) AS n FROM claim WHERE id = 99") != [{"n": 1}]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.case("R7")
def test_a_second_run_on_the_same_source_is_refused_by_the_pid_that_has_it(
    captured: Any, live: subprocess.Popen[str], shell: Shell
) -> None:
    assert live.stdout is not None
    captured.execute("INSERT INTO claim (id) VALUES (5)")
    live.stdout.readline()  # it is live
    assert shell("run", "--once") == 2
    assert "pid" in shell.err or "process" in shell.err
    assert live.poll() is None


def test_connect_prints_recipes_that_run(captured: Any, shell: Shell) -> None:
    captured.execute("UPDATE claim SET amount = 12 WHERE id = 2")
    assert shell("run", "--once") == 0
    assert shell("connect", "claim", "--engine", "duckdb") == 0
    spaces: dict[str, Any] = {}
    exec(shell.out, spaces)
    relation = next(v for k, v in spaces.items() if k.endswith("claim"))
    assert sorted(relation.project("id, amount").fetchall()) == [(1, Decimal("10.50")), (2, Decimal("12.00"))]
    assert set(shell.json("connect", "claim")) == {"polars", "duckdb", "spark", "trino", "dbt"}
    assert shell("connect", "claim", "--engine", "excel") == 2
    assert shell("connect", "nothing") == 2


def test_a_narrow_key_change_beside_wide_rows_leaves_them_whole(
    captured: Any, live: subprocess.Popen[str], shell: Shell
) -> None:
    captured.execute(
        'BEGIN; UPDATE keyless SET a = 8; UPDATE "Sales"."Order" SET n = 3 WHERE n = 1;'
        " INSERT INTO claim VALUES (7, 'h', 1, 2, '2026-01-01Z'); COMMIT"
    )
    assert shell("verify", "--tables", "claim", "--tables", "Sales.*") == 0, shell.out


def test_detach_says_what_it_would_do_and_then_does_it(captured: Any, shell: Shell) -> None:
    slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert shell("detach") == 0
    assert "pg_drop_replication_slot" in shell.out
    assert captured.execute(slots) == [(1,)]
    assert shell("detach", "--yes") == 0
    assert captured.execute(slots) == [(0,)]
    assert captured.execute("SELECT count(*) FROM pg_publication") == [(0,)]
    assert shell.json("detach")["statements"] == []
    assert shell("query", "SELECT count(*) FROM claim") == 0


def test_no_row_value_is_told_by_any_command_but_query(captured: Any, shell: Shell) -> None:
    seen = ""
    for command in (["run", "--once", "--json"], ["status"], ["status", "--json"], ["doctor"], ["detach"]):
        shell(*command)
        seen += shell.out + shell.err
    assert SECRET_ROW not in seen


def test_a_role_that_may_not_publish_gets_the_script_and_exit_2(postgres: Any, shell: Shell) -> None:
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY)")
    assert shell("run", "--once", "--source", postgres.role(), "--lake", "lake") == 2
    assert "CREATE PUBLICATION" in shell.err
    assert postgres.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [(0,)]


@pytest.mark.case("R12", "S8")
def test_a_run_once_that_had_to_stop_a_table_exits_1_and_names_it(postgres: Any, shell: Shell) -> None:
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY, x int); CREATE TABLE good (id int PRIMARY KEY)")
    asked = ("run", "--source", postgres.dsn, "--lake", "lake", "--once")
    assert shell(*asked) == 0
    postgres.execute('ALTER TABLE claim ADD COLUMN "X" int; INSERT INTO claim VALUES (1); INSERT INTO good VALUES (1)')
    assert shell(*asked) == 1
    assert "public.claim" in shell.err and "differ only by case" in shell.err
    assert shell.json("query", "SELECT id FROM good", "--lake", "lake") == [{"id": 1}]
