"""Databases that none of us made, and readers that know nothing of us."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from claimhouse.lake.lake import changes_key, open_lake
from claimhouse.lake.snapshot import take
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.verify import VerifyOptions, verify


@pytest.mark.case("N1", "L4")
def test_pgbench_runs_beside_the_capture_and_the_lake_equals_it(postgres: Any, server: Any, tmp_path: Path) -> None:
    pgbench = str(server.programs / "pgbench")
    subprocess.run([pgbench, "-i", "-s", "1", "-q", postgres.dsn], check=True, capture_output=True)
    location = str(tmp_path / "lake")
    stop = threading.Event()
    capture = Capture(CaptureOptions("main", postgres.dsn, location, flush_interval=0.3))
    thread = threading.Thread(target=capture.run, args=(stop,))
    thread.start()
    try:
        subprocess.run([pgbench, "-n", "-c", "4", "-T", "3", postgres.dsn], check=True, capture_output=True)
        deadline = time.monotonic() + 60
        while any(s.status != "live" for s in _tables(location)) and time.monotonic() < deadline:
            time.sleep(0.1)
        report = verify(VerifyOptions("main", postgres.dsn, location, wait=60.0))
    finally:
        stop.set()
        thread.join(60)
    assert report.differences == []
    assert {t.table: t.rows for t in report.tables}["public.pgbench_accounts"] == 100_000
    history = {t.table: t.rows for t in report.tables}["public.pgbench_history"]
    assert history == postgres.execute("SELECT count(*) FROM pgbench_history")[0][0] > 0


def _tables(location: str) -> list[Any]:
    try:
        return list(take(open_lake(location), "main").registry.tables.values())
    except Exception:
        return [type("Unknown", (), {"status": "unknown"})]


@pytest.mark.case("L9")
def test_a_foreign_reader_of_one_flush_sees_whole_transactions(postgres: Any, tmp_path: Path) -> None:
    """The versions that a flush record names hold, over all tables, the same transactions."""
    postgres.execute("CREATE TABLE debit (id int PRIMARY KEY, v int); CREATE TABLE credit (id int PRIMARY KEY, v int)")
    location = str(tmp_path / "lake")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()  # nobody may read before it
    stop, ended = threading.Event(), threading.Event()
    capture = Capture(CaptureOptions("main", postgres.dsn, location, freshness=0.002, flush_interval=0.1))

    def write() -> None:
        with postgres.connect() as conn:
            n = 0
            while not ended.is_set():
                n += 1
                conn.execute("INSERT INTO debit VALUES (%s, %s)", (n, n))
                conn.execute("INSERT INTO credit VALUES (%s, %s)", (n, -n))
                conn.commit()

    threads = [threading.Thread(target=capture.run, args=(stop,)), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    seen: set[int] = set()
    try:
        deadline = time.monotonic() + 60
        while len(seen) < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
            if (found := _foreign(location)) is not None:
                seen.add(found)
    finally:
        ended.set()
        threads[1].join()
        stop.set()
        threads[0].join(60)
    assert len(seen) >= 6 and max(seen) > 0


def _foreign(location: str) -> int | None:
    """Rows that a reader finds by the newest row of control/flushes, with Delta and Parquet and nothing of ours."""
    flushes = Path(location) / "control" / "flushes"
    if not (flushes / "_delta_log").exists():
        return None
    with duckdb.connect() as db:
        files = DeltaTable(str(flushes)).file_uris()
        rows = db.sql(f"SELECT * FROM read_parquet({files}) ORDER BY flush").to_arrow_table().to_pylist()
    newest = dict(rows[-1]["changes"]) if rows else {}
    if set(newest) < {"public/debit", "public/credit"}:
        return None
    ids: dict[str, set[int]] = {}
    for folder, version in newest.items():
        table = DeltaTable(str(Path(location) / changes_key("main", folder)), version=version)
        with duckdb.connect() as db:
            found = db.sql(f"SELECT id FROM read_parquet({table.file_uris()}, union_by_name = true)").fetchall()
        ids[folder] = {i for (i,) in found}
    assert ids["public/debit"] == ids["public/credit"]
    return len(ids["public/debit"])
