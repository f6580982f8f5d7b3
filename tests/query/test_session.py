"""What a session shows: every table at one cut, however its rows are spread over base, log and tail."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.query.book import Book

from claimhouse.errors import LakeError, NotExact, QueryError, UsageError
from claimhouse.lake import deadletters
from claimhouse.query.session import Session
from claimhouse.table import Column, Table

CLAIM = {"id": "int8", "note": "text", "amount": "decimal(12,2)"}


def rows(session: Session, sql: str) -> list[Any]:
    table = session.sql(sql).arrow()
    return sorted(zip(*(c.to_pylist() for c in table.columns), strict=True), key=repr)


def now(book: Book, sql: str, at: str | None = None) -> list[Any]:
    with Session(book.lake, at=at) as session:
        return rows(session, sql)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "lake")


def test_a_table_is_read_by_its_bare_its_schema_and_its_full_name(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1, "note": "a"}])
    book.cut()
    for name in ("claim", "public.claim", "main.public.claim", "Claim", '"claim"'):
        assert now(book, f"SELECT id, note FROM {name}") == [(1, "a")]


def test_one_query_may_write_a_table_in_every_way_it_has(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1, "note": "a"}])
    book.cut()
    sql = "SELECT a.id, b.id, c.id, d.id FROM claim a, public.claim b, main.public.claim c, Claim d"
    assert now(book, sql) == [(1, 1, 1, 1)]


def test_a_query_of_with_may_have_the_name_of_the_table_that_it_reads(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1, "note": "a"}, {"id": 2, "note": "b"}])
    book.cut()
    assert now(book, "WITH claim AS (SELECT * FROM claim WHERE id > 1) SELECT id FROM claim") == [(2,)]
    both = "SELECT (SELECT count(*) FROM claim), (WITH claim AS (SELECT 7 AS id) SELECT id FROM claim)"
    assert now(book, both) == [(2, 7)]


def test_a_number_beyond_38_digits_is_no_other_number(book: Book) -> None:
    book.table("claim", CLAIM)
    book.cut()
    assert now(book, "SELECT '340282366920938463463374607431768211455'::UHUGEINT") == [
        ("340282366920938463463374607431768211455",)
    ]


def test_the_day_of_a_past_moment_is_that_of_its_newest_commit_in_the_books_zone(book: Book) -> None:
    claim = book.table("claim", CLAIM)
    book.cut()
    first = book.commit(("c", claim, {"id": 1}), later=3600)  # 2023-11-14T23:13:20Z
    book.cut()
    book.flush()
    book.commit(("c", claim, {"id": 2}), later=86_400)
    last = book.cut().cut

    def day(at: str | None, zone: str = "UTC") -> str:
        with Session(book.lake, at=at, zone=zone) as session:
            return str(session.day())

    assert day(None) == "None"
    assert day(f"0/{first:X}") == day(f"0/{first + 99:X}") == "2023-11-14"
    assert day(f"0/{first:X}", "Europe/Berlin") == "2023-11-15"
    assert day(f"cut:{last}") == day("xid:702") == "2023-11-15"
    assert day("2023-11-14T23:30:00Z", "Asia/Tokyo") == "2023-11-15"
    assert day("cut:1") == "None"


ODD = ['T "q".x', "Mixed Case", "a.b", "1st", "é" * 31 + "x", "_op", "back\\slash", "semi;{}()=\n"]


@pytest.mark.case("O12")
def test_odd_names_of_schemas_tables_and_columns_work_as_the_source_spells_them(book: Book) -> None:
    for name in ODD:
        key = "Key, of"
        book.table(name, {key: "int8", name: "text"}, schema=name[::-1], key=[key], rows=[{key: 7, name: name}])
    book.cut()
    with Session(book.lake) as session:
        for name in ODD:
            path = (name[::-1], name)
            table = session.table(path).arrow()
            assert table.to_pylist() == [{"Key, of": 7, name: name}]
            quoted = ".".join('"' + p.replace('"', '""') + '"' for p in ("main", *path))
            assert rows(session, f"SELECT * FROM {quoted}") == [(7, name)]
        listed = rows(session, "SHOW ALL TABLES")
        assert sorted(r[2] for r in listed) == sorted(ODD)


def test_only_the_sources_columns_are_there(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1}])
    book.cut()
    with Session(book.lake) as session:
        assert session.sql("SELECT * FROM claim").columns == list(CLAIM)
        assert [r[0] for r in session.sql("DESCRIBE claim").relation.fetchall()] == list(CLAIM)
        with pytest.raises(QueryError, match="_op"):
            session.sql("SELECT _op FROM claim")


def test_tables_that_no_query_names_cost_nothing(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(30):
        book.table(f"t{n}", {"id": "int8"}, rows=[{"id": n}])
    book.cut()
    made: list[str] = []
    original = Session._view

    def counting(self: Session, table: Any) -> Any:
        made.append(table.table.name)
        return original(self, table)

    monkeypatch.setattr(Session, "_view", counting)
    assert now(book, "WITH t1 AS (SELECT 5 AS id) SELECT * FROM t7 UNION ALL SELECT * FROM t1") == [(5,), (7,)]
    assert made == ["t7"]


def test_a_query_that_names_no_table_runs_behind_the_same_lock(book: Book) -> None:
    book.cut()
    with Session(book.lake) as session:
        answer = session.sql("SELECT 1 AS one")
        assert answer.arrow().to_pylist() == [{"one": 1}]
        with pytest.raises(duckdb.Error):
            answer._cursor.execute("SELECT * FROM read_text('/etc/hostname')")


def test_a_query_about_tables_lists_all_of_them(book: Book) -> None:
    book.table("claim", CLAIM)
    book.table("Order", {"id": "int8"}, schema="Sales")
    book.cut()
    with Session(book.lake) as session:
        assert rows(session, "SHOW TABLES") == [("claim",)]
        found = rows(session, "SELECT table_schema, table_name FROM information_schema.tables")
        assert found == [("Sales", "Order"), ("public", "claim")]
        columns = rows(session, "SELECT column_name FROM information_schema.columns WHERE table_name = 'claim'")
        assert columns == [("amount",), ("id",), ("note",)]


def test_a_table_may_have_the_name_of_one_of_duckdbs_own_lists(book: Book) -> None:
    names = ["duckdb_tables", "duckdb_columns", "duckdb_views", "Duckdb_Settings", "sqlite_master", "pragma_version"]
    for name in names:
        book.table(name, {"id": "int8"}, rows=[{"id": 7}])
    book.table("claim", CLAIM)
    book.cut()
    with Session(book.lake) as session:
        for name in names:
            for written in (name, f"public.{name}", f"main.public.{name}"):
                assert rows(session, f"SELECT id FROM {written}") == [(7,)]
        assert ("claim",) in rows(session, "SHOW TABLES")
        assert sorted(r[2] for r in rows(session, "SHOW ALL TABLES")) == sorted([*names, "claim"])
        found = rows(session, "SELECT table_name FROM information_schema.columns WHERE column_name = 'id'")
        assert sorted(found) == sorted((name,) for name in [*names, "claim"])
        with pytest.raises(QueryError, match="not readable"):
            session.sql("FROM duckdb_secrets")


def test_an_unknown_table_is_refused_with_a_suggestion(book: Book) -> None:
    book.table("claim_party", {"id": "int8"})
    book.cut()
    with Session(book.lake) as session:
        for sql in ("SELECT * FROM claim_partys", "SELECT * FROM public.claim_partys"):
            with pytest.raises(QueryError) as caught:
                session.sql(sql)
            assert "claim_party" in str(caught.value.hint)
        with pytest.raises(QueryError, match="files are not readable"):
            session.sql("SELECT * FROM '/etc/passwd'")


def test_errors_while_an_answer_is_read_are_query_errors(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": n, "note": "7" if n < 30_000 else "Smithers"} for n in range(30_010)])
    book.cut()
    with Session(book.lake) as session:
        reader = session.sql("SELECT CAST(note AS INTEGER) FROM claim").reader(1000)
        with pytest.raises(QueryError) as caught:
            for _ in reader:
                pass
        assert "Smithers" not in str(caught.value)
        assert rows(session, "SELECT count(*) FROM claim") == [(30_010,)]


def test_answers_of_one_session_can_be_read_side_by_side(book: Book) -> None:
    book.table("claim", {"id": "int8"}, rows=[{"id": n} for n in range(20_000)])
    book.table("other", {"id": "int8"}, rows=[{"id": n} for n in range(20_000)])
    book.cut()
    with Session(book.lake) as session:
        first = session.sql("SELECT id FROM claim").reader(1000)
        second = session.sql("SELECT id FROM other").reader(1000)
        third = session.sql("SELECT id FROM claim").reader(1000)
        total = sum(b.num_rows for trio in zip(first, second, third, strict=True) for b in trio)
        assert total == 60_000


# --- base, log and tail


def changed(book: Book, table: Table) -> None:
    book.commit(
        ("u", table, {"id": 1, "note": "new", "amount": Decimal("5.00")}),
        ("d", table, {"id": 2}),
        ("c", table, {"id": 4, "note": "four"}),
    )
    book.commit(("u", table, {"id": 5, "note": "three moved"}, {"id": 3}))


EXPECTED = [(1, "new", Decimal("5.00")), (4, "four", None), (5, "three moved", None)]
START = [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}, {"id": 3, "note": "c"}]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_state_is_the_same_wherever_its_rows_lie(book: Book, folded: bool, flushed: bool) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.cut()
    if folded:
        book.flush()
        book.fold(table)
    changed(book, table)
    book.cut()
    if flushed:
        book.flush()
    with Session(book.lake) as session:
        for _ in range(4):  # from the second reading on by place
            assert rows(session, "SELECT * FROM claim") == EXPECTED
            assert rows(session, "SELECT count(*), sum(amount) FROM claim WHERE id <> 4") == [(2, Decimal("5.00"))]


def test_superseded_rows_of_long_keys_are_left_out_by_place_in_whole_scans(book: Book) -> None:
    columns = {"file_name": "text", "part": "int4", "n": "int8"}
    start = [{"file_name": f"f{n}", "part": n % 3, "n": n} for n in range(3000)]
    table = book.table("doc", columns, key=("file_name", "part"), rows=start)
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(*[("u", table, {"file_name": f"f{n}", "part": n % 3, "n": -1}) for n in range(0, 3000, 100)])
    book.commit(("d", table, {"file_name": "f1", "part": 1}))
    book.commit(("u", table, {"file_name": "f2", "part": 9, "n": 2}, {"file_name": "f2", "part": 2}))
    book.cut()
    total = sum(n for n in range(3000) if n % 100) - 30 - 1
    with Session(book.lake) as session:
        assert "file_row_number" not in str(rows(session, "EXPLAIN SELECT n FROM doc WHERE file_name = 'f2'"))
    with Session(book.lake) as session:
        assert rows(session, "SELECT n FROM doc WHERE file_name = 'f2'") == [(2,)]
        assert rows(session, "SELECT sum(n), count(*) FROM doc") == [(total, 2999)]
        assert "file_row_number" in str(rows(session, "EXPLAIN SELECT sum(n) FROM doc"))
        assert rows(session, "SELECT n FROM doc WHERE file_name = 'f2' AND part = 9") == [(2,)]


def test_a_table_that_nothing_changed_since_its_fold_is_read_plainly(book: Book) -> None:
    table, other = book.table("claim", CLAIM, rows=START), book.table("other", {"id": "int8"})
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("c", other, {"id": 1}))
    book.cut()
    with Session(book.lake) as session:
        plan = str(session.sql("EXPLAIN SELECT sum(id) FROM claim").relation.fetchall())
        assert "PARQUET" in plan.upper()
        assert "JOIN" not in plan.upper()


def test_inserts_alone_need_no_look_at_the_base(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("c", table, {"id": 9}))
    book.cut()
    with Session(book.lake) as session:
        assert rows(session, "SELECT id FROM claim") == [(1,), (2,), (3,), (9,)]
        assert "JOIN" not in str(session.sql("EXPLAIN SELECT sum(id) FROM claim").relation.fetchall()).upper()


@pytest.mark.case("O5")
def test_a_truncate_empties_base_and_log(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("c", table, {"id": 8}), ("t", table), ("c", table, {"id": 9}))
    book.cut()
    assert now(book, "SELECT id FROM claim") == [(9,)]


@pytest.mark.case("O3")
def test_a_value_that_an_update_did_not_bring_comes_from_the_base(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=[{"id": 1, "note": "long", "amount": Decimal("1.00")}])
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("u", table, {"id": 1, "amount": Decimal("2.00")}, None, ["note"]))
    book.commit(("u", table, {"id": 2, "amount": Decimal("3.00")}, {"id": 1}, ["note"]))
    book.cut()
    with Session(book.lake) as session:
        for _ in range(3):
            assert rows(session, "SELECT * FROM claim") == [(2, "long", Decimal("3.00"))]


@pytest.mark.case("O6")
def test_rows_without_a_key_are_counted_and_append_only_ones_kept(book: Book) -> None:
    full = book.table("pair", {"a": "int4", "b": "text"}, identity="full", key=(), rows=[{"a": 1, "b": "x"}] * 3)
    log = book.table("event", {"a": "int4"}, identity="none", key=(), rows=[{"a": 1}])
    book.cut()
    book.flush()
    book.fold(full, log)
    book.commit(("d", full, {"a": 1, "b": "x"}), ("c", full, {"a": None, "b": "y"}), ("c", log, {"a": 1}))
    book.cut()
    with Session(book.lake) as session:
        for _ in range(3):
            assert rows(session, "SELECT * FROM pair") == [(1, "x"), (1, "x"), (None, "y")]
            assert rows(session, "SELECT * FROM event") == [(1,), (1,)]


def test_keys_of_several_columns_and_of_dates_are_told_apart_exactly(book: Book) -> None:
    end = date(9999, 12, 31)
    table = book.table(
        "price",
        {"id": "int8", "until": "date", "name": "text"},
        key=("until", "id"),
        rows=[
            {"id": 1, "until": end, "name": "real"},
            {"id": 1, "until": end, "name": "open", "_exact": {"until": "infinity"}},
        ],
    )
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("d", table, {"id": 1, "until": end}))
    book.cut()
    with Session(book.lake) as session:
        for _ in range(3):
            assert rows(session, "SELECT id, name FROM price") == [(1, "open")]


@pytest.mark.case("S4")
def test_a_column_added_with_a_default_shows_it_in_older_rows(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START[:1])
    book.cut()
    book.flush()
    book.fold(table)
    before = f"0/{book.lsn:X}"
    added = Column("state", "state", 4, "text", 25, -1, "text", missing="open", since=2)
    newer = book.evolve(table, [*table.columns, added])
    book.commit(("c", newer, {"id": 2, "state": "new"}))
    book.cut()
    for _ in range(2):
        assert now(book, "SELECT id, state FROM claim") == [(1, "open"), (2, "new")]
        book.flush()
    with Session(book.lake, at=before) as session:
        assert session.sql("FROM claim").columns == list(CLAIM)


def test_a_session_that_follows_keeps_its_engine_past_a_flush(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=[{"id": 1, "note": "a"}, {"id": 2, "note": "b"}])
    book.cut()
    book.flush()
    book.fold(table)
    session = Session(book.lake)
    assert rows(session, "SELECT id, note FROM claim") == [(1, "a"), (2, "b")]
    engine = session._engines[0]
    for n in range(3):
        book.commit(("u", table, {"id": 1, "note": f"a{n}"}), ("d", table, {"id": 2}), ("c", table, {"id": 2 + n}))
        book.cut()
        book.flush()
        session = session.renewed()
        assert rows(session, "SELECT id, note FROM claim WHERE id = 1") == [(1, f"a{n}")]
        assert session._engines[0] is engine
    session.close()


@pytest.mark.case("L5", "O3")
@pytest.mark.parametrize("toast", [False, True])
def test_random_histories_are_the_same_by_every_way_of_reading(tmp_path: Path, toast: bool) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    book = Book(tmp_path / "lake")
    table = book.table("claim", CLAIM, rows=[{"id": n, "note": str(n)} for n in range(30)])
    held: dict[int, str | None] = {n: str(n) for n in range(30)}
    book.cut()
    states: list[tuple[int, dict[int, str | None]]] = []
    at_cut, followed = dict(held), Session(book.lake)
    for step in range(40):
        changes = [random_change(rng, table, held, step, toast) for _ in range(rng.randint(1, 4))]
        states.append((book.commit(*changes), dict(held)))
        if rng.random() < 0.5:
            book.cut()
            at_cut = dict(held)
        if rng.random() < 0.15:
            book.cut()
            at_cut = dict(held)
            book.flush()
            if rng.random() < 0.6:
                book.fold(table)
        followed = followed.renewed()
        for _ in range(rng.randint(0, 2)):
            assert dict(rows(followed, "SELECT id, note FROM claim")) == at_cut, (seed, step)
    followed.close()
    book.cut()
    with Session(book.lake) as session:
        for _ in range(3):
            assert dict(rows(session, "SELECT id, note FROM claim")) == held, seed
    for lsn, expected in rng.sample(states, 6):
        assert dict(now(book, "SELECT id, note FROM claim", f"0/{lsn:X}")) == expected, (seed, lsn)


def random_change(
    rng: random.Random, table: Table, held: dict[int, str | None], step: int, toast: bool
) -> tuple[Any, ...]:
    kind = rng.choice("cuudm")
    free = next(n for n in range(rng.randint(0, 60), 10**6) if n not in held)
    if kind == "c" or not held:
        held[free] = f"c{step}"
        return ("c", table, {"id": free, "note": held[free]})
    key = rng.choice(sorted(held))
    if kind == "d":
        del held[key]
        return ("d", table, {"id": key})
    if kind == "m":
        held[free] = held.pop(key)
        return ("u", table, {"id": free, "note": None if toast else held[free]}, {"id": key}, ["note"] if toast else [])
    held[key] = f"u{step}"
    return ("u", table, {"id": key, "note": held[key]})


# --- moments


def test_a_moment_shows_all_tables_after_the_same_transaction(book: Book) -> None:
    a, b = (
        book.table("a", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 0}]),
        book.table("b", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 100}]),
    )
    book.cut()
    ends = []
    for n in range(1, 10):
        ends.append(book.commit(("u", a, {"id": 1, "n": n}), ("u", b, {"id": 1, "n": 100 - n})))
        if n % 2:
            book.cut()
        if n == 5:
            book.flush()
            book.fold(a)
    book.cut()
    for place, lsn in enumerate(ends, 1):
        for at in (f"0/{lsn:X}", f"xid:{700 + place}"):
            assert now(book, "SELECT a.n, a.n + b.n FROM a, b", at) == [(place, 100)]
        assert now(book, "SELECT n FROM a", f"0/{lsn - 1:X}") == [(place - 1,)]


def test_cut_and_time_name_the_same_moments(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    first = book.cut()
    book.commit(("d", table, {"id": 1}), later=10)
    second = book.cut()
    book.commit(("d", table, {"id": 2}), later=-5)  # a commit time that goes back
    book.commit(("d", table, {"id": 3}), later=100)
    third = book.cut()
    for _ in range(2):
        count = "SELECT count(*) FROM claim"
        assert [now(book, count, f"cut:{m.cut}") for m in (first, second, third)] == [[(3,)], [(2,)], [(0,)]]
        assert now(book, count, "2023-11-14T22:13:29.999999Z") == [(3,)]
        assert now(book, count, "2023-11-14T22:13:30Z") == [(1,)]
        with pytest.raises(NotExact, match="not final"):
            now(book, count, "2023-11-14T22:15:05Z")
        book.flush()


def test_a_moment_before_the_history_names_the_first_possible_one(book: Book) -> None:
    book.lsn = 5000
    book.table("claim", CLAIM, rows=START)
    book.commit()
    book.cut()
    with pytest.raises(NotExact) as caught:
        now(book, "SELECT * FROM claim", "0/1000")
    assert "0/1388" in str(caught.value.hint)
    with pytest.raises(NotExact, match="not in the lake"):
        now(book, "SELECT * FROM claim", "0/FFFFFF")
    with pytest.raises(UsageError):
        now(book, "SELECT * FROM claim", "soon")


def test_a_stretch_that_is_not_known_exactly_is_refused(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.commit(("d", table, {"id": 1}))
    book.commit(("d", table, {"id": 2}))
    book.registry.tables[table.folder].inexact.append((1100, 1150))
    book.cut()
    with pytest.raises(NotExact) as caught:
        now(book, "FROM claim", "0/44C")
    assert "0/47E" in str(caught.value.hint)
    assert len(now(book, "FROM claim")) == 1


@pytest.mark.case("N4")
def test_a_table_still_being_copied_is_refused_and_others_are_not(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START, live=False)
    book.table("other", {"id": "int8"}, rows=[{"id": 1}])
    book.cut()
    assert now(book, "FROM other") == [(1,)]
    with pytest.raises(QueryError, match=r"public\.claim is still being copied"):
        now(book, "FROM claim")
    assert now(book, "SHOW TABLES") == [("other",)]
    book.live(table)
    book.cut()
    assert len(now(book, "FROM claim")) == 3


@pytest.mark.case("N4")
def test_a_new_copy_replaces_the_table_only_once_it_is_right(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("c", table, {"id": 7}))
    book.copy(table, [{"id": 1, "note": "copied"}, {"id": 7}])
    book.cut()
    assert [r[0] for r in now(book, "FROM claim")] == [1, 2, 3, 7]
    book.commit(("c", table, {"id": 8}))
    book.live(table)
    book.cut()
    assert [r[:2] for r in now(book, "FROM claim")] == [(1, "copied"), (7, None), (8, None)]


@pytest.mark.case("R12")
def test_an_errored_table_and_a_dead_letter_are_warned_about_once(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    book.table("fine", {"id": "int8"})
    state = book.registry.tables[table.folder]
    state.status, state.error, state.errored_at = "errored", "a value cannot be kept", 1100
    book.commit()
    book.cut()
    deadletters.put(book.lake, "main", 1, table.folder, 1100, "a value cannot be kept")
    with Session(book.lake) as session:
        session.sql("FROM fine")
        assert session.warnings == []
        for _ in range(2):
            session.sql("FROM claim")
        assert len(session.warnings) == 2
        assert "errored since 0/44C" in session.warnings[0]


def test_a_dropped_table_is_named_and_still_there_in_the_past(book: Book) -> None:
    table = book.table("claim", CLAIM, rows=START)
    lsn = book.commit(("d", table, {"id": 1}))
    book.registry.tables[table.folder].status = "gone"
    book.commit()
    book.cut()
    with pytest.raises(QueryError, match="no longer exists"):
        now(book, "FROM claim")
    assert len(now(book, "FROM claim", f"0/{lsn:X}")) == 2


# --- several sources


def test_two_sources_are_joined_in_one_query(book: Book) -> None:
    other = Book("", "billing", lake=book.lake)
    book.table("claim", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 1}])
    other.table("claim", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 2}])
    other.table("invoice", {"id": "int8"}, rows=[{"id": 1}])
    book.cut()
    other.cut()
    with Session(book.lake) as session:
        sql = "SELECT a.n, b.n FROM main.public.claim a JOIN billing.public.claim b USING (id) JOIN invoice USING (id)"
        assert rows(session, sql) == [(1, 2)]
        with pytest.raises(QueryError) as caught:
            session.sql("SELECT * FROM claim")
        assert "billing.public.claim or main.public.claim" in str(caught.value.hint)
        assert rows(session, "WITH claim AS (SELECT 3 AS x) FROM claim") == [(3,)]
        assert len(rows(session, "SHOW ALL TABLES")) == 3
    with Session(book.lake, sources=["billing"]) as session:
        assert rows(session, "SELECT n FROM claim") == [(2,)]
    with pytest.raises(UsageError):
        Session(book.lake, at="0/1")
    with Session(book.lake, at=f"main=cut:1,billing=0/{other.lsn:X}") as session:
        assert rows(session, "SELECT n FROM main.public.claim") == [(1,)]


def test_a_source_without_a_cut_is_left_out_and_named(book: Book) -> None:
    Book("", "later", lake=book.lake)
    book.table("claim", CLAIM, rows=START)
    book.cut()
    with Session(book.lake) as session:
        assert session.empty == ["later"]
        assert len(rows(session, "FROM claim")) == 3
    with pytest.raises(LakeError):
        Session(book.lake, sources=["later"])


# --- what a reader sees beside a writer


def test_no_reader_sees_half_a_transaction_at_any_cut_flush_or_fold(book: Book) -> None:
    a = book.table("a", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 500}])
    b = book.table("b", {"id": "int8", "n": "int8"}, rows=[{"id": 1, "n": 500}])
    book.cut()
    steps: list[Callable[[], object]] = [book.cut, book.flush, lambda: book.fold(a), lambda: book.fold(b)]
    open_: list[tuple[Session, int]] = []
    for n in range(1, 13):
        book.commit(("u", a, {"id": 1, "n": 500 - n}), ("u", b, {"id": 1, "n": 500 + n}))
        assert now(book, "SELECT a.n + b.n FROM a, b") == [(1000,)]
        book.cut()
        steps[n % 4]()
        open_.append((Session(book.lake), n))
        for session, then in open_[-2:]:  # a session never moves
            assert rows(session, "SELECT a.n, b.n FROM a, b") == [(500 - then, 500 + then)]
    for session, _ in open_:
        session.close()


def test_types_that_arrow_cannot_hold_come_as_text(book: Book) -> None:
    book.table("claim", CLAIM, rows=START[:1])
    book.cut()
    with Session(book.lake) as session:
        answer = session.sql("SELECT INTERVAL 1 MONTH AS i, '101'::BIT AS b, [INTERVAL 1 DAY] AS l, id, id FROM claim")
        assert answer.columns == ["i", "b", "l", "id", "id"]
        table = answer.arrow()
        assert [c.to_pylist() for c in table.columns] == [["1 month"], ["101"], ["[1 day]"], [1], [1]]
        assert table.schema.field(0).type == pa.string()
