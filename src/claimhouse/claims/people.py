"""Who appears in the book: households with shared addresses, telephones and accounts, providers, adjusters.

Innocent sharing is the rule, not the exception: families live together and use one telephone, spouses hold joint
accounts, a few addresses house very large families. Any rule that links claims by such values must live with that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from claimhouse.claims import columns as col
from claimhouse.claims.lines import CURRENCY, LINES
from claimhouse.claims.words import COMPANIES, FAMILY, GIVEN, SPECIALTIES, STATES, STREETS

KINDS = tuple(COMPANIES)
_HOUSEHOLD = (0.30, 0.33, 0.16, 0.13, 0.06, 0.02)
AUTHORITY = (2_500, 5_000, 10_000, 25_000, 50_000, 150_000)


@dataclass
class People:
    """Columns of parties (places are party_id - 1), addresses, accounts, providers and adjusters.

    `phone` and `account` are numbers, `bank` a place in the list of routing numbers: fraud plants make them equal.
    `household[p]` is the household of a person; organisations have households of their own.
    """

    state: np.ndarray
    city: np.ndarray
    street: np.ndarray
    house: np.ndarray
    household: np.ndarray
    given: np.ndarray
    family: np.ndarray
    born: np.ndarray
    phone: np.ndarray
    bank: np.ndarray
    account: np.ndarray
    since: np.ndarray
    persons: int
    provider_party: np.ndarray
    provider_kind: np.ndarray
    provider_weight: np.ndarray
    adjuster_line: np.ndarray
    adjuster_authority: np.ndarray
    big_families: np.ndarray

    def adults(self, household: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One member of each household."""
        first = np.searchsorted(self.household[: self.persons], household)
        size = np.searchsorted(self.household[: self.persons], household, side="right") - first
        return first + (rng.random(len(household)) * size).astype(np.int64)

    @property
    def party_state(self) -> np.ndarray:
        return self.state[self.household]


def make_people(seed: int, households: int, scale: float, began: int) -> People:
    """Households and all who work with the insurer; `began` is the day number on which the book begins."""
    rng = col.stream(seed, "people")
    size = col.pick(rng, _HOUSEHOLD, households) + 1
    big = np.sort(rng.choice(households, max(2, households // 250), replace=False))
    size[big] = rng.integers(7, 12, len(big))
    persons = int(size.sum())
    providers = max(24, int(96 * scale**0.5))
    adjusters = max(10, int(26 * scale**0.5))
    places, parties = households + providers, persons + providers

    household = np.concatenate([np.repeat(np.arange(households), size), np.arange(households, places)])
    state = col.pick(rng, [s[1] for s in STATES], places)
    family = rng.integers(0, len(FAMILY), places)[household]
    other_name = rng.random(parties) < 0.12
    family[other_name] = rng.integers(0, len(FAMILY), int(other_name.sum()))
    phone = rng.permutation(max(4_000_000, parties * 2))[:parties] + 2_000_000
    account = rng.integers(10**9, 10**10, parties)
    bank = rng.integers(0, 12, parties)
    first = np.searchsorted(household, household)
    for values, share in ((phone, 0.25), (account, 0.3)):
        shared = (rng.random(parties) < share) & (np.arange(parties) - first == 1)
        values[shared] = values[first[shared]]
        if values is account:
            bank[shared] = bank[first[shared]]
    kind = np.arange(providers) % len(KINDS)
    return People(
        state=state,
        city=rng.integers(0, 1 << 16, places),
        street=rng.integers(0, len(STREETS), places),
        house=rng.integers(1, 9900, places),
        household=household,
        given=rng.integers(0, len(GIVEN), parties),
        family=family,
        born=rng.integers(col.day_number(col.EPOCH) - 9_000, col.day_number(col.EPOCH) + 13_000, parties),
        phone=phone,
        bank=bank,
        account=account,
        since=began - rng.integers(1, 900, parties),
        persons=persons,
        provider_party=np.arange(persons, parties),
        provider_kind=kind,
        provider_weight=(1.0 / (1 + np.arange(providers) // len(KINDS))) ** 0.7,
        adjuster_line=np.sort(np.arange(adjusters) % 5 % len(LINES)),
        adjuster_authority=rng.choice(AUTHORITY, adjusters, p=(0.14, 0.25, 0.3, 0.18, 0.1, 0.03)) * 100,
        big_families=big,
    )


def _names(people: People, rng: np.random.Generator) -> pa.Array:
    persons = col.joined(
        col.words(GIVEN, people.given[: people.persons]), " ", col.words(FAMILY, people.family[: people.persons])
    )
    firms = []
    for place, kind in enumerate(people.provider_kind):
        heads, tails = COMPANIES[KINDS[kind]]
        turn = place // len(KINDS)
        suffix = "" if turn < len(heads) * len(tails) else f" {1 + turn // (len(heads) * len(tails))}"
        firms.append(f"{heads[turn % len(heads)]} {tails[turn // len(heads) % len(tails)]}{suffix}")
    return pa.concat_arrays([persons, pa.array(firms, pa.string())])


def _ids(count: int) -> pa.Array:
    return pa.array(np.arange(1, count + 1))


def routing_number(bank: np.ndarray) -> pa.Array:
    """Nine digits in a range that no real bank has."""
    return col.joined("9", col.digits(bank * 7_654_321 % 100_000_000, 8))


def phone_text(phone: np.ndarray) -> pa.Array:
    """E.164 below an area code that is never assigned."""
    return col.joined("+1555", col.digits(phone, 7))


def people_tables(people: People, seed: int) -> dict[str, pa.Table]:
    """The tables address, party, bank_account, provider and adjuster."""
    rng = col.stream(seed, "people tables")
    places, parties = len(people.state), len(people.household)
    city = [(state, c, zipped) for state, _, cities, _ in STATES for c, zipped in cities]
    first = np.cumsum([0] + [len(s[2]) for s in STATES])
    here = first[people.state] + people.city % np.array([len(s[2]) for s in STATES])[people.state]
    address = pa.table(
        {
            "address_id": _ids(places),
            "line1": col.joined(pa.array(people.house).cast(pa.string()), " ", col.words(STREETS, people.street)),
            "city": col.words([c[1] for c in city], here),
            "state": col.words([c[0] for c in city], here),
            "postcode": col.joined(col.words([c[2] for c in city], here), col.digits(people.city % 97, 2)),
            "country": col.words(["US"], np.zeros(places, int)),
        }
    )
    person = np.arange(parties) < people.persons
    created = col.stamps(people.since * col.DAY + rng.integers(8, 18, parties) * col.HOUR)
    domain = col.words(["com", "org", "net"], rng.integers(0, 3, parties))
    mail = col.joined("p", col.digits(rng.permutation(parties), 6), "@example.", domain)
    no_mail = pa.array(rng.random(parties) < 0.15)
    party = pa.table(
        {
            "party_id": _ids(parties),
            "kind": col.words(["organisation", "person"], person.astype(int)),
            "name": _names(people, rng),
            "birth_date": col.dates(np.where(person, people.born, col.ABSENT)),
            "address_id": pa.array(people.household + 1),
            "phone": phone_text(people.phone),
            "email": col.pc.if_else(no_mail, pa.scalar(None, pa.string()), mail),
            "created_at": created,
            "updated_at": created,
        }
    )
    closed = rng.random(parties) < 0.02
    account = pa.table(
        {
            "bank_account_id": _ids(parties),
            "party_id": _ids(parties),
            "routing_number": routing_number(people.bank),
            "account_number": col.digits(people.account, 10),
            "valid_from": col.dates(people.since),
            "valid_to": col.pc.if_else(pa.array(closed), "2035-12-31", "infinity"),
        }
    )
    providers = len(people.provider_kind)
    special = [SPECIALTIES[KINDS[k]] for k in people.provider_kind]
    count = rng.integers(1, 4, providers)
    provider = pa.table(
        {
            "provider_id": _ids(providers),
            "party_id": pa.array(people.provider_party + 1),
            "kind": col.words(KINDS, people.provider_kind),
            "licence": col.joined("LIC-", col.digits(rng.permutation(90_000)[:providers] + 10_000, 5)),
            "specialties": pa.array(["{" + ",".join(s[:n]) + "}" for s, n in zip(special, count, strict=True)]),
            "preferred": pa.array(rng.random(providers) < 0.3),
            "since": col.dates(people.since[people.provider_party]),
        }
    )
    adjusters = len(people.adjuster_line)
    adjuster = pa.table(
        {
            "adjuster_id": _ids(adjusters),
            "name": col.joined(
                col.words(GIVEN, rng.integers(0, len(GIVEN), adjusters)), " ",
                col.words(FAMILY, rng.integers(0, len(FAMILY), adjusters))),
            "line": col.words([line.name for line in LINES], people.adjuster_line),
            "authority_limit": col.money(people.adjuster_authority),
            "currency": col.words([CURRENCY], np.zeros(adjusters, int)),
            "active": pa.array(np.ones(adjusters, bool)),
        }
    )  # fmt: skip
    return {"address": address, "party": party, "bank_account": account, "provider": provider, "adjuster": adjuster}
