"""history and diff on a lake that lived: through updates, a key change, a delete and a new column."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import Book

from claimhouse.cli.guard import guarded
from claimhouse.lake import deadletters
from claimhouse.pipeline import Capture, CaptureOptions


@pytest.fixture
def lived(postgres: Any, tmp_path: Path) -> tuple[str, str]:
    """(location, the position before the changes)."""
    location = str(tmp_path / "lake")
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY, status text, amount numeric(12,2))")
    postgres.execute("INSERT INTO claim VALUES (1, 'open', 10), (2, 'open', 20), (3, 'open', 30)")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()
    (before,) = postgres.execute("SELECT pg_current_wal_insert_lsn()::text")[0]
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()
    postgres.execute("UPDATE claim SET status = 'shut', amount = 11 WHERE id = 1")
    postgres.execute("UPDATE claim SET id = 20 WHERE id = 2")
    postgres.execute("DELETE FROM claim WHERE id = 3")
    postgres.execute("INSERT INTO claim VALUES (4, 'new', 1)")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()
    return location, before


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = guarded(arguments)
    return code, capsys.readouterr().out


def test_a_rows_history_tells_every_version(lived: tuple[str, str], capsys: Any) -> None:
    code, out = run(capsys, "history", "claim", "1", "--lake", lived[0], "--json")
    versions = json.loads(out)
    assert code == 0
    assert [v["operation"] for v in versions] == ["copied", "updated"]
    assert versions[1]["changed"] == ["status", "amount"]
    assert versions[1]["values"]["status"] == "shut"


def test_a_history_follows_a_key_change_back(lived: tuple[str, str], capsys: Any) -> None:
    _, out = run(capsys, "history", "claim", "id=20", "--lake", lived[0], "--json")
    assert next(v["key"] for v in json.loads(out)) == {"id": "2"}


def test_a_history_says_what_each_value_was_and_became(lived: tuple[str, str], capsys: Any) -> None:
    _, out = run(capsys, "history", "claim", "1", "--lake", lived[0])
    assert [line.split()[-3:] for line in out.splitlines()[2:]] == [
        ["status", "open", "shut"],
        ["amount", "10.00", "11.00"],
    ]
    _, out = run(capsys, "history", "claim", "1", "--lake", lived[0], "--format", "csv")
    assert out.splitlines()[0] == "operation,lsn,committed_at,xid,column,before,after"
    assert [line.split(",")[4:] for line in out.splitlines()[2:]] == [
        ["status", "open", "shut"],
        ["amount", "10.00", "11.00"],
    ]


def test_a_row_is_found_by_any_column_now_or_before(lived: tuple[str, str], capsys: Any) -> None:
    now = json.loads(run(capsys, "history", "claim", "status=shut", "--lake", lived[0], "--json")[1])
    gone = json.loads(run(capsys, "history", "claim", "amount=30.00", "--lake", lived[0], "--json")[1])
    assert (now[-1]["key"], gone[-1]["operation"], gone[-1]["key"]) == ({"id": "1"}, "deleted", {"id": "3"})


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("status=open", "several rows"),
        ("status=none", "no row"),
        ("CLM-1", "is (id integer)"),
        ("CLM-1", "column=value"),
    ],
)
def test_what_finds_no_single_row_says_what_does(lived: tuple[str, str], capsys: Any, key: str, told: str) -> None:
    capsys.readouterr()
    at = ["--at", lived[1]] if key == "status=open" else []
    assert guarded(["history", "claim", key, "--lake", lived[0], *at]) == 2
    assert told in capsys.readouterr().err


def test_a_row_that_never_was_is_a_finding(lived: tuple[str, str], capsys: Any) -> None:
    assert run(capsys, "history", "claim", "99", "--lake", lived[0])[0] == 1


def test_diff_names_what_came_went_and_changed(lived: tuple[str, str], capsys: Any) -> None:
    location, before = lived
    code, out = run(capsys, "diff", "--all", "--from", before, "--lake", location, "--json")
    (told,) = json.loads(out)
    assert code == 0
    assert (told["added"], told["removed"], told["changed"]) == (2, 2, 1)
    assert [(r["kind"], r["key"]["id"], r["columns"]) for r in told["rows"]] == [
        ("changed", 1, ["status", "amount"]),
        ("removed", 2, []),
        ("removed", 3, []),
        ("added", 4, []),
        ("added", 20, []),
    ]


def test_diff_tells_values_before_and_after_and_between_which_positions(lived: tuple[str, str], capsys: Any) -> None:
    location, before = lived
    told = json.loads(run(capsys, "diff", "claim", "--from", before, "--lake", location, "--json")[1])[0]
    assert told["begin"] == before and told["end"] > before
    assert told["rows"][0]["before"] == {"status": "open", "amount": "10.00"}
    assert told["rows"][0]["after"] == {"status": "shut", "amount": "11.00"}
    assert told["rows"][1]["before"] == {"status": "open", "amount": "20.00"} and told["rows"][1]["after"] == {}
    assert told["rows"][4]["after"] == {"status": "open", "amount": "20.00"}
    rows = list(
        csv.DictReader(
            run(capsys, "diff", "claim", "--from", before, "--lake", location, "--format", "csv")[1].splitlines()
        )
    )
    assert [rows[0][n] for n in ("row", "key", "column", "before", "after")] == [
        "changed",
        "id=1",
        "status",
        "open",
        "shut",
    ]
    assert {r["from"] for r in rows} == {before} and len(rows) == 10
    _, out = run(capsys, "diff", "claim", "--from", before, "--lake", location, "--limit", "1")
    assert "open    shut" in out and "id=4" not in out


def test_diff_without_a_moment_says_what_it_needs(lived: tuple[str, str], capsys: Any) -> None:
    assert run(capsys, "diff", "claim", "--lake", lived[0])[0] == 2


def test_what_is_not_exact_is_said_and_no_key_drives_the_terminal(tmp_path: Path, capsys: Any) -> None:
    book = Book(tmp_path / "lake")
    columns = {"id": "text", "rate": "float8", "raw": "bytes"}
    table = book.table("t", columns, rows=[{"id": "a", "rate": float("nan"), "raw": b"\x01"}])
    begin = book.cut().cut
    changed = book.commit(("c", table, {"id": "\x1b[2Jb\nc"}))
    book.cut()
    deadletters.put(book.lake, "main", 1, table.folder, changed, "a value cannot be kept")
    where = ("--lake", str(tmp_path / "lake"))
    assert guarded(["diff", "t", "--from", f"cut:{begin}", *where]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].split() == ["public.t", "added", "id=\\x1b[2Jb", "c"]
    assert "warning: table public.t is not exact" in told.err
    assert guarded(["history", "t", "a", "--json", *where]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["values"] == {"id": "a", "rate": "NaN", "raw": "\\x01"}
    assert "warning: table public.t is not exact" in told.err
