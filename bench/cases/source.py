"""What the source feels: the server's CPU time for us, and its own work beside us."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

import claimhouse
from bench.capturing import Running, capture_once, capturing, context
from bench.figure import Figure, figure, progress
from bench.machine import cores_apart, cpu_seconds, pin
from bench.source import database, draining, drop_slots, new_slot, pgbench
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.server import current_lsn

QUERIES = 10
HEAVY = (
    "SELECT a.bid, count(*), sum(a.abalance), stddev_samp(a.abalance), count(DISTINCT a.aid % 1000)"
    " FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid GROUP BY a.bid ORDER BY a.bid"
)


def source_cpu(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """The server's CPU seconds for us / for pg_recvlogical, beside each other on one load, with one open transaction.

    Ours are those of every backend of ours; of pg_recvlogical its walsender's.
    """
    dsn, location = _pgbench_database(server, 1), str(folder / "lake")
    slot = capture_once(dsn, location).slot
    seconds, runs = (20, 3) if scale >= 1 else (2, 1)
    ours: list[float] = []
    theirs: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as left_open:
        reference = new_slot(conn)
        left_open.execute("SELECT pg_current_xact_id()")
        with draining(server, dsn, reference, slot), capturing(dsn, location) as running:
            running.reach(current_lsn(conn))
            for _ in range(runs):
                before = _cpu_by_reader(conn, reference)
                pgbench(server, dsn, "-n", "-c", "4", "-R", "500", "-T", str(seconds))
                running.reach(current_lsn(conn))
                after = _cpu_by_reader(conn, reference)
                ours.append(after[0] - before[0])
                theirs.append(max(after[1] - before[1], 0.01))
                progress(f"{ours[-1]:.2f} CPU seconds, pg_recvlogical {theirs[-1]:.2f}")
        _until_free(conn, reference)
    drop_slots(dsn, (reference,))
    note = f"pgbench at 500 transactions/s, {runs} times {seconds} s, one transaction left open"
    return [figure("source_cpu", ours, "s", reference=theirs, aim=1.1, note=note)]


def _cpu_by_reader(conn: psycopg.Connection, reference: str) -> tuple[float, float]:
    """CPU seconds so far of our backends, and of the walsender of the slot to compare with."""
    ours = conn.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'claimhouse' AND datname = current_database()"
    ).fetchall()
    theirs = conn.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (reference,)).fetchall()
    return cpu_seconds(*(pid for (pid,) in ours)), cpu_seconds(*(pid for (pid,) in theirs))


def source_impact(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """pgbench's rate and p99 with a capture, and with ten heavy queries on the lake or on PostgreSQL / alone.

    Server and pgbench have one core; the capture and the queries on the lake have another. In the same rounds
    pg_recvlogical to /dev/null in the capture's stead: what logical decoding itself takes.
    """
    dsn, location = _pgbench_database(server, 10 if scale >= 1 else 1), str(folder / "lake")
    slot = capture_once(dsn, location).slot
    seconds, rounds = (15, 3) if scale >= 1 else (1, 1)
    found: dict[str, list[tuple[float, float]]] = {}
    asked: dict[str, list[int]] = {}

    def measure(name: str) -> None:
        found.setdefault(name, []).append(_pgbench(server, dsn, folder, seconds))
        progress("{}: {:.0f} transactions/s, p99 {:.1f} ms".format(name, *found[name][-1]))

    def measure_beside(name: str, ask: Callable[..., None], where: str, core: int | None) -> None:
        with _asking(ask, where, core) as count:
            measure(name)
        asked.setdefault(name, []).append(count())

    with cores_apart(server) as (core, other), psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(rounds):
            measure("alone")
            measure_beside("queries_on_postgres", _ask_postgres, dsn, core)
            reference = new_slot(conn)
            with draining(server, dsn, reference, slot, core=other):
                _until_read(conn, reference)
                measure("recvlogical")
            _until_free(conn, reference)
            drop_slots(dsn, (reference,))
            with capturing(dsn, location, core=other) as running:
                _caught_up(running, conn)
                measure("capture")
                _caught_up(running, conn)
                measure_beside("queries_on_lake", _ask_lake, location, other)
    figures: list[Figure] = []
    for name in ("recvlogical", "capture", "queries_on_lake", "queries_on_postgres"):
        beside = f", {sum(asked[name])} answered in {rounds * seconds} s" if name in asked else ""
        note = f"{rounds} times {seconds} s, 4 clients" + beside
        for place, (label, unit) in enumerate((("tps", "1/s"), ("p99", "ms"))):
            runs, alone = ([r[place] for r in found[n]] for n in (name, "alone"))
            aim = 0.9 if (name, label) == ("capture", "tps") else None
            title = f"source_impact_{name}_{label}"
            figures.append(figure(title, runs, unit, reference=alone, aim=aim, at_least=True, note=note))
    return figures


def _pgbench_database(server: Embedded, scale: int) -> str:
    dsn = database(server)
    pgbench(server, dsn, "-i", "-s", str(scale), "-q")
    return dsn


def _pgbench(server: Embedded, dsn: str, folder: Path, seconds: int) -> tuple[float, float]:
    """(transactions a second, p99 in ms) of as many as go."""
    for old in folder.glob("log.*"):
        old.unlink()
    pgbench(server, dsn, "-n", "-c", "4", "-T", str(seconds), "-l", "--log-prefix", "log", folder=folder)
    logs = [np.loadtxt(log, usecols=2, ndmin=1) for log in folder.glob("log.*")]
    micros = np.concatenate(logs)
    return len(micros) / seconds, float(np.percentile(micros, 99)) / 1000


def _caught_up(running: Running, conn: psycopg.Connection) -> None:
    running.reach(current_lsn(conn))


def _until_read(conn: psycopg.Connection, slot: str) -> None:
    """Returns once somebody reads a slot."""
    while not _is_read(conn, slot):
        time.sleep(0.05)


def _until_free(conn: psycopg.Connection, slot: str) -> None:
    """Returns once nobody reads a slot any more."""
    while _is_read(conn, slot):
        time.sleep(0.05)


def _is_read(conn: psycopg.Connection, slot: str) -> bool:
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    return conn.execute(active, (slot,)).fetchall() == [(True,)]


@contextmanager
def _asking(ask: Callable[..., None], where: str, core: int | None) -> Iterator[Callable[[], int]]:
    """Ten that ask the heavy query again and again, in a process of their own; gives how many were answered."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(ask, where, core, theirs), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(120):
        raise RuntimeError("the queries did not begin")
    ours.recv()
    answered: list[int] = []
    yield lambda: answered[0]
    ours.send("stop")
    answered.append(ours.recv())
    process.join(60)


def _ask(ask: Callable[..., None], where: str, core: int | None, pipe: Any) -> None:
    pin(core)
    answered, stop = [0] * QUERIES, threading.Event()
    ready = threading.Barrier(QUERIES + 1)
    threads = [threading.Thread(target=ask, args=(where, n, answered, ready, stop)) for n in range(QUERIES)]
    for thread in threads:
        thread.start()
    ready.wait(100)
    pipe.send("ready")
    pipe.recv()
    stop.set()
    for thread in threads:
        thread.join()
    pipe.send(sum(answered))


def _ask_lake(location: str, place: int, answered: list[int], ready: threading.Barrier, stop: threading.Event) -> None:
    with claimhouse.open(location) as lake:
        ready.wait(100)
        while not stop.is_set():
            lake.refresh()
            lake.sql(HEAVY).arrow()
            answered[place] += 1


def _ask_postgres(dsn: str, place: int, answered: list[int], ready: threading.Barrier, stop: threading.Event) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        ready.wait(100)
        while not stop.is_set():
            conn.execute(HEAVY).fetchall()
            answered[place] += 1
