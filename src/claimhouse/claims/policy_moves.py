"""What happens to policies and people, one transaction each: new business, renewals, endorsements, cancellations.

Composed like the moves of claims; a policy's versions stay half open and never overlap.
"""

from __future__ import annotations

import heapq
import math
from datetime import date

from claimhouse.claims.desk import Desk, Held, dollars
from claimhouse.claims.lines import CURRENCY, INFLATION, LINES, RETENTION, TARGET_LOSS_RATIO, Cover
from claimhouse.claims.notices import home, person
from claimhouse.claims.policies import mean_loss
from claimhouse.claims.transaction import Transaction
from claimhouse.claims.words import FAMILY, STATES, VEHICLES

_VIN = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_VALUE = {"vehicle": 26_000, "building": 310_000, "premises": 450_000, "traveller": 5_000}


def a_year_after(day: date) -> date:
    """The anniversary of a day (28 February for 29)."""
    return day.replace(year=day.year + 1, day=min(day.day, 28) if day.month == 2 else day.day)


def _raised(cover: Cover, limit: int) -> int:
    """The next higher limit in cents, or the same if it is the highest."""
    return next((step * 100 for step in cover.limits if step * 100 > limit), limit)


def _write_version(tx: Transaction, held: Held, reason: str) -> None:
    """A version with its coverages, from what the desk now holds."""
    tx.insert("policy_version", policy_id=held.policy_id, version=held.version, reason=reason,
              effective_from=held.since, effective_to=held.until, units=held.units,
              annual_premium=dollars(held.premium), currency=CURRENCY, issued_at=tx.now)  # fmt: skip
    covers = []
    for _, cover, limit, deductible in held.covers:
        number = tx.new("coverage", policy_id=held.policy_id, version=held.version, kind=cover.kind,
                        limit_amount=dollars(limit), deductible=dollars(deductible), currency=CURRENCY,
                        valid_from=held.since, valid_to=held.until)  # fmt: skip
        covers.append((number, cover, limit, deductible))
    held.covers = covers


def _book_premium(tx: Transaction, held: Held, kind: str, amount: int, since: date, until: date) -> None:
    if amount and until > since:
        tx.new("premium_txn", policy_id=held.policy_id, version=held.version, kind=kind, amount=dollars(amount),
               currency=CURRENCY, earned_from=since, earned_to=until, booked_at=tx.now)  # fmt: skip


def _cut_version(tx: Transaction, held: Held) -> None:
    """End the current version, and what it covers, today."""
    key = (held.policy_id, held.version)
    tx.run("UPDATE public.policy_version SET effective_to = %s WHERE policy_id = %s AND version = %s", tx.today, *key)
    tx.run("UPDATE public.coverage SET valid_to = %s WHERE policy_id = %s AND version = %s", tx.today, *key)


def renew(desk: Desk, tx: Transaction) -> bool:
    """The policy whose term ended first is renewed for a year, or lapses."""
    while desk.due and desk.due[0][2].until != desk.due[0][0]:
        heapq.heappop(desk.due)
    if not desk.due or desk.due[0][0] > tx.today:
        return False
    held = heapq.heappop(desk.due)[2]
    if desk.rng.random() > RETENTION:
        return _end(desk, tx, held, "lapsed", held.until)
    held.version += 1
    held.since, held.until = held.until, a_year_after(held.until)
    held.premium = int(held.premium * 1.03) // 100 * 100
    _write_version(tx, held, "renewal")
    _book_premium(tx, held, "written", held.premium, held.since, held.until)
    tx.run("UPDATE public.policy SET updated_at = %s WHERE policy_id = %s", tx.now, held.policy_id)
    heapq.heappush(desk.due, (held.until, held.policy_id, held))
    return True


def _end(desk: Desk, tx: Transaction, held: Held, status: str, day: date) -> bool:
    tx.run("UPDATE public.policy SET status = %s, ended_on = %s, updated_at = %s WHERE policy_id = %s",
           status, day, tx.now, held.policy_id)  # fmt: skip
    desk.remove(desk.policies, held)
    held.until = date.min  # its place in the heap of renewals is void
    return True


def raise_limit(desk: Desk, tx: Transaction) -> bool:
    """A limit increase within the term: the version ends today, the next one has the higher limits."""
    held = desk.some(desk.policies) if desk.policies else None
    if held is None or not held.since < tx.today < held.until:
        return False
    higher = [(n, cover, _raised(cover, limit), deductible) for n, cover, limit, deductible in held.covers]
    if [h[2] for h in higher] == [c[2] for c in held.covers]:
        return False
    _cut_version(tx, held)
    held.version, held.since, held.covers = held.version + 1, tx.today, higher
    more = int(held.premium * 0.06 * (held.until - tx.today).days / 365.25)
    held.premium = int(held.premium * 1.06) // 100 * 100
    _write_version(tx, held, "limit_increase")
    _book_premium(tx, held, "additional", more, tx.today, held.until)
    return True


def cancel(desk: Desk, tx: Transaction) -> bool:
    """A policy is cancelled today and the premium of the rest of its term returned."""
    held = desk.some(desk.policies) if len(desk.policies) > 20 else None
    if held is None or not held.since < tx.today < held.until:
        return False
    back = int(held.premium * (held.until - tx.today).days / 365.25)
    _cut_version(tx, held)
    _book_premium(tx, held, "return", -back, tx.today, held.until)
    return _end(desk, tx, held, "cancelled", tx.today)


def adjust_premium(desk: Desk, tx: Transaction) -> bool:
    """A small additional premium or return for the rest of the term (mileage, an added driver)."""
    held = desk.some(desk.policies) if desk.policies else None
    if held is None or tx.today >= held.until:
        return False
    amount = int(held.premium * desk.rng.uniform(-0.03, 0.05))
    _book_premium(tx, held, "additional" if amount > 0 else "return", amount, tx.today, held.until)
    return bool(amount)


def new_policy(desk: Desk, tx: Transaction) -> bool:
    """New business: a household with its address, people and accounts, a policy with assets, coverages and premium."""
    rng = desk.rng
    line = rng.choices(LINES, [x.share for x in LINES])[0]
    state = rng.choices([s[0] for s in STATES], [s[1] for s in STATES])[0]
    address, family = home(desk, tx, state), rng.choice(FAMILY)
    people = [person(desk, tx, address, family=family) for _ in range(rng.choices((1, 2, 3), (4, 4, 2))[0])]
    units = rng.choices((1, 2, 3), (62, 27, 8))[0] if line.name in ("motor", "travel") else 1
    years = tx.today.year - 2016
    rate = line.frequency * mean_loss(line) / TARGET_LOSS_RATIO * (1 + INFLATION) ** years
    premium = int(rate * units * math.exp(rng.gauss(0, 0.22))) * 100
    covers = [(0, c, rng.choice(c.limits[:2]) * 100, rng.choice(c.deductibles) * 100)
              for place, c in enumerate(line.covers) if place != 1 or rng.random() < 0.8]  # fmt: skip
    number = desk.numbers.next("policy")
    held = Held(
        number, line, people[0], state, 1, tx.today, tx.today, a_year_after(tx.today), units, premium, covers, []
    )
    tx.insert("policy", policy_id=number, policy_number=f"POL-{line.name[:2].upper()}-{number * 7 + 100_000:07d}",
              line=line.name, holder_id=people[0], state=state, status="in_force", inception=tx.today,
              currency=CURRENCY, created_at=tx.now, updated_at=tx.now)  # fmt: skip
    for _ in range(units):
        held.assets.append(_asset(desk, tx, held, address))
    _write_version(tx, held, "new")
    _book_premium(tx, held, "written", premium, held.since, held.until)
    desk.common.persons.extend(people)
    desk.policies.append(held)
    heapq.heappush(desk.due, (held.until, number, held))
    return True


def _asset(desk: Desk, tx: Transaction, held: Held, address: int) -> int:
    rng, kind = desk.rng, held.line.asset
    vehicle = kind == "vehicle"
    value = int(_VALUE[kind] * math.exp(rng.gauss(0, 0.4)) / 500) * 50_000
    return tx.new("insured_asset", policy_id=held.policy_id, kind=kind,
                  vin="".join(rng.choices(_VIN, k=17)) if vehicle else None,
                  make=rng.choice(VEHICLES) if vehicle else None,
                  model_year=rng.randint(2008, tx.today.year) if vehicle else None,
                  address_id=address if kind in ("building", "premises") else None,
                  insured_value=dollars(value), currency=CURRENCY)  # fmt: skip


def edit_party(desk: Desk, tx: Transaction) -> bool:
    """A holder moves house, changes telephone or e-mail, or has a new account."""
    if not desk.policies:
        return False
    held, rng = desk.some(desk.policies), desk.rng
    turn = rng.randrange(4)
    if turn == 0:
        address = home(desk, tx, held.state)
        tx.run(
            "UPDATE public.party SET address_id = %s, updated_at = %s WHERE party_id = %s", address, tx.now, held.holder
        )
    elif turn == 1:
        phone = f"+1555{rng.randrange(2_000_000, 10_000_000)}"
        tx.run("UPDATE public.party SET phone = %s, updated_at = %s WHERE party_id = %s", phone, tx.now, held.holder)
    elif turn == 2:
        mail = f"n{tx.number}@example.net" if rng.random() < 0.9 else None
        tx.run("UPDATE public.party SET email = %s, updated_at = %s WHERE party_id = %s", mail, tx.now, held.holder)
    else:
        tx.run("UPDATE public.bank_account SET valid_to = %s WHERE party_id = %s AND valid_to = 'infinity'",
               tx.today, held.holder)  # fmt: skip
        routing, digits = f"9{rng.randrange(10**8):08d}", f"{rng.randrange(10**10):010d}"
        number = tx.new("bank_account", party_id=held.holder, routing_number=routing, account_number=digits,
                        valid_from=tx.today)  # fmt: skip
        desk.common.account[held.holder] = number
    return True
