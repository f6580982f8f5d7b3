"""verify finds what differs, names it without telling values, and is quiet where nothing does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claimhouse import verify as verifying
from claimhouse.errors import NotReady
from claimhouse.lake import current
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.verify import VerifyOptions, verify

TABLES = """
CREATE TABLE claim (id bigint PRIMARY KEY, amount numeric(12,2), bare numeric, at timestamptz, day date, f float8,
  flag bool, note text, raw bytea, tags text[], u uuid);
INSERT INTO claim SELECT g, g / 3.0, g / 7.0, now() + g * interval '1 us', date '2026-01-01' + g, g / 9.0, g % 2 = 0,
  'n' || g, decode(md5(g::text), 'hex'), ARRAY['a', NULL, g::text], md5(g::text)::uuid FROM generate_series(1, 3000) g;
INSERT INTO claim VALUES (-1, NULL, 'NaN', 'infinity', '-infinity', 'NaN', NULL, '', '', '{}', NULL);
INSERT INTO claim VALUES (-2, 'NaN', 1e50, '0044-03-15 BC', '12345-01-01', '-0', true, E'\\\\N', NULL,
  '[2:3]={a,b}', NULL);
CREATE TABLE "odd ""key" (name text, part date, v int, PRIMARY KEY (name, part));
INSERT INTO "odd ""key" VALUES ('é', 'infinity', 1), ('E', '2026-01-01', 2), ('', '-infinity', 3),
  (E'a\\nb', 'infinity', 4);
CREATE TABLE bag (a text, b float4); ALTER TABLE bag REPLICA IDENTITY FULL;
INSERT INTO bag VALUES ('x', 0.1), ('x', 0.1), (NULL, NULL);
"""


@pytest.fixture
def lake(postgres: Any, tmp_path: Path) -> VerifyOptions:
    postgres.execute(TABLES)
    location = str(tmp_path / "lake")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()
    return VerifyOptions("main", postgres.dsn, location, wait=1.0, chunk_rows=700)


@pytest.mark.parametrize("one_snapshot", [False, True])
def test_equal_tables_have_no_difference_whatever_their_values_and_keys(
    postgres: Any, lake: VerifyOptions, one_snapshot: bool
) -> None:
    lake.one_snapshot = one_snapshot
    Capture(CaptureOptions("main", postgres.dsn, lake.location, once=True)).run()
    report = verify(lake)
    assert report.differences == []
    assert sorted((t.table, t.rows) for t in report.tables) == [
        ("public.bag", 3),
        ("public.claim", 3002),
        ('public.odd "key', 4),
    ]
    assert (report.held is not None) == one_snapshot


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("amount", "amount + 0.01"),
        ("at", "at + interval '1 us'"),
        ("note", "note || ' '"),
        ("tags", "'{b}'"),
        ("f", "f + 1e-12"),
        ("flag", "NOT flag"),
        ("raw", "raw || '\\x00'"),
    ],
)
def test_one_changed_value_is_named_by_key_and_column(
    postgres: Any, lake: VerifyOptions, monkeypatch: Any, column: str, value: str
) -> None:
    # The lake is held to be up to date although it is not: what a lost change would look like.
    monkeypatch.setattr(verifying._Verifying, "_caught_up", lambda self, lsn: verifying.take(self.lake, "main"))
    postgres.execute(f"UPDATE claim SET {column} = {value} WHERE id = 1234")
    report = verify(lake)
    assert [(d.table, d.kind, d.key, list(d.columns)) for d in report.differences] == [
        ("public.claim", "values differ", {"id": "1234"}, [column])
    ]


def test_rows_on_one_side_only_are_named(postgres: Any, lake: VerifyOptions, monkeypatch: Any) -> None:
    monkeypatch.setattr(verifying._Verifying, "_caught_up", lambda self, lsn: verifying.take(self.lake, "main"))
    postgres.execute("INSERT INTO claim (id) VALUES (99999); DELETE FROM claim WHERE id = 77")
    postgres.execute("DELETE FROM bag WHERE a IS NULL")
    kinds = {(d.table, d.kind, d.key.get("id")) for d in verify(lake).differences}
    assert kinds == {
        ("public.claim", "only in PostgreSQL", "99999"),
        ("public.claim", "only in the lake", "77"),
        ("public.bag", "only in the lake: 1 rows", None),
    }


def test_a_column_that_the_lake_does_not_know_is_a_difference(
    postgres: Any, lake: VerifyOptions, monkeypatch: Any
) -> None:
    monkeypatch.setattr(verifying._Verifying, "_caught_up", lambda self, lsn: verifying.take(self.lake, "main"))
    postgres.execute("ALTER TABLE bag ADD COLUMN c int")
    (found,) = verify(lake).differences
    assert (found.kind, list(found.columns)) == ("columns differ", ["c"])


def test_a_lake_that_does_not_follow_is_told_and_not_called_equal(postgres: Any, lake: VerifyOptions) -> None:
    postgres.execute("INSERT INTO claim (id) VALUES (5000)")
    with pytest.raises(NotReady, match="the lake is at"):
        verify(lake)


def test_both_may_live_meanwhile(postgres: Any, lake: VerifyOptions) -> None:
    stop, ended = threading.Event(), threading.Event()
    capture = Capture(CaptureOptions("main", postgres.dsn, lake.location, freshness=0.005, flush_interval=0.1))
    captured = threading.Thread(target=capture.run, args=(stop,))

    written: list[int] = []

    def write() -> None:
        with postgres.connect() as conn:
            n = 0
            while not ended.is_set():
                n += 1
                conn.execute("UPDATE claim SET amount = amount + 1, note = note || 'x' WHERE id = %s", (n * 37 % 3000,))
                if n % 4 == 0:
                    free = "NOT EXISTS (SELECT FROM claim WHERE id = -%(id)s)"
                    conn.execute(f"UPDATE claim SET id = -id WHERE id = %(id)s AND {free}", {"id": n * 91 % 3000})
                    conn.execute("DELETE FROM claim WHERE id = %s", (n * 53 % 3000,))
                    conn.execute("INSERT INTO claim (id) VALUES (%s) ON CONFLICT DO NOTHING", (n * 71 % 6000,))
                if n % 3 == 0:
                    conn.commit()
        written.append(n)  # the thread came to its end by itself

    writer = threading.Thread(target=write)
    captured.start()
    writer.start()
    try:
        lake.wait = 20.0
        deadline = time.monotonic() + 5
        rounds = 0
        while time.monotonic() < deadline:
            report = verify(lake)
            assert report.differences == [], report.differences[:3]
            rounds += 1
    finally:
        ended.set()
        writer.join()
        stop.set()
        captured.join(60)
    assert (
        written and rounds > 0 and isinstance(verifying.take(verifying.open_lake(lake.location), "main"), LakeSnapshot)
    )


def test_a_table_without_a_key_that_was_folded_when_empty_is_compared_from_there(postgres: Any, tmp_path: Path) -> None:
    """An empty `current` has no file, and yet stands for the log before it."""
    postgres.execute("CREATE TABLE bag (a text); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES ('x')")
    location = str(tmp_path / "lake")
    capture = CaptureOptions("main", postgres.dsn, location, once=True)
    Capture(capture).run()
    postgres.execute("DELETE FROM bag")
    Capture(capture).run()
    lake = verifying.open_lake(location)
    snapshot = verifying.take(lake, "main")
    assert snapshot.record is not None
    folded = current.fold(lake, "main", snapshot.registry, snapshot.record, ["public/bag"])
    assert folded.table("public/bag").current_rows == 0
    postgres.execute("INSERT INTO bag VALUES ('x')")
    Capture(capture).run()
    newest = verifying.take(lake, "main")
    assert newest.record is not None
    entry = newest.record.table("public/bag")
    there = replace(folded.table("public/bag"), changes=entry.changes, rows=entry.rows)
    based = replace(newest, record=replace(newest.record, tables={"public/bag": there}))
    with verifying._held(based, based.registry.tables["public/bag"], None) as held:
        assert held.db.sql(held.sql).to_arrow_table().num_rows == 1
