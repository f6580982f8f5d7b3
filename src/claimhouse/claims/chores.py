"""The small work around claims: tasks, notes, details, witnesses, duplicate parties, numbers, catastrophes.

These are the edits that make capturing hard: rows deleted, keys changed in part or with all that refers to them, long
notes rewritten, and rows updated that leave their long notes as they are.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from claimhouse.claims.desk import Desk
from claimhouse.claims.transaction import CHANNELS, Transaction, task
from claimhouse.claims.words import GIVEN, SENTENCES


def merge_parties(desk: Desk, tx: Transaction) -> bool:
    """A duplicate party goes: what refers to it is moved (part of a key changes), then it is deleted."""
    if not desk.doubles:
        return False
    claim, double, original = desk.doubles.popleft()
    tx.run("UPDATE public.claim_party p SET party_id = %s WHERE claim_id = %s AND party_id = %s AND NOT EXISTS "
           "(SELECT FROM public.claim_party q WHERE q.claim_id = p.claim_id AND q.party_id = %s AND q.role = p.role)",
           original, claim, double, original)  # fmt: skip
    tx.run("DELETE FROM public.claim_party WHERE claim_id = %s AND party_id = %s", claim, double)
    tx.run(
        "UPDATE public.exposure SET claimant_id = %s WHERE claim_id = %s AND claimant_id = %s", original, claim, double
    )
    tx.run("DELETE FROM public.party WHERE party_id = %s", double)
    return True


def add_task(desk: Desk, tx: Transaction) -> bool:
    file = desk.some_file(lambda f: True)
    if file is None:
        return False
    kind, subject = desk.rng.choice(
        (("inspect", "Inspect the damage"), ("review", "Review reserves"), ("contact", "Call again"))
    )
    task(tx, file, kind, subject, desk.rng.randint(3, 30))
    return True


def finish_task(desk: Desk, tx: Transaction) -> bool:
    if not desk.tasks:
        return False
    number = desk.tasks.popleft()
    tx.run("UPDATE public.activity SET status = 'done', done_at = %s WHERE activity_id = %s", tx.now, number)
    desk.done.append(number)
    return True


def delete_task(desk: Desk, tx: Transaction) -> bool:
    """Old tasks are thrown away, two at a time."""
    if len(desk.done) < 50:
        return False
    numbers = [desk.done.popleft(), desk.done.popleft()]
    tx.run("DELETE FROM public.activity WHERE activity_id = ANY(%s::bigint[])", numbers)
    return True


def write_note(desk: Desk, tx: Transaction) -> bool:
    """The running notes grow, which writes a long one anew."""
    file = desk.some_file(lambda f: True)
    if file is None:
        return False
    text = " " + " ".join(desk.rng.choices(SENTENCES, k=desk.rng.randint(1, 3)))
    tx.run(
        "UPDATE public.claim SET notes = notes || %s, updated_at = %s WHERE claim_id = %s", text, tx.now, file.claim_id
    )
    return True


def edit_details(desk: Desk, tx: Transaction) -> bool:
    """Small edits that leave long notes as they are: details, the adjuster, or the channel once there is one."""
    file = desk.some_file(lambda f: True)
    if file is None:
        return False
    turn = desk.rng.randrange(3 if tx.channels else 2)
    if turn == 0 or (turn == 1 and file.fraud):
        tx.run("UPDATE public.claim SET details = jsonb_set(details, '{injuries}', to_jsonb(%s::int)), updated_at = %s "
               "WHERE claim_id = %s", desk.rng.randint(0, 4), tx.now, file.claim_id)  # fmt: skip
    elif turn == 1:
        file.adjuster = desk.some(desk.common.adjusters.get(file.line.name) or desk.common.by_authority)
        tx.run("UPDATE public.claim SET adjuster_id = %s, updated_at = %s WHERE claim_id = %s",
               file.adjuster.adjuster_id, tx.now, file.claim_id)  # fmt: skip
    else:
        tx.run("UPDATE public.claim SET channel = %s, updated_at = %s WHERE claim_id = %s",
               desk.rng.choice(CHANNELS), tx.now, file.claim_id)  # fmt: skip
    return True


def witness(desk: Desk, tx: Transaction) -> bool:
    """A witness is added; an earlier one turns out to be a passenger (the key changes), or to be none (deleted)."""
    turn = desk.rng.random() if desk.witnesses else 0.0
    if turn < 0.5:
        file = desk.some_file(lambda f: True)
        if file is None:
            return False
        party = desk.rng.choice(desk.common.persons)
        tx.run("INSERT INTO public.claim_party (claim_id, party_id, role, added_at) VALUES (%s, %s, 'witness', %s) "
               "ON CONFLICT DO NOTHING", file.claim_id, party, tx.now)  # fmt: skip
        desk.witnesses.append((file.claim_id, party))
        return True
    key = desk.witnesses.popleft()
    if turn < 0.75:
        tx.run("UPDATE public.claim_party p SET role = 'passenger' WHERE claim_id = %s AND party_id = %s "
               "AND role = 'witness' AND NOT EXISTS (SELECT FROM public.claim_party q "
               "WHERE q.claim_id = p.claim_id AND q.party_id = p.party_id AND q.role = 'passenger')", *key)  # fmt: skip
    else:
        tx.run("DELETE FROM public.claim_party WHERE claim_id = %s AND party_id = %s AND role = 'witness'", *key)
    return True


def renumber(desk: Desk, tx: Transaction) -> bool:
    """A claim gets another number (a suffix, as after a transfer between branches)."""
    file = desk.some_file(lambda f: not f.fraud)
    if file is None:
        return False
    tx.run("UPDATE public.claim SET claim_number = split_part(claim_number, '/', 1) || '/' || %s, updated_at = %s "
           "WHERE claim_id = %s", desk.rng.choice("ABCD"), tx.now, file.claim_id)  # fmt: skip
    return True


def catastrophe(desk: Desk, tx: Transaction) -> bool:
    """An event gets a provisional code that claims carry; later the final code replaces it everywhere."""
    if desk.place != 0:
        return False
    if desk.catastrophes and tx.number - desk.catastrophes[0][3] > 400:
        code = desk.catastrophes.popleft()[0]
        tx.run("UPDATE public.catastrophe SET code = %s WHERE code = %s", code.replace("-P", "-"), code)
        return True
    rng = desk.rng
    line, peril, cause, state = rng.choice((
        ("motor", "hail", "hail", "TX"), ("property", "wind", "wind", "FL"), ("property", "freeze", "water", "NY"),
    ))  # fmt: skip
    minute = int((tx.now - datetime(tx.today.year, 1, 1, tzinfo=tx.now.tzinfo)).total_seconds() // 60)
    code = f"CAT-{tx.today.year}-P{minute:06d}"
    tx.insert("catastrophe", code=code, name=f"{rng.choice(GIVEN)}", peril=peril, state=state,
              began_on=tx.today - timedelta(days=1), ended_on=tx.today)  # fmt: skip
    desk.catastrophes.append((code, line, cause, tx.number))
    return True
