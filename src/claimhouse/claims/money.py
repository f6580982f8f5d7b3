"""How a loss turns into money: reserves set and revised, payments, closings, reopenings, corrections, recoveries.

The whole future of every exposure is drawn first and then cut off at the book's date, which is what leaves claims open.
A sweep over at most fifteen events per exposure (all exposures at once) keeps the ledger: every payment draws its
reserve line down by exactly its lines, a line that is too low is raised first, a closing takes it to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from claimhouse.claims import columns as col
from claimhouse.claims.lines import COVERS
from claimhouse.claims.losses import Exposures, Losses
from claimhouse.claims.people import People
from claimhouse.claims.policies import Policies

REASONS = ("initial", "revision", "payment", "close", "reopen", "correction")
INITIAL, REVISION, PAYMENT, CLOSE, REOPEN, CORRECTION = range(6)
NEVER = np.iinfo(np.int64).max
_REVISIONS, _PAYS = 3, 7
# the columns of the event matrix: initial, revisions, payments, closing, reopening, late payment, second closing
_KIND = np.array([INITIAL] + [REVISION] * _REVISIONS + [PAYMENT] * _PAYS + [CLOSE, REOPEN, PAYMENT, CLOSE])
_FIRST_PAY, _CLOSE, _REOPEN, _LATE_PAY, _CLOSE_2 = 4, 11, 12, 13, 14


@dataclass
class Plan:
    """The future of each exposure: `at` (exposures x 15 events, microseconds, NEVER where absent) and, in the same
    places, what payments pay of `indemnity` and `expense` in cents; of each claim: its moments and whether denied."""

    at: np.ndarray
    indemnity: np.ndarray
    expense: np.ndarray
    denied: np.ndarray
    acknowledged: np.ndarray
    decided: np.ndarray
    closed: np.ndarray
    reopened: np.ndarray
    closed_again: np.ndarray


@dataclass
class Ledger:
    """Columns of reserve_txn in order of booking; `payment` is a place in Payments or -1."""

    exposure: np.ndarray
    expense: np.ndarray
    reason: np.ndarray
    amount: np.ndarray
    at: np.ndarray
    payment: np.ndarray


@dataclass
class Payments:
    """Columns of payment in order of time; `corrects` is the place of the payment taken back, or -1."""

    exposure: np.ndarray
    at: np.ndarray
    indemnity: np.ndarray
    expense: np.ndarray
    number: np.ndarray
    corrects: np.ndarray
    voided: np.ndarray


def office(micros: np.ndarray, minute: np.ndarray) -> np.ndarray:
    """The same day at `minute` past nine."""
    return micros // col.DAY * col.DAY + 9 * col.HOUR + minute * (col.HOUR // 60)


def make_plan(seed: int, losses: Losses, exposures: Exposures, policies: Policies) -> Plan:
    """Draw the future of all claims."""
    rng = col.stream(seed, "plan")
    e, n, m = exposures, len(losses), len(exposures.claim)
    reported, fast = losses.reported[e.claim], losses.paid[e.claim]
    denied = (rng.random(n) < 0.06) & ~losses.paid
    nothing = denied[e.claim] | (e.indemnity <= 0) | ((rng.random(m) < 0.07) & ~fast)
    mean = np.array([c.payments for c in COVERS])[e.cover]
    pays = np.where(fast, 1, 1 + rng.poisson(mean - 1))
    pays = np.where(e.first & (losses.pays[e.claim] > 0), losses.pays[e.claim], pays)
    pays = np.where(nothing, 0, np.minimum(np.minimum(pays, _PAYS), np.maximum(1, e.indemnity // 6_000)))

    settle = np.array([c.settle for c in COVERS])[e.cover]
    settle = np.where(fast, np.minimum(settle, 14), settle)
    span = np.maximum(7.0, col.lognormal(rng, settle, np.where(fast, 0.3, 0.75), m))
    column = np.arange(_PAYS)
    real = column < pays[:, None]
    gaps = rng.exponential(1.0, (m, _PAYS)) * real
    part = np.cumsum(gaps, axis=1) / np.maximum(gaps.sum(axis=1), 1e-9)[:, None]
    spacing = (losses.spacing[e.claim] * e.first)[:, None]
    days = np.where(spacing > 0, span[:, None] + spacing * column, span[:, None] * (0.3 + 0.7 * part))
    pay_at = office(reported[:, None] + (days * col.DAY).astype(np.int64), 20 * column + rng.integers(0, 20, (m, 1)))
    unpaid = reported + ((7 + col.lognormal(rng, 16, 0.7, m)) * col.DAY).astype(np.int64)
    last = np.where(pays > 0, np.where(real, pay_at, 0).max(axis=1), unpaid)

    at = np.full((m, len(_KIND)), NEVER)
    at[:, 0] = reported + (rng.uniform(0.5, 30, m) * col.HOUR).astype(np.int64)
    revisions = rng.poisson(0.25 + settle / 130)
    begin = reported + 2 * col.DAY
    room = np.maximum(last - begin, col.DAY)[:, None]
    revised = begin[:, None] + (rng.random((m, _REVISIONS)) * room).astype(np.int64)
    at[:, 1:_FIRST_PAY] = np.where(np.arange(_REVISIONS) < revisions[:, None], revised, NEVER)
    at[:, _FIRST_PAY:_CLOSE] = np.where(real, pay_at, NEVER)
    at[:, _CLOSE] = office(last + rng.integers(1, 15, m) * col.DAY, rng.integers(300, 480, m))
    indemnity, expense = _split(rng, losses, e, pays, real)
    # a closing never falls before a revision
    before = np.where(at[:, :_CLOSE] < NEVER, at[:, :_CLOSE], 0).max(axis=1)
    at[:, _CLOSE] = np.maximum(at[:, _CLOSE], before + col.HOUR)

    closed = np.zeros(n, np.int64)
    np.maximum.at(closed, e.claim, at[:, _CLOSE])
    closed += col.HOUR
    reopened, closed_again = _reopen(rng, losses, e, policies, at, indemnity, closed, pays)
    acknowledged, decided = _decide(rng, losses, e, at, closed)
    return Plan(at, indemnity, expense, denied, acknowledged, decided, closed, reopened, closed_again)


def _split(rng, losses: Losses, e: Exposures, pays, real) -> tuple[np.ndarray, np.ndarray]:
    """Share indemnity and expense out over the payments, to the cent; the last one takes the rest."""
    m = len(pays)
    planned = (losses.pays[e.claim] > 0) & e.first
    weight = np.where(planned[:, None], 1.0, rng.gamma(2.0, 1.0, (m, _PAYS))) * real
    weight /= np.maximum(weight.sum(axis=1), 1e-9)[:, None]
    step = np.where(e.first, losses.round_to[e.claim], 1)[:, None]
    out = []
    for total in (np.where(pays > 0, e.indemnity, 0), np.where(pays > 0, e.expense, 0)):
        share = np.floor(total[:, None] * weight / step).astype(np.int64) * step
        final = np.maximum(pays - 1, 0)
        rows = np.arange(m)
        share[rows, final] += total - share.sum(axis=1)
        wide = np.zeros((m, len(_KIND)), np.int64)
        wide[:, _FIRST_PAY:_CLOSE] = share * real
        out.append(wide)
    return out[0], out[1]


def _reopen(rng, losses, e: Exposures, policies, at, indemnity, closed, pays) -> tuple[np.ndarray, np.ndarray]:
    """Some closed claims come back for one more payment on their first exposure."""
    n = len(losses)
    head = np.flatnonzero(e.first)
    limit = policies.c_limit[e.coverage[head]]
    extra = np.minimum((e.indemnity[head] * rng.uniform(0.1, 0.6, n)).astype(np.int64), limit - e.indemnity[head])
    back = (rng.random(n) < 0.07) & ~losses.paid & (pays[head] > 0) & (extra > 10_000)
    opened = office(closed + ((5 + col.lognormal(rng, 45, 0.8, n)) * col.DAY).astype(np.int64), rng.integers(0, 400, n))
    paid = office(opened + rng.integers(8, 60, n) * col.DAY, rng.integers(0, 200, n))
    shut = office(paid + rng.integers(2, 12, n) * col.DAY, rng.integers(300, 420, n))
    for column, values in ((_REOPEN, opened), (_LATE_PAY, paid), (_CLOSE_2, shut)):
        at[head, column] = np.where(back, values, NEVER)
    indemnity[head, _LATE_PAY] = np.where(back, extra, 0)
    return np.where(back, opened - col.HOUR // 2, NEVER), np.where(back, shut + col.HOUR, NEVER)


def _decide(rng, losses, e: Exposures, at, closed) -> tuple[np.ndarray, np.ndarray]:
    """When the claim was acknowledged and decided: in this order, and before the first payment."""
    n = len(losses)
    first_pay = closed.copy()
    np.minimum.at(first_pay, e.claim, at[:, _FIRST_PAY])
    wait = (col.lognormal(rng, 0.7, 1.0, n) * col.DAY).astype(np.int64)
    acknowledged = losses.reported + np.minimum(wait, (first_pay - losses.reported) // 2)
    wait = (col.lognormal(rng, 9, 0.8, n) * col.DAY).astype(np.int64)
    return acknowledged, np.minimum(acknowledged + wait, first_pay - col.HOUR)


class _Booked:
    """What the sweep has booked so far, as lists of columns."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, rows, expense: int, reason: int, amount, at, event) -> None:
        some = amount != 0
        rows, amount, at, event = rows[some], amount[some], at[some], event[some]
        step = np.full(len(rows), len(self.parts))
        kind, why = np.full(len(rows), expense), np.full(len(rows), reason)
        self.parts.append((rows, kind, why, amount, at, np.where(why == PAYMENT, event, -1), step))

    def columns(self) -> list[np.ndarray]:
        return [np.concatenate(c) for c in zip(*self.parts, strict=True)]


def sweep(seed: int, losses: Losses, e: Exposures, plan: Plan, cutoff: int) -> list[np.ndarray]:
    """Book every event up to `cutoff`: columns exposure, expense?, reason, cents, moment, event (-1), order."""
    rng = col.stream(seed, "reserves")
    m = len(e.claim)
    median = np.array([c.median for c in COVERS])[e.cover] * 100
    remaining = [plan.indemnity[:, :_CLOSE].sum(axis=1), plan.expense.sum(axis=1)]
    level = [np.zeros(m, np.int64), np.zeros(m, np.int64)]
    unpaid = remaining[0] == 0
    hope = np.where(unpaid, median * 0.5, remaining[0]) * np.exp(0.45 * rng.standard_normal(m) - 0.03)
    start = [_rounded(hope, 5_000, 20_000), _rounded(remaining[1] * np.exp(0.3 * rng.standard_normal(m)), 5_000, 0)]
    start[0][unpaid & (rng.random(m) < 0.3)] = 0
    drift = np.exp(0.28 * rng.standard_normal((m, len(_KIND))))
    booked = _Booked()
    order = np.argsort(plan.at, axis=1, kind="stable")
    for step in range(len(_KIND)):
        event = order[:, step]
        at = plan.at[np.arange(m), event]
        live = at <= cutoff
        for reason in (INITIAL, REVISION, PAYMENT, CLOSE, REOPEN):
            rows = np.flatnonzero(live & (_KIND[event] == reason))
            if not len(rows):
                continue
            what = (rows, event[rows], at[rows])
            for expense in (0, 1):
                _book(booked, reason, expense, what, level[expense], remaining[expense], start[expense], drift, plan)
    return booked.columns()


def _rounded(cents: np.ndarray, step: int, least: int) -> np.ndarray:
    value = (np.round(cents / step) * step).astype(np.int64)
    return np.maximum(value, least)


def _book(booked: _Booked, reason: int, expense: int, what, level, remaining, start, drift, plan: Plan) -> None:
    rows, event, at = what
    if reason == INITIAL:
        change = start[rows]
    elif reason == REVISION:
        target = _rounded(remaining[rows] * drift[rows, event], 1_000, 0)
        change = target - level[rows]
        change[(np.abs(change) < 5_000) | (expense == 1)] = 0
    elif reason == PAYMENT:
        pay = (plan.expense if expense else plan.indemnity)[rows, event]
        short = np.maximum(pay - level[rows], 0)
        booked.add(rows, expense, REVISION, short, at, event)
        remaining[rows] -= np.minimum(pay, remaining[rows])
        level[rows] += short
        change = -pay
    elif reason == CLOSE:
        change = -level[rows]
    else:
        extra = 0 if expense else plan.indemnity[rows, _LATE_PAY]
        change = _rounded(extra * drift[rows, event], 5_000, 0) if not expense else np.zeros(len(rows), np.int64)
    booked.add(rows, expense, reason, change, at, event)
    level[rows] += change


def pay(seed: int, e: Exposures, plan: Plan, booked: list[np.ndarray], cutoff: int) -> tuple[Payments, Ledger]:
    """The payments up to `cutoff` with some compensated and issued again, and the ledger that names them."""
    rng = col.stream(seed, "payments")
    exposure, event = np.nonzero((plan.at <= cutoff) & (_KIND == PAYMENT))
    at = plan.at[exposure, event]
    indemnity, expense = plan.indemnity[exposure, event], plan.expense[exposure, event]
    count = len(at)
    wrong = np.flatnonzero((rng.random(count) < 0.008) & (at < cutoff - 6 * col.DAY))
    mended = at[wrong] // col.DAY * col.DAY + rng.integers(1, 4, len(wrong)) * col.DAY + 14 * col.HOUR
    source = np.concatenate([np.arange(count), wrong, wrong])
    sign = np.repeat([1, -1, 1], [count, len(wrong), len(wrong)])
    when = np.concatenate([at, mended, mended + col.HOUR])
    corrects = np.concatenate([np.full(count, -1), wrong, np.full(len(wrong), -1)])
    order = np.argsort(when, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    payments = Payments(
        exposure=exposure[source][order], at=when[order], indemnity=(indemnity[source] * sign)[order],
        expense=(expense[source] * sign)[order], number=source[order],
        corrects=np.where(corrects[order] >= 0, rank[np.maximum(corrects[order], 0)], -1),
        voided=np.isin(order, wrong),
    )  # fmt: skip

    place = np.full(plan.at.shape, -1)
    place[exposure, event] = rank[:count]
    rows, kind, reason, amount, moment, of_event, step = booked
    paid = np.where(of_event >= 0, place[rows, np.maximum(of_event, 0)], -1)
    extra = []
    for reason_2, turn, factor in ((CORRECTION, 0, 1), (PAYMENT, 1, -1)):
        where = count + turn * len(wrong) + np.arange(len(wrong))
        for cost, values in ((0, indemnity), (1, expense)):
            some = values[wrong] > 0
            extra.append((exposure[wrong][some], np.full(int(some.sum()), cost), np.full(int(some.sum()), reason_2),
                          factor * values[wrong][some], when[where][some], rank[where][some],
                          np.full(int(some.sum()), 1000 + turn)))  # fmt: skip
    columns = [np.concatenate(c) for c in zip((rows, kind, reason, amount, moment, paid, step), *extra, strict=True)]
    order = np.lexsort((columns[6], columns[0], columns[4]))
    return payments, Ledger(*(c[order] for c in columns[:6]))


def approvers(people: People, adjuster: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Who approved each payment: the claim's adjuster within authority, else a colleague whose limit suffices."""
    by_limit = np.argsort(people.adjuster_authority, kind="stable")
    step = np.searchsorted(people.adjuster_authority[by_limit], np.abs(amount))
    colleague = by_limit[np.minimum(step, len(by_limit) - 1)]
    return np.where(np.abs(amount) <= people.adjuster_authority[adjuster], adjuster, colleague)
