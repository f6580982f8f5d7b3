"""`claim__history` and `claim__log`: what was valid when, and every change as it came, for any SQL."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.query.book import SECOND, Book

from claimhouse.errors import NotExact, QueryError
from claimhouse.query.history import Version, history
from claimhouse.query.moment import iso
from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.table import Column, Table

CLAIM = {"id": "int8", "status": "text", "note": "text", "paid": "decimal(12,2)"}
OURS = ["valid_from", "valid_to", "_valid_from_lsn", "_valid_to_lsn", "_op", "_xid", "_committed_at", "_cut"]
OURS += ["_incarnation", "_copy", "_ended_by", "_ended_xid", "_missing", "_exact"]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "lake")


def ask(book: Book, sql: str, at: str | None = None) -> list[tuple[Any, ...]]:
    with Session(book.lake, at=at) as session:
        table = session.sql(sql).arrow()
        return list(zip(*(c.to_pylist() for c in table.columns), strict=True)) if table.num_rows else []


def spans(book: Book, what: str = "id, status", at: str | None = None, table: str = "claim") -> list[tuple[Any, ...]]:
    """The versions: those columns, and from which to which LSN each held."""
    return ask(book, f"SELECT {what}, _valid_from_lsn, _valid_to_lsn FROM {table}__history ORDER BY 1, 3, 4", at)


def moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // SECOND, UTC)


def test_each_version_holds_from_its_commit_to_the_next_ones(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1, "status": "new"}, {"id": 2, "status": "new"}])
    book.cut()
    copied, began = book.lsn, moment(book.at)
    opened = book.commit(("u", claim, {"id": 1, "status": "open"}))
    at = moment(book.at)
    book.cut()
    book.flush()
    gone = book.commit(("d", claim, {"id": 1}))
    book.cut()
    assert spans(book) == [(1, "new", copied, opened), (1, "open", opened, gone), (2, "new", copied, None)]
    told = ask(book, "SELECT valid_from, valid_to, _op, _ended_by FROM claim__history ORDER BY id, _valid_from_lsn")
    assert told == [
        (began, at, "r", "u"),
        (at, moment(book.at), "u", "d"),
        (began, None, "r", None),
    ]
    assert ask(book, "SELECT DISTINCT _ended_xid FROM claim__history WHERE _ended_by = 'd'") == [(book.xid,)]


def test_the_history_of_a_past_moment_ends_there(book: Book) -> None:
    claim = book.table("claim", CLAIM)
    book.commit(("c", claim, {"id": 1, "status": "new"}))
    first = book.cut()
    book.commit(("u", claim, {"id": 1, "status": "open"}))
    book.cut()
    assert spans(book, at=f"cut:{first.cut}") == [(1, "new", first.end_lsn, None)]
    assert len(spans(book)) == 2


def test_a_key_change_ends_the_old_keys_interval_and_begins_the_new_ones(book: Book) -> None:
    claim = book.table("claim", CLAIM)
    a = book.commit(("c", claim, {"id": 1, "status": "new"}))
    b = book.commit(("u", claim, {"id": 7, "status": "moved"}, {"id": 1}))
    c = book.commit(("c", claim, {"id": 1, "status": "another"}))
    book.cut()
    assert spans(book) == [(1, "new", a, b), (1, "another", c, None), (7, "moved", b, None)]


def test_a_truncate_ends_every_row_and_an_insert_begins_anew(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1, "status": "new"}, {"id": 2, "status": "new"}])
    book.cut()
    copied = book.lsn
    emptied = book.commit(("t", claim, {}), ("c", claim, {"id": 2, "status": "again"}))
    book.cut()
    assert spans(book) == [(1, "new", copied, emptied), (2, "new", copied, emptied), (2, "again", emptied, None)]
    assert ask(book, "SELECT DISTINCT _ended_by FROM claim__history WHERE status = 'new'") == [("t",)]


def test_only_the_last_version_of_a_transaction_held_at_any_moment(book: Book) -> None:
    claim = book.table("claim", CLAIM)
    changes = [("c", claim, {"id": 1, "status": s}) for s in ("a",)]
    changes += [("u", claim, {"id": 1, "status": s}) for s in ("b", "c")]
    end = book.commit(*changes, ("c", claim, {"id": 2}), ("d", claim, {"id": 2}))
    book.cut()
    assert spans(book) == [(1, "c", end, None)]


def test_a_later_copy_ends_what_it_no_longer_has_and_goes_on_with_what_is_the_same(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": n, "status": "new"} for n in (1, 2, 3)])
    book.cut()
    first = book.lsn
    opened = book.commit(("u", claim, {"id": 1, "status": "open"}))
    book.copy(claim, [{"id": 1, "status": "open"}, {"id": 2, "status": "lost and found"}, {"id": 4, "status": "x"}])
    book.live(claim)
    book.cut()
    closed = book.commit(("u", claim, {"id": 1, "status": "closed"}))
    book.cut()
    assert spans(book) == [
        (1, "new", first, opened),
        (1, "open", opened, closed),
        (1, "closed", closed, None),
        (2, "new", first, opened),
        (2, "lost and found", opened, None),
        (3, "new", first, opened),
        (4, "x", opened, None),
    ]
    assert ask(book, "SELECT _op, _ended_by FROM claim__history WHERE id = 3") == [("r", "r")]


def test_values_that_an_update_left_out_are_carried_on_through_key_changes(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1, "note": "found by the copy"}])
    book.cut()
    left = ("note",)
    book.commit(("u", claim, {"id": 1, "status": "a"}, {}, left))
    book.commit(("u", claim, {"id": 2, "status": "b"}, {"id": 1}, left))
    book.commit(("u", claim, {"id": 2, "status": "c", "note": "told"}))
    book.commit(("u", claim, {"id": 3, "status": "d"}, {"id": 2}, left), ("c", claim, {"id": 2, "note": "another"}))
    book.cut()
    told = ask(book, "SELECT id, status, note, _missing FROM claim__history ORDER BY _valid_from_lsn, id")
    assert told == [
        (1, None, "found by the copy", None),
        (1, "a", "found by the copy", None),
        (2, "b", "found by the copy", None),
        (2, "c", "told", None),
        (2, None, "another", None),
        (3, "d", "told", None),
    ]


def test_old_versions_show_an_added_columns_default(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1}])
    book.cut()
    added = Column("level", "level", 5, "int8", 0, -1, "int8", missing="7", since=2)
    wider = book.evolve(claim, [*claim.columns, added])
    book.commit(("u", wider, {"id": 1, "level": 8}))
    book.cut()
    assert [v[:2] for v in spans(book, "id, level")] == [(1, 7), (1, 8)]


def test_since_a_change_of_the_key_versions_are_told_by_the_new_one(book: Book) -> None:
    claim = book.table("claim", {"id": "int8", "number": "text", "status": "text"}, rows=[{"id": 1, "number": "A"}])
    book.cut()
    book.commit(("c", claim, {"id": 2, "number": "B"}), ("u", claim, {"id": 1, "number": "A", "status": "old"}))
    book.cut()
    columns = [replace(c, key=1 if c.name == "number" else 0) for c in claim.columns]
    turned = book.evolve(claim, columns)
    since = book.lsn + 1
    moved = book.commit(("u", turned, {"id": 1, "number": "C", "status": "new"}, {"number": "A"}))
    book.cut()
    told = spans(book, "number, status")
    assert told == [("A", "old", since, moved), ("B", None, since, None), ("C", "new", moved, None)]


def test_columns_of_the_source_keep_their_names_and_ours_give_way(book: Book) -> None:
    kinds = {"id": "int8", "Valid_From": "date", "_op": "text", "__op": "text"}
    book.table("policy", kinds, rows=[{"id": 1, "_op": "theirs"}])
    book.cut()
    with Session(book.lake) as session:
        found = session.sql("SELECT * FROM policy__history").columns
    given = {"valid_from": "_valid_from", "_op": "___op"}
    assert found == [*kinds, *(given.get(c, c) for c in OURS)]
    assert ask(book, 'SELECT "_op", "___op" FROM policy__history') == [("theirs", "r")]


def test_the_log_has_every_change_as_it_came(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1, "status": "new"}])
    book.cut()
    first = book.commit(("u", claim, {"id": 2, "status": "x"}, {"id": 1}), ("d", claim, {"id": 2}))
    book.cut()
    book.flush()
    book.commit(("t", claim, {}))
    book.cut()
    sql = "SELECT _op, id, status, _old_id FROM claim__log ORDER BY _end_lsn, _seq, _op"
    told = [("r", 1, "new", None), ("u", 2, "x", 1), ("d", 2, None, None), ("t", None, None, None)]
    assert ask(book, sql) == told
    assert ask(book, sql, f"0/{first:X}") == told[:3]
    assert ask(book, "SELECT count(*) FROM Public.Claim__LOG") == [(4,)]


def test_a_table_without_a_key_has_a_log_and_no_history(book: Book) -> None:
    book.table("event", {"what": "text"}, key=(), identity="none", rows=[{"what": "x"}])
    book.table("whole", {"what": "text"}, key=(), identity="full", rows=[{"what": "x"}])
    book.cut()
    for name in ("event", "whole"):
        assert ask(book, f"SELECT what, _op FROM {name}__log") == [("x", "r")]
        with pytest.raises(QueryError, match="have no key") as error:
            ask(book, f"SELECT * FROM {name}__history")
        assert f"{name}__log" in str(error.value.hint)


def test_a_table_of_the_source_wins_over_ours(book: Book) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1}])
    for suffix in ("history", "log"):
        book.table(f"claim__{suffix}", {"id": "int8", "mine": "text"}, rows=[{"id": 7, "mine": "yes"}])
    book.cut()
    for suffix in ("history", "log"):
        assert ask(book, f"SELECT * FROM claim__{suffix}") == [(7, "yes")]
        assert ask(book, f"SELECT id FROM claim__{suffix}__{suffix}") == [(7,)]


def test_a_history_that_is_not_exact_somewhere_is_told_with_a_warning(book: Book) -> None:
    claim = book.table("claim", CLAIM, rows=[{"id": 1}])
    book.cut()
    begins = book.commit(("u", claim, {"id": 1, "status": "x"}))
    state = book.registry.tables[claim.folder]
    book.copy(claim, [{"id": 1, "status": "x"}])
    ends = book.commit(("c", claim, {"id": 2}))
    book.live(claim)
    state.inexact.append((begins, ends))
    book.cut()
    with Session(book.lake) as session:
        assert session.sql("SELECT count(*) FROM claim").arrow()[0][0].as_py() == 2
        assert session.warnings == []
        assert session.sql("SELECT count(*) FROM claim__history").arrow()[0][0].as_py() == 3
        assert session.warnings == [f"the history of public.claim is not exact from 0/{begins:X} to 0/{ends:X}"]


def test_a_query_that_names_neither_makes_neither(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    book.table("claim", CLAIM, rows=[{"id": 1}])
    book.cut()
    made: list[str] = []
    original = Session._view

    def counting(self: Session, relation: Any) -> Any:
        made.append(relation.suffix)
        return original(self, relation)

    monkeypatch.setattr(Session, "_view", counting)
    assert ask(book, "SELECT id FROM claim") == [(1,)]
    assert made == [""]
    assert ask(book, "SELECT h.id FROM claim__history h JOIN claim USING (id)") == [(1,)]
    assert sorted(made) == ["", "", "__history"]


# --- against states and walks, at random


class Story:
    """A random table that lives through everything that a source can do, and what a reader saw after each commit."""

    def __init__(self, book: Book, rng: random.Random) -> None:
        self.book, self.rng, self.added = book, rng, 0
        self.rows: dict[int, dict[str, Any]] = {n: self._row(n) for n in range(1, 8)}
        self.table: Table = book.table("claim", CLAIM, rows=list(self.rows.values()))
        book.registry.tables[self.table.folder].copies[0].exact_at = book.at
        self.moments: list[int] = [book.lsn]
        self.times: set[int] = set()
        book.cut()

    def _row(self, key: int) -> dict[str, Any]:
        added = {f"added{n}": n for n in range(1, self.added + 1)}
        note = self.rng.choice(["x" * 9, "y", None])
        return {"id": key, "status": self.rng.choice("abc"), "note": note, **added}

    def step(self) -> None:
        act = self.rng.choices(["commit", "cut", "flush", "fold", "copy", "column"], [20, 8, 3, 1, 1.5, 0.5])[0]
        if act == "commit":
            changes = [c for _ in range(self.rng.randint(1, 4)) for c in self._change()]
            if changes:
                self.moments.append(self.book.commit(*changes, later=self.rng.choice([1, 2, -1, 0])))
                self.times.add(self.book.at)
        elif act == "cut":
            self.book.cut()
        elif act == "flush":
            self.book.cut()
            self.book.flush()
        elif act == "fold" and self.book.record:
            self.book.fold(self.table)
        elif act == "copy":
            self._copy()
        elif act == "column" and self.added < 2:
            self.added += 1
            name = f"added{self.added}"
            place = len(self.table.columns) + 1
            since = self.table.version + 1
            made = Column(name, name, place, "int8", 0, -1, "int8", missing=str(self.added), since=since)
            self.table = self.book.evolve(self.table, [*self.table.columns, made])
            self.rows = {k: {**r, name: self.added} for k, r in self.rows.items()}

    def _change(self, *, whole: bool = False) -> list[tuple[Any, ...]]:
        """One change as the log has it, and its effect on the rows; `whole`: no value is left out."""
        act = self.rng.choices("cudmt", [4, 8, 3, 3, 0.3])[0]
        if act == "t":
            self.rows.clear()
            return [("t", self.table, {})]
        free = [n for n in range(1, 12) if n not in self.rows]
        if act == "c" and free:
            key = self.rng.choice(free)
            self.rows[key] = self._row(key)
            return [("c", self.table, self.rows[key])]
        if not self.rows:
            return []
        key = self.rng.choice(list(self.rows))
        if act == "d":
            del self.rows[key]
            return [("d", self.table, {"id": key})]
        new = self.rng.choice(free) if act == "m" and free else key
        row = {**self._row(new)}
        missing: tuple[str, ...] = ()
        if not whole and self.rng.random() < 0.5:
            row["note"], missing = self.rows[key]["note"], ("note",)
        del self.rows[key]
        self.rows[new] = row
        sent = {k: v for k, v in row.items() if k not in missing}
        return [("u", self.table, sent, {"id": key} if new != key else {}, missing)]

    def _copy(self) -> None:
        """A copy that finds some rows otherwise than the stream told, with commits before it is complete."""
        for key in self.rng.sample(sorted(self.rows), min(2, len(self.rows))):
            if self.rng.random() < 0.5:
                del self.rows[key]
            else:
                self.rows[key] = {**self.rows[key], "status": "otherwise"}
        state = self.book.registry.tables[self.table.folder]
        self.book.copy(self.table, list(self.rows.values()))
        begins = self.book.lsn
        for _ in range(self.rng.randint(0, 3)):
            if changes := self._change(whole=True):  # a real copy reads what was left out meanwhile
                self.book.commit(*changes)
        self.book.live(self.table)
        state.copies[-1].exact_at = self.book.at
        if self.book.lsn > begins:
            state.inexact.append((begins, self.book.lsn))
        self.moments = [m for m in self.moments if m < begins]
        self.moments.append(self.book.lsn)
        self.book.cut()


@pytest.mark.parametrize("given", [*range(1, 5), None])
def test_at_every_past_commit_the_intervals_show_what_the_table_showed(book: Book, given: int | None) -> None:
    seed = given or random.SystemRandom().randrange(10**6)
    print("seed", seed)
    story = Story(book, random.Random(seed))
    for _ in range(50):
        story.step()
    book.cut()
    with Session(book.lake) as session:
        names = session.columns(TableName("main", "public", "claim"))
    ours = "_valid_from_lsn, _valid_to_lsn, valid_from, valid_to"
    held = ask(book, f"SELECT {ours}, {', '.join(names)} FROM claim__history")
    assert len(held) > len(story.rows)
    assert all(b is None or a < b for a, b, *_ in held)
    assert all(b is None or a <= b for _, _, a, b, *_ in held)
    for lsn in dict.fromkeys(story.moments):
        with Session(book.lake, at=f"0/{lsn:X}") as session:
            known = [n for n in names if n in session.columns(TableName("main", "public", "claim"))]
        shown = sorted(ask(book, f"SELECT {', '.join(known)} FROM claim", f"0/{lsn:X}"), key=repr)
        then = [v[4 : 4 + len(known)] for v in held if v[0] <= lsn and (v[1] is None or v[1] > lsn)]
        assert sorted(then, key=repr) == shown, (seed, lsn)
    by_time = 0
    for micros in story.rng.sample(sorted(story.times), min(8, len(story.times))):
        try:
            shown = sorted(ask(book, "SELECT id, status FROM claim", iso(micros)), key=repr)
        except NotExact:
            continue  # a copy was under way, or a commit may still come that belongs before it
        at = datetime.fromtimestamp(micros // SECOND, UTC)
        then = [(v[4], v[5]) for v in held if v[2] <= at and (v[3] is None or v[3] > at)]
        assert sorted(then, key=repr) == shown, (seed, at)
        by_time += 1
    assert by_time > 0
    with Session(book.lake) as session:
        for key in range(1, 12):
            walked = history(session, TableName("main", "public", "claim"), {"id": str(key)})
            once: dict[Any, Version] = {}  # a life may be told again on its way back
            for v in walked:
                if v.moved_to or v.key == {"id": str(key)}:
                    once.setdefault((v.order, v.op), v)
            lasts = {v.lsn: v for v in once.values()}.values()
            told = [(v.lsn, v.values) for v in lasts if v.op not in ("d", "t") and not v.moved_to]
            found = [(v[0], dict(zip(names, v[4:], strict=True))) for v in held if v[4] == key]
            assert sorted(found, key=lambda f: f[0]) == told, (seed, key)
