"""The figures, each a function of (server, scratch folder, scale): what part 1 promises, on real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import secrets
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

import claimhouse
from bench.capturing import capture_once, capturing
from bench.figure import Figure, figure
from claimhouse import marts
from claimhouse.claims import Simulator, load
from claimhouse.lake.lake import open_lake
from claimhouse.lake.tail import cut_numbers
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.server import current_lsn

_context = multiprocessing.get_context("spawn")


def database(server: Embedded) -> str:
    """A fresh database's DSN."""
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    return make_conninfo(server.dsn, dbname=name)


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
    with capturing(dsn, str(folder / "lake"), flush_interval=3600.0) as events, psycopg.connect(dsn) as conn:
        _settle(events)
        for touched in [n for n in (1, 5, 20, 200) if n <= tables]:
            runs: list[float] = []
            for _ in range(30 if scale >= 1 else 8):
                for n in range(touched):
                    conn.execute(f"INSERT INTO t{n} (a, b, c, d) VALUES (1, 'some text', 2.5, now())".encode())
                conn.commit()
                runs.append(_next_cut(events, touched)["seconds"] * 1000)
            found.append(figure(f"cut_ms_by_tables_{touched}", runs, "ms", note="one row a table"))
    return found


def latency(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Commit → visible to a query in another process, beside the demo book's load on all its tables."""
    dsn = database(server)
    load(dsn, scale=1.0 if scale >= 1 else 0.1, seed=7)
    seconds, rate = (60, 500) if scale >= 1 else (8, 200)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE probe (id bigint PRIMARY KEY)")
    location = str(folder / "lake")
    capture_once(dsn, location)
    stop = threading.Event()
    simulator = threading.Thread(target=lambda: Simulator(dsn, rate=rate, seed=11).run(stop=stop))
    ours, theirs = _context.Pipe()
    with capturing(dsn, location) as events:
        drain = threading.Thread(target=_drain, args=(events,), daemon=True)
        drain.start()
        simulator.start()
        reader = _context.Process(target=_watch, args=(location, theirs), daemon=True)
        reader.start()
        ours.recv()
        committed: dict[int, float] = {}
        with psycopg.connect(dsn, autocommit=True) as conn:
            began = time.monotonic()
            number = 0
            while time.monotonic() - began < seconds:
                number += 1
                conn.execute("INSERT INTO probe VALUES (%s)", (number,))
                committed[number] = time.time()
                time.sleep(0.05)
        time.sleep(2)
        stop.set()
        simulator.join()
        ours.send("stop")
        seen: dict[int, float] = ours.recv()
        reader.join(10)
    waits = sorted((seen[n] - at) * 1000 for n, at in committed.items() if n in seen)
    lost = len(committed) - len(waits)
    note = f"{len(waits)} probes, {rate} transactions/s, {seconds} s" + (f", {lost} never seen" if lost else "")
    return [
        figure("latency_p50_ms", [statistics.median(waits)], "ms", aim=50, note=note),
        figure("latency_p99_ms", [waits[int(len(waits) * 0.99)]], "ms", aim=150, note=note),
    ]


def backlog_to_cut(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """A backlog (one big transaction of inserts, many small updates) to a durable cut / pg_recvlogical to /dev/null."""
    inserts, updates = int(1_000_000 * scale), int(200_000 * scale)
    ours: list[float] = []
    theirs: list[float] = []
    for run in range(3 if scale >= 1 else 1):
        dsn = database(server)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "CREATE TABLE wide (id bigint PRIMARY KEY, a int, b bigint, c text, d numeric(12,2), e timestamptz,"
                " f date, g boolean, h float8, i uuid, j varchar(40))"
            )
            location = str(folder / f"lake{run}")
            first = capture_once(dsn, location)
            reference = f"reference_{secrets.token_hex(4)}"
            conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (reference,))
            conn.execute(
                "INSERT INTO wide SELECT g, g %% 1000, g * 7, 'text of row ' || g, g / 100.0, now(), date '2026-01-01',"
                " g %% 2 = 0, g / 3.0, gen_random_uuid(), 'varchar ' || g FROM generate_series(1, %s) g",
                (inserts,),
            )
        _small_updates(dsn, server, inserts, updates, folder)
        with psycopg.connect(dsn, autocommit=True) as conn:
            end = current_lsn(conn)
        began = time.monotonic()
        reached = _time_to(dsn, location, end)
        ours.append(reached - began)
        began = time.monotonic()
        _recvlogical(server, dsn, reference, first.slot, end)
        theirs.append(time.monotonic() - began)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_drop_replication_slot(%s)", (reference,))
            conn.execute("SELECT pg_drop_replication_slot(%s)", (first.slot,))
    note = f"{inserts} inserts in one transaction, {updates} update transactions"
    return [figure("backlog_to_cut", ours, "s", reference=theirs, aim=0.67, note=note)]


def now_over_plain(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """A sum over a table with 1,000 changed rows in the tail / the same over the folded table."""
    rows = int(2_000_000 * scale)
    dsn, location = database(server), str(folder / "lake")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE big (id bigint PRIMARY KEY, amount numeric(12,2), note text)")
        conn.execute("INSERT INTO big SELECT g, g / 100.0, 'note ' || g FROM generate_series(1, %s) g", (rows,))
        capture_once(dsn, location)
        plain = _query_times(location, "SELECT sum(amount) FROM big")
        conn.execute("UPDATE big SET amount = amount + 1 WHERE id %% %s = 0", (max(1, rows // 1000),))
        capture_once(dsn, location)
    changed = _query_times(location, "SELECT sum(amount) FROM big")
    pairs = min(len(plain), len(changed))
    note = f"{rows} rows, 1,000 changed"
    return [figure("now_over_plain", changed[:pairs], "ms", reference=plain[:pairs], aim=1.5, note=note)]


def mart_refresh_ms(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """Milliseconds from a cut to a mart that holds it, by the claims that it changed, on a small and a large book.

    The reference is the same mart computed from all of the book.
    """
    model, found = marts.load("demo"), []
    for size, name in ((0.5, "small"), (4.0, "large")) if scale >= 1 else ((0.02, "small"), (0.06, "large")):
        dsn, location = database(server), str(folder / name)
        load(dsn, scale=size, seed=7)
        capture_once(dsn, location)
        lake = open_lake(location)
        with capturing(dsn, location, flush_interval=3600.0) as events, psycopg.connect(dsn) as conn:
            _settle(events)
            follower = marts.MartFollower(lake, model)
            book = follower.mart.table().num_rows
            whole: list[float] = []
            for _ in range(5):
                began = time.perf_counter()
                follower.mart.rebuild(follower.mirror.connection)
                whole.append((time.perf_counter() - began) * 1000)
            for claims in (1, 10, 100):
                runs: list[float] = []
                for _ in range(5 if scale < 1 else 15):
                    changed = conn.execute(
                        "UPDATE reserve_txn SET reason = reason WHERE reserve_txn_id IN (SELECT min(reserve_txn_id)"
                        " FROM reserve_txn GROUP BY claim_id ORDER BY random() LIMIT %s)",
                        (claims,),
                    ).rowcount
                    conn.commit()
                    _next_cut(events, changed)
                    began = time.perf_counter()
                    touched = follower.step(cut_numbers(lake, follower.moment.source)[-1])
                    runs.append((time.perf_counter() - began) * 1000)
                    if touched != changed:
                        raise RuntimeError(f"{changed} claims changed, {touched} were computed")
                reference = [statistics.median(whole)] * len(runs)
                note = f"{claims} of {book} claims"
                found.append(figure(f"mart_refresh_ms_{claims}_{name}", runs, "ms", reference=reference, note=note))
            follower.close()
    return found


CASES = {f.__name__: f for f in (cut_ms_by_tables, latency, backlog_to_cut, now_over_plain, mart_refresh_ms)}


def _settle(events: Any) -> None:
    """Waits until copies are done and the stream is quiet."""
    while events.poll(3.0):
        events.recv()


def _next_cut(events: Any, rows: int) -> dict[str, Any]:
    while True:
        kind, fields, _ = events.recv()
        if kind == "cut" and fields["rows"] >= rows:
            return fields


def _drain(events: Any) -> None:
    try:
        while True:
            events.recv()
    except (EOFError, OSError):
        return


def _watch(location: str, pipe: Any) -> None:
    """Asks again and again, in a process of its own, which probes are there; tells when each was first seen."""
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


def _time_to(dsn: str, location: str, end: int) -> float:
    """The moment at which a durable cut holds everything up to `end`."""
    reached: list[float] = []
    stop = threading.Event()

    def tell(kind: str, fields: dict[str, Any]) -> None:
        if kind == "cut" and fields["end_lsn"] >= end and not reached:
            reached.append(time.monotonic())
            stop.set()

    Capture(CaptureOptions("main", dsn, location, flush_interval=3600.0), on_event=tell).run(stop)
    return reached[0]


def _small_updates(dsn: str, server: Embedded, rows: int, updates: int, folder: Path) -> None:
    script = folder / "update.sql"
    script.write_text(f"\\set id random(1, {rows})\nUPDATE wide SET a = a + 1, d = d + 1 WHERE id = :id;\n")
    clients = 4
    subprocess.run(
        [
            str(server.programs / "pgbench"),
            "-n",
            "-f",
            str(script),
            "-c",
            str(clients),
            "-t",
            str(updates // clients),
            dsn,
        ],
        check=True,
        capture_output=True,
    )


def _recvlogical(server: Embedded, dsn: str, slot: str, publication: str, end: int) -> None:
    subprocess.run(
        [
            str(server.programs / "pg_recvlogical"),
            "-d",
            dsn,
            "-S",
            slot,
            "--start",
            "-f",
            "/dev/null",
            "-o",
            "proto_version=1",
            "-o",
            f"publication_names={publication}",
            "--endpos",
            f"{end >> 32:X}/{end & 0xFFFFFFFF:X}",
            "--no-loop",
        ],
        check=True,
        capture_output=True,
    )


def _query_times(location: str, text: str) -> list[float]:
    times: list[float] = []
    with claimhouse.open(location) as lake:
        lake.sql(text).arrow()
        for _ in range(9):
            began = time.perf_counter()
            lake.sql(text).arrow()
            times.append((time.perf_counter() - began) * 1000)
    return times
