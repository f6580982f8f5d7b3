"""Cuts of complete transactions, whatever order their events arrive in."""

from __future__ import annotations

import random

import pytest

from claimhouse.distributed.cuts import Cuts, End


def end(xid: int, count: int = 1) -> End:
    return End(xid, xid * 10, count, xid * 1000)


@pytest.mark.case("K3")
def test_a_transaction_is_cut_once_all_its_events_have_arrived() -> None:
    cuts = Cuts()
    cuts.rows([(1, 1)])
    cuts.ended([end(1, 2)])
    assert cuts.cut() == []
    cuts.rows([(1, 1)])
    assert cuts.cut() == [end(1, 2)]
    assert cuts.end_lsn == 10
    assert cuts.waiting == 0


def test_rows_that_come_before_their_end_wait_for_it() -> None:
    cuts = Cuts()
    cuts.rows([(7, 3)])
    assert cuts.cut() == [] and cuts.waiting == 1
    cuts.ended([end(7, 3)])
    assert [e.xid for e in cuts.cut()] == [7]


def test_a_complete_transaction_waits_for_an_incomplete_one_before_it() -> None:
    cuts = Cuts()
    cuts.ended([end(1, 1), end(2, 1)])
    cuts.rows([(2, 1)])
    assert cuts.cut() == []
    cuts.rows([(1, 1)])
    assert [e.xid for e in cuts.cut()] == [1, 2]


def test_an_end_without_events_moves_the_position() -> None:
    cuts = Cuts()
    cuts.ended([end(5, 0)])
    assert [e.xid for e in cuts.cut()] == [5]
    assert cuts.end_lsn == 50


@pytest.mark.case("K3")
def test_a_replayed_transaction_is_neither_counted_nor_cut_again() -> None:
    cuts = Cuts()
    cuts.rows([(1, 1)])
    cuts.ended([end(1)])
    cuts.cut()
    assert cuts.replayed({1, 2}) == {1}
    cuts.rows([(1, 1)])
    cuts.ended([end(1)])
    assert cuts.cut() == [] and cuts.waiting == 0


@pytest.mark.case("K3")
def test_the_order_of_arrival_never_changes_what_is_cut() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        counts = {xid: rng.randrange(0, 4) for xid in range(1, 8)}
        rows = [xid for xid, n in counts.items() for _ in range(n)]
        rng.shuffle(rows)
        ends = [end(xid, n) for xid, n in counts.items()]
        cuts, made = Cuts(), []
        while rows or ends:
            for _ in range(min(len(rows), rng.randrange(0, 4))):
                cuts.rows([(rows.pop(), 1)])
            take = rng.randrange(0, 3)
            cuts.ended(ends[:take])
            ends = ends[take:]
            batch = cuts.cut()
            made += batch
            done = {e.xid for e in made}
            assert done == set(range(1, len(done) + 1)), "a cut is a prefix of the commits"
            assert all(rows.count(x) == 0 for x in done), "and holds only whole transactions"
        assert [e.xid for e in made] == list(range(1, 8)) and cuts.waiting == 0
