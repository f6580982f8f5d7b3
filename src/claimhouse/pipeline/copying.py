"""Copies and compares tables beside the stream: one thread, one short transaction after another, for the cutter.

The thread owns the order of a copy (fence, chunks, rows whose TOAST values came without, H); the cutter owns the
registry and everything that is written. Between them are two queues, of few large chunks and more small ones, so memory
stays bounded and a kill loses at most the chunks that no cut holds yet.

Small tables go together: one fence before them all, and one wait for the stream behind them; a thousand of them would
else wait a thousand times.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from claimhouse.change import Changes
from claimhouse.errors import ClaimhouseError
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import Copy
from claimhouse.lake.snapshot import LakeSnapshot, take
from claimhouse.pipeline.comparing import Corrections, TooMuch, comparing, differing
from claimhouse.postgres import snapshot
from claimhouse.postgres.server import current_lsn
from claimhouse.table import Table

KEYS_AT_ONCE = 500
TOGETHER_SECONDS = 1.0
SMALL_BLOCKS = 512
LARGE_BYTES = 1 << 20
COMPARED_AT_ONCE = 10_000  # keys that are read again in one snapshot
ROUNDS = 20  # of comparing rows again that the stream goes on touching

Keys = list[pa.Array]  # PostgreSQL's text, an array per key column


@dataclass(slots=True)
class Missing:
    """Keys of streamed rows of a table under copy whose unchanged TOAST values did not come along."""

    keys: dict[tuple[str, ...], int] = field(default_factory=dict)  # key texts -> newest end LSN
    rekeyed: dict[tuple[str, ...], int] = field(default_factory=dict)


@dataclass(slots=True)
class Job:
    """One table to copy: `table` is the shape to read, `copy` its number, P and how far an earlier run came. Or one to
    compare, where `comparison`, its number, is given."""

    folder: str
    table: Table
    copy: Copy = field(default_factory=lambda: Copy(0, 0, 0))
    missing: Missing = field(default_factory=Missing)  # begins with what an earlier run of this copy noted
    comparison: int = 0
    answers: queue.Queue[Keys | None] = field(default_factory=queue.Queue)  # to its corrections


@dataclass(slots=True)
class Step:
    """What a copy tells the cutter: rows, progress, and in the end H (`done`), an error, that it must start `anew`, or
    another P (`at`). With P and H comes the version of the table's shape that is read.

    Of a comparison: its number, that it begins (`begun`: changes are to be noted from here on; the cutter answers),
    progress, `corrections` (to each the cutter answers, with the keys that are to be compared again when they are a
    round's `last`), or that so much differs that the table is to be copied `whole`."""

    folder: str
    copy: int
    changes: Changes | None = None
    blocks: int = 0
    total: int = 0
    filenodes: str = ""
    sees: str | None = None
    done: int | None = None
    error: str | None = None
    anew: bool = False
    at: int | None = None
    version: int = 0
    comparison: int = 0
    rows: int = 0
    begun: bool = False
    corrections: Corrections | None = None
    last: bool = False
    whole: bool = False

    @property
    def large(self) -> bool:
        return self.changes is not None and self.changes.batch.nbytes > LARGE_BYTES


class GivenUp(Exception):
    """The cutter does not want a comparison any more, or the capture ends."""


class Copier(threading.Thread):
    """Runs copy jobs one after another until stopped. The cutter takes what it brings by `step`."""

    def __init__(
        self, lake: Lake, source: str, connect: Callable[[], psycopg.Connection], tell: Callable[[str], None]
    ) -> None:
        super().__init__(name="claimhouse-copier", daemon=True)
        self._lake, self._source = lake, source
        self._compared: dict[str, Job] = {}
        self._steps: queue.Queue[Step] = queue.Queue(maxsize=64)
        self._large = threading.Semaphore(2)
        self.failed: BaseException | None = None
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._connect = connect
        self._tell = tell
        self._halt = threading.Event()
        self._moved = threading.Condition()
        self._position = 0
        self._missing: dict[str, Missing] = {}
        self._busy = 0

    def add(self, job: Job) -> None:
        with self._moved:
            self._busy += 1
            if job.comparison:
                self._compared[job.folder] = job
            elif job.table.identity == "key":
                self._missing[job.folder] = job.missing
        self._jobs.put(job)

    def answer(self, folder: str, left: Keys | None) -> None:
        """To a comparison's corrections: the keys to compare again, None where it is given up or over."""
        self._compared[folder].answers.put(left)

    @property
    def idle(self) -> bool:
        return self._busy == 0 and self._steps.empty()

    @property
    def has_steps(self) -> bool:
        return not self._steps.empty()

    def step(self) -> Step | None:
        """What it brought next, None where nothing waits."""
        try:
            step = self._steps.get_nowait()
        except queue.Empty:
            return None
        if step.large:
            self._large.release()
        return step

    def watches(self, folder: str) -> bool:
        """Whether the cutter should report this table's rows with missing values."""
        return folder in self._missing

    def missing(self, folder: str, keys: list[tuple[str, ...]], rekeyed: list[tuple[str, ...]], lsn: int) -> None:
        with self._moved:
            noted = self._missing.get(folder)
            if noted is not None:
                noted.keys.update(dict.fromkeys(keys, lsn))
                noted.rekeyed.update(dict.fromkeys(rekeyed, lsn))

    def reached(self, lsn: int) -> None:
        """A durable cut holds everything up to this position."""
        with self._moved:
            self._position = lsn
            self._moved.notify_all()

    def stop(self) -> None:
        self._halt.set()
        with self._moved:
            self._moved.notify_all()

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                if jobs := self._waiting():
                    with self._connect() as conn:
                        self._copy(conn, jobs)
        except BaseException as error:  # handed to the cutter, which raises it
            self.failed = error

    def _ended(self, job: Job) -> None:
        with self._moved:
            # The cutter may have started the table again already: then what it watches belongs to that next copy.
            if self._missing.get(job.folder) is job.missing:
                del self._missing[job.folder]
            self._busy -= 1

    def _waiting(self) -> list[Job]:
        """All jobs that wait now; after a moment, none."""
        jobs: list[Job] = []
        try:
            jobs.append(self._jobs.get(timeout=0.2))
            while True:
                jobs.append(self._jobs.get_nowait())
        except queue.Empty:
            return jobs

    def _copy(self, conn: psycopg.Connection, jobs: list[Job]) -> None:
        self._fence(conn)
        self._stand_behind_fence(conn, [j for j in jobs if j.copy.unread])
        read: list[tuple[Job, int]] = []  # and the next `_seq`
        began = time.monotonic()
        for job in [j for j in jobs if not j.comparison]:
            if self._halt.is_set():
                return
            with self._trying(job):
                stored = snapshot.storage(conn, job.table.oid)
                large = stored.partitioned or stored.blocks > SMALL_BLOCKS
                if read and (large or time.monotonic() - began > TOGETHER_SECONDS):
                    self._fill(conn, read)
                    read, began = [], time.monotonic()
                if job.table.identity == "key":
                    read.append((job, self._copy_keyed(conn, job, stored.filenodes)))
                else:
                    self._copy_whole(conn, job)
                    self._ended(job)
        self._fill(conn, read)
        for job in [j for j in jobs if j.comparison]:
            with self._trying(job), self._connect() as own:  # a reading that is given up ends its connection
                self._compare(own, job)
                self._ended(job)

    @contextlib.contextmanager
    def _trying(self, job: Job) -> Iterator[None]:
        """Tells the cutter where a table cannot be copied, or must start again; the other ones go on."""
        try:
            yield
        except (snapshot.Moved, snapshot.Gone):
            # A rewrite moved the rows, or the shape is another one by now: the cutter starts it again.
            self._send(Step(job.folder, job.copy.number, anew=True, comparison=job.comparison))
            self._ended(job)
        except GivenUp:
            self._ended(job)
        except TooMuch:
            self._send(Step(job.folder, 0, whole=True, comparison=job.comparison))
            self._ended(job)
        except ClaimhouseError as error:
            if error.retry:
                raise
            self._send(Step(job.folder, job.copy.number, error=str(error), comparison=job.comparison))
            self._ended(job)

    def _fence(self, conn: psycopg.Connection) -> None:
        snapshot.fence(conn, self._halt.is_set, lambda who: self._tell(f"waiting for {who} to end before copying"))

    def _border(self, conn: psycopg.Connection) -> int:
        """A position that the lake holds, all commits up to which whoever reads from now on sees.

        A commit is in the WAL before others see it, with synchronous standbys long before.
        """
        border = current_lsn(conn)
        self._fence(conn)
        self._wait(border)
        return border

    def _stand_behind_fence(self, conn: psycopg.Connection, jobs: list[Job]) -> None:
        """Moves P behind the fence, for copies that follow another.

        A transaction that was open while the publication lacked the table brought its first and last changes, not those
        between: its changes must not count on top of what is read here, which holds them all. Once rows were read P
        stays: a change between would be lost on them.
        """
        if not jobs or self._halt.is_set():
            return
        border = self._border(conn)  # no row of a cut stands beyond the cut's end
        for job in jobs:
            job.copy.at = border
            self._send(Step(job.folder, job.copy.number, at=border, version=job.table.version))

    def _copy_keyed(self, conn: psycopg.Connection, job: Job, filenodes: str) -> int:
        """Reads a table chunk by chunk; the next `_seq`."""
        filenodes = job.copy.filenodes or filenodes
        seq = job.copy.rows
        for chunk in snapshot.read_chunks(
            conn,
            job.table,
            job.copy.number,
            job.copy.at,
            filenodes=filenodes,
            first_block=job.copy.blocks,
            first_seq=seq,
        ):
            seq += chunk.changes.batch.num_rows
            self._send(Step(job.folder, job.copy.number, chunk.changes, chunk.blocks, chunk.total, filenodes))
            if self._halt.is_set():
                break
        return seq

    def _fill(self, conn: psycopg.Connection, read: list[tuple[Job, int]]) -> None:
        """Reads rows whose TOAST values neither a chunk nor the stream brought, by key, until none is left."""
        taken_to, first = 0, True
        while read:
            border = current_lsn(conn)
            self._wait(border)
            if self._halt.is_set():
                return
            again: list[tuple[Job, int]] = []
            for job, seq in read:
                with self._trying(job):
                    keys = self._lacking(job, taken_to, first=first)
                    if keys:
                        again.append((job, self._read_keys(conn, job, seq, keys)))
                        continue
                    # H is the border itself: read after the last read, and every key changed up to it was looked at.
                    self._send(Step(job.folder, job.copy.number, done=border, version=job.table.version))
                    self._ended(job)
            taken_to, first, read = border, False, again

    def _lacking(self, job: Job, taken_to: int, *, first: bool) -> list[tuple[str, ...]]:
        with self._moved:
            wanted = job.missing.keys if first else job.missing.rekeyed
            return [key for key, lsn in wanted.items() if lsn > taken_to]

    def _read_keys(self, conn: psycopg.Connection, job: Job, seq: int, keys: list[tuple[str, ...]]) -> int:
        """Reads the rows with these keys; the next `_seq`."""
        for at in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[at : at + KEYS_AT_ONCE]
            for changes in snapshot.read_keys(conn, job.table, job.copy.number, job.copy.at, seq, some):
                seq += changes.batch.num_rows
                self._send(Step(job.folder, job.copy.number, changes, blocks=-1))
        return seq

    def _copy_whole(self, conn: psycopg.Connection, job: Job) -> None:
        sees = None
        for piece in snapshot.read_whole(conn, job.table, job.copy.number, job.copy.at):
            if isinstance(piece, str):
                sees = piece
            else:
                self._send(Step(job.folder, job.copy.number, piece, sees=sees))
            if self._halt.is_set():
                return
        done = current_lsn(conn)
        self._send(Step(job.folder, job.copy.number, sees=sees, done=done, version=job.table.version))

    def _compare(self, conn: psycopg.Connection, job: Job) -> None:
        """Finds what differs, until the cutter has nothing left to compare again. Raises TooMuch, GivenUp, Moved, Gone.

        What was read behind the fence and differs from the lake at any time since `border` either differs truly, or was
        touched by the stream between `border` and a position that is taken after the last read.
        """
        self._ask(job, Step(job.folder, 0, begun=True))
        self._fence(conn)
        border = self._border(conn)
        with comparing(self._lake) as db:
            found = self._differing(db, job, self._chunks(conn, job))
            assert found is not None
            left = self._ask(
                job, Step(job.folder, 0, corrections=Corrections(found, border, current_lsn(conn)), last=True)
            )
            for _ in range(ROUNDS):
                if not left or not len(left[0]):
                    return
                keys = list(dict.fromkeys(zip(*(texts.to_pylist() for texts in left), strict=True)))
                for at in range(0, len(keys), COMPARED_AT_ONCE):
                    some = keys[at : at + COMPARED_AT_ONCE]
                    corrections = self._compare_keys(conn, db, job, some)
                    last = at + len(some) == len(keys)
                    left = self._ask(job, Step(job.folder, 0, corrections=corrections, last=last))
            raise TooMuch

    def _compare_keys(
        self, conn: psycopg.Connection, db: duckdb.DuckDBPyConnection, job: Job, keys: list[tuple[str, ...]]
    ) -> Corrections:
        """What differs of the rows with these keys, both sides as one snapshot sees them."""
        asked = [pa.array([key[i] for key in keys], pa.string()) for i in range(len(job.table.key))]
        for _ in range(ROUNDS):
            sees, rows = snapshot.read_keys_at_once(conn, job.table, keys, KEYS_AT_ONCE)
            border = current_lsn(conn)
            self._wait(border)
            found = self._differing(db, job, rows, sees=sees, keys=asked)
            if found is not None:
                return Corrections(found, border, border, sees)
            if self._halt.wait(0.2):  # a fold holds what this snapshot did not see yet
                raise GivenUp
        raise TooMuch

    def _differing(
        self, db: duckdb.DuckDBPyConnection, job: Job, rows: Iterable[Changes], **which: Any
    ) -> Changes | None:
        try:
            return differing(db, self._view(job), job.table, rows, **which)
        except duckdb.Error:  # rows too wide for its memory; files that were swept in the hours that it took
            raise TooMuch from None

    def _view(self, job: Job) -> LakeSnapshot:
        """The newest view of the lake. Raises Gone where the table has another shape in it than is read."""
        view = take(self._lake, self._source)
        if view.registry.tables[job.folder].table.version != job.table.version:
            raise snapshot.Gone
        return view

    def _chunks(self, conn: psycopg.Connection, job: Job) -> Iterator[Changes]:
        """The table's rows, as a copy reads them, telling how far it is."""
        filenodes, rows = snapshot.storage(conn, job.table.oid).filenodes, 0
        for chunk in snapshot.read_chunks(conn, job.table, 0, 0, filenodes=filenodes):
            rows += chunk.changes.batch.num_rows
            step = Step(job.folder, 0, blocks=chunk.blocks, total=chunk.total, comparison=job.comparison)
            self._send(replace(step, rows=rows))
            yield chunk.changes
            if self._halt.is_set() or not job.answers.empty():
                raise GivenUp

    def _ask(self, job: Job, step: Step) -> Keys:
        """Hands a step of a comparison over; the keys to compare again. Raises GivenUp."""
        self._send(replace(step, comparison=job.comparison))
        while not self._halt.is_set():
            with contextlib.suppress(queue.Empty):
                left = job.answers.get(timeout=0.2)
                if left is None:
                    break
                return left
        raise GivenUp

    def _send(self, step: Step) -> None:
        while step.large and not self._large.acquire(timeout=0.2):
            if self._halt.is_set():
                return
        while not self._halt.is_set():
            try:
                self._steps.put(step, timeout=0.2)
                return
            except queue.Full:
                continue

    def _wait(self, lsn: int) -> None:
        deadline = time.monotonic()
        with self._moved:
            while self._position < lsn and not self._halt.is_set():
                self._moved.wait(0.5)
                if time.monotonic() - deadline > 30:
                    deadline = time.monotonic()
                    self._tell("waiting for the stream to pass a copied table's last read")
