"""The claim file as tables: claims with their parties and history, exposures, money, invoices and work lists.

Everything was decided by then (losses.py, plants.py, money.py); here it is written down as of the book's date: what has
not happened by `cutoff` is left out, and a claim's status is whatever happened last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from claimhouse.claims import columns as col
from claimhouse.claims.lines import CAUSES, COVERS, CURRENCY, LINES
from claimhouse.claims.losses import Catastrophes, Exposures, Losses
from claimhouse.claims.money import REASONS, Ledger, Payments, Plan, approvers
from claimhouse.claims.people import People
from claimhouse.claims.plants import LINE_OF_CAUSE
from claimhouse.claims.policies import Policies
from claimhouse.claims.words import SENTENCES, STATES

STATUS = ("new", "open", "accepted", "closed", "reopened")
OUTCOMES = ("paid", "denied", "no_payment")
ACTIVITIES = (
    ("acknowledge", "Acknowledge the claim in writing", 1.0, 2),
    ("contact", "Call the claimant", 0.95, 3),
    ("inspect", "Inspect the damage", 0.55, 8),
    ("review", "Review reserves", 0.8, 30),
    ("pay", "Prepare payment", 0.6, 15),
    ("close_file", "Check the file before closing", 0.6, 40),
)
_WEATHER = ("clear", "rain", "snow", "fog", "wind")


@dataclass
class Scene:
    """All that the tables are written from; `cutoff` is the last moment known, in microseconds."""

    people: People
    policies: Policies
    cats: Catastrophes
    losses: Losses
    exposures: Exposures
    plan: Plan
    payments: Payments
    ledger: Ledger
    cutoff: int

    def known(self, moment: np.ndarray) -> np.ndarray:
        """Moments up to the book's date; later ones are ABSENT."""
        return np.where(moment <= self.cutoff, moment, col.ABSENT)

    def usd(self, count: int) -> pa.Array:
        return col.words([CURRENCY], np.zeros(count, int))

    @property
    def claim_number(self) -> pa.Array:
        n = len(self.losses)
        year = col.years_of(self.losses.reported // col.DAY)
        return col.joined("CLM-", col.digits(year, 4), "-", col.digits(np.arange(1, n + 1), 6))


def _notes(rng: np.random.Generator, count: int) -> pa.Array:
    """Running notes; about one claim in eight has long ones, of several kilobytes."""
    long = rng.random(count) < 0.12
    size = np.where(long, rng.integers(45, 140, count), rng.poisson(2.5, count))
    chosen = rng.integers(0, len(SENTENCES), int(size.sum()))
    offsets = pa.array(np.concatenate([[0], np.cumsum(size)]).astype(np.int32))
    sentences = pa.ListArray.from_arrays(offsets, col.words(SENTENCES, chosen))
    return col.pc.binary_join(sentences, " ")


def _status(scene: Scene) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """The status of each claim at the book's date, and the moments at which each status was taken."""
    plan, known = scene.plan, scene.known
    accepted = np.where(plan.denied, col.ABSENT, known(plan.decided))
    events = [
        (0, scene.losses.reported), (1, known(plan.acknowledged)), (2, accepted), (3, known(plan.closed)),
        (4, known(plan.reopened)), (3, known(plan.closed_again)),
    ]  # fmt: skip
    status = np.zeros(len(scene.losses), np.int64)
    for code, moment in events:
        status = np.where(moment != col.ABSENT, code, status)
    return status, events


def claim_table(scene: Scene, rng: np.random.Generator) -> pa.Table:
    x, plan, known, n = scene.losses, scene.plan, scene.known, len(scene.losses)
    status, events = _status(scene)
    line = LINE_OF_CAUSE[x.cause]
    last = np.max([np.where(m == col.ABSENT, 0, m) for _, m in events], axis=0)
    paid = np.zeros(n, bool)
    paid[scene.exposures.claim[scene.payments.exposure]] = True
    outcome = np.where(paid, 0, np.where(plan.denied, 1, 2))
    closed = np.where(known(plan.closed_again) != col.ABSENT, plan.closed_again, known(plan.closed))
    cities = [[c for c, _ in s[2]] for s in STATES]
    state = scene.people.party_state[scene.policies.holder[x.policy]]
    away = rng.random(n) < np.where(line == 3, 0.7, 0.08)
    state = np.where(away & (x.cat < 0), rng.integers(0, len(STATES), n), state)
    city = rng.integers(0, 1 << 16, n)
    place = [cities[s][c % len(cities[s])] for s, c in zip(state, city, strict=True)]
    details = col.joined(
        '{"weather": "', col.words(_WEATHER, col.pick(rng, (6, 2, 0.7, 0.5, 0.8), n)), '", "injuries": ',
        pa.array(rng.poisson(0.15, n)).cast(pa.string()), ', "police_report": ',
        col.words(["false", "true"], (rng.random(n) < 0.4).astype(int)), "}",
    )  # fmt: skip
    assets = scene.policies.a_first[x.policy]
    chosen = assets + (rng.random(n) * (scene.policies.a_first[x.policy + 1] - assets)).astype(np.int64)
    return pa.table(
        {
            "claim_id": pa.array(np.arange(1, n + 1)),
            "claim_number": scene.claim_number,
            "policy_id": pa.array(x.policy + 1),
            "asset_id": pa.array(np.where(x.asset >= 0, x.asset, chosen) + 1),
            "line": col.words([k.name for k in LINES], line),
            "cause": col.words([c.name for c in CAUSES], x.cause),
            "loss_date": col.dates(x.day),
            "loss_state": col.words([s[0] for s in STATES], state),
            "loss_place": pa.array(place, pa.string()),
            "catastrophe_code": col.words([*scene.cats.code, None], np.where(x.cat < 0, len(scene.cats.code), x.cat)),
            "reported_at": col.stamps(x.reported),
            "acknowledged_at": col.stamps(known(plan.acknowledged)),
            "decided_at": col.stamps(known(plan.decided)),
            "closed_at": col.stamps(np.where(status == 3, closed, col.ABSENT)),
            "status": col.words(STATUS, status),
            "outcome": col.words([*OUTCOMES, None], np.where(status == 3, outcome, len(OUTCOMES))),
            "adjuster_id": pa.array(x.adjuster + 1),
            "details": details,
            "notes": _notes(rng, n),
            "created_at": col.stamps(x.reported),
            "updated_at": col.stamps(last),
        }
    )


def history_table(scene: Scene) -> pa.Table:
    claim, code, moment = [], [], []
    for status, at in _status(scene)[1]:
        some = np.flatnonzero(at != col.ABSENT)
        claim.append(some)
        code.append(np.full(len(some), status))
        moment.append(at[some])
    claim, code, moment = np.concatenate(claim), np.concatenate(code), np.concatenate(moment)
    order = np.argsort(moment, kind="stable")
    claim = claim[order]
    return pa.table(
        {
            "claim_status_history_id": pa.array(np.arange(1, len(order) + 1)),
            "claim_id": pa.array(claim + 1),
            "status": col.words(STATUS, code[order]),
            "changed_at": col.stamps(moment[order]),
            "changed_by": pa.array(scene.losses.adjuster[claim] + 1),
        }
    )


def claim_party_table(scene: Scene, rng: np.random.Generator) -> pa.Table:
    """The holder as insured, each exposure's claimant, now and then drivers, witnesses, passengers and attorneys."""
    e, x = scene.exposures, scene.losses
    n = len(x)
    holder = scene.policies.holder[x.policy]
    persons = scene.people.persons
    law = scene.people.provider_party[scene.people.provider_kind == 3]
    motor = LINE_OF_CAUSE[x.cause] == 0
    injury = np.zeros(n, bool)
    injury[e.claim[np.array([c.kind in ("bodily_injury", "premises", "products") for c in COVERS])[e.cover]]] = True
    everyone = np.arange(n)
    rows = [(everyone, holder, 0), (e.claim, e.claimant, 1)]
    for odds, role, who in (
        (motor * 0.9, 2, scene.people.adults(scene.people.household[holder], rng)),
        (np.full(n, 0.12), 3, rng.integers(0, persons, n)),
        (injury * 0.3, 4, rng.choice(law, n)),
        (motor * 0.15, 5, rng.integers(0, persons, n)),
    ):
        some = np.flatnonzero(rng.random(n) < odds)
        rows.append((some, who[some], role))
    claim = np.concatenate([r[0] for r in rows])
    party = np.concatenate([r[1] for r in rows])
    role = np.concatenate([np.full(len(r[0]), r[2]) for r in rows])
    key = np.unique(np.stack([claim, party, role], axis=1), axis=0)
    return pa.table(
        {
            "claim_id": pa.array(key[:, 0] + 1),
            "party_id": pa.array(key[:, 1] + 1),
            "role": col.words(["insured", "claimant", "driver", "witness", "attorney", "passenger"], key[:, 2]),
            "added_at": col.stamps(x.reported[key[:, 0]]),
        }
    )


def exposure_table(scene: Scene) -> pa.Table:
    e, plan = scene.exposures, scene.plan
    m = len(e.claim)
    closed, reopened, again = (scene.known(plan.at[:, c]) for c in (11, 12, 14))
    last = np.where(again != col.ABSENT, again, np.where(reopened != col.ABSENT, col.ABSENT, closed))
    return pa.table(
        {
            "exposure_id": pa.array(np.arange(1, m + 1)),
            "claim_id": pa.array(e.claim + 1),
            "coverage_id": pa.array(e.coverage + 1),
            "claimant_id": pa.array(e.claimant + 1),
            "kind": col.words([c.kind for c in COVERS], e.cover),
            "status": col.words(["open", "closed"], (last != col.ABSENT).astype(int)),
            "opened_at": col.stamps(scene.losses.reported[e.claim]),
            "closed_at": col.stamps(last),
        }
    )


def _invoice_numbers(provider: np.ndarray, day: np.ndarray, twice: np.ndarray, exposure: np.ndarray) -> list[str]:
    """Each provider counts in its own style; where `twice`, a later invoice of the exposure repeats the first's number
    as a careless hand would write it again."""
    order = np.lexsort((day, provider))
    rank = np.empty(len(order), np.int64)
    starts = np.searchsorted(provider[order], provider[order])
    rank[order] = np.arange(len(order)) - starts
    year = col.years_of(day)
    seen: dict[int, str] = {}
    out = []
    for p, r, y, again, exp in zip(provider, rank, year, twice, exposure, strict=True):
        number = 1000 + 37 * int(p) + int(r)
        text = (f"INV-{y}-{number:05d}", f"{number:05d}/{y % 100:02d}", f"R{number}", f"{y} {number:06d}")[p % 4]
        if again:
            first = seen.setdefault(int(exp), text)
            text = text if first is text else rewritten(first, int(r))
        out.append(text)
    return out


def rewritten(number: str, turn: int) -> str:
    """The same invoice number, written differently."""
    variants = (number.lower(), number.replace("-", " ").replace("/", "-"), number.replace("-", ""), f" {number}")
    return variants[turn % 4] if variants[turn % 4] != number else f"{number}."


def money_tables(scene: Scene, rng: np.random.Generator) -> dict[str, pa.Table]:
    """invoice, payment, payment_line, reserve_txn: what was billed, paid and held for it."""
    e, x, pays = scene.exposures, scene.losses, scene.payments
    k = len(pays.at)
    claim, amount = e.claim[pays.exposure], pays.indemnity + pays.expense
    provider = e.provider[pays.exposure]
    planned = (x.provider[claim] >= 0) & e.first[pays.exposure]
    original = pays.number  # a payment issued again, or taken back, goes the way of the first
    direct = (provider >= 0) & (planned | (rng.random(k)[original] < 0.85))
    billed = np.flatnonzero(direct & (_origin(pays) == np.arange(k)))
    payee = np.where(direct, scene.people.provider_party[np.maximum(provider, 0)], e.claimant[pays.exposure])
    invoice_of = np.full(k, -1)
    invoice, place = _invoices(scene, rng, billed, claim, provider, amount)
    invoice_of[billed] = place
    invoice_of = np.where(direct, invoice_of[_origin(pays)], -1)
    cleared = (pays.at < scene.cutoff - 4 * col.DAY).astype(int)
    payment = pa.table(
        {
            "payment_id": pa.array(np.arange(1, k + 1)),
            "payment_number": col.joined("PAY-", col.digits(np.arange(1, k + 1), 8)),
            "claim_id": pa.array(claim + 1),
            "payee_id": pa.array(payee + 1),
            "bank_account_id": pa.array(payee + 1),
            "invoice_id": col.whole(np.where(invoice_of >= 0, invoice_of + 1, col.ABSENT)),
            "amount": col.money(amount),
            "currency": scene.usd(k),
            "method": col.words(["transfer", "check", "card"], col.pick(rng, (7, 2, 1), k)),
            "status": col.words(["issued", "cleared", "voided"], np.where(pays.voided, 2, cleared)),
            "approved_by": pa.array(approvers(scene.people, x.adjuster[claim], amount) + 1),
            "paid_at": col.stamps(pays.at),
            "corrects_id": col.whole(np.where(pays.corrects >= 0, pays.corrects + 1, col.ABSENT)),
        }
    )
    return {"invoice": invoice, "payment": payment, "payment_line": _lines(scene, rng), "reserve_txn": _reserves(scene)}


def _origin(pays: Payments) -> np.ndarray:
    """For each payment the place of the first with its number: itself, unless it takes back or repeats one."""
    first = np.full(int(pays.number.max(initial=-1)) + 1, -1)
    first[pays.number[::-1]] = np.arange(len(pays.number))[::-1]
    return first[pays.number]


def _invoices(scene: Scene, rng, billed, claim, provider, amount) -> tuple[pa.Table, np.ndarray]:
    """One invoice for each billed payment, and a few that wait for payment; ordered by when they came in."""
    x, at = scene.losses, scene.payments.at[billed]
    day = at // col.DAY
    sent = np.maximum(day - rng.integers(3, 22, len(billed)), x.reported[claim[billed]] // col.DAY + 1)
    sent = np.minimum(sent, day)
    received = np.minimum(sent * col.DAY + rng.integers(10, 40, len(billed)) * col.HOUR, at - col.HOUR)
    order = np.argsort(received, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rows = billed[order]
    exposure = scene.payments.exposure[rows]
    twice = x.twice[claim[rows]] & scene.exposures.first[exposure]
    numbers = _invoice_numbers(provider[rows], sent[order], twice, exposure)
    table = pa.table(
        {
            "invoice_id": pa.array(np.arange(1, len(rows) + 1)),
            "claim_id": pa.array(claim[rows] + 1),
            "provider_id": pa.array(provider[rows] + 1),
            "invoice_number": pa.array(numbers, pa.string()),
            "amount": col.money(amount[rows]),
            "currency": scene.usd(len(rows)),
            "invoiced_on": col.dates(sent[order]),
            "received_at": col.stamps(received[order]),
            "status": col.words(["paid"], np.zeros(len(rows), int)),
        }
    )
    return table, place


def _lines(scene: Scene, rng: np.random.Generator) -> pa.Table:
    """The lines of each payment: indemnity, sometimes in two categories, and handling expense."""
    pays, e = scene.payments, scene.exposures
    k = len(pays.at)
    cover = e.cover[pays.exposure]
    origin = _origin(pays)
    two = (np.abs(pays.indemnity) > 40_000) & (rng.random(k)[origin] < 0.35)
    two &= ~scene.losses.paid[e.claim[pays.exposure]]
    small = np.where(two, np.sign(pays.indemnity) * (np.abs(pays.indemnity) * 3 // 10), 0)
    amounts = np.stack([pays.indemnity - small, small, pays.expense], axis=1)
    there = amounts != 0
    row, which = np.nonzero(there)
    number = np.cumsum(there, axis=1)[row, which]
    categories = [c for cover_ in COVERS for c in cover_.categories] + ["adjusting"]
    category = np.where(which == 2, len(categories) - 1, cover[row] * 2 + which)
    return pa.table(
        {
            "payment_id": pa.array(row + 1),
            "line_no": pa.array(number),
            "exposure_id": pa.array(pays.exposure[row] + 1),
            "cost_type": col.words(["indemnity", "expense"], (which == 2).astype(int)),
            "category": col.words(categories, category),
            "amount": col.money(amounts[row, which]),
            "currency": scene.usd(len(row)),
        }
    )


def _reserves(scene: Scene) -> pa.Table:
    g = scene.ledger
    claim = scene.exposures.claim[g.exposure]
    return pa.table(
        {
            "reserve_txn_id": pa.array(np.arange(1, len(g.at) + 1)),
            "claim_id": pa.array(claim + 1),
            "exposure_id": pa.array(g.exposure + 1),
            "cost_type": col.words(["indemnity", "expense"], g.expense),
            "reason": col.words(REASONS, g.reason),
            "amount": col.money(g.amount),
            "currency": scene.usd(len(g.at)),
            "payment_id": col.whole(np.where(g.payment >= 0, g.payment + 1, col.ABSENT)),
            "booked_by": pa.array(scene.losses.adjuster[claim] + 1),
            "booked_at": col.stamps(g.at),
        }
    )


def recovery_table(scene: Scene, rng: np.random.Generator) -> pa.Table:
    """Salvage and subrogation after the last payment of own-damage exposures."""
    e, plan = scene.exposures, scene.plan
    paid = np.zeros(len(e.claim), np.int64)
    np.add.at(paid, scene.payments.exposure, scene.payments.indemnity)
    closed = plan.at[:, 11]
    odds = np.array([{"collision": 0.16, "comprehensive": 0.08, "dwelling": 0.05}.get(c.kind, 0) for c in COVERS])
    at = closed + rng.integers(20, 260, len(closed)) * col.DAY
    some = np.flatnonzero((paid > 30_000) & (rng.random(len(paid)) < odds[e.cover]) & (at <= scene.cutoff))
    some = some[np.argsort(at[some], kind="stable")]
    salvage = rng.random(len(some)) < 0.3
    share = np.where(salvage, rng.uniform(0.08, 0.3, len(some)), rng.uniform(0.3, 1.0, len(some)))
    return pa.table(
        {
            "recovery_txn_id": pa.array(np.arange(1, len(some) + 1)),
            "claim_id": pa.array(e.claim[some] + 1),
            "exposure_id": pa.array(some + 1),
            "kind": col.words(["subrogation", "salvage"], salvage.astype(int)),
            "amount": col.money(np.round(paid[some] * share).astype(np.int64)),
            "currency": scene.usd(len(some)),
            "booked_at": col.stamps(at[some]),
            "corrects_id": pa.nulls(len(some), pa.int64()),
        }
    )


def activity_table(scene: Scene, rng: np.random.Generator) -> pa.Table:
    """The work list: done about when due, done by the closing at the latest, open where neither has come."""
    x, plan = scene.losses, scene.plan
    parts = []
    for kind, (_, _, odds, days) in enumerate(ACTIVITIES):
        some = np.flatnonzero(rng.random(len(x)) < odds)
        made = x.reported[some] + rng.integers(0, max(1, days // 2), len(some)) * col.DAY
        made = np.minimum(made, plan.closed[some] - col.HOUR)
        done = made + (rng.gamma(1.6, days / 2.2, len(some)) * col.DAY).astype(np.int64)
        done = np.minimum(done, plan.closed[some])
        due = made // col.DAY + days
        parts.append(np.stack([made, some, np.full(len(some), kind), done, due], axis=1))
    rows = np.concatenate(parts)
    rows = rows[rows[:, 0] <= scene.cutoff]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    made, claim, kind, done, due = rows.T
    done = scene.known(done)
    skipped = rng.random(len(rows)) < 0.03
    return pa.table(
        {
            "activity_id": pa.array(np.arange(1, len(rows) + 1)),
            "claim_id": pa.array(claim + 1),
            "kind": col.words([a[0] for a in ACTIVITIES], kind),
            "subject": col.words([a[1] for a in ACTIVITIES], kind),
            "assigned_to": pa.array(x.adjuster[claim] + 1),
            "status": col.words(["open", "done", "skipped"], np.where(done == col.ABSENT, 0, 1 + skipped)),
            "due_on": col.dates(due),
            "created_at": col.stamps(made),
            "done_at": col.stamps(done),
        }
    )
