"""From the stream to a cut, and to a reader: how soon, how fast, and what the decoder alone can do."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

import claimhouse
from bench.capturing import capture_once, capturing, context, cut_at
from bench.figure import Figure, figure, progress
from bench.machine import Stopwatch, cores_apart, pin
from bench.source import WIDE, database, drain_slot, drop_slots, fill_wide, new_slot, update_wide
from claimhouse.claims import Simulator, load
from claimhouse.postgres import catalog
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.frames import Raw
from claimhouse.postgres.pgoutput import Decoder
from claimhouse.postgres.server import Xids, current_lsn
from claimhouse.postgres.stream import Stream


def cut_ms_by_tables(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Milliseconds from decoded rows to a durable cut, by the number of tables that one transaction touches."""
    dsn = database(server)
    tables = 200 if scale >= 1 else 20
    with psycopg.connect(dsn, autocommit=True) as conn:
        for n in range(tables):
            conn.execute(
                f"CREATE TABLE t{n} (id bigserial PRIMARY KEY, a int, b text, c numeric(12,2), d timestamptz)".encode()
            )
    found: list[Figure] = []
    location = str(folder / "lake")
    with capturing(dsn, location, flush_interval=3600.0) as running, psycopg.connect(dsn) as conn:
        running.copied(tables)
        running.settle()
        for touched in [n for n in (1, 5, 20, 200) if n <= tables]:
            runs: list[float] = []
            for _ in range(30 if scale >= 1 else 8):
                for n in range(touched):
                    conn.execute(f"INSERT INTO t{n} (a, b, c, d) VALUES (1, 'some text', 2.5, now())".encode())
                conn.commit()
                runs.append(running.next_cut(touched)["seconds"] * 1000)
            found.append(figure(f"cut_ms_by_tables_{touched}", runs, "ms", note="one row a table"))
    return found


def latency(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Commit → visible to a query in another process, beside the demo book's load on all its tables.

    The server and the simulator have one core, the capture and the reader another.
    """
    dsn = database(server)
    load(dsn, scale=1.0 if scale >= 1 else 0.05, seed=7)
    seconds, rate = (60, 500) if scale >= 1 else (3, 200)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE probe (id bigint PRIMARY KEY)")
    location = str(folder / "lake")
    capture_once(dsn, location)
    stop = threading.Event()
    ours, theirs = context.Pipe()
    with cores_apart(server) as (core, other), capturing(dsn, location, core=other):
        simulator = threading.Thread(target=lambda: Simulator(dsn, rate=rate, seed=11).run(stop=stop))
        simulator.start()
        reader = context.Process(target=_watch, args=(location, other, theirs), daemon=True)
        reader.start()
        ours.recv()
        progress(f"probing for {seconds} s at {rate} transactions/s")
        committed: dict[int, float] = {}
        with psycopg.connect(dsn, autocommit=True) as conn:
            began = time.monotonic()
            number = 0
            while time.monotonic() - began < seconds:
                number += 1
                conn.execute("INSERT INTO probe VALUES (%s)", (number,))
                committed[number] = time.time()
                time.sleep(0.05)
        time.sleep(min(2, seconds / 3))
        stop.set()
        simulator.join()
        ours.send("stop")
        seen: dict[int, float] = ours.recv()
        reader.join(10)
    waits = sorted((seen[n] - at) * 1000 for n, at in committed.items() if n in seen)
    lost = len(committed) - len(waits)
    note = f"{len(waits)} probes, {rate} transactions/s, {seconds} s" + (f", {lost} never seen" if lost else "")
    note += "; simulator and server on one core, capture and reader on another" if core is not None else ""
    return [
        figure("latency_p50_ms", [statistics.median(waits)], "ms", aim=50, note=note),
        figure("latency_p99_ms", [waits[int(len(waits) * 0.99)]], "ms", aim=150, note=note),
    ]


def _watch(location: str, core: int | None, pipe: Any) -> None:
    """Asks again and again, in a process of its own, which probes are there; tells when each was first seen."""
    pin(core)
    seen: dict[int, float] = {}
    newest = 0
    with claimhouse.open(location) as lake:
        lake.sql("SELECT max(id) FROM probe").arrow()
        pipe.send("ready")
        while not pipe.poll():
            lake.refresh()
            found = lake.sql(f"SELECT id FROM probe WHERE id > {newest}").arrow().column("id").to_pylist()
            at = time.time()
            for number in found:
                seen[number] = at
                newest = max(newest, number)
            time.sleep(0.002)
    pipe.send(seen)


def backlog_to_cut(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """A backlog (one big transaction of inserts, many small updates) to a durable cut / pg_recvlogical to /dev/null.

    At the server's defaults, and with logical_decoding_work_mem at 1 GB for both, where nothing is spilled.
    """
    inserts, updates = int(1_000_000 * scale), int(200_000 * scale)
    note = f"{inserts} inserts in one transaction, {updates} update transactions"
    figures: list[Figure] = []
    for name, memory, aim in (("backlog_to_cut", None, 0.67), ("backlog_to_cut_1GB", "1GB", None)):
        runs = [
            _backlog(server, folder / f"{name}{run}", inserts, updates, memory) for run in range(3 if scale >= 1 else 1)
        ]
        ours, theirs = zip(*runs, strict=True)
        more = f", logical_decoding_work_mem={memory}" if memory else ""
        figures.append(figure(name, ours, "s", reference=theirs, aim=aim, note=note + more))
    return figures


def _backlog(server: Embedded, folder: Path, inserts: int, updates: int, memory: str | None) -> tuple[float, float]:
    """Seconds that we take for one backlog, and that pg_recvlogical takes."""
    folder.mkdir()
    dsn, location = database(server), str(folder / "lake")
    with psycopg.connect(dsn, autocommit=True) as conn:
        if memory:
            conn.execute(f"ALTER DATABASE {conn.info.dbname} SET logical_decoding_work_mem = '{memory}'".encode())
        conn.execute(WIDE)
        first = capture_once(dsn, location)
        reference = new_slot(conn)
        fill_wide(conn, inserts)
        update_wide(server, dsn, folder, inserts, updates)
        end = current_lsn(conn)
    began = time.monotonic()
    ours = cut_at(dsn, location, end) - began
    began = time.monotonic()
    drain_slot(server, dsn, reference, first.slot, end)
    theirs = time.monotonic() - began
    progress(f"{memory or 'defaults'}: {ours:.1f} s, pg_recvlogical {theirs:.1f} s")
    drop_slots(dsn, (reference, first.slot))
    return ours, theirs


def decode(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Rows per CPU second of the decoder alone, over rows of eleven mixed columns that the server has sent before."""
    rows = int(1_000_000 * scale)
    dsn = database(server)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(WIDE)
        conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        slot = new_slot(conn)
        for begun in range(0, rows, 1000):
            conn.execute(
                "INSERT INTO wide SELECT g, g %% 1000, g * 7, 'text of row ' || g, g / 100.0, now(), '2026-01-01',"
                " g %% 2 = 0, g / 3.0, gen_random_uuid(), 'varchar ' || g FROM generate_series(%s::int, %s::int) g",
                (begun, begun + 999),
            )
        conn.execute("UPDATE wide SET a = a + 1 WHERE id % 10 = 0")
        end = current_lsn(conn)
        raws: list[Raw] = []
        with Stream(dsn, slot, ["everything"]) as stream:
            while not raws or raws[-1].wal_end < end or len(raws[-1]):
                raws.append(stream.read(1.0))
        progress(f"{sum(len(r.buffer) for r in raws) >> 20} MiB received")
        runs: list[float] = []
        for _ in range(5 if scale >= 1 else 2):
            decoder = Decoder(lambda relation, lsn: catalog.describe(conn, relation.oid, source="main"), Xids.of(conn))
            watch = Stopwatch()
            found = sum(c.batch.num_rows for raw in raws for d in decoder.feed(raw) for c in d.changes)
            runs.append(found / watch.cpu)
            if found != rows + rows // 10:
                raise RuntimeError(f"{rows + rows // 10} rows were sent, {found} were decoded")
    drop_slots(dsn, (slot,))
    note = f"{rows} inserts, 1,000 a transaction, and one transaction of {rows // 10} updates"
    return [figure("decode", runs, "rows/s", note=note)]
