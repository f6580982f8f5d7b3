"""Fraud of every class, planted with a label, and innocent lookalikes of it, planted without.

Each plant takes honest losses and bends them into the pattern that a rule looks for, before any money is booked, so
that a planted claim is as consistent as any other. `PLANTS` is the one visible table: the rule's name, its class in the
words of the domain's table, and its rate per claim. Labels never enter the database. Of a pair (the same loss reported
twice) the label stands on the later claim.

Lookalikes are what an investigator would clear: a large family's claims, a therapist's equal bills, an honest loss in
the first month, a fleet in a hailstorm. They carry the name of the rule that they tempt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from claimhouse.claims import columns as col
from claimhouse.claims.lines import CAUSES, COVER_INDEX, COVERS, LINES, causes_of
from claimhouse.claims.losses import Losses
from claimhouse.claims.people import KINDS, People
from claimhouse.claims.policies import Policies

HOLIDAYS = ("01-01", "07-04", "11-26", "12-25")
LINE_OF_CAUSE = np.concatenate([np.full(len(causes_of(line)), n) for n, line in enumerate(LINES)])
COVER_OF_CAUSE = np.array([COVER_INDEX[c.cover] for c in CAUSES])
MOTOR, PROPERTY, LIABILITY, TRAVEL = range(4)
OWN_DAMAGE = (MOTOR, PROPERTY, TRAVEL)


@dataclass
class Ground:
    """Where plants grow: the losses of the book, what they may not use again, and the marks set so far.

    `marks` and `lookalikes` hold (place of the loss, rule).
    """

    rng: np.random.Generator
    losses: Losses
    policies: Policies
    people: People
    began: int
    as_of: int
    free: np.ndarray = field(init=False)
    marks: list[tuple[int, str]] = field(default_factory=list)
    lookalikes: list[tuple[int, str]] = field(default_factory=list)
    shops: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        settled = self.losses.reported < (self.as_of - 150) * col.DAY
        self.free = settled & (self.losses.cat < 0)

    def take(self, count: int, lines: tuple[int, ...] = OWN_DAMAGE, also: np.ndarray | None = None) -> np.ndarray:
        """Up to `count` losses of these lines, settled long before the book's date, not used before."""
        fit = self.free & np.isin(LINE_OF_CAUSE[self.losses.cause], lines)
        fit = np.flatnonzero(fit if also is None else fit & also)
        chosen = self.rng.choice(fit, min(count, len(fit)), replace=False)
        self.free[chosen] = False
        return chosen

    def mark(self, places: np.ndarray, rule: str) -> None:
        self.marks += [(int(p), rule) for p in places]

    def date(self, places: np.ndarray, day: np.ndarray, lag: np.ndarray | None = None) -> None:
        """Move losses to other days; they keep their lag unless another is given."""
        x = self.losses
        noon = x.reported[places] % col.DAY
        lag = x.reported[places] // col.DAY - x.day[places] if lag is None else lag
        x.day[places] = day
        x.reported[places] = np.minimum(day + np.minimum(lag, 400), self.as_of) * col.DAY + noon

    def limit(self, places: np.ndarray) -> np.ndarray:
        """The limit in cents that each loss falls under."""
        x, p = self.losses, self.policies
        version = p.version_at(x.policy[places], x.day[places])
        return p.c_limit[p.coverage_of(version, COVER_OF_CAUSE[x.cause[places]])]

    def settle(self, places: np.ndarray, ultimate: np.ndarray, pays: np.ndarray | int = 1) -> None:
        x = self.losses
        x.paid[places] = True
        x.ultimate[places] = ultimate
        x.pays[places] = pays

    def typical(self, places: np.ndarray, low: float = 0.8, high: float = 2.2) -> np.ndarray:
        """An ordinary amount in cents for the coverage of each loss."""
        median = np.array([c.median for c in COVERS])[COVER_OF_CAUSE[self.losses.cause[places]]]
        return np.round(median * self.rng.uniform(low, high, len(places)) * 100).astype(np.int64)

    def honest_days(self, places: np.ndarray) -> None:
        """Move each loss well inside its policy's time: late in the first version that is long enough."""
        p, x = self.policies, self.losses
        version = p.version_at(x.policy[places], x.day[places])
        early = (x.day[places] - p.start[x.policy[places]]) < 40
        self.date(places[early], np.minimum(p.v_from[version[early]] + 60, p.v_to[version[early]] - 10))

    def window(self, count: int, days: int) -> np.ndarray:
        """Days within one window somewhere in the book's time."""
        start = self.rng.integers(self.began + 500, self.as_of - 200 - days)
        return start + np.sort(self.rng.integers(0, days, count))

    def meet(self, group: np.ndarray, days: int) -> None:
        """Bring losses together within a window, each on a policy of its line that is in force on its day."""
        day = self.window(len(group), days)
        p, x = self.policies, self.losses
        for place, when in zip(group, day, strict=True):
            there = (p.line == p.line[x.policy[place]]) & (p.start < when - 45) & (p.end > when + 20)
            x.policy[place] = self.rng.choice(np.flatnonzero(there))
        self.date(group, day, self.rng.integers(0, 5, len(group)))

    def strangers(self, count: int) -> np.ndarray:
        """Persons from different households."""
        homes = self.rng.choice(self.people.household[self.people.persons - 1] + 1, count, replace=False)
        return self.people.adults(homes, self.rng)

    def low_provider(self, kind: int) -> int:
        """A provider of that kind, from now on with little other business; another one each time."""
        of_kind = np.flatnonzero(self.people.provider_kind == kind)
        small = of_kind[len(of_kind) // 3 :]
        unused = np.setdiff1d(small, self.shops)
        chosen = int(self.rng.choice(unused if len(unused) else small))
        self.shops.append(chosen)
        self.people.provider_weight[chosen] *= 0.03
        return chosen


def _over_limit(g: Ground, n: int) -> None:
    at = g.take(n)
    g.settle(at, np.round(g.limit(at) * g.rng.uniform(1.05, 1.4, len(at))).astype(np.int64), 1)
    g.losses.uncapped[at] = True
    g.mark(at, "over_limit")


def _round(g: Ground, at: np.ndarray) -> None:
    pays = g.rng.integers(1, 4, len(at))
    most = np.maximum(g.limit(at) // 100_000, 1)
    thousands = np.minimum(g.rng.integers(3, 14, len(at)), most)
    g.settle(at, thousands * 100_000, np.minimum(pays, thousands))
    g.losses.round_to[at] = 100_000


def _round_amount(g: Ground, n: int) -> None:
    at = g.take(n)
    _round(g, at)
    g.mark(at, "round_amount")


def _authority(g: Ground, n: int, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses whose adjuster's authority fits `room` times into the limit, and that authority."""
    every = np.arange(len(g.losses))
    authority = g.people.adjuster_authority[g.losses.adjuster]
    at = g.take(n, (MOTOR, PROPERTY), authority * room <= g.limit(every))
    return at, authority[at]


def _near_authority(g: Ground, n: int) -> None:
    at, authority = _authority(g, n, 2)
    pays = g.rng.integers(1, 3, len(at))
    each = np.round(authority * g.rng.uniform(0.92, 0.995, len(at))).astype(np.int64)
    g.settle(at, each * pays, pays)
    g.mark(at, "near_authority")


def _split_payments(g: Ground, n: int) -> None:
    at, authority = _authority(g, n, 4)
    pays = g.rng.integers(3, 5, len(at))
    each = np.round(authority * g.rng.uniform(0.55, 0.88, len(at))).astype(np.int64)
    g.settle(at, each * pays, pays)
    g.losses.spacing[at] = 1.0
    g.mark(at, "split_payments")


def _holiday_loss(g: Ground, n: int) -> None:
    at = g.take(n, (MOTOR, PROPERTY))
    year = col.years_of(g.losses.day[at])
    day = np.array([f"{y}-{g.rng.choice(HOLIDAYS)}" for y in year], dtype="datetime64[D]").astype(np.int64)
    g.date(at, np.clip(day, g.began, g.as_of - 150))
    g.settle(at, np.minimum(g.typical(at, 2, 4), g.limit(at)))
    g.mark(at, "holiday_loss")


def _late_report(g: Ground, n: int) -> None:
    at = g.take(n)
    lag = g.rng.integers(130, 380, len(at))
    g.date(at, np.minimum(g.losses.day[at], g.as_of - 150 - lag), lag)
    g.settle(at, np.minimum(g.typical(at, 1.2, 3), g.limit(at)))
    g.mark(at, "late_report")


def _on_policies(g: Ground, n: int, fit: np.ndarray) -> np.ndarray:
    """Losses moved onto other policies of their line, out of those that fit; one loss a policy."""
    at = g.take(n, (MOTOR, PROPERTY))
    fit = fit & (g.policies.start > g.began + 60) & (g.policies.start < g.as_of - 400)
    for place in at:
        line = LINE_OF_CAUSE[g.losses.cause[place]]
        choice = np.flatnonzero(fit & (g.policies.line == line))
        g.losses.policy[place] = g.rng.choice(choice)
    g.settle(at, g.typical(at, 1.2, 2.6))
    return at


OnDays = Callable[[Ground, np.ndarray], np.ndarray]


def _policy_days(
    rule: str, fit: Callable[[Policies, int], np.ndarray], day: OnDays, reported: OnDays | None = None
) -> Callable[[Ground, int], None]:
    """A plant that sets the loss at a telling distance from a date of its policy."""

    def plant(g: Ground, n: int) -> None:
        at = _on_policies(g, n, fit(g.policies, g.as_of))
        when = day(g, g.losses.policy[at])
        wait = g.rng.integers(0, 5, len(at)) if reported is None else reported(g, g.losses.policy[at]) - when
        g.date(at, when, wait)
        both = at[g.rng.random(len(at)) < 0.3]
        _round(g, both)
        g.mark(at, rule)
        g.mark(both, "round_amount")

    return plant


def _any(p: Policies, as_of: int) -> np.ndarray:
    return np.ones(len(p.line), bool)


def _over(p: Policies, as_of: int) -> np.ndarray:
    return (p.ended != col.ABSENT) & (p.ended < as_of - 200) & (p.ended > p.start + 60)


_before_inception = _policy_days(
    "before_inception", _any, lambda g, p: g.policies.start[p] - g.rng.integers(2, 40, len(p)),
    lambda g, p: g.policies.start[p] + g.rng.integers(1, 15, len(p)))  # fmt: skip
_after_lapse = _policy_days("after_lapse", _over, lambda g, p: g.policies.ended[p] + g.rng.integers(0, 30, len(p)))
_early_loss = _policy_days("early_loss", _any, lambda g, p: g.policies.start[p] + g.rng.integers(1, 18, len(p)))
_before_expiry = _policy_days("before_expiry", _over, lambda g, p: g.policies.ended[p] - g.rng.integers(1, 7, len(p)))


def _limit_increase(g: Ground, n: int) -> None:
    p, x = g.policies, g.losses
    at = g.take(n, (MOTOR, PROPERTY))
    for place in at:
        cover = COVER_OF_CAUSE[x.cause[place]]
        line = LINE_OF_CAUSE[x.cause[place]]
        rises = np.flatnonzero((p.v_reason == 2) & (p.line[p.v_policy] == line) & (p.v_from < g.as_of - 200))
        covers = np.full(len(rises), cover)
        new, old = p.coverage_of(rises, covers), p.coverage_of(rises - 1, covers)
        real = (p.c_limit[new] > p.c_limit[old]) & (p.c_cover[new] == cover)
        if not real.any():
            continue
        chosen = g.rng.choice(np.flatnonzero(real))
        version, low, high = rises[chosen], p.c_limit[old[chosen]], p.c_limit[new[chosen]]
        one = np.array([place])
        x.policy[place] = p.v_policy[version]
        last = max(2, min(25, int(p.v_to[version] - p.v_from[version])))
        g.date(one, p.v_from[version] + g.rng.integers(1, last, 1), g.rng.integers(0, 5, 1))
        g.settle(one, np.round(low + (high - low) * g.rng.uniform(0.2, 0.9, 1)).astype(np.int64), 2)
        g.mark(one, "limit_increase")


def _providers_for(g: Ground, at: np.ndarray) -> np.ndarray:
    """A provider of the kind that each loss's coverage pays."""
    kinds = [KINDS.index(COVERS[COVER_OF_CAUSE[c]].provider) for c in g.losses.cause[at]]
    return np.array([g.rng.choice(np.flatnonzero(g.people.provider_kind == k)) for k in kinds], dtype=np.int64)


def _duplicate_invoice(g: Ground, n: int) -> None:
    at = g.take(n, (MOTOR, PROPERTY))
    each = np.minimum(g.typical(at, 0.4, 1.0), g.limit(at) // 2)
    g.settle(at, each * 2, 2)
    g.losses.provider[at] = _providers_for(g, at)
    g.losses.spacing[at] = g.rng.integers(9, 40, len(at))
    g.losses.twice[at] = True
    g.mark(at, "duplicate_invoice")


def _duplicate_loss(g: Ground, n: int) -> None:
    x, p = g.losses, g.policies
    first = g.take(n, (MOTOR, PROPERTY))
    g.honest_days(first)
    x.asset[first] = p.a_first[x.policy[first]]
    again = x.take(first)
    again.day = first_day = again.day + g.rng.integers(0, 2, len(first))
    again.reported = first_day * col.DAY + g.rng.integers(9, 40, len(first)) * col.DAY + 13 * col.HOUR
    again.reported = np.maximum(again.reported, x.reported[first] + 3 * col.DAY)
    again.claimant = g.people.adults(g.people.household[p.holder[again.policy]], g.rng)
    again.paid[:] = True
    places = np.arange(len(x), len(x) + len(first))
    g.losses = x.extend(again)
    g.free = np.concatenate([g.free, np.zeros(len(first), bool)])
    g.losses.ultimate[places] = np.minimum(g.typical(places), g.limit(places))
    g.mark(places, "duplicate_loss")


def _groups(g: Ground, n: int, size: int, days: int, lines: tuple[int, ...]) -> list[np.ndarray]:
    """Groups of losses brought together, settled, each paid to its claimant."""
    out = []
    for _ in range(max(1, round(n / size))):
        at = g.take(size, lines)
        if len(at) < size:
            break
        g.meet(at, days)
        g.settle(at, np.minimum(g.typical(at), g.limit(at)))
        g.losses.provider[at] = -2
        out.append(at)
    return out


def _claimant_velocity(g: Ground, n: int) -> None:
    for at in _groups(g, n, 4, 55, (MOTOR, LIABILITY, TRAVEL)):
        g.losses.claimant[at] = g.strangers(1)[0]
        g.mark(at, "claimant_velocity")


def _address_velocity(g: Ground, n: int) -> None:
    size = np.bincount(g.people.household[: g.people.persons])
    homes = g.rng.permutation(np.flatnonzero((size >= 4) & (size < 7)))
    for home, at in zip(homes, _groups(g, n, 4, 55, (MOTOR, TRAVEL)), strict=False):
        g.losses.claimant[at] = np.flatnonzero(g.people.household == home)[:4]
        g.mark(at, "address_velocity")


def _phone_velocity(g: Ground, n: int) -> None:
    for at in _groups(g, n, 4, 60, (MOTOR, PROPERTY, TRAVEL)):
        people = g.strangers(4)
        g.people.phone[people] = g.people.phone[people[0]]
        g.losses.claimant[at] = people
        g.mark(at, "phone_velocity")


def _bank(g: Ground, people: np.ndarray) -> None:
    g.people.bank[people] = g.people.bank[people[0]]
    g.people.account[people] = g.people.account[people[0]]


def _bank_velocity(g: Ground, n: int) -> None:
    for at in _groups(g, n, 4, 60, (MOTOR, PROPERTY, TRAVEL)):
        people = g.strangers(4)
        _bank(g, people)
        g.losses.claimant[at] = people
        g.mark(at, "bank_velocity")


def _provider_velocity(g: Ground, n: int) -> None:
    for at in _groups(g, n, 7, 14, (MOTOR,)):
        g.losses.provider[at] = g.low_provider(KINDS.index("body_shop"))
        g.mark(at, "provider_velocity")


def _provider_severity(g: Ground, n: int) -> None:
    for at in _groups(g, n, max(6, n // 2), 500, (MOTOR,)):
        g.losses.provider[at] = g.low_provider(KINDS.index("body_shop"))
        g.settle(at, np.minimum(g.typical(at, 3.2, 5.5), g.limit(at)))
        g.mark(at, "provider_severity")


def _benford(g: Ground, n: int) -> None:
    for at in _groups(g, n, max(8, n), 700, (MOTOR,)):
        g.losses.provider[at] = g.low_provider(KINDS.index("body_shop"))
        digit = g.rng.integers(5, 10, len(at)) * 100 + g.rng.integers(0, 100, len(at))
        g.settle(at, digit * np.where(g.rng.random(len(at)) < 0.5, 100, 1000) + g.rng.integers(0, 100, len(at)))
        g.mark(at, "benford")


def _linked_ring(g: Ground, n: int) -> None:
    """Six claims over two years, each sharing one thing with the next: telephone, account, address, and so on."""
    size = np.bincount(g.people.household[: g.people.persons])
    for at in _groups(g, n, 6, 700, (MOTOR, TRAVEL)):
        who = g.strangers(6)
        pairs = g.rng.permutation(np.flatnonzero((size >= 2) & (size < 5)))[0]
        who[2:4] = np.flatnonzero(g.people.household == pairs)[:2]
        g.people.phone[who[1]] = g.people.phone[who[0]]
        _bank(g, who[1:3])
        g.people.phone[who[4]] = g.people.phone[who[3]]
        _bank(g, who[4:6])
        g.losses.claimant[at] = who
        g.mark(at, "linked_ring")


@dataclass(frozen=True)
class Plant:
    """A rule's name, its class, how many claims per claim of the book, and what plants it."""

    rule: str
    kind: str
    rate: float
    plant: Callable[[Ground, int], None]


PLANTS: tuple[Plant, ...] = (
    Plant("over_limit", "row", 0.0018, _over_limit),
    Plant("round_amount", "row", 0.0018, _round_amount),
    Plant("near_authority", "row", 0.0018, _near_authority),
    Plant("holiday_loss", "row", 0.0018, _holiday_loss),
    Plant("late_report", "row", 0.0018, _late_report),
    Plant("before_inception", "lookup", 0.0016, _before_inception),
    Plant("after_lapse", "lookup", 0.0014, _after_lapse),
    Plant("early_loss", "lookup", 0.0022, _early_loss),
    Plant("limit_increase", "lookup", 0.0016, _limit_increase),
    Plant("before_expiry", "lookup", 0.0014, _before_expiry),
    Plant("duplicate_invoice", "windowed", 0.0024, _duplicate_invoice),
    Plant("duplicate_loss", "windowed", 0.0018, _duplicate_loss),
    Plant("claimant_velocity", "windowed", 0.0020, _claimant_velocity),
    Plant("address_velocity", "windowed", 0.0020, _address_velocity),
    Plant("phone_velocity", "windowed", 0.0020, _phone_velocity),
    Plant("bank_velocity", "windowed", 0.0020, _bank_velocity),
    Plant("provider_velocity", "windowed", 0.0024, _provider_velocity),
    Plant("split_payments", "windowed", 0.0018, _split_payments),
    Plant("provider_severity", "statistics", 0.0050, _provider_severity),
    Plant("benford", "statistics", 0.0050, _benford),
    Plant("linked_ring", "graph", 0.0032, _linked_ring),
)
KIND_OF_RULE = {p.rule: p.kind for p in PLANTS}


def _clear(g: Ground, places: np.ndarray, rule: str) -> None:
    g.lookalikes += [(int(p), rule) for p in places]


def _lookalikes(g: Ground, n: int) -> None:
    """Innocent patterns: about `n` claims of each."""
    x = g.losses
    for home in g.people.big_families[: max(2, n // 4)]:
        at = g.take(4, (MOTOR, TRAVEL))
        members = np.flatnonzero(g.people.household == home)
        g.people.phone[members] = g.people.phone[members[0]]
        x.claimant[at] = members[: len(at)]
        _clear(g, at, "address_velocity")
    equal = g.take(n, (MOTOR, PROPERTY))
    g.settle(equal, np.minimum(g.typical(equal, 0.3, 0.6), g.limit(equal) // 3) * 3, 3)
    x.provider[equal], x.spacing[equal] = _providers_for(g, equal), 14.0
    _clear(g, equal, "duplicate_invoice")
    early = g.take(n, (MOTOR, PROPERTY))
    fit = np.flatnonzero((g.policies.start > g.began + 60) & (g.policies.start < g.as_of - 300))
    for place in early:
        same = fit[g.policies.line[fit] == LINE_OF_CAUSE[x.cause[place]]]
        x.policy[place] = g.rng.choice(same)
    g.date(early, g.policies.start[x.policy[early]] + g.rng.integers(3, 28, len(early)))
    _clear(g, early, "early_loss")
    fleet = np.flatnonzero(np.bincount(g.policies.a_policy) >= 6)
    for policy in g.rng.permutation(fleet)[: max(1, n // 4)]:
        at = g.take(2, (MOTOR,))
        start = int(g.policies.start[policy])
        day = int(g.rng.integers(start, max(start + 1, min(g.policies.end[policy], g.as_of - 150))))
        x.policy[at], x.asset[at] = policy, g.policies.a_first[policy] + np.arange(len(at))
        g.date(at, np.full(len(at), day), np.full(len(at), 2))
        _clear(g, at, "duplicate_loss")
    _grace(g, max(1, n // 4))
    unlucky = [g.take(3, (MOTOR, TRAVEL)) for _ in range(max(1, n // 6))]
    for at, person in zip(unlucky, g.strangers(len(unlucky)), strict=True):
        g.meet(at, 80)
        x.claimant[at] = person
        _clear(g, at, "claimant_velocity")


def _grace(g: Ground, n: int) -> None:
    """What a rule cannot tell from fraud and a letter explains: binders, days of grace, goodwill, instalments."""
    binder = _on_policies(g, n, _any(g.policies, g.as_of))
    g.date(binder, g.policies.start[g.losses.policy[binder]] - 1, g.rng.integers(2, 9, len(binder)))
    _clear(g, binder, "before_inception")
    late = _on_policies(g, n, _over(g.policies, g.as_of))
    g.date(
        late, g.policies.ended[g.losses.policy[late]] + g.rng.integers(0, 5, len(late)), g.rng.integers(0, 5, len(late))
    )
    _clear(g, late, "after_lapse")
    goodwill = g.take(n, (PROPERTY, TRAVEL))
    g.settle(goodwill, np.round(g.limit(goodwill) * g.rng.uniform(1.0, 1.03, len(goodwill))).astype(np.int64) + 100)
    g.losses.uncapped[goodwill] = True
    _clear(g, goodwill, "over_limit")
    parts = g.take(n, (MOTOR, PROPERTY))
    g.settle(parts, np.minimum(g.typical(parts, 0.4, 1.0), g.limit(parts) // 2) * 2, 2)
    g.losses.provider[parts], g.losses.spacing[parts] = _providers_for(g, parts), 30.0
    g.losses.twice[parts] = True
    _clear(g, parts, "duplicate_invoice")


def plant(seed: int, losses: Losses, policies: Policies, people: People, began: int, as_of: int) -> Ground:
    """Plant everything; returns the changed losses with their marks. Changes telephones and accounts in `people`."""
    ground = Ground(col.stream(seed, "plants"), losses, policies, people, began, as_of)
    size = len(losses)
    for each in PLANTS:
        each.plant(ground, max(2, round(each.rate * size)))
    _lookalikes(ground, max(4, round(0.003 * size)))
    return ground
