"""What a reader waits for: a sum beside changes that are not folded, and the first answer from a lake of many cuts."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg

import claimhouse
from bench.capturing import capturing, in_process
from bench.cases.folding import big_lake
from bench.figure import Figure, figure, progress
from bench.source import database, pgbench
from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take
from claimhouse.postgres.embedded import Embedded

_SUM = "SELECT sum(amount) FROM big"


def now_over_plain(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """A sum over a table of 10 M rows with changed rows that are not folded yet / the same over the folded table."""
    lake = big_lake(server, folder.parent, int(10_000_000 * scale)).change_to(0)
    plain = _query_times(lake.location, _SUM)
    found: list[Figure] = []
    for changed in (1_000, int(100_000 * scale) if scale >= 1 else 2_000):
        lake.change_to(changed)
        times = _query_times(lake.location, _SUM)
        note = f"{lake.rows} rows, {changed} changed"
        found.append(figure(f"now_over_plain_{changed}", times, "ms", reference=plain, aim=1.5, note=note))
        progress(f"{changed} changed: {found[-1].value:.0f} ms, plain {found[-1].reference:.0f} ms")
    return found


def _query_times(location: str, text: str) -> list[float]:
    times: list[float] = []
    with claimhouse.open(location) as lake:
        lake.sql(text).arrow()
        for _ in range(9):
            began = time.perf_counter()
            lake.sql(text).arrow()
            times.append((time.perf_counter() - began) * 1000)
    return times


def open_old_table(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """From opening a lake to the first answer, in a fresh process, after 10,000 cuts / after 10."""
    cuts, runs = (10_000, 9) if scale >= 1 else (100, 2)
    dsn, location = database(server), str(folder / "lake")
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name in ("one", "two", "three"):
            conn.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, a int, b text)".encode())
            conn.execute(f"INSERT INTO {name} SELECT g, g, 'text ' || g FROM generate_series(1, 1000) g".encode())
    script = folder / "update.sql"
    updates = "".join(f"UPDATE {name} SET a = a + 1 WHERE id = :id;\n" for name in ("one", "two", "three"))
    script.write_text(f"\\set id random(1, 1000)\nBEGIN;\n{updates}COMMIT;\n")
    found: list[list[float]] = []
    flushes = 0
    for wanted in (10, cuts):
        with capturing(dsn, location, freshness=0.0, flush_interval=0.25) as running:
            running.copied(3) if not found else None
            while running.cut < wanted:
                pgbench(server, dsn, "-n", "-f", str(script), "-t", str(min(500, wanted - running.cut)))
                progress(f"{running.cut} cuts")
        found.append([in_process(_start_ms, location) for _ in range(runs)])
        flushes = take(open_lake(location), "main").mark.flush
    note = f"{cuts} cuts of 3 tables in {flushes} flushes; wall time, imports left out"
    return [figure("open_old_table", found[1], "ms", reference=found[0], aim=1.5, note=note)]


def _start_ms(location: str) -> float:
    began = time.perf_counter()
    with claimhouse.open(location) as lake:
        lake.sql("SELECT * FROM two WHERE id = 7").arrow()
    return (time.perf_counter() - began) * 1000
