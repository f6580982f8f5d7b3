"""What goes wrong: losses by line, season and catastrophe, when they are reported, and what each will cost in the end.

Each policy version brings losses in proportion to its units and days. A loss is known to the book only once reported,
so the newest months are short of the late ones: the book has the IBNR that reserving is about. Plants (see plants.py)
work on these columns before any money is booked; whatever they leave at its default is drawn at random later.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from claimhouse.claims import columns as col
from claimhouse.claims.lines import CAUSE_INDEX, CAUSES, COVER_INDEX, COVERS, INFLATION, LINES, PERIL_CAUSE, causes_of
from claimhouse.claims.people import KINDS, People
from claimhouse.claims.policies import Policies
from claimhouse.claims.words import STATES

CATASTROPHE_NAMES = (
    "Ada",
    "Boris",
    "Celia",
    "Dorian",
    "Elsa",
    "Felix",
    "Greta",
    "Hugo",
    "Irene",
    "Jonas",
    "Kyra",
    "Leo",
)


@dataclass
class Losses:
    """Columns of losses, one place each. `policy`, `claimant`, `asset`, `provider`, `adjuster` are places (-1: choose;
    provider -2: the claimant is paid).

    `day`: day number of the loss; `reported`: microseconds; `cat`: place of the catastrophe or -1. What plants set:
    `ultimate` (cents or ABSENT), `pays` (number of payments, 0: choose), `round_to` (cents), `spacing` (days between
    payments or 0: choose), `uncapped` (the limit is ignored), `paid` (never denied, settled fast), `twice` (the second
    invoice repeats the first).
    """

    policy: np.ndarray
    day: np.ndarray
    reported: np.ndarray
    cause: np.ndarray
    cat: np.ndarray
    adjuster: np.ndarray
    claimant: np.ndarray
    asset: np.ndarray
    provider: np.ndarray
    ultimate: np.ndarray
    pays: np.ndarray
    round_to: np.ndarray
    spacing: np.ndarray
    uncapped: np.ndarray
    paid: np.ndarray
    twice: np.ndarray

    def __len__(self) -> int:
        return len(self.policy)

    def take(self, place: np.ndarray) -> Losses:
        return Losses(*(getattr(self, f.name)[place] for f in fields(self)))

    def extend(self, more: Losses) -> Losses:
        return Losses(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))


@dataclass
class Catastrophes:
    """Columns of events: names, peril, state place, first and last day, the share of exposed units that it hits."""

    code: list[str]
    name: list[str]
    peril: list[str]
    state: np.ndarray
    began: np.ndarray
    ended: np.ndarray
    hit: np.ndarray


def make_catastrophes(seed: int, began: int, as_of: int) -> Catastrophes:
    """About one event a year, in states and months that suit the peril."""
    rng = col.stream(seed, "catastrophes")
    menu = (("hail", "TX", 4, 1), ("wind", "FL", 8, 4), ("freeze", "TX", 1, 5), ("wildfire", "CA", 9, 9),
            ("hail", "CO", 6, 1), ("flood", "PA", 7, 3), ("wind", "OH", 5, 2), ("freeze", "NY", 0, 6))  # fmt: skip
    first, last = (int(y) for y in col.years_of(np.array([began, as_of])))
    states = [s[0] for s in STATES]
    rows = []
    for year in range(first + 1, last + 1):
        for number in range(int(rng.integers(0, 3))):
            peril, state, month, length = menu[int(rng.integers(0, len(menu)))]
            day = int(np.datetime64(f"{year}-{month + 1:02d}-01").astype(np.int64) + rng.integers(0, 28))
            if day + length < as_of - 30:
                rows.append((f"CAT-{year}-{number + 1:02d}", peril, states.index(state), day, day + length))
    name = [CATASTROPHE_NAMES[i % len(CATASTROPHE_NAMES)] for i in range(len(rows))]
    return Catastrophes(
        code=[r[0] for r in rows], name=name, peril=[r[1] for r in rows], state=np.array([r[2] for r in rows], int),
        began=np.array([r[3] for r in rows], int), ended=np.array([r[4] for r in rows], int),
        hit=rng.uniform(0.08, 0.20, len(rows)),
    )  # fmt: skip


def blank(policy: np.ndarray, day: np.ndarray, cause: np.ndarray) -> Losses:
    """Losses with everything else left to choose; report and adjuster are set by `report` and `assign`."""
    n = len(policy)
    none, no = np.full(n, -1), np.zeros(n, bool)
    return Losses(
        policy=policy, day=day, reported=np.zeros(n, np.int64), cause=cause, cat=none.copy(), adjuster=none.copy(),
        claimant=none.copy(), asset=none.copy(), provider=none.copy(), ultimate=np.full(n, col.ABSENT),
        pays=np.zeros(n, np.int64), round_to=np.ones(n, np.int64), spacing=np.zeros(n), uncapped=no.copy(),
        paid=no.copy(), twice=no.copy(),
    )  # fmt: skip


def make_losses(
    seed: int, policies: Policies, people: People, cats: Catastrophes, as_of: int, intensity: float
) -> Losses:
    """All losses reported by the end of day `as_of`; `intensity` multiplies every line's frequency."""
    rng = col.stream(seed, "losses")
    p = policies
    line = p.line[p.v_policy]
    peak = np.array([max(x.season) / np.mean(x.season) for x in LINES])
    rate = np.array([x.frequency for x in LINES]) * intensity * peak
    days = np.minimum(p.v_to, as_of + 1) - p.v_from
    count = rng.poisson(np.maximum(rate[line] * p.v_units * days / 365.25, 0))
    version = np.repeat(np.arange(len(count)), count)
    day = p.v_from[version] + (rng.random(len(version)) * days[version]).astype(np.int64)
    season = np.array([np.array(x.season) / max(x.season) for x in LINES])
    keep = rng.random(len(version)) < season[line[version], col.months_of(day)]
    version, day = version[keep], day[keep]
    cause = np.empty(len(version), np.int64)
    for number, kind in enumerate(LINES):
        here = np.flatnonzero(line[version] == number)
        cause[here] = np.array(causes_of(kind))[col.pick(rng, [c.weight for c in kind.causes], len(here))]
    losses = blank(p.v_policy[version], day, cause)
    for number in range(len(cats.code)):
        losses = losses.extend(_struck(rng, policies, people, cats, number))
    report(rng, losses, policies)
    assign(rng, losses, policies, people)
    return losses.take(np.flatnonzero(losses.reported < (as_of + 1) * col.DAY))


def _struck(rng, policies: Policies, people: People, cats: Catastrophes, number: int) -> Losses:
    """The losses that one catastrophe brings to property and motor policies in its state."""
    p, day = policies, int(cats.began[number])
    parts = []
    for line, causes in PERIL_CAUSE.items():
        place = [x.name for x in LINES].index(line)
        if (cause := causes.get(cats.peril[number])) is None:
            continue
        there = (p.line == place) & (people.party_state[p.holder] == cats.state[number])
        there &= (p.start <= day) & (day < p.end)
        policy = np.flatnonzero(there & (rng.random(len(there)) < cats.hit[number]))
        span = cats.ended[number] - cats.began[number] + 1
        part = blank(policy, day + rng.integers(0, span, len(policy)), np.full(len(policy), CAUSE_INDEX[cause]))
        part.cat[:] = number
        parts.append(part)
    return parts[0] if len(parts) == 1 else parts[0].extend(parts[1])


def report(rng: np.random.Generator, losses: Losses, policies: Policies) -> None:
    """Draw when each loss is reported: mostly within days, in office hours, with a long tail."""
    line = policies.line[losses.policy]
    n = len(losses)
    median = np.array([x.lag for x in LINES])[line]
    sigma = np.array([x.lag_sigma for x in LINES])[line]
    later = losses.day + np.minimum(col.lognormal(rng, median, sigma, n), 900).astype(np.int64)
    weekend = (later + 3) % 7 >= 5
    later = later + np.where(weekend & (rng.random(n) < 0.7), 2, 0)
    minute = np.clip(rng.normal(12.5, 2.6, n), 7, 20.5) * 60
    losses.reported = later * col.DAY + minute.astype(np.int64) * (col.HOUR // 60) + rng.integers(0, 60, n) * 1_000_000


def assign(rng: np.random.Generator, losses: Losses, policies: Policies, people: People) -> None:
    """Give each loss an adjuster of its line."""
    line = policies.line[losses.policy]
    for number in range(len(LINES)):
        staff = np.flatnonzero(people.adjuster_line == number)
        here = np.flatnonzero(line == number)
        losses.adjuster[here] = rng.choice(staff, len(here))


@dataclass
class Exposures:
    """Columns of exposures, sorted by claim: what each will cost in the end, in cents, above deductible, up to limit.

    `first` marks a claim's first exposure; `coverage`, `claimant` and `provider` (-1: the claimant is paid) are places.
    """

    claim: np.ndarray
    first: np.ndarray
    cover: np.ndarray
    coverage: np.ndarray
    claimant: np.ndarray
    provider: np.ndarray
    indemnity: np.ndarray
    expense: np.ndarray


def make_exposures(seed: int, losses: Losses, policies: Policies, people: People, began: int) -> Exposures:
    """One exposure per claim for the coverage that its cause falls on, and those that come along."""
    rng = col.stream(seed, "exposures")
    n = len(losses)
    cover = np.array([COVER_INDEX[c.cover] for c in CAUSES])[losses.cause]
    claim, kinds, first = [np.arange(n)], [cover], [np.ones(n, bool)]
    for place, cause in enumerate(CAUSES):
        for kind, odds in cause.also:
            more = np.flatnonzero((losses.cause == place) & (rng.random(n) < odds) & ~losses.paid)
            claim.append(more)
            kinds.append(np.full(len(more), COVER_INDEX[kind]))
            first.append(np.zeros(len(more), bool))
    claim, cover, first = np.concatenate(claim), np.concatenate(kinds), np.concatenate(first)
    order = np.lexsort((~first, claim))
    claim, cover, first = claim[order], cover[order], first[order]

    version = policies.version_at(losses.policy[claim], losses.day[claim])
    coverage = policies.coverage_of(version, cover)
    cover = policies.c_cover[coverage]
    m = len(claim)
    holder = policies.holder[losses.policy[claim]]
    own = people.adults(people.household[holder], rng)
    other = rng.integers(0, people.persons, m)
    third = np.isin(cover, [COVER_INDEX[k] for k in ("bodily_injury", "property_damage", "premises", "products")])
    claimant = np.where(third, other, np.where(rng.random(m) < 0.8, holder, own))
    claimant = np.where(first & (losses.claimant[claim] >= 0), losses.claimant[claim], claimant)
    indemnity, ground = _amounts(rng, losses, policies, claim, cover, coverage, first, began)
    share = np.array([c.expense for c in COVERS])[cover]
    expense = np.round(ground * share * rng.gamma(0.8, 1.2, m)).astype(np.int64)
    expense[(rng.random(m) < 0.45) | (losses.paid[claim] & first)] = 0
    return Exposures(claim, first, cover, coverage, claimant, _providers(rng, losses, people, claim, cover, first),
                     indemnity, expense)  # fmt: skip


def _amounts(rng, losses, policies, claim, cover, coverage, first, began) -> tuple[np.ndarray, np.ndarray]:
    """Indemnity in cents, and the loss from the ground up in cents, before deductible and limit."""
    m = len(claim)
    median, sigma, tail = (np.array([getattr(c, k) for c in COVERS])[cover] for k in ("median", "sigma", "tail"))
    factor = (1 + INFLATION) ** ((losses.day[claim] - began) / 365.25)
    value = col.lognormal(rng, median, sigma, m) * np.where(losses.cat[claim] >= 0, 1.5, 1.0)
    pareto = median * 6 * (1 - rng.random(m)) ** (-1 / 1.7)
    ground = np.where(rng.random(m) < tail, np.minimum(pareto, median * 120), value) * factor * 100
    limit, deductible = policies.c_limit[coverage], policies.c_deductible[coverage]
    net = np.minimum(ground - deductible, limit)
    agreed = rng.random(m) < np.where(net > 500_000, 0.16, 0.03)
    step = np.where(agreed, 50_000, 1)
    net = np.round(net / step) * step
    fixed = losses.ultimate[claim]
    net = np.where(first & (fixed != col.ABSENT), fixed, net)
    net = np.where(losses.uncapped[claim] & first, net, np.minimum(net, limit))
    return np.maximum(net, 0).astype(np.int64), np.abs(ground)


def _providers(rng, losses: Losses, people: People, claim, cover, first) -> np.ndarray:
    """Whom the insurer pays directly, the busy ones more often; -1 where the claimant is paid."""
    provider = np.full(len(claim), -1)
    for place, kind in enumerate(COVERS):
        here = np.flatnonzero((cover == place) & (rng.random(len(claim)) < kind.direct))
        choice = np.flatnonzero(people.provider_kind == KINDS.index(kind.provider))
        provider[here] = choice[col.pick(rng, people.provider_weight[choice], len(here))]
    fixed = losses.provider[claim]
    return np.where(first & (fixed != -1), np.maximum(fixed, -1), provider)
