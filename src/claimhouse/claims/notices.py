"""The first notice of a loss: claim, parties, exposures, first reserves, status and tasks in one transaction.

A few carry planted fraud, whose label goes to the transaction; now and then a party is typed in twice.
"""

from __future__ import annotations

import math
from datetime import timedelta

from claimhouse.claims.desk import EXPENSE, INDEMNITY, Desk, File, Held, Work
from claimhouse.claims.lines import Cause, Cover
from claimhouse.claims.plants import KIND_OF_RULE
from claimhouse.claims.transaction import CHANNELS, Transaction, book, lognormal, task
from claimhouse.claims.words import FAMILY, GIVEN, SENTENCES, STATES

CITIES = {state: [city for city, _ in cities] for state, _, cities, _ in STATES}
_STATES = [s[0] for s in STATES]
_THIRD = {"bodily_injury", "property_damage", "premises", "products"}


def severity(desk: Desk, cover: Cover, limit: int, deductible: int, years: float = 9.5) -> int:
    """What an exposure will cost in cents, net of deductible and up to the limit."""
    ground = lognormal(desk, cover.median, cover.sigma) * 1.04**years * 100
    if desk.rng.random() < cover.tail:
        ground = min(cover.median * 600 * desk.rng.random() ** (-1 / 1.7), cover.median * 12_000)
    return max(0, min(int(ground) - deductible, limit))


def _cause(desk: Desk, held: Held) -> Cause:
    return desk.rng.choices(held.line.causes, [c.weight for c in held.line.causes])[0]


def _insured(desk: Desk) -> Held:
    """A policy, the likelier the more units it has and the more losses its line brings."""
    while True:
        held = desk.some(desk.policies)
        if desk.rng.random() < held.line.frequency * held.units:
            return held


def first_notice(desk: Desk, tx: Transaction) -> bool:
    """A claim with its parties, exposures, first reserves, status and work list; sometimes planted fraud."""
    if not desk.policies:
        return False
    rng = desk.rng
    rule = rng.choice(_LIVE_FRAUD) if rng.random() < 0.05 else ""
    if desk.ring[1] and rng.random() < 0.4:
        rule = "bank_velocity"
    held, twin = _insured(desk), None
    lag = int(min(lognormal(desk, held.line.lag, held.line.lag_sigma), 200))
    loss = max(held.since, tx.today - timedelta(days=lag))
    if rule == "early_loss":
        held = max((desk.some(desk.policies) for _ in range(200)), key=lambda h: (h.inception, h.policy_id))
        loss = max(held.inception, tx.today - timedelta(days=2))
        rule = rule if (loss - held.inception).days <= 30 else ""
    elif rule == "duplicate_loss":
        twin = desk.some_file(lambda f: f.asset_id is not None and not f.fraud and f.line.name in ("motor", "property"))
        held = next((h for h in desk.policies if twin and h.policy_id == twin.policy_id), held)
        rule, twin = (rule, twin) if twin and held.policy_id == twin.policy_id else ("", None)
        loss = twin.loss if twin else loss
    cause = _cause(desk, held)
    adjuster = desk.some(desk.common.adjusters.get(held.line.name) or desk.common.by_authority)
    asset = twin.asset_id if twin else desk.some(held.assets) if held.assets else None
    file = File(desk.numbers.next("claim"), held.policy_id, asset, held.line, adjuster, "new", min(loss, tx.today), [],
                fraud=rule)  # fmt: skip
    _write_claim(desk, tx, file, held, cause)
    _write_parties(desk, tx, file, held, cause)
    desk.files.append(file)
    desk.fresh.append(file)
    return True


def _write_claim(desk: Desk, tx: Transaction, file: File, held: Held, cause: Cause) -> None:
    rng = desk.rng
    state = held.state if rng.random() < 0.9 else rng.choice(_STATES)
    code, cause_name = None, cause.name
    for event, line, name, since in desk.catastrophes:
        if line == held.line.name and tx.number - since < 2500 and rng.random() < 0.4:
            code, cause_name = event, name
    number = f"CLM-{tx.today.year}-{file.claim_id:06d}"
    notes = " ".join(rng.choices(SENTENCES, k=rng.randint(60, 120) if rng.random() < 0.12 else rng.randint(0, 4)))
    extra = {"channel": rng.choices(CHANNELS, (40, 25, 25, 10))[0]} if tx.channels else {}
    tx.insert("claim", claim_id=file.claim_id, claim_number=number, policy_id=file.policy_id, asset_id=file.asset_id,
              line=file.line.name, cause=cause_name, loss_date=file.loss, loss_state=state,
              loss_place=rng.choice(CITIES[state]), catastrophe_code=code, reported_at=tx.now, status="new",
              adjuster_id=file.adjuster.adjuster_id, details=f'{{"weather": "clear", "injuries": {rng.randint(0, 1)}}}',
              notes=notes, created_at=tx.now, updated_at=tx.now, **extra)  # fmt: skip
    tx.new("claim_status_history", claim_id=file.claim_id, status="new", changed_at=tx.now,
           changed_by=file.adjuster.adjuster_id)  # fmt: skip
    task(tx, file, "acknowledge", "Acknowledge the claim in writing", 2)
    task(tx, file, "contact", "Call the claimant", 3)
    if file.fraud:
        tx.labels.append((file.claim_id, number, file.fraud))


def _write_parties(desk: Desk, tx: Transaction, file: File, held: Held, cause: Cause) -> None:
    rng = desk.rng
    parties = {(held.holder, "insured")}
    kinds = [cause.cover, *(kind for kind, odds in cause.also if rng.random() < odds and not file.fraud)]
    for kind in kinds:
        own = next((c for c in held.covers if c[1].kind == kind), held.covers[0])
        coverage, cover, limit, deductible = own
        claimant = rng.choice(desk.common.persons) if cover.kind in _THIRD else held.holder
        if file.fraud == "bank_velocity":
            claimant = _ring_member(desk, tx)
        shown = claimant
        if rng.random() < 0.05 and not file.fraud:
            shown = _double(desk, tx, file, claimant)
        work = Work(desk.numbers.next("exposure"), cover, limit, claimant, severity(desk, cover, limit, deductible))
        _plant_amount(desk, file, work)
        parties.add((shown, "claimant"))
        tx.insert("exposure", exposure_id=work.exposure_id, claim_id=file.claim_id, coverage_id=coverage,
                  claimant_id=shown, kind=cover.kind, status="open", opened_at=tx.now)  # fmt: skip
        guess = max(20_000, round(work.left * math.exp(rng.gauss(-0.03, 0.45)) / 5_000) * 5_000)
        book(tx, file, work, INDEMNITY, "initial", guess)
        if rng.random() < 0.4:
            book(tx, file, work, EXPENSE, "initial", max(5_000, round(guess * cover.expense / 5_000) * 5_000))
        file.works.append(work)
    if held.line.name == "motor":
        parties.add((held.holder, "driver"))
    for party, role in sorted(parties):
        tx.insert("claim_party", claim_id=file.claim_id, party_id=party, role=role, added_at=tx.now)


_LIVE_FRAUD = ("early_loss", "duplicate_loss", "bank_velocity", "round_amount", "near_authority", "over_limit",
               "duplicate_invoice")  # fmt: skip
assert set(_LIVE_FRAUD) <= set(KIND_OF_RULE)


def _plant_amount(desk: Desk, file: File, work: Work) -> None:
    if file.fraud == "round_amount":
        work.left = min(desk.rng.randint(2, 9) * 100_000, max(100_000, work.limit // 100_000 * 100_000))
    elif file.fraud == "near_authority":
        work.left = min(int(file.adjuster.authority * desk.rng.uniform(0.92, 0.995)), work.limit)
    elif file.fraud == "over_limit":
        work.left = int(work.limit * desk.rng.uniform(1.05, 1.3))


def person(desk: Desk, tx: Transaction, address: int, phone: str | None = None, account: tuple[str, str] | None = None,
           family: str | None = None) -> int:  # fmt: skip
    """A new person with an account of their own."""
    rng = desk.rng
    name = f"{rng.choice(GIVEN)} {family or rng.choice(FAMILY)}"
    phone = phone or f"+1555{rng.randrange(2_000_000, 10_000_000)}"
    number = tx.new("party", kind="person", name=name, birth_date=tx.today - timedelta(days=rng.randint(7000, 29000)),
                    address_id=address, phone=phone, email=None, created_at=tx.now, updated_at=tx.now)  # fmt: skip
    routing, digits = account or (f"9{rng.randrange(10**8):08d}", f"{rng.randrange(10**10):010d}")
    desk.common.account[number] = tx.new("bank_account", party_id=number, routing_number=routing, account_number=digits,
                                         valid_from=tx.today)  # fmt: skip
    return number


def home(desk: Desk, tx: Transaction, state: str) -> int:
    """A new address."""
    rng = desk.rng
    return tx.new("address", line1=f"{rng.randint(1, 9900)} Oak St", city=rng.choice(CITIES[state]), state=state,
                  postcode=f"{rng.randrange(10_000, 99_999)}")  # fmt: skip


def _ring_member(desk: Desk, tx: Transaction) -> int:
    """A stranger who is paid into the account that the next three or four strangers are paid into as well."""
    account, left = desk.ring if desk.ring[1] else (f"{desk.rng.randrange(10**10):010d}", desk.rng.randint(4, 5))
    desk.ring = (account, left - 1)
    return person(desk, tx, home(desk, tx, desk.rng.choice(_STATES)), account=("990000001", account))


def _double(desk: Desk, tx: Transaction, file: File, party: int) -> int:
    """The same person typed in twice: merged later."""
    number = desk.numbers.next("party")
    tx.run("INSERT INTO public.party (party_id, kind, name, birth_date, address_id, phone, created_at, updated_at) "
           "SELECT %s, kind, upper(name), birth_date, address_id, phone, %s, %s FROM public.party "
           "WHERE party_id = %s", number, tx.now, tx.now, party)  # fmt: skip
    desk.doubles.append((file.claim_id, number, party))
    return number
