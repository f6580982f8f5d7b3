"""The SQL of a past state: what counts, on which ground, and what is refused rather than guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlglot
from sqlglot import exp
from tests.distributed.test_views import COLUMNS, TABLE, behind, state

from claimhouse.distributed.past import past_sql
from claimhouse.errors import NotExact, QueryError
from claimhouse.lake.registry import Copy
from claimhouse.query.moment import Position

FLUSHED, FOLDED = 99, 77  # of test_views: where the flush ends, and where `current` was folded


def tables(sql: str) -> set[str]:
    tree = sqlglot.parse_one(sql, dialect="trino")
    return {".".join(p.name for p in t.parts) for t in tree.find_all(exp.Table) if t.db}


@pytest.mark.parametrize("identity", ["key", "full", "none"])
def test_a_past_state_has_the_columns_of_the_source_at_that_time(identity: str) -> None:
    older = replace(TABLE, version=1, identity=identity, columns=COLUMNS[:2])  # type: ignore[arg-type]
    known = state(identity)  # type: ignore[arg-type]
    known.versions.insert(0, older)
    known.since = [0, 60]
    for lsn, columns in ((50, COLUMNS[:2]), (60, COLUMNS)):
        shown = sqlglot.parse_one(past_sql(known, behind(), Position(1, lsn)), dialect="trino").named_selects
        assert shown == [c.name for c in columns]


def test_a_column_that_was_renamed_has_the_name_of_its_time() -> None:
    known = state()
    known.versions.append(replace(TABLE, version=3, columns=(*COLUMNS[:1], replace(COLUMNS[1], name="Remark"))))
    known.since = [0, 60]
    assert sqlglot.parse_one(past_sql(known, behind(), Position(1, 70)), dialect="trino").named_selects[1] == "Remark"


def test_up_to_the_flush_the_tail_is_not_read() -> None:
    sql = past_sql(state(), behind(), Position(1, FLUSHED))
    assert tables(sql) == {"claimhouse.main__public__log.claim"}
    assert f"_end_lsn > 10 AND _end_lsn <= {FLUSHED}" in sql, "above the copy, up to the position"


def test_beyond_the_flush_the_tail_is_laid_over_it_at_the_version_that_was_looked_at() -> None:
    sql = past_sql(state(), replace(behind(), tail=41), Position(1, FLUSHED + 5))
    assert tables(sql) == {"claimhouse.main__public__log.claim", "claimhouse.main__control.tail_events"}
    assert "tail_events FOR VERSION AS OF 41 WHERE" in sql
    assert sql.count(f"end_lsn > {FLUSHED} AND end_lsn <= {FLUSHED + 5}") == 2, "commits and truncates"


def test_current_is_the_ground_only_where_it_was_folded_before() -> None:
    folded = behind(3, 5)
    assert '"main__public__current"."claim" FOR VERSION AS OF 5' in past_sql(state(), folded, Position(1, FOLDED))
    before = past_sql(state(), folded, Position(1, FOLDED - 1))
    assert tables(before) == {"claimhouse.main__public__log.claim"} and "_op = 'r' AND _copy = 1" in before


def test_current_of_an_older_copy_is_no_ground() -> None:
    known = state()
    known.copies.append(Copy(2, 1, 80, 90))
    assert "_op = 'r' AND _copy = 2" in past_sql(known, behind(3, 5), Position(1, 95))
    assert "__current" in past_sql(known, behind(3, 5), Position(1, 85))


def test_a_later_incarnation_counts_after_an_earlier_one_whatever_its_positions() -> None:
    sql = past_sql(state(), replace(behind(), incarnation=2), Position(2, 70))
    assert "(_incarnation < 2 OR (_incarnation = 2 AND _end_lsn <= 70))" in sql
    assert "(_incarnation > 1 OR (_incarnation = 1 AND _end_lsn > 10))" in sql
    assert "CAST(_incarnation AS decimal(38, 0)) * decimal '9223372036854775808'" in sql


def test_transactions_that_a_copy_saw_do_not_count_again() -> None:
    known = state("full")
    known.copies[0].sees = "700:710:703,705"
    assert "NOT (_xid < 710 AND _xid NOT IN (703,705))" in past_sql(known, behind(), Position(1, 50))


def test_a_table_that_is_not_visible_yet_is_refused() -> None:
    with pytest.raises(NotExact, match=r"public\.claim is not known at 0/13"):
        past_sql(state(), behind(), Position(1, 19))


def test_a_table_whose_key_changed_since_its_copy_is_refused() -> None:
    known = state()
    known.versions.append(replace(TABLE, version=3, identity="full"))
    known.since = [0, 60]
    assert past_sql(known, behind(), Position(1, 59))
    with pytest.raises(QueryError, match="its key has changed") as caught:
        past_sql(known, behind(), Position(1, 60))
    assert "leave --engine out" in str(caught.value.hint)


def test_a_value_that_nobody_brought_fails_instead_of_being_null() -> None:
    tree = sqlglot.parse_one(past_sql(state(), behind(), Position(1, 50)), dialect="trino")
    failing = {e.alias for e in tree.expressions if "FAIL(" in e.sql("trino").upper()}
    assert failing == {"note", "tags", "currency"}, "what PostgreSQL may store out of line"
