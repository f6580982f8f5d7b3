"""What a change costs by the size of the table that it is in, its share of the fold included."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psycopg

from bench.capturing import capture_once, capturing, in_process
from bench.figure import Figure, figure, progress
from bench.machine import Stopwatch, cpu_seconds, peak_mib
from bench.source import database
from claimhouse.lake import current
from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.server import current_lsn

BATCH = 1000


@dataclass(slots=True)
class BigLake:
    """A captured and folded table `big` of so many rows, in a database of its own; `changed` of them since its fold."""

    dsn: str
    location: str
    rows: int
    changed: int = 0

    @property
    def due(self) -> int:
        """How many changed rows make a fold due."""
        return max(current.FLOOR, int(current.SHARE * self.rows))

    def change_to(self, changed: int) -> BigLake:
        """Has so many rows changed since the fold, spread over the table, and in the flushed log."""
        if changed < self.changed:
            self.fold()
        if changed > self.changed:
            self._update(changed - self.changed)
            capture_once(self.dsn, self.location)
        self.changed = changed
        return self

    def _update(self, count: int) -> None:
        step = self.rows / count
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(
                "UPDATE big SET amount = amount + 1 WHERE id IN"
                " (SELECT floor(g * %s)::bigint + 1 FROM generate_series(0, %s) g)",
                (step, count - 1),
            )

    def fold(self) -> None:
        """As the capture itself does it, when it is due."""
        before = self._folded_at()
        if before is not None and not self.changed:
            return
        progress(f"folding {self.rows} rows")
        with capturing(self.dsn, self.location, flush_interval=0.2):
            # What a capture finds flushed it folds with the next flush.
            self._update(max(1, self.due - self.changed) if before is not None else 1)
            while self._folded_at() == before:
                time.sleep(0.1)
        self.changed = 0

    def _folded_at(self) -> int | None:
        """The version of `current` that readers get."""
        seen = take(open_lake(self.location), "main")
        return next(iter(seen.record.tables.values())).current if seen.record else None


@cache
def big_lake(server: Embedded, root: Path, rows: int) -> BigLake:
    """One for all figures of a sitting that need it."""
    progress(f"making a lake of {rows} rows")
    lake = BigLake(database(server), str(root / f"big_{rows}"), rows)
    with psycopg.connect(lake.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE big (id bigint PRIMARY KEY, amount numeric(12,2), note text)")
        conn.execute("INSERT INTO big SELECT g, g / 100.0, 'note ' || g FROM generate_series(1, %s) g", (rows,))
        conn.execute("VACUUM (ANALYZE) big")
    capture_once(lake.dsn, lake.location)
    lake.fold()
    return lake


def fold_in_process(location: str, first: bool, warm: bool) -> tuple[float, float]:
    """(CPU seconds of a fold of all tables as they are flushed, MiB at most). `first`: as if there had been none."""
    lake = open_lake(location)
    seen = take(lake, "main")
    record = seen.record
    if record is None:
        raise RuntimeError("nothing is flushed")
    if first:
        tables = {f: replace(t, current=None) for f, t in record.tables.items()}
        record = replace(record, tables=tables)
    if warm:
        current.fold(lake, "main", seen.registry, record, list(seen.registry.tables))
    watch = Stopwatch()
    current.fold(lake, "main", seen.registry, record, list(seen.registry.tables))
    return watch.cpu, peak_mib()


def batch_at_100x(server: Embedded, folder: Path, scale: float) -> list[Figure]:
    """CPU milliseconds of ours for a batch of 1,000 changed rows, on 10 M rows / on 100 k rows.

    Its cut and flush are measured as they go, five batches a second; of a fold that is just due, a batch bears as much
    as its share of the changed rows.
    """
    totals: list[float] = []
    notes: list[str] = []
    for rows in (int(100_000 * max(scale, 0.2)), int(10_000_000 * scale)):
        lake = big_lake(server, folder.parent, rows)
        cut = _cut_and_flush(lake, 18 if scale >= 1 else 4)
        lake.change_to(lake.due - 1)
        fold, _ = in_process(fold_in_process, lake.location, False, rows < 1_000_000)
        share = fold * 1000 / (lake.due / BATCH)
        totals.append(cut + share)
        notes.append(f"{rows} rows: {cut:.1f} ms cut and flush, {share:.1f} ms its share of a fold of {fold:.1f} s")
        progress(notes[-1])
    return [figure("batch_at_100x", totals[1:], "ms", reference=totals[:1], aim=1.3, note="; ".join(notes))]


def _cut_and_flush(lake: BigLake, batches: int) -> float:
    """CPU milliseconds of a running capture for each batch."""
    if lake.changed + (batches + 2) * BATCH >= lake.due:
        lake.change_to(0)
    chosen, pause = random.Random(5), 3.0 if batches > 10 else 0.2
    with capturing(lake.dsn, lake.location) as running, psycopg.connect(lake.dsn, autocommit=True) as conn:
        running.settle()
        spent = 0.0
        for number in range(batches + 1):
            if number == 1:  # the first warms up, and what an earlier capture left to join is joined
                time.sleep(pause)
                spent = -cpu_seconds(running.pid)
            began = time.monotonic()
            ids = chosen.sample(range(1, lake.rows + 1), BATCH)
            conn.execute("UPDATE big SET amount = amount + 1 WHERE id = ANY(%s)", (ids,))
            running.reach(current_lsn(conn))
            time.sleep(max(0.0, 0.2 - (time.monotonic() - began)))
        time.sleep(pause)  # the last are flushed as well
        spent += cpu_seconds(running.pid)
    lake.changed += (batches + 1) * BATCH
    return spent * 1000 / batches
