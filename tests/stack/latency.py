"""Commit → visible in Trino, at 50 transactions a second: `python -m tests.stack.latency [SECONDS [RATE]]`.

A transaction's latency is the time from its commit to the end of the first query that shows it, so Trino's own time and
the pause between two queries count. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import psycopg

from claimhouse.distributed.native import Stack
from claimhouse.distributed.topology import Topology


def measure(stack: Stack, seconds: float, rate: float) -> dict[str, float | int]:
    """Percentiles of the latency, in seconds."""
    committed: dict[int, float] = {}
    seen: dict[int, float] = {}
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(stack.admin_dsn, autocommit=True) as conn:
            began, number = time.monotonic(), 0
            while not stop.is_set():
                number += 1
                with conn.transaction():
                    conn.execute("INSERT INTO pulse VALUES (%s, now())", (number,))
                    conn.execute("UPDATE pulse_total SET n = %s", (number,))
                committed[number] = time.monotonic()
                time.sleep(max(0.0, began + number / rate - time.monotonic()))

    writer = threading.Thread(target=write)
    writer.start()
    began = time.monotonic()
    shown, torn = 0, 0
    sql = "SELECT (SELECT max(id) FROM main__public.pulse), (SELECT max(n) FROM main__public.pulse_total)"
    while time.monotonic() - began < seconds or (shown < len(committed) and time.monotonic() - began < seconds + 60):
        if time.monotonic() - began >= seconds:
            stop.set()
        newest, total = stack.trino.run(sql)[0]
        now = time.monotonic()
        torn += newest != total and newest is not None
        for number in range(shown + 1, (newest or 0) + 1):
            seen[number] = now - committed[number] if number in committed else 0.0
        shown = max(shown, newest or 0)
    stop.set()
    writer.join()
    waits = sorted(seen.values())
    place = lambda share: round(waits[min(len(waits) - 1, int(share * len(waits)))], 2)  # noqa: E731
    return {"transactions": len(waits), "p50": place(0.5), "p95": place(0.95), "max": place(1.0), "torn": torn}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 50.0
    stack = Stack.create(Path("/var/tmp/claimhouse-latency"), Topology(), say=lambda text: print(text, file=sys.stderr))
    try:
        stack.up(["postgres", "kafka", "s3", "glue", "connect", "trino"])
        with psycopg.connect(stack.admin_dsn) as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS pulse (id int PRIMARY KEY, at timestamptz)")
            conn.execute("CREATE TABLE IF NOT EXISTS pulse_total (k int PRIMARY KEY, n int)")
            conn.execute("INSERT INTO pulse_total VALUES (1, 0) ON CONFLICT DO NOTHING")
        stack.up(["spark"])
        while len(stack.trino.run("SHOW SCHEMAS LIKE 'main!_!_public' ESCAPE '!'")) < 1:
            time.sleep(1)
        while len(stack.trino.run("SHOW TABLES FROM main__public")) < 2:
            time.sleep(1)
        print(json.dumps({"bench": "commit_to_trino", "rate": rate, **measure(stack, seconds, rate)}))
    finally:
        stack.down()
        stack.forget()


if __name__ == "__main__":
    main()
