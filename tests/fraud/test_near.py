"""How many claims share a value, how near in days: counted by hand."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa

from claimhouse.fraud.near import near


def _members(*rows: tuple[str, str, int, int]) -> pa.Table:
    kinds, values, claims, days = ([r[i] for r in rows] for i in range(4))
    day = [date(2024, 1, 1) + timedelta(days=int(d)) for d in days]
    return pa.table({"kind": kinds, "value": values, "claim_id": claims, "day": day})


def _found(table: pa.Table) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_a_value_that_one_claim_has_concerns_nobody() -> None:
    rows = _members(("phone", "1", 1, 0), ("account", "1", 2, 0))
    assert near(rows, pa.array([1, 2]), 60, 20, ("vin",)).num_rows == 0


def test_those_who_share_a_value_are_counted_with_days_to_the_nearest_changed_claim() -> None:
    rows = _members(("phone", "1", 1, 0), ("phone", "1", 2, 10), ("phone", "1", 3, 200), ("phone", "1", 4, 15))
    found = _found(near(rows, pa.array([1, 4]), 60, 20, ("vin",)))
    assert found == [("phone", 1, 4, 3, 0), ("phone", 2, 4, 3, 5), ("phone", 3, 4, 3, 185), ("phone", 4, 4, 3, 0)]


def test_a_hub_is_left_out_and_one_that_nears_it_counts_whole() -> None:
    rows = _members(*(("phone", "hub", n, n) for n in range(4)), *(("vin", "v", n, 100 * n) for n in range(4)))
    found = _found(near(rows, pa.array([0]), 3, 4, ("vin",)))
    assert found == [("vin", n, 4, 4, 0) for n in range(4)]
    assert _found(near(rows, pa.array([0]), 3, 5, ("vin",))) == [("vin", n, 4, 1, 100 * n) for n in range(4)]


def test_no_members_give_no_rows() -> None:
    assert near(_members().cast(_members(("phone", "1", 1, 0)).schema), pa.array([1]), 60, 20, ("vin",)).num_rows == 0
