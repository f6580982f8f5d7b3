"""Commit → visible in Trino, on the demo book lived at 50 transactions a second:

    python -m tests.stack.latency [SECONDS [RATE]]

A transaction's latency is the time from its commit, by the server's clock, to the end of the first query over two views
that shows it or a later one: Trino's own time and the pause between two queries count. Every transaction of the run
counts. Prints one JSON line, which also tells where the time goes: `cut` from commit to the cut that holds it (of each
batch its newest), `batch` and `append` of a micro-batch, `query` of a reader's query.
"""

from __future__ import annotations

import bisect
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from claimhouse.claims import Simulator
from claimhouse.distributed.native import Stack
from claimhouse.distributed.topology import Topology, s3_options
from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS, open_lake

VIEWS = ("claim", "activity")
VISIBLE = " UNION ALL ".join(f"SELECT max(_end_lsn) AS at FROM main__public.{name}" for name in VIEWS)
WARM = 20.0  # seconds of the run that do not count: the engines compile


def measure(stack: Stack, seconds: float, rate: float) -> dict[str, Any]:
    """Percentiles of the latency and of its parts, in seconds."""
    stop = threading.Event()
    book = Simulator(stack.admin_dsn, rate, change_after=None)
    writer = threading.Thread(target=book.run, kwargs={"duration": seconds + WARM})
    batches: dict[int, dict[str, float]] = {}
    watcher = threading.Thread(target=_watch, args=(stack.folder / "run" / "job.json", batches, stop))
    began = time.time()
    writer.start()
    watcher.start()
    seen: list[tuple[int, float]] = []  # (position that a query showed, when it had answered)
    queries: list[float] = []
    idle = None
    while True:
        asked = time.time()
        newest = stack.trino.run(f"SELECT max(at) FROM ({VISIBLE})")[0][0] or 0
        answered = time.time()
        if answered > began + WARM:
            queries.append(answered - asked)
        if not seen or newest > seen[-1][0]:
            seen.append((newest, answered))
            idle = None
        elif not writer.is_alive():
            idle = idle or answered
            if answered - idle > 15:
                break
    stop.set()
    watcher.join()
    waits = _waits(stack, began + WARM, seen)
    return {
        "transactions": len(waits),
        **_spread("", waits),
        **{k: v for part in ("lag", "seconds", "appended") for k, v in _parts(part, batches, began + WARM).items()},
        **_spread("query_", queries),
        "load": os.getloadavg()[0],
    }


def _waits(stack: Stack, since: float, seen: list[tuple[int, float]]) -> list[float]:
    """Of each transaction committed since then, how long until a query showed it."""
    lake = open_lake(stack.topology.lake, s3_options(stack.topology, stack.secrets))
    shown = [lsn for lsn, _ in seen]
    deadline = time.time() + 240
    while True:
        table = delta.open_table(lake, TRANSACTIONS)
        assert table is not None
        rows = table.to_pyarrow_dataset().to_table(["end_lsn", "committed_at"]).to_pylist()
        if max(r["end_lsn"] for r in rows) >= shown[-1]:
            break
        assert time.time() < deadline, "the last transactions were not flushed"
        time.sleep(2)
    waits: list[float] = []
    for row in rows:
        committed = row["committed_at"].timestamp()
        place = bisect.bisect_left(shown, row["end_lsn"])
        if committed >= since and place < len(seen):
            waits.append(seen[place][1] - committed)
    return waits


def _watch(job: Path, batches: dict[int, dict[str, float]], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        told = json.loads(job.read_text()).get("streaming")
        if told:
            batches[told["batch"]] = told


def _parts(part: str, batches: dict[int, dict[str, float]], since: float) -> dict[str, float]:
    names = {"lag": "cut_", "seconds": "batch_", "appended": "append_"}
    return _spread(names[part], [b[part] for b in batches.values() if b["cut_at"] > since])


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0} if ordered else {}
    return {name + k: round(ordered[min(len(ordered) - 1, int(s * len(ordered)))], 2) for k, s in shares.items()}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 50.0
    kept = os.environ.get("CLAIMHOUSE_BENCH_STACK")  # a folder: the stack is kept there, and kept running
    folder = Path(kept or f"/var/tmp/claimhouse-latency-{os.getpid()}")
    stack = Stack.create(folder, Topology(), say=lambda text: print(text, file=sys.stderr))
    try:
        stack.up(["postgres", "kafka", "s3", "glue", "connect", "trino"])
        stack.load_book(0.1)
        stack.up(["spark"])
        while len(stack.trino.run("SHOW SCHEMAS LIKE 'main!_!_public' ESCAPE '!'")) < 1:
            time.sleep(1)
        while not {(name,) for name in VIEWS} <= set(stack.trino.run("SHOW TABLES FROM main__public")):
            time.sleep(1)
        print(json.dumps({"bench": "commit_to_trino", "rate": rate, **measure(stack, seconds, rate)}))
    finally:
        if not kept:
            stack.down()
            stack.forget()


if __name__ == "__main__":
    main()
