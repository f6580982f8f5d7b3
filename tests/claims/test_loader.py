"""The book in PostgreSQL: loaded whole, once, keyed, and showing each planted pattern."""

from __future__ import annotations

import csv
from pathlib import Path

import duckdb
import pytest

from claimhouse.claims import INVARIANTS, breaches, load, make_book
from claimhouse.claims.invariants import ONE_NUMBER
from claimhouse.errors import NotReady, SourceGone

# for each rule, the labelled claims that show its pattern in the database
PATTERNS = {
    "over_limit": """SELECT p.claim_id FROM payment_line l JOIN payment p USING (payment_id)
        JOIN exposure e USING (exposure_id) JOIN coverage c USING (coverage_id) WHERE l.cost_type = 'indemnity'
        GROUP BY p.claim_id, l.exposure_id, c.limit_amount HAVING sum(l.amount) > c.limit_amount""",
    "round_amount": "SELECT claim_id FROM payment GROUP BY claim_id HAVING bool_and(amount % 1000 = 0)",
    "near_authority": """SELECT p.claim_id FROM payment p JOIN claim c USING (claim_id)
        JOIN adjuster a USING (adjuster_id) WHERE p.amount BETWEEN 0.9 * a.authority_limit AND a.authority_limit""",
    "holiday_loss": """SELECT claim_id FROM claim
        WHERE to_char(loss_date, 'MM-DD') IN ('01-01', '07-04', '11-26', '12-25')""",
    "late_report": "SELECT claim_id FROM claim WHERE reported_at::date - loss_date >= 120",
    "before_inception": "SELECT claim_id FROM claim JOIN policy USING (policy_id) WHERE loss_date < inception",
    "after_lapse": "SELECT claim_id FROM claim JOIN policy USING (policy_id) WHERE loss_date >= ended_on",
    "early_loss": """SELECT claim_id FROM claim JOIN policy USING (policy_id)
        WHERE loss_date BETWEEN inception AND inception + 30""",
    "limit_increase": """SELECT claim_id FROM claim JOIN policy_version v USING (policy_id)
        WHERE v.reason = 'limit_increase' AND loss_date BETWEEN v.effective_from AND v.effective_from + 30""",
    "before_expiry": """SELECT claim_id FROM claim JOIN policy USING (policy_id)
        WHERE loss_date BETWEEN ended_on - 7 AND ended_on - 1""",
    "duplicate_invoice": """SELECT claim_id FROM invoice GROUP BY claim_id, provider_id, amount,
        lower(regexp_replace(invoice_number, '[^0-9A-Za-z]', '', 'g')) HAVING count(*) > 1""",
    "duplicate_loss": """SELECT b.claim_id FROM claim a JOIN claim b ON a.asset_id = b.asset_id
        AND a.claim_id < b.claim_id AND b.loss_date - a.loss_date BETWEEN 0 AND 1""",
    "split_payments": """SELECT p.claim_id FROM payment p JOIN claim c USING (claim_id)
        JOIN adjuster a USING (adjuster_id) WHERE p.amount < a.authority_limit AND p.amount > 0
        GROUP BY p.claim_id, a.authority_limit HAVING sum(p.amount) > a.authority_limit AND count(*) >= 3""",
    "claimant_velocity": """SELECT a.claim_id FROM exposure a JOIN exposure b USING (claimant_id)
        WHERE a.opened_at - b.opened_at BETWEEN '-90 days' AND '90 days'
        GROUP BY a.claim_id HAVING count(DISTINCT b.claim_id) >= 4""",
    "address_velocity": """SELECT a.claim_id FROM exposure a JOIN party p ON p.party_id = a.claimant_id
        JOIN party q USING (address_id) JOIN exposure b ON b.claimant_id = q.party_id
        WHERE a.opened_at - b.opened_at BETWEEN '-90 days' AND '90 days'
        GROUP BY a.claim_id HAVING count(DISTINCT b.claim_id) >= 4""",
    "phone_velocity": """SELECT a.claim_id FROM exposure a JOIN party p ON p.party_id = a.claimant_id
        JOIN party q USING (phone) JOIN exposure b ON b.claimant_id = q.party_id
        WHERE a.opened_at - b.opened_at BETWEEN '-90 days' AND '90 days'
        GROUP BY a.claim_id HAVING count(DISTINCT b.claim_id) >= 4""",
    "bank_velocity": """SELECT a.claim_id FROM exposure a JOIN bank_account p ON p.party_id = a.claimant_id
        JOIN bank_account q USING (routing_number, account_number) JOIN exposure b ON b.claimant_id = q.party_id
        WHERE a.opened_at - b.opened_at BETWEEN '-90 days' AND '90 days'
        GROUP BY a.claim_id HAVING count(DISTINCT b.claim_id) >= 4""",
    "provider_velocity": """SELECT a.claim_id FROM invoice a JOIN invoice b USING (provider_id)
        WHERE a.invoiced_on - b.invoiced_on BETWEEN -45 AND 45
        GROUP BY a.claim_id HAVING count(DISTINCT b.claim_id) >= 5""",
    "provider_severity": """SELECT claim_id FROM invoice JOIN (SELECT provider_id FROM invoice GROUP BY provider_id
        HAVING percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) > 2 * (SELECT percentile_cont(0.5)
        WITHIN GROUP (ORDER BY amount) FROM invoice)) high USING (provider_id)""",
    "benford": """SELECT claim_id FROM invoice JOIN (SELECT provider_id FROM invoice GROUP BY provider_id
        HAVING avg((left(amount::text, 1) >= '5')::int) > 0.55) odd USING (provider_id)""",
    "linked_ring": """SELECT e.claim_id FROM exposure e JOIN party p ON p.party_id = e.claimant_id
        JOIN bank_account k USING (party_id) WHERE EXISTS (SELECT FROM exposure f
        JOIN party q ON q.party_id = f.claimant_id
        JOIN bank_account l USING (party_id) WHERE f.claim_id <> e.claim_id
        AND (p.phone = q.phone OR p.address_id = q.address_id
        OR (k.routing_number, k.account_number) = (l.routing_number, l.account_number)))""",
}  # fmt: skip


def test_a_book_loads_and_shows_every_pattern_that_it_labels(postgres, tmp_path: Path) -> None:
    done = load(postgres.dsn, scale=0.5, seed=21, labels_to=tmp_path)
    assert not done.already and done.rows["claim"] > 2500 and done.rows["payment_line"] > done.rows["payment"]
    assert breaches(postgres.conn) == {}

    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for rule, pattern in PATTERNS.items():
        marked = {int(r["claim_id"]) for r in rows if r["rule"] == rule}
        shown = {r[0] for r in postgres.execute(pattern)}
        assert len(marked & shown) >= 0.85 * len(marked), f"{rule}: {len(marked & shown)} of {len(marked)}"


def test_every_table_has_a_key_and_long_notes_lie_out_of_line(postgres) -> None:
    load(postgres.dsn, scale=0.03, seed=2)
    keyless = postgres.execute("""SELECT relname FROM pg_class c WHERE relkind = 'r'
        AND relnamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND indisprimary)""")
    assert keyless == []
    (chunks,) = postgres.execute("SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'claim'")[0]
    assert chunks > 0


def test_loading_again_leaves_the_book_alone(postgres) -> None:
    first = load(postgres.dsn, scale=0.03, seed=2)
    postgres.execute("DELETE FROM activity WHERE activity_id = 1")
    again = load(postgres.dsn, scale=0.5, seed=9)
    assert again.already and (again.seed, again.scale) == (2, first.scale)
    assert again.rows["activity"] == first.rows["activity"] - 1


def test_numbering_goes_on_after_the_loaded_rows(postgres) -> None:
    rows = load(postgres.dsn, scale=0.03, seed=2).rows
    (next_id,) = postgres.execute("SELECT nextval(pg_get_serial_sequence('claim', 'claim_id'))")[0]
    assert next_id == rows["claim"] + 1


def test_tables_of_other_making_are_not_touched(postgres) -> None:
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY)")
    with pytest.raises(NotReady, match="claim"):
        load(postgres.dsn, scale=0.03)


def test_an_unreachable_server_is_said_plainly() -> None:
    with pytest.raises(SourceGone):
        load("host=127.0.0.1 port=1 dbname=none connect_timeout=1")


def test_a_breach_of_an_invariant_is_found(postgres) -> None:
    load(postgres.dsn, scale=0.03, seed=2)
    postgres.execute("UPDATE payment_line SET amount = amount + 1 WHERE line_no = 1 AND payment_id = 1")
    postgres.execute("UPDATE claim SET status = 'open', closed_at = NULL WHERE claim_id = 1")
    assert breaches(postgres.conn) == {
        "payment_is_its_lines": 1, "payments_draw_reserves": 1, "status_is_the_last_of_its_history": 1,
    }  # fmt: skip
    assert postgres.execute(ONE_NUMBER)[0][0] == -1


def test_the_invariants_can_be_asked_of_duckdb_too() -> None:
    book = make_book(seed=2, scale=0.03)
    with duckdb.connect() as lake:
        for name, table in book.tables.items():
            lake.register(name, table)
        assert [len(lake.execute(each.breaches).fetchall()) for each in INVARIANTS] == [0] * len(INVARIANTS)
        assert lake.execute(ONE_NUMBER).fetchone() == (0,)
