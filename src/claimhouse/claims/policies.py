"""What the insurer has promised: policies, their versions, what each version covers, the things insured, the premium.

A policy starts, renews each year with a retention, may have its limit raised within a term (a new version), and ends by
lapse or cancellation. Versions do not overlap and are the only truth about the policy at a date.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from claimhouse.claims import columns as col
from claimhouse.claims.lines import COVERS, CURRENCY, INFLATION, LINES, RETENTION, TARGET_LOSS_RATIO, Line, covers_of
from claimhouse.claims.people import People
from claimhouse.claims.words import STATES, VEHICLES

_VIN = np.array(list("ABCDEFGHJKLMNPRSTUVWXYZ0123456789"))


@dataclass
class Policies:
    """Columns of policies (place = policy_id - 1), versions, coverages and assets.

    Versions are sorted by policy, then date; `v_first[p]` is the first of policy p, `v_first[p + 1]` its end.
    Coverages of version v are `c_first[v]` to `c_first[v + 1]`, assets of policy p `a_first[p]` to `a_first[p + 1]`.
    Days are day numbers, spans half open, money in cents. `ended` is ABSENT while in force.
    """

    line: np.ndarray
    holder: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ended: np.ndarray
    cancelled: np.ndarray
    v_first: np.ndarray
    v_policy: np.ndarray
    v_number: np.ndarray
    v_reason: np.ndarray
    v_from: np.ndarray
    v_to: np.ndarray
    v_term_to: np.ndarray
    v_units: np.ndarray
    v_level: np.ndarray
    v_premium: np.ndarray
    c_first: np.ndarray
    c_version: np.ndarray
    c_cover: np.ndarray
    c_limit: np.ndarray
    c_deductible: np.ndarray
    a_first: np.ndarray
    a_policy: np.ndarray
    a_value: np.ndarray

    def version_at(self, policy: np.ndarray, day: np.ndarray) -> np.ndarray:
        """The version in force at each day; the nearest one where the day lies outside the policy."""
        key = self.v_policy * 100_000 + self.v_from
        place = np.searchsorted(key, policy * 100_000 + day, side="right") - 1
        return np.clip(place, self.v_first[policy], self.v_first[policy + 1] - 1)

    def coverage_of(self, version: np.ndarray, cover: np.ndarray) -> np.ndarray:
        """The coverage of that kind in each version, else the version's first."""
        key = self.c_version * 64 + self.c_cover
        place = np.searchsorted(key, version * 64 + cover)
        inside = np.minimum(place, len(key) - 1)
        return np.where(key[inside] == version * 64 + cover, inside, self.c_first[version])


def mean_loss(line: Line) -> float:
    """Expected loss of one claim in dollars of the first year, roughly: first exposure and those that come along."""
    total, weights = 0.0, 0.0
    by_kind = {c.kind: c.median * float(np.exp(c.sigma**2 / 2)) * (1 + 3 * c.tail) * (1 + c.expense) for c in COVERS}
    for cause in line.causes:
        total += cause.weight * (by_kind[cause.cover] + sum(odds * by_kind[kind] for kind, odds in cause.also))
        weights += cause.weight
    return 0.88 * total / weights


def make_policies(seed: int, people: People, count: int, began: int, as_of: int) -> Policies:
    """`count` policies from day `began` to the end of day `as_of`; a third of them are there at the beginning."""
    rng = col.stream(seed, "policies")
    line = np.sort(col.pick(rng, [x.share for x in LINES], count))
    rng.shuffle(line)
    span = as_of - began
    start = began + np.where(rng.random(count) < 0.35, rng.random(count) * 365, rng.random(count) * span)
    month = start.astype(np.int64).astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]")
    start = np.minimum(month.astype(np.int64) + rng.integers(0, 28, count), as_of)
    holder = people.adults(rng.integers(0, people.household[people.persons - 1] + 1, count), rng)

    possible = np.maximum(1, col.years_of(np.array([as_of]))[0] - col.years_of(start) + 1)
    possible -= col.add_years(start, possible - 1) > as_of
    possible = np.maximum(possible, 1)
    stay = rng.geometric(1 - RETENTION, count)
    terms = np.minimum(stay, possible)
    over = col.add_years(start, terms)
    cancel = (stay <= possible) & (rng.random(count) < 0.3)
    end = np.where(cancel, over - rng.integers(20, 330, count), over)
    end = np.where(end <= as_of, end, over)
    cancel &= end < over
    ended = np.where(end <= as_of, end, col.ABSENT)

    # one row per term, then terms with a limit increase split in two
    policy = np.repeat(np.arange(count), terms)
    term = np.arange(len(policy)) - np.repeat(np.cumsum(terms) - terms, terms)
    t_from = col.add_years(start[policy], term)
    t_to = col.add_years(start[policy], term + 1)
    stop = np.minimum(t_to, end[policy])
    raised = t_from + rng.integers(45, 320, len(policy))
    split = (rng.random(len(policy)) < 0.07) & (raised < stop - 5) & (raised <= as_of)
    v_policy = np.concatenate([policy, policy[split]])
    v_from = np.concatenate([t_from, raised[split]])
    v_to = np.concatenate([np.where(split, raised, stop), stop[split]])
    v_term_to = np.concatenate([t_to, t_to[split]])
    v_reason = np.concatenate([np.minimum(term, 1), np.full(int(split.sum()), 2)])
    order = np.lexsort((v_from, v_policy))
    v_policy, v_from, v_to, v_term_to, v_reason = (x[order] for x in (v_policy, v_from, v_to, v_term_to, v_reason))
    v_first = np.searchsorted(v_policy, np.arange(count + 1))
    v_number = np.arange(len(v_policy)) - v_first[v_policy] + 1
    risen = np.cumsum(v_reason == 2)
    before = np.where(v_first[:-1] > 0, risen[np.maximum(v_first[:-1] - 1, 0)], 0)
    v_level = rng.integers(0, 2, count)[v_policy] + risen - before[v_policy]

    units = np.ones(count, dtype=np.int64)
    motor, travel = line == 0, line == 3
    units[motor] = col.pick(rng, (0.62, 0.27, 0.08), int(motor.sum())) + 1
    fleet = motor & (rng.random(count) < 0.012)
    units[fleet] = rng.integers(6, 13, int(fleet.sum()))
    units[travel] = rng.integers(1, 5, int(travel.sum()))
    return _finish(rng, people, line, holder, start, end, ended, cancel, units,
                   (v_first, v_policy, v_number, v_reason, v_from, v_to, v_term_to, v_level), began)  # fmt: skip


def _finish(rng, people, line, holder, start, end, ended, cancel, units, versions, began) -> Policies:
    """Coverages, assets and premiums on top of the versions."""
    v_first, v_policy, v_number, v_reason, v_from, v_to, v_term_to, v_level = versions
    count = len(line)
    base = np.array([x.frequency * mean_loss(x) / TARGET_LOSS_RATIO for x in LINES])
    noise = np.exp(0.22 * rng.standard_normal(count))
    growth = (1 + INFLATION) ** ((v_from - began) / 365.25)
    premium = base[line][v_policy] * units[v_policy] * noise[v_policy] * growth * (1 + 0.05 * v_level)

    chosen = rng.integers(0, 1 << 20, count)
    c_version, c_cover = [], []
    for number, kind in enumerate(LINES):
        of_line = np.flatnonzero(line[v_policy] == number)
        for place, cover in enumerate(covers_of(kind)):
            # the last coverages of motor and travel are options that some do without
            has = of_line if place != 1 else of_line[chosen[v_policy[of_line]] % 10 < 8]
            c_version.append(has)
            c_cover.append(np.full(len(has), cover))
    c_version, c_cover = np.concatenate(c_version), np.concatenate(c_cover)
    order = np.lexsort((c_cover, c_version))
    c_version, c_cover = c_version[order], c_cover[order]
    steps = np.array([len(c.limits) for c in COVERS])
    limits = np.array([[c.limits[min(i, len(c.limits) - 1)] for i in range(8)] for c in COVERS]) * 100
    deductibles = np.array([[c.deductibles[i % len(c.deductibles)] for i in range(6)] for c in COVERS]) * 100
    c_level = np.minimum(v_level[c_version], steps[c_cover] - 1)
    a_policy = np.repeat(np.arange(count), units)
    value = np.array([26_000.0, 310_000.0, 450_000.0, 5_000.0])[line[a_policy]]
    return Policies(
        line=line, holder=holder, start=start, end=end, ended=ended, cancelled=cancel,
        v_first=v_first, v_policy=v_policy, v_number=v_number, v_reason=v_reason, v_from=v_from, v_to=v_to,
        v_term_to=v_term_to, v_units=units[v_policy], v_level=v_level,
        v_premium=np.round(premium).astype(np.int64) * 100,
        c_first=np.searchsorted(c_version, np.arange(len(v_policy) + 1)), c_version=c_version, c_cover=c_cover,
        c_limit=limits[c_cover, c_level], c_deductible=deductibles[c_cover, chosen[v_policy[c_version]] % 6],
        a_first=np.searchsorted(a_policy, np.arange(count + 1)), a_policy=a_policy,
        a_value=np.round(value * np.exp(0.4 * rng.standard_normal(len(a_policy))) / 500).astype(np.int64) * 50_000,
    )  # fmt: skip


def policy_tables(policies: Policies, people: People, seed: int, as_of: int) -> dict[str, pa.Table]:
    """The tables policy, policy_version, insured_asset, coverage and premium_txn."""
    rng = col.stream(seed, "policy tables")
    p, count, versions = policies, len(policies.line), len(policies.v_policy)
    usd = [CURRENCY]
    created = (p.start - rng.integers(0, 20, count)) * col.DAY + 10 * col.HOUR
    updated = np.where(p.ended == col.ABSENT, created, p.ended * col.DAY + col.HOUR)
    code = col.words(["MO", "PR", "LI", "TR"], p.line)
    policy = pa.table(
        {
            "policy_id": pa.array(np.arange(1, count + 1)),
            "policy_number": col.joined("POL-", code, "-", col.digits(np.arange(1, count + 1) * 7 + 100_000, 7)),
            "line": col.words([x.name for x in LINES], p.line),
            "holder_id": pa.array(p.holder + 1),
            "state": col.words([s[0] for s in STATES], people.party_state[p.holder]),
            "status": col.words(["in_force", "lapsed", "cancelled"], (p.ended != col.ABSENT) * (1 + p.cancelled)),
            "inception": col.dates(p.start),
            "ended_on": col.dates(p.ended),
            "currency": col.words(usd, np.zeros(count, int)),
            "created_at": col.stamps(created),
            "updated_at": col.stamps(updated),
        }
    )
    issued = np.minimum(p.v_from, as_of) * col.DAY - rng.integers(1, 30, versions) * col.DAY + 9 * col.HOUR
    version = pa.table(
        {
            "policy_id": pa.array(p.v_policy + 1),
            "version": pa.array(p.v_number),
            "reason": col.words(["new", "renewal", "limit_increase"], p.v_reason),
            "effective_from": col.dates(p.v_from),
            "effective_to": col.dates(p.v_to),
            "units": pa.array(p.v_units),
            "annual_premium": col.money(p.v_premium),
            "currency": col.words(usd, np.zeros(versions, int)),
            "issued_at": col.stamps(issued),
        }
    )
    covers = len(p.c_version)
    coverage = pa.table(
        {
            "coverage_id": pa.array(np.arange(1, covers + 1)),
            "policy_id": pa.array(p.v_policy[p.c_version] + 1),
            "version": pa.array(p.v_number[p.c_version]),
            "kind": col.words([c.kind for c in COVERS], p.c_cover),
            "limit_amount": col.money(p.c_limit),
            "deductible": col.money(p.c_deductible),
            "currency": col.words(usd, np.zeros(covers, int)),
            "valid_from": col.dates(p.v_from[p.c_version]),
            "valid_to": col.dates(p.v_to[p.c_version]),
        }
    )
    tables = {"policy": policy, "policy_version": version, "insured_asset": _assets(policies, people, rng)}
    return tables | {"coverage": coverage, "premium_txn": _premiums(policies)}


def _assets(policies: Policies, people: People, rng: np.random.Generator) -> pa.Table:
    p, count = policies, len(policies.a_policy)
    line = p.line[p.a_policy]
    vehicle, fixed = line == 0, (line == 1) | (line == 2)
    vins = np.ascontiguousarray(_VIN[rng.integers(0, len(_VIN), (count, 17))]).view("<U17")[:, 0]
    address = people.household[p.holder[p.a_policy]] + 1
    return pa.table(
        {
            "asset_id": pa.array(np.arange(1, count + 1)),
            "policy_id": pa.array(p.a_policy + 1),
            "kind": col.words([x.asset for x in LINES], line),
            "vin": pa.array(vins, mask=~vehicle),
            "make": col.pc.if_else(pa.array(vehicle), col.words(VEHICLES, rng.integers(0, len(VEHICLES), count)), None),
            "model_year": col.whole(np.where(vehicle, rng.integers(2005, 2025, count), col.ABSENT)),
            "address_id": col.whole(np.where(fixed, address, col.ABSENT)),
            "insured_value": col.money(p.a_value),
            "currency": col.words([CURRENCY], np.zeros(count, int)),
        }
    )


def _premiums(policies: Policies) -> pa.Table:
    """Written at each term, additional at each limit increase, returned at a cancellation; in order of booking."""
    p = policies
    term = np.flatnonzero(p.v_reason < 2)
    rise = np.flatnonzero(p.v_reason == 2)
    left = (p.v_term_to[rise] - p.v_from[rise]) / 365.25
    more = np.maximum(np.round(p.v_premium[rise] * 0.06 * left), 100).astype(np.int64)
    last = p.v_first[1:] - 1
    gone = last[p.cancelled & (p.ended != col.ABSENT)]
    back = np.round(p.v_premium[gone] * (p.v_term_to[gone] - p.v_to[gone]) / 365.25).astype(np.int64)
    version = np.concatenate([term, rise, gone])
    kind = np.repeat([0, 1, 2], [len(term), len(rise), len(gone)])
    since = np.concatenate([p.v_from[term], p.v_from[rise], p.v_to[gone]])
    amount = np.concatenate([p.v_premium[term], more, -back])
    keep = p.v_term_to[version] > since
    order = np.flatnonzero(keep)[np.argsort(since[keep], kind="stable")]
    version, kind, since, amount = version[order], kind[order], since[order], amount[order]
    return pa.table(
        {
            "premium_txn_id": pa.array(np.arange(1, len(order) + 1)),
            "policy_id": pa.array(p.v_policy[version] + 1),
            "version": pa.array(p.v_number[version]),
            "kind": col.words(["written", "additional", "return"], kind),
            "amount": col.money(amount),
            "currency": col.words([CURRENCY], np.zeros(len(order), int)),
            "earned_from": col.dates(since),
            "earned_to": col.dates(p.v_term_to[version]),
            "booked_at": col.stamps(since * col.DAY + 11 * col.HOUR),
        }
    )
