"""The simulator: every kind of transaction, the asked rate, invariants kept, runs that go on where the last stopped."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from claimhouse.claims import Simulator, breaches, load, simulator
from claimhouse.claims.simulator import MOVES
from claimhouse.errors import NotReady, UsageError

SCALE = 0.05
_STATE = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM public."


def test_every_kind_of_transaction_happens_and_every_invariant_holds(postgres, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    load(postgres.dsn, scale=SCALE, seed=3, labels_to=tmp_path)
    before = labels.read_text().count("\n")
    # a bigger step, so that renewals and catastrophes come within a short run
    run = Simulator(postgres.dsn, rate=0, seed=3, workers=1, labels=labels, change_after=1, step=timedelta(hours=4))
    counts = run.run(transactions=1800)
    assert counts.transactions == 1801 and counts.skipped == 0
    assert set(counts.kinds) >= {kind for kind, _, _ in MOVES} | {"renewal", "schema_change"}
    assert breaches(postgres.conn) == {}
    assert labels.read_text().count("\n") > before
    web = postgres.execute("SELECT count(*) FROM claim WHERE channel <> 'phone'")
    assert web[0][0] > 0
    final_codes = postgres.execute("SELECT count(*) FROM catastrophe WHERE code ~ '^CAT-[0-9]+-[0-9]{6}$'")
    assert final_codes[0][0] > 0


def test_the_rate_is_kept_and_duration_ends_the_run(postgres) -> None:
    load(postgres.dsn, scale=SCALE, seed=3)
    counts = Simulator(postgres.dsn, rate=40, seed=1).run(3.0)
    assert 95 <= counts.transactions <= 122
    assert breaches(postgres.conn) == {}


def test_several_workers_keep_the_invariants_at_every_commit(postgres) -> None:
    load(postgres.dsn, scale=SCALE, seed=3)
    running, stop = Simulator(postgres.dsn, rate=300, seed=4, workers=3, change_after=0.5), threading.Event()
    thread = threading.Thread(target=running.run, kwargs={"stop": stop})
    thread.start()
    looks = 0
    try:
        while running.counts.transactions < 450 and thread.is_alive():
            assert breaches(postgres.conn) == {}
            looks += 1
    finally:
        stop.set()
        thread.join()
    assert looks > 3 and running.counts.transactions >= 450
    assert breaches(postgres.conn) == {}


def test_a_second_run_goes_on_where_the_first_stopped(postgres) -> None:
    load(postgres.dsn, scale=SCALE, seed=3)
    first = Simulator(postgres.dsn, rate=0, seed=1, workers=2, change_after=0.2).run(transactions=300)
    claims = postgres.execute("SELECT count(*) FROM claim")[0][0]
    again = Simulator(postgres.dsn, rate=0, seed=1, workers=3, change_after=0.2).run(transactions=300)
    assert again.skipped == 0 and again.book_time > first.book_time
    assert again.kinds["schema_change"] == 0 and first.kinds["schema_change"] == 1
    assert postgres.execute("SELECT count(*) FROM claim")[0][0] > claims
    assert breaches(postgres.conn) == {}


def test_one_worker_makes_the_same_book_from_the_same_seed(postgres, server) -> None:
    states = []
    for turn in range(2):
        if turn:
            postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        load(postgres.dsn, scale=0.03, seed=3)
        Simulator(postgres.dsn, rate=0, seed=9, workers=1, change_after=0.1).run(transactions=400)
        tables = ("claim", "payment_line", "reserve_txn", "activity", "coverage", "party", "claim_party")
        states.append([postgres.execute(f"{_STATE}{table} t")[0][0] for table in tables])
    assert states[0] == states[1]


def test_edits_leave_long_notes_where_they_lie(postgres) -> None:
    load(postgres.dsn, scale=0.03, seed=3)
    postgres.execute("SELECT pg_create_logical_replication_slot('s', 'test_decoding')")
    Simulator(postgres.dsn, rate=0, seed=2, workers=1).run(transactions=300)
    unchanged = postgres.execute(
        """SELECT count(*) FROM pg_logical_slot_get_changes('s', NULL, NULL)
        WHERE data LIKE 'table public.claim: UPDATE%notes[text]:unchanged-toast-datum%'"""
    )
    assert unchanged[0][0] > 0


def test_a_transaction_made_impossible_by_others_is_skipped(postgres) -> None:
    load(postgres.dsn, scale=0.03, seed=3)
    postgres.execute("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.claim_id % 3 = 0 THEN RAISE foreign_key_violation; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION refuse()""")
    counts = Simulator(postgres.dsn, rate=0, seed=2, workers=1).run(transactions=300)
    assert counts.skipped > 0 and counts.transactions + counts.skipped == 300
    assert breaches(postgres.conn) == {}


def test_what_the_server_asks_to_repeat_is_repeated(postgres) -> None:
    load(postgres.dsn, scale=0.03, seed=3)
    postgres.execute("""CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('tries') % 3 = 0 THEN RAISE serialization_failure; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION refuse()""")
    counts = Simulator(postgres.dsn, rate=0, seed=2, workers=1, change_after=None).run(transactions=300)
    assert counts.repeated > 0 and counts.skipped == 0 and counts.transactions == 300
    assert breaches(postgres.conn) == {}


def test_two_simulators_do_not_share_a_book(postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "LOCK_WAIT", 0.2)
    load(postgres.dsn, scale=0.03, seed=3)
    with psycopg.connect(postgres.dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(x'636C61696D'::bigint)")
        with pytest.raises(UsageError, match="another simulator"):
            Simulator(postgres.dsn).run(transactions=1)


def test_without_a_book_it_says_so(postgres) -> None:
    with pytest.raises(NotReady, match="no claims book"):
        Simulator(postgres.dsn).run(transactions=1)
