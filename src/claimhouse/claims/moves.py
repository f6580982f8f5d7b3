"""What happens to claims, one transaction each: reserves, invoices, payments, corrections, closings, reopenings.

A move composes statements into a `Transaction` from what the worker's desk knows, and changes the desk as it goes. It
returns False, having done nothing, when there is nothing to do of its kind. Each keeps the invariants of invariants.py.
"""

from __future__ import annotations

import math
from datetime import timedelta

from claimhouse.claims.desk import EXPENSE, INDEMNITY, Desk, File, Work, dollars
from claimhouse.claims.lines import CURRENCY
from claimhouse.claims.transaction import COST_TYPES, Transaction, book, status, task


def acknowledge(desk: Desk, tx: Transaction) -> bool:
    if not desk.fresh:
        return False
    status(tx, desk.fresh[0], "open", ", acknowledged_at = %s", tx.now)
    desk.undecided.append(desk.fresh.popleft())
    return True


def decide(desk: Desk, tx: Transaction) -> bool:
    """Coverage is accepted, or denied: a denied claim stays open until its file is closed."""
    if not desk.undecided:
        return False
    file = desk.undecided.popleft()
    if desk.rng.random() < 0.06 and not file.fraud:
        file.denied = True
        tx.run(
            "UPDATE public.claim SET decided_at = %s, updated_at = %s WHERE claim_id = %s",
            tx.now,
            tx.now,
            file.claim_id,
        )
    else:
        status(tx, file, "accepted", ", decided_at = %s", tx.now)
        task(tx, file, "pay", "Prepare payment", 15)
    return True


def revise_reserve(desk: Desk, tx: Transaction) -> bool:
    file = desk.some_file(lambda f: f.works)
    if file is None:
        return False
    work = desk.some(file.works)
    target = max(0, round(work.left * math.exp(desk.rng.gauss(0, 0.28)) / 1_000) * 1_000)
    change = target - work.reserve[INDEMNITY]
    if abs(change) < 5_000:
        change = 25_000 * desk.rng.randint(1, 4)
    known = work.reserve[INDEMNITY] or work.paid
    book(tx, file, work, INDEMNITY, "revision" if known else "initial", change)
    tx.run("UPDATE public.claim SET updated_at = %s WHERE claim_id = %s", tx.now, file.claim_id)
    return True


def _payable(file: File) -> bool:
    return file.status in ("accepted", "reopened") and not file.denied and any(w.left > 0 for w in file.works)


def receive_invoice(desk: Desk, tx: Transaction) -> bool:
    """A provider bills a claim; a planted duplicate bills twice, in other spelling."""
    billable = ("", "duplicate_invoice", "early_loss")
    file = desk.some_file(lambda f: _payable(f) and not f.invoices and f.works[0].left > 10_000 and f.fraud in billable)
    providers = desk.common.providers.get(file.works[0].cover.provider) if file else None
    if not file or not providers:
        return False
    work, rng = file.works[0], desk.rng
    provider, party = desk.some(providers)
    amount = (
        work.left if file.fraud or work.left < 100_000 or rng.random() < 0.5 else int(work.left * rng.uniform(0.3, 0.8))
    )
    amount = min(amount, work.limit - work.paid)
    if amount < 5_000:
        return False
    number = f"INV-{tx.today.year}-{rng.randrange(10_000, 99_999)}"
    numbers = [number, number.lower().replace("-", " ")] if file.fraud == "duplicate_invoice" else [number]
    for text in numbers:
        invoice = tx.new("invoice", claim_id=file.claim_id, provider_id=provider, invoice_number=text,
                         amount=dollars(amount), currency=CURRENCY,
                         invoiced_on=tx.today - timedelta(days=rng.randint(0, 9)), received_at=tx.now,
                         status="received")  # fmt: skip
        file.invoices.append((invoice, party, amount))
    return True


def pay(desk: Desk, tx: Transaction) -> bool:
    """A payment with its lines, each drawing its reserve line down; an invoice at hand is paid first."""
    file = desk.some_file(lambda f: f.invoices or (_payable(f) and f.fraud != "duplicate_invoice"))
    if file is None or file.status not in ("accepted", "reopened") or file.denied:
        return False
    rng = desk.rng
    if file.invoices:
        invoice, payee, amount = file.invoices.pop(0)
        work = file.works[0]
        tx.run("UPDATE public.invoice SET status = 'paid' WHERE invoice_id = %s", invoice)
    else:
        invoice, work = None, max(file.works, key=lambda w: w.left)
        payee = work.claimant
        whole = file.fraud or work.left < 20_000 or rng.random() < 0.5
        amount = work.left if whole else int(work.left * rng.uniform(0.25, 0.75))
        if file.fraud != "over_limit":
            amount = min(amount, work.limit - work.paid)
        if amount <= 0:
            work.left = 0
            return False
    lines = [(work, INDEMNITY, work.cover.categories[0], amount)]
    if amount > 40_000 and not file.fraud and rng.random() < 0.35:
        part = amount * 3 // 10
        lines = [
            (work, INDEMNITY, work.cover.categories[0], amount - part),
            (work, INDEMNITY, work.cover.categories[1], part),
        ]
    if rng.random() < 0.25 and not file.fraud:
        lines.append((work, EXPENSE, "adjusting", max(1_000, int(amount * rng.uniform(0.02, 0.12)))))
    work.left = max(0, work.left - amount)
    _issue(desk, tx, file, payee, invoice, lines)
    return True


def _issue(desk: Desk, tx: Transaction, file: File, payee: int, invoice: int | None,
           lines: list[tuple[Work, int, str, int]], corrects: int | None = None) -> int:  # fmt: skip
    """Write a payment (or, with `corrects`, its negative) and what its lines do to the reserves."""
    total = sum(line[3] for line in lines)
    number = desk.numbers.next("payment")
    account = desk.common.account.get(payee) or desk.common.account[desk.common.persons[0]]
    tx.insert("payment", payment_id=number, payment_number=f"PAY-{number:08d}", claim_id=file.claim_id, payee_id=payee,
              bank_account_id=account, invoice_id=invoice, amount=dollars(total), currency=CURRENCY, method="transfer",
              status="issued", approved_by=desk.common.approver(file.adjuster, abs(total)), paid_at=tx.now,
              corrects_id=corrects)  # fmt: skip
    for place, (work, cost, category, amount) in enumerate(lines, 1):
        if corrects is None:
            book(tx, file, work, cost, "revision", max(0, amount - work.reserve[cost]))
        tx.insert("payment_line", payment_id=number, line_no=place, exposure_id=work.exposure_id,
                  cost_type=COST_TYPES[cost], category=category, amount=dollars(amount), currency=CURRENCY)  # fmt: skip
        book(tx, file, work, cost, "payment" if corrects is None else "correction", -amount, number)
        if cost == INDEMNITY:
            work.paid += amount
    file.paid = True
    if corrects is None:
        desk.payments.append((file, number, payee, lines))
        desk.issued.append(number)
    return number


def correct_payment(desk: Desk, tx: Transaction) -> bool:
    """A payment is taken back by a compensating one; issued again at once where the claim has since been closed."""
    if not desk.payments:
        return False
    file, number, payee, lines = desk.payments.popleft()
    tx.run("UPDATE public.payment SET status = 'voided' WHERE payment_id = %s", number)
    _issue(desk, tx, file, payee, None, [(w, cost, what, -amount) for w, cost, what, amount in lines], number)
    still = file.status != "closed" and all(any(w is x for x in file.works) for w, *_ in lines)
    if not still or desk.rng.random() < 0.5:
        _issue(desk, tx, file, payee, None, lines)
    else:
        for work, cost, _, amount in lines:
            work.left += amount if cost == INDEMNITY else 0
    if number in desk.issued:
        desk.issued.remove(number)
    return True


def clear_payments(desk: Desk, tx: Transaction) -> bool:
    if len(desk.issued) < 4:
        return False
    numbers = [desk.issued.popleft() for _ in range(4)]
    tx.run("UPDATE public.payment SET status = 'cleared' WHERE payment_id = ANY(%s::bigint[])", numbers)
    return True


def close(desk: Desk, tx: Transaction) -> bool:
    """A claim with nothing left to pay is closed: reserves to zero, exposures, status, the file's last task."""
    file = desk.some_file(lambda f: f.denied or (f.status in ("accepted", "reopened") and not f.invoices
                                                 and all(w.left < 5_000 for w in f.works)), 40)  # fmt: skip
    if file is None and len(desk.files) > desk.usual_load:
        file = desk.some_file(lambda f: f.status in ("accepted", "reopened") and not f.invoices and not f.fraud)
    if file is None:
        return False
    for work in file.works:
        for cost in (INDEMNITY, EXPENSE):
            book(tx, file, work, cost, "close", -work.reserve[cost])
    tx.run("UPDATE public.exposure SET status = 'closed', closed_at = %s WHERE claim_id = %s AND status = 'open'",
           tx.now, file.claim_id)  # fmt: skip
    outcome = "paid" if file.paid else "denied" if file.denied else "no_payment"
    status(tx, file, "closed", ", closed_at = %s, outcome = %s", tx.now, outcome)
    desk.remove(desk.files, file)
    for queue in (desk.undecided, desk.fresh):
        if file in queue:
            queue.remove(file)
    desk.closed.append(file)
    return True


def reopen(desk: Desk, tx: Transaction) -> bool:
    if not desk.closed:
        return False
    file = desk.some(desk.closed)
    if file.status != "closed" or not file.works:
        return False
    desk.closed.remove(file)
    work = file.works[0]
    file.denied = False
    work.left = max(10_000, min(int(work.limit * 0.05), work.limit - work.paid))
    tx.run("UPDATE public.exposure SET status = 'open', closed_at = NULL WHERE exposure_id = %s", work.exposure_id)
    book(tx, file, work, INDEMNITY, "reopen", round(work.left / 5_000 + 1) * 5_000)
    status(tx, file, "reopened", ", closed_at = NULL, outcome = NULL")
    task(tx, file, "review", "Review the reopened claim", 5)
    file.works = [work]
    desk.files.append(file)
    return True


def recover(desk: Desk, tx: Transaction) -> bool:
    """Salvage or subrogation on a paid claim; now and then an earlier one is taken back."""
    if desk.recoveries and desk.rng.random() < 0.15:
        claim, exposure, number, amount = desk.recoveries.popleft()
        tx.new("recovery_txn", claim_id=claim, exposure_id=exposure, kind="subrogation", amount=dollars(-amount),
               currency=CURRENCY, booked_at=tx.now, corrects_id=number)  # fmt: skip
        return True
    file = desk.some(desk.closed) if desk.closed else None
    work = next((w for w in file.works if w.paid > 30_000), None) if file else None
    if file is None or work is None:
        return False
    amount = int(work.paid * desk.rng.uniform(0.05, 0.5))
    kind = "salvage" if desk.rng.random() < 0.3 else "subrogation"
    number = tx.new("recovery_txn", claim_id=file.claim_id, exposure_id=work.exposure_id, kind=kind,
                    amount=dollars(amount), currency=CURRENCY, booked_at=tx.now)  # fmt: skip
    if kind == "subrogation":
        desk.recoveries.append((file.claim_id, work.exposure_id, number, amount))
    return True
