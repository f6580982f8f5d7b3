"""What it costs to keep a mart at the newest cut."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import psycopg

from bench.capturing import capture_once, capturing
from bench.figure import Figure, figure
from bench.source import database
from claimhouse import marts
from claimhouse.claims import load
from claimhouse.lake.lake import open_lake
from claimhouse.lake.tail import cut_numbers
from claimhouse.postgres.embedded import Embedded


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
        with capturing(dsn, location, flush_interval=3600.0) as running, psycopg.connect(dsn) as conn:
            running.settle()
            follower = marts.MartFollower(lake, model)
            book = follower.mart.table().num_rows
            whole: list[float] = []
            for _ in range(5):
                began = time.perf_counter()
                follower.mart.rebuild(follower.mirror.connection)
                whole.append((time.perf_counter() - began) * 1000)
            for claims in (1, 10, 100):
                runs: list[float] = []
                for _ in range(2 if scale < 1 else 15):
                    changed = conn.execute(
                        "UPDATE reserve_txn SET amount = amount + 1 WHERE reserve_txn_id IN (SELECT min(reserve_txn_id)"
                        " FROM reserve_txn GROUP BY claim_id ORDER BY random() LIMIT %s)",
                        (claims,),
                    ).rowcount
                    conn.commit()
                    running.next_cut(changed)
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
