"""A simulator worker's own part of the book, in memory: open claims, policies in force, work to be done.

Workers share claims and policies out by number, so no two of them change the same claim, and composing a transaction
reads nothing from the database. A desk is loaded once; what a transaction changes is changed here as it is composed,
and if the database refuses it for good, the desk is simply loaded again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

import psycopg

from claimhouse.claims.book import id_column
from claimhouse.claims.lines import COVER_INDEX, COVERS, LINES, Cover, Line

INDEMNITY, EXPENSE = 0, 1
LINE_INDEX = {line.name: place for place, line in enumerate(LINES)}
_BLOCK = 64
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Adjuster:
    adjuster_id: int
    authority: int


@dataclass(slots=True, eq=False)
class Work:
    """An open exposure. Money in cents: `reserve` outstanding by cost type, `left` to be paid, `paid` so far."""

    exposure_id: int
    cover: Cover
    limit: int
    claimant: int
    left: int
    reserve: list[int] = field(default_factory=lambda: [0, 0])
    paid: int = 0


@dataclass(slots=True, eq=False)
class File:
    """A claim at hand; `invoices` wait for payment (invoice, provider's party, cents); `fraud`: the rule planted."""

    claim_id: int
    policy_id: int
    asset_id: int | None
    line: Line
    adjuster: Adjuster
    status: str
    loss: date
    works: list[Work]
    denied: bool = False
    paid: bool = False
    fraud: str = ""
    invoices: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Held:
    """A policy in force with its current version; `covers`: (coverage, kind, limit, deductible), money in cents."""

    policy_id: int
    line: Line
    holder: int
    state: str
    version: int
    inception: date
    since: date
    until: date
    units: int
    premium: int
    covers: list[tuple[int, Cover, int, int]]
    assets: list[int]


@dataclass
class Common:
    """What all workers share: people (new ones are added), adjusters by line, providers by kind (provider, party)."""

    persons: list[int]
    account: dict[int, int]
    adjusters: dict[str, list[Adjuster]]
    by_authority: list[Adjuster]
    providers: dict[str, list[tuple[int, int]]]

    @classmethod
    def load(cls, conn: psycopg.Connection[Any]) -> Common:
        account = dict(
            conn.execute("SELECT party_id, max(bank_account_id) FROM public.bank_account GROUP BY 1 ORDER BY 1")
        )
        persons = [p for (p,) in conn.execute("SELECT party_id FROM public.party WHERE kind = 'person' ORDER BY 1")]
        staff: dict[str, list[Adjuster]] = {}
        for number, line, limit in conn.execute(
            "SELECT adjuster_id, line::text, authority_limit FROM public.adjuster WHERE active ORDER BY 1"
        ):
            staff.setdefault(line, []).append(Adjuster(number, cents(limit)))
        providers: dict[str, list[tuple[int, int]]] = {}
        for number, party, kind in conn.execute("SELECT provider_id, party_id, kind FROM public.provider ORDER BY 1"):
            providers.setdefault(kind, []).append((number, party))
        everyone = sorted((a for some in staff.values() for a in some), key=lambda a: a.authority)
        return cls([p for p in persons if p in account], account, staff, everyone, providers)

    def approver(self, adjuster: Adjuster, amount: int) -> int:
        """Who may approve an amount in cents: the adjuster, else the colleague with the least sufficient authority."""
        if amount <= adjuster.authority:
            return adjuster.adjuster_id
        return next((a for a in self.by_authority if a.authority >= amount), self.by_authority[-1]).adjuster_id


class Numbers:
    """New ids from a table's own sequence, fetched a block at a time."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._stock: dict[str, Iterator[int]] = {}

    def next(self, table: str) -> int:
        for number in self._stock.get(table, iter(())):
            return number
        rows = self._conn.execute(
            "SELECT nextval(pg_get_serial_sequence('public.' || %s, %s)) FROM generate_series(1, %s)",
            [table, id_column(table), _BLOCK],
        ).fetchall()
        self._stock[table] = iter([r[0] for r in rows])
        return next(self._stock[table])


class Desk:
    """One worker's part: claims and policies whose number leaves `place` when divided by `workers`."""

    def __init__(self, conn: psycopg.Connection[Any], common: Common, rng: random.Random, place: int, workers: int):
        self.conn, self.common, self.rng = conn, common, rng
        self.place, self.workers = place, workers
        self.numbers = Numbers(conn)
        self.load()
        self.usual_load = max(40 // workers, len(self.files))

    def load(self) -> None:
        """Read this part of the book from the database."""
        self.files: list[File] = self._open_claims()
        self.fresh = deque(f for f in self.files if f.status == "new")
        self.undecided = deque(f for f in self.files if f.status == "open" and not f.denied)
        self.closed: deque[File] = deque(self._closed_claims(), maxlen=600)
        self.policies: list[Held] = self._policies()
        self.due = [(p.until, p.policy_id, p) for p in self.policies]
        heapq.heapify(self.due)
        self.tasks: deque[int] = deque(self._ids("activity_id", "activity", "status = 'open'", 2000))
        self.done: deque[int] = deque(self._ids("activity_id", "activity", "status = 'done'", 400), maxlen=2000)
        self.issued: deque[int] = deque(self._ids("payment_id", "payment", "status = 'issued'", 1000))
        self.payments: deque[tuple[File, int, int, list[tuple[Work, int, str, int]]]] = deque(maxlen=200)
        self.recoveries: deque[tuple[int, int, int, int]] = deque(maxlen=50)
        self.witnesses: deque[tuple[int, int]] = deque(maxlen=200)
        self.doubles: deque[tuple[int, int, int]] = deque()
        self.catastrophes: deque[tuple[str, str, str, int]] = deque()
        self.ring: tuple[str, int] = ("", 0)

    def _mine(self, column: str) -> str:
        return f"{column} % {self.workers} = {self.place}"

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(query.encode()).fetchall()

    def _ids(self, column: str, table: str, where: str, most: int) -> list[int]:
        query = f"SELECT {column} FROM public.{table} WHERE {where} AND {self._mine('claim_id')}"
        return [r[0] for r in self._rows(f"{query} ORDER BY 1 DESC LIMIT {most}")][::-1]

    def _open_claims(self) -> list[File]:
        return self._claims("c.status <> 'closed'", "e.status = 'open'")

    def _closed_claims(self) -> list[File]:
        newest = f"SELECT claim_id FROM public.claim WHERE status = 'closed' AND {self._mine('claim_id')}"
        newest = f"{newest} ORDER BY updated_at DESC, claim_id LIMIT 300"
        return self._claims(f"c.claim_id IN ({newest})", "true")

    def _claims(self, which: str, exposures: str) -> list[File]:
        staff = {a.adjuster_id: a for a in self.common.by_authority}
        files: dict[int, File] = {}
        for claim, policy, asset, line, adjuster, status, loss, denied, paid in self._rows(f"""
            SELECT c.claim_id, c.policy_id, c.asset_id, c.line::text, c.adjuster_id, c.status::text, c.loss_date,
                c.status = 'open' AND c.decided_at IS NOT NULL,
                EXISTS (SELECT FROM public.payment p WHERE p.claim_id = c.claim_id)
            FROM public.claim c WHERE {which} AND {self._mine("c.claim_id")} ORDER BY 1"""):
            who = staff.get(adjuster, self.common.by_authority[-1])
            line = LINES[LINE_INDEX[line]]
            files[claim] = File(claim, policy, asset, line, who, status, loss, [], denied, paid)
        for claim, exposure, kind, limit, claimant, indemnity, expense, paid in self._rows(f"""
            SELECT c.claim_id, e.exposure_id, e.kind, v.limit_amount, e.claimant_id,
                coalesce(sum(r.amount) FILTER (WHERE r.cost_type = 'indemnity'), 0),
                coalesce(sum(r.amount) FILTER (WHERE r.cost_type = 'expense'), 0),
                coalesce(-sum(r.amount) FILTER (WHERE r.payment_id IS NOT NULL AND r.cost_type = 'indemnity'), 0)
            FROM public.claim c JOIN public.exposure e ON e.claim_id = c.claim_id
            JOIN public.coverage v ON v.coverage_id = e.coverage_id
            LEFT JOIN public.reserve_txn r ON r.exposure_id = e.exposure_id
            WHERE {which} AND {exposures} AND {self._mine("c.claim_id")}
            GROUP BY c.claim_id, e.exposure_id, v.limit_amount ORDER BY 2"""):
            reserve = [cents(indemnity), cents(expense)]
            left = int(reserve[INDEMNITY] * self.rng.uniform(0.6, 1.2))
            work = Work(exposure, COVERS[COVER_INDEX[kind]], cents(limit), claimant, left, reserve, cents(paid))
            files[claim].works.append(work)
        return list(files.values())

    def _policies(self) -> list[Held]:
        held: dict[int, Held] = {}
        for row in self._rows(f"""
            SELECT p.policy_id, p.line::text, p.holder_id, p.state, v.version, p.inception, v.effective_from,
                v.effective_to, v.units, v.annual_premium,
                array(SELECT asset_id FROM public.insured_asset a WHERE a.policy_id = p.policy_id ORDER BY 1)
            FROM public.policy p JOIN LATERAL (SELECT * FROM public.policy_version v
                WHERE v.policy_id = p.policy_id ORDER BY version DESC LIMIT 1) v ON true
            WHERE p.status = 'in_force' AND {self._mine("p.policy_id")} ORDER BY 1"""):
            policy, line, holder, state, version, inception, since, until, units, premium, assets = row
            held[policy] = Held(policy, LINES[LINE_INDEX[line]], holder, state, version, inception, since, until, units,
                                cents(premium), [], assets)  # fmt: skip
        for policy, version, coverage, kind, limit, deductible in self._rows(f"""
            SELECT c.policy_id, c.version, c.coverage_id, c.kind, c.limit_amount, c.deductible
            FROM public.coverage c JOIN public.policy p USING (policy_id)
            WHERE p.status = 'in_force' AND {self._mine("c.policy_id")} ORDER BY 3"""):
            if held[policy].version == version:
                cover = COVERS[COVER_INDEX[kind]]
                held[policy].covers.append((coverage, cover, cents(limit), cents(deductible)))
        return list(held.values())

    def some_file(self, fit: Any, tries: int = 10) -> File | None:
        """A claim at hand that fits, if a few looks find one."""
        for _ in range(min(tries, len(self.files) * 2)):
            file = self.files[int(self.rng.random() * len(self.files))]
            if fit(file):
                return file
        return None

    def some(self, items: list[T] | deque[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def remove(self, items: list[T], item: T) -> None:
        """Take an item out of an unordered list."""
        place = next(i for i, x in enumerate(items) if x is item)
        items[place] = items[-1]
        items.pop()


def cents(amount: Decimal) -> int:
    """A numeric(14,2) as cents."""
    return int(amount.scaleb(2))


def dollars(amount: int) -> Decimal:
    """Cents as a numeric(14,2)."""
    return Decimal(amount).scaleb(-2)
