"""Copies and memory: what a table costs to copy, and how much memory the largest things take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.capturing import capture_once, capturing, in_process
from bench.cases.folding import big_lake, fold_in_process
from bench.figure import Figure, figure, progress
from bench.machine import Watched, cpu_seconds, family_cpu, peak_mib
from bench.source import WIDE, database, drop_slots, fill_wide
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.server import current_lsn

AIM_MIB = 600


def snapshot(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Rows of a table per CPU second, server's and ours, until a cut holds them / COPY BINARY to /dev/null.

    Beside it the server's share alone, and the longest transaction that the copy held open.
    """
    rows = int(5_000_000 * scale)
    dsn = _wide(server, rows)
    ours: list[float] = []
    servers: list[float] = []
    theirs: list[float] = []
    longest: list[float] = []
    for run in range(3 if scale >= 1 else 1):
        before = family_cpu(server)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("COPY wide TO '/dev/null' WITH (FORMAT binary)")
        theirs.append(rows / max(family_cpu(server) - before, 0.01))
        before = family_cpu(server)
        with (
            _longest(dsn) as (seconds, sampler),
            capturing(dsn, str(folder / f"lake{run}"), slot=f"copy{run}", flush_interval=3600.0) as running,
        ):
            running.copied(1)
            client, server_cpu = cpu_seconds(running.pid), family_cpu(server) - before - cpu_seconds(sampler)
        ours.append(rows / (client + server_cpu))
        servers.append(rows / max(server_cpu, 0.01))
        longest.append(max(seconds))
        progress(f"{client:.1f} CPU seconds of ours, {server_cpu:.1f} of the server's, longest {longest[-1]:.2f} s")
        drop_slots(dsn, (f"copy{run}",))
    note = f"{rows} rows, 11 mixed columns"
    return [
        figure("snapshot", ours, "rows/s", reference=theirs, aim=0.5, at_least=True, note=note),
        figure("snapshot_on_source", servers, "rows/s", reference=theirs, note="the server's CPU time alone"),
        figure("snapshot_longest_s", longest, "s", aim=1.0, note="the longest transaction, sampled every 10 ms"),
    ]


def _wide(server: Embedded, rows: int) -> str:
    dsn = database(server)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(WIDE)
        fill_wide(conn, rows)
        conn.execute("VACUUM (ANALYZE) wide")
        conn.execute("CHECKPOINT")
    return dsn


@contextmanager
def _longest(dsn: str) -> Iterator[tuple[list[float], int]]:
    """Ages of our transactions on the source, in seconds, sampled meanwhile, and the server's process that tells."""
    seen, stop = [0.0], threading.Event()

    def sample(conn: psycopg.Connection) -> None:
        while not stop.wait(0.01):
            row = conn.execute(
                "SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_stat_activity"
                " WHERE application_name = 'claimhouse' AND backend_type = 'client backend'"
                " AND state <> 'idle' AND datname = current_database()"
            ).fetchone()
            seen.append(row[0] or 0.0 if row else 0.0)

    with psycopg.connect(dsn, autocommit=True) as conn:
        thread = threading.Thread(target=sample, args=(conn,), daemon=True)
        thread.start()
        try:
            yield seen, conn.info.backend_pid
        finally:
            stop.set()
            thread.join()


def peak_memory_mib(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """The most memory (VmHWM, mapped files included) of a process of ours, for the largest things that it can meet."""
    found: list[Figure] = []
    rows = int(2_000_000 * scale)
    dsn, location = database(server), str(folder / "transaction")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(WIDE)
        capture_once(dsn, location)
        with capturing(dsn, location) as running, Watched(running.pid) as watched:
            fill_wide(conn, rows)
            running.reach(current_lsn(conn))
            progress("the large transaction is in a cut")
            # Quiet comes after its flush and fold: each ends in a cut that names it.
            running.settle(5.0 if scale >= 1 else 0.5)
            found.append(_memory("transaction", running.pid, watched, f"one transaction of {rows} rows"))
    rows = int(5_000_000 * scale)
    dsn = _wide(server, rows)
    with capturing(dsn, str(folder / "snapshot")) as running, Watched(running.pid) as watched:
        running.copied(1)
        running.settle(5.0 if scale >= 1 else 0.5)
        found.append(_memory("snapshot", running.pid, watched, f"a table of {rows} rows"))
    rows = int(10_000_000 * scale)
    lake = big_lake(server, folder.parent, rows)
    lake.change_to(lake.due - 1)
    for name, first in (("fold", False), ("first_fold", True)):
        _, peak = in_process(fold_in_process, lake.location, first, False)
        progress(f"{name}: {peak:.0f} MiB")
        note = f"a table of {rows} rows, {'from its copy on' if first else f'{lake.changed} changed'}"
        found.append(figure(f"peak_memory_mib_{name}", [peak], "MiB", aim=AIM_MIB, note=note))
    return found


def _memory(name: str, pid: int, watched: Watched, note: str) -> Figure:
    note += f"; {watched.most:.0f} MiB without the files that it maps"
    found = figure(f"peak_memory_mib_{name}", [peak_mib(pid)], "MiB", aim=AIM_MIB, note=note)
    progress(f"{name}: {found.value:.0f} MiB")
    return found
