"""The demo claims book: made whole from a seed, as Arrow tables, with the labels of its planted fraud beside it.

    book = make_book(seed=7, scale=1.0, as_of=date(2025, 12, 31))
    book.tables["claim"]        # in the order of the schema's foreign keys
    labels(book)                # claim_id, claim_number, kind, rule: never part of the database

The same seed, scale and date give the same bytes; no clock is read. Ten accident years; at scale 1 about 4,000 policies
and 6,000 claims. What holds between the tables is said in schema.sql and checked by invariants.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from claimhouse.claims import claimfile as files
from claimhouse.claims import columns as col
from claimhouse.claims.losses import Catastrophes, make_catastrophes, make_exposures, make_losses
from claimhouse.claims.money import make_plan, pay, sweep
from claimhouse.claims.people import make_people, people_tables
from claimhouse.claims.plants import KIND_OF_RULE, plant
from claimhouse.claims.policies import make_policies, policy_tables
from claimhouse.claims.words import STATES

YEARS = 10
AS_OF = date(2025, 12, 31)
ORDER = (
    "address", "party", "bank_account", "provider", "adjuster", "catastrophe", "policy", "policy_version",
    "insured_asset", "coverage", "premium_txn", "claim", "claim_party", "exposure", "invoice", "payment",
    "payment_line", "reserve_txn", "recovery_txn", "claim_status_history", "activity",
)  # fmt: skip
"""The tables so that each comes after those that it refers to."""


def id_column(table: str) -> str:
    """The numbered key column of a table."""
    return "asset_id" if table == "insured_asset" else f"{table}_id"


@dataclass(frozen=True)
class Book:
    """A generated book: what made it, its tables by name, and what is known about its fraud.

    `marks` and `lookalikes`: places of claims (claim_id - 1) with a rule's name.
    """

    seed: int
    scale: float
    as_of: date
    tables: dict[str, pa.Table]
    marks: tuple[tuple[int, str], ...]
    lookalikes: tuple[tuple[int, str], ...]

    @property
    def rows(self) -> int:
        return sum(t.num_rows for t in self.tables.values())


def make_book(seed: int = 7, scale: float = 1.0, as_of: date = AS_OF) -> Book:
    """Make the book of the ten years up to the end of `as_of`; `scale` multiplies policies and claims (from 0.02)."""
    scale = max(scale, 0.02)
    last = col.day_number(as_of)
    began = col.day_number(date(as_of.year - YEARS + 1, 1, 1))
    cutoff = (last + 1) * col.DAY - 1
    count = max(60, round(4000 * scale))
    people = make_people(seed, max(60, round(count * 1.3)), scale, began)
    policies = make_policies(seed, people, count, began, last)
    cats = make_catastrophes(seed, began, last)
    losses = make_losses(seed, policies, people, cats, last, intensity=1.25)
    ground = plant(seed, losses, policies, people, began, last)
    order = np.argsort(ground.losses.reported, kind="stable")
    losses = ground.losses.take(order)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))

    exposures = make_exposures(seed, losses, policies, people, began)
    plan = make_plan(seed, losses, exposures, policies)
    payments, ledger = pay(seed, exposures, plan, sweep(seed, losses, exposures, plan, cutoff), cutoff)
    scene = files.Scene(people, policies, cats, losses, exposures, plan, payments, ledger, cutoff)
    tables = people_tables(people, seed) | policy_tables(policies, people, seed, last)
    tables |= {"catastrophe": _catastrophe_table(cats)} | _claim_tables(scene, seed)
    return Book(
        seed=seed, scale=scale, as_of=as_of, tables={name: tables[name] for name in ORDER},
        marks=tuple((int(place[p]), rule) for p, rule in ground.marks),
        lookalikes=tuple((int(place[p]), rule) for p, rule in ground.lookalikes),
    )  # fmt: skip


def _claim_tables(scene: files.Scene, seed: int) -> dict[str, pa.Table]:
    def rng(name: str) -> np.random.Generator:
        return col.stream(seed, f"table {name}")

    return {
        "claim": files.claim_table(scene, rng("claim")),
        "claim_party": files.claim_party_table(scene, rng("claim_party")),
        "exposure": files.exposure_table(scene),
        **files.money_tables(scene, rng("money")),
        "recovery_txn": files.recovery_table(scene, rng("recovery_txn")),
        "claim_status_history": files.history_table(scene),
        "activity": files.activity_table(scene, rng("activity")),
    }


def _catastrophe_table(cats: Catastrophes) -> pa.Table:
    return pa.table(
        {
            "code": pa.array(cats.code, pa.string()),
            "name": pa.array(cats.name, pa.string()),
            "peril": pa.array(cats.peril, pa.string()),
            "state": col.words([s[0] for s in STATES], cats.state),
            "began_on": col.dates(cats.began),
            "ended_on": col.dates(cats.ended),
        }
    )


def labels(book: Book) -> pa.Table:
    """The planted fraud: claim_id, claim_number, kind (the class), rule; one row per claim and rule."""
    return _marked(book, book.marks)


def lookalikes(book: Book) -> pa.Table:
    """Innocent claims that look like fraud, with the rule that they tempt; same columns as `labels`."""
    return _marked(book, book.lookalikes)


def _marked(book: Book, marks: tuple[tuple[int, str], ...]) -> pa.Table:
    marks = tuple(sorted(set(marks)))
    place = pa.array([p for p, _ in marks], pa.int64())
    rules = [rule for _, rule in marks]
    claim = book.tables["claim"]
    return pa.table(
        {
            "claim_id": claim["claim_id"].take(place),
            "claim_number": claim["claim_number"].take(place),
            "kind": pa.array([KIND_OF_RULE[r] for r in rules], pa.string()),
            "rule": pa.array(rules, pa.string()),
        }
    )
