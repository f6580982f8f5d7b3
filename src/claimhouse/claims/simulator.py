"""Lives the claims book forward: every kind of transaction an insurer's systems make, at a chosen rate.

    Simulator(dsn, rate=50, seed=1).run(duration=30)       # or run(stop=event), run(transactions=1000)

The book has its own calendar: each transaction moves it on by `step`, by default as much as keeps claims as frequent
as they are in the book, so that its figures stay sensible however fast it lives. A later run goes on where the book
stands. Once per database, after `change_after` seconds' worth of transactions, the schema changes: claim gets a column
`channel` with a default, used from then on.

Workers share the book out (see desk.py) and the schedule too: transaction i is due at i / rate after the start, whoever
makes it, so the average holds; who is late catches up. With one worker the same book, seed and numbers give the same
transactions. A transaction that the server asks to repeat is repeated; one that somebody else made impossible is
skipped, and the worker reads its part of the book anew.
"""

from __future__ import annotations

import csv
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as pg

from claimhouse.claims import chores, moves, notices, policy_moves
from claimhouse.claims.desk import LINE_INDEX, Common, Desk
from claimhouse.claims.lines import LINES
from claimhouse.claims.plants import KIND_OF_RULE
from claimhouse.claims.transaction import Transaction
from claimhouse.errors import NotReady, SourceError, SourceGone, UsageError

Move = Callable[[Desk, Transaction], bool]

MOVES: tuple[tuple[str, float, Move], ...] = (
    ("first_notice", 5.0, notices.first_notice),
    ("acknowledge", 5.5, moves.acknowledge),
    ("decide", 5.5, moves.decide),
    ("reserve", 10.0, moves.revise_reserve),
    ("invoice", 5.0, moves.receive_invoice),
    ("payment", 9.5, moves.pay),
    ("clear_payments", 2.5, moves.clear_payments),
    ("correction", 0.6, moves.correct_payment),
    ("close", 6.0, moves.close),
    ("reopen", 0.4, moves.reopen),
    ("recovery", 0.6, moves.recover),
    ("task", 5.0, chores.add_task),
    ("task_done", 11.0, chores.finish_task),
    ("task_deleted", 2.0, chores.delete_task),
    ("note", 7.0, chores.write_note),
    ("details", 7.0, chores.edit_details),
    ("witness", 2.0, chores.witness),
    ("renumber", 0.2, chores.renumber),
    ("parties_merged", 0.4, chores.merge_parties),
    ("catastrophe", 0.1, chores.catastrophe),
    ("new_policy", 2.4, policy_moves.new_policy),
    ("limit_increase", 0.8, policy_moves.raise_limit),
    ("cancellation", 0.5, policy_moves.cancel),
    ("premium", 2.0, policy_moves.adjust_premium),
    ("party", 3.0, policy_moves.edit_party),
)
"""Every kind of transaction with its weight. Renewals come by the calendar, beside these."""

_WEIGHTS = [weight for _, weight, _ in MOVES]
_REPEAT = (pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable, pg.QueryCanceled)
LOCK_WAIT = 5.0  # seconds that a simulator waits for the connection of one that was killed to be noticed
_ONE_AT_A_TIME = 0x636C61696D  # advisory lock: two simulators would pay from the same reserves
_COLUMN = "ALTER TABLE public.claim ADD COLUMN IF NOT EXISTS channel text NOT NULL DEFAULT 'phone'"
_NEWEST = """SELECT greatest(
    (SELECT max(updated_at) FROM public.claim), (SELECT max(created_at) FROM public.activity),
    (SELECT max(booked_at) FROM public.reserve_txn), (SELECT max(booked_at) FROM public.premium_txn),
    (SELECT max(updated_at) FROM public.policy WHERE status = 'in_force'))"""

_EXPOSED = """SELECT p.line::text, sum(v.units) FROM public.policy p JOIN (
    SELECT policy_id, units, row_number() OVER (PARTITION BY policy_id ORDER BY version DESC) AS age
    FROM public.policy_version) v ON v.policy_id = p.policy_id AND v.age = 1
    WHERE p.status = 'in_force' GROUP BY 1 ORDER BY 1"""


@dataclass
class Counts:
    """What a run has done so far; `book_time` is the book's calendar, `seconds` the time spent."""

    kinds: Counter[str] = field(default_factory=Counter)
    statements: int = 0
    repeated: int = 0
    skipped: int = 0
    seconds: float = 0.0
    book_time: datetime | None = None

    @property
    def transactions(self) -> int:
        return self.kinds.total()

    @property
    def rate(self) -> float:
        """Transactions a second over the run."""
        return self.transactions / self.seconds if self.seconds else 0.0

    def __add__(self, other: Counts) -> Counts:
        times = [t for t in (self.book_time, other.book_time) if t is not None]
        return Counts(
            self.kinds + other.kinds, self.statements + other.statements, self.repeated + other.repeated,
            self.skipped + other.skipped, max(self.seconds, other.seconds), max(times, default=None),
        )  # fmt: skip


class Simulator:
    """A loaded book, lived forward.

    `rate`: transactions a second (0: as fast as possible); `workers`: connections, by default as many as that needs;
    `labels`: a file that planted fraud is appended to (claim_id, claim_number, kind, rule), as `load` writes it;
    `change_after`: seconds at this rate until the schema change, None for never; `step`: how far each transaction
    moves the book's calendar.
    """

    def __init__(
        self, dsn: str, rate: float = 50.0, seed: int = 1, *, workers: int | None = None, labels: Path | None = None,
        change_after: float | None = 10.0, step: timedelta | None = None,
    ) -> None:  # fmt: skip
        if rate < 0:
            raise UsageError("the rate is below zero", hint="give transactions a second, or 0 for as fast as possible")
        self.dsn, self.rate, self.seed, self.step = dsn, rate, seed, step
        self.workers = workers or max(1, min(8, round(rate / 125 + 0.49) if rate else 4))
        self.labels = labels
        self.change_at = None if change_after is None else round(change_after * (rate or 500))
        self._labels_lock = threading.Lock()
        self._channels = threading.Event()
        self._stop = threading.Event()
        self._parts: list[Counts] = []
        self._failure: BaseException | None = None

    @property
    def counts(self) -> Counts:
        """What has been done so far; may be read while `run` is at work."""
        return sum(self._parts, Counts())

    def run(
        self, duration: float | None = None, *, stop: threading.Event | None = None, transactions: int | None = None
    ) -> Counts:
        """Live on for `duration` seconds, until `stop` is set, or for so many transactions, whichever comes first.

        Raises NotReady without a book, UsageError while another simulator is at work, SourceGone when the server goes.
        """
        self._stop.clear()
        self._failure = None
        self._parts = [Counts() for _ in range(self.workers)]
        try:
            with psycopg.connect(self.dsn, autocommit=True, application_name="claimhouse simulator") as conn:
                began, step = self._prepare(conn)
                common = Common.load(conn)
                desks = self._desks(common)
                try:
                    self._live(desks, began, step, duration, stop, transactions)
                finally:
                    for desk in desks:
                        desk.conn.close()
        except psycopg.OperationalError as error:
            raise SourceGone("the database is gone", hint="start it again; the book goes on where it stands") from error
        return self.counts

    def _prepare(self, conn: psycopg.Connection[Any]) -> tuple[datetime, timedelta]:
        """Take the lock, see where the book stands, and how far a transaction moves its calendar."""
        if conn.execute("SELECT to_regclass('public.claim_status_history')").fetchone() == (None,):
            raise NotReady("the database holds no claims book", hint="load it first: claimhouse.claims.load(dsn)")
        until = time.monotonic() + LOCK_WAIT
        while conn.execute("SELECT pg_try_advisory_lock(%s)", [_ONE_AT_A_TIME]).fetchone() != (True,):
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            raise UsageError("another simulator is at work on this database", hint="stop it, or use another database")
        conn.execute("SET timezone = 'UTC'")
        has = conn.execute("SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.claim'::regclass "
                           "AND attname = 'channel' AND NOT attisdropped").fetchone()  # fmt: skip
        if has != (0,):
            self._channels.set()
        newest = conn.execute(_NEWEST).fetchone()
        exposed = conn.execute(_EXPOSED).fetchall()
        if not newest or newest[0] is None or not exposed:
            raise NotReady(
                "the claims book is empty", hint="load it into an empty database: claimhouse.claims.load(dsn)"
            )
        yearly = 1.25 * sum(LINES[LINE_INDEX[line]].frequency * int(units) for line, units in exposed)
        share = MOVES[0][1] / sum(_WEIGHTS) * 0.87  # the rest are renewals
        return newest[0], self.step or timedelta(days=365.25 * share / max(yearly, 1.0))

    def _desks(self, common: Common) -> list[Desk]:
        desks: list[Desk] = []
        for place in range(self.workers):
            conn = psycopg.connect(self.dsn, autocommit=True, application_name="claimhouse simulator")
            conn.prepared_max = 400
            conn.execute("SET timezone = 'UTC'; SET lock_timeout = '5s'; SET statement_timeout = '30s'")
            last = conn.execute("SELECT max(claim_status_history_id) FROM public.claim_status_history").fetchone()
            rng = random.Random(f"{self.seed} {last} {place}")
            desks.append(Desk(conn, common, rng, place, self.workers))
        return desks

    def _live(self, desks, began, step, duration, stop, transactions) -> None:
        start = time.monotonic()
        threads = [
            threading.Thread(
                target=self._guard, args=(desk, began, step, start, transactions), name=f"worker {desk.place}"
            )
            for desk in desks
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                if duration is not None and time.monotonic() - start >= duration:
                    self._stop.set()
                if stop is not None and stop.is_set():
                    self._stop.set()
                time.sleep(0.02)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _guard(self, desk: Desk, began: datetime, step: timedelta, start: float, transactions: int | None) -> None:
        try:
            self._work(desk, began, step, start, transactions)
        except BaseException as error:
            self._failure = self._failure or error
            self._stop.set()

    def _work(self, desk: Desk, began: datetime, step: timedelta, start: float, transactions: int | None) -> None:
        counts, late = self._parts[desk.place], 0.0
        number = desk.place
        while not self._stop.is_set() and (transactions is None or number < transactions):
            if self.rate:
                wait = start + late + number / self.rate - time.monotonic()
                if wait > 0 and self._stop.wait(wait):
                    break
                late += max(0.0, -wait - 10.0)  # after a long standstill there is no use in catching up
            if self.change_at is not None and number >= self.change_at and not self._channels.is_set():
                self._change_schema(desk, counts)
            self._one(desk, Transaction(desk, began + step * (number + 1), number, self._channels.is_set()), counts)
            counts.seconds = time.monotonic() - start
            number += self.workers

    def _change_schema(self, desk: Desk, counts: Counts) -> None:
        """The one change of shape; the first worker makes it, the others see that it is there."""
        if desk.place == 0 and self._commit(desk, [(_COLUMN, [])], counts):
            counts.kinds["schema_change"] += 1
            self._channels.set()

    def _one(self, desk: Desk, tx: Transaction, counts: Counts) -> None:
        kind = _compose(desk, tx)
        if self._commit(desk, tx.statements, counts):
            counts.kinds[kind] += 1
            counts.book_time = tx.now
            self._note_labels(tx)
        else:
            desk.load()

    def _commit(self, desk: Desk, statements: list[tuple[str, list[Any]]], counts: Counts) -> bool:
        """Run the statements as one transaction; again if the server asks for it; False if it cannot be."""
        for _ in range(8):
            try:
                with desk.conn.pipeline(), desk.conn.transaction():
                    for text, values in statements:
                        desk.conn.execute(text.encode(), values)
                counts.statements += len(statements)
                return True
            except _REPEAT:
                counts.repeated += 1
                time.sleep(desk.rng.uniform(0.002, 0.02))
            except psycopg.IntegrityError:
                break
            except psycopg.ProgrammingError as error:
                raise SourceError(f"the book's tables are not as the simulator knows them: {error}") from error
        counts.skipped += 1
        return False

    def _note_labels(self, tx: Transaction) -> None:
        if self.labels is None or not tx.labels:
            return
        with self._labels_lock:
            fresh = not self.labels.exists()
            self.labels.parent.mkdir(parents=True, exist_ok=True)
            with self.labels.open("a", newline="", encoding="utf-8") as file:
                to = csv.writer(file)
                if fresh:
                    to.writerow(("claim_id", "claim_number", "kind", "rule"))
                to.writerows((claim, number, KIND_OF_RULE[rule], rule) for claim, number, rule in tx.labels)


def _compose(desk: Desk, tx: Transaction) -> str:
    """Fill the transaction: a renewal if one is due, else a move by weight that has something to do."""
    if desk.rng.random() < 0.5 and policy_moves.renew(desk, tx):
        return "renewal"
    for _ in range(20):
        kind, _, move = desk.rng.choices(MOVES, _WEIGHTS)[0]
        if move(desk, tx):
            return kind
    policy_moves.new_policy(desk, tx)
    return "new_policy"
