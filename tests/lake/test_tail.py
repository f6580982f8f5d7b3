"""Cuts: whole or absent, checked when read, one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lake.writing import Writer, changes, table

from claimhouse.errors import Fenced, LakeError, NewerLake, NotALake, StorageGone
from claimhouse.lake import lake as lakes
from claimhouse.lake import owner as owners
from claimhouse.lake import tail as tails
from claimhouse.lake.lake import Lake
from claimhouse.lake.tail import Tail


def ids(lake: Lake, number: int, folder: str = "public/claim") -> list[int]:
    return [i for _, batch in tails.open_cut(lake, "main", number).batches(folder) for i in batch["id"].to_pylist()]


def test_what_is_appended_is_read_back_with_its_cut(lake: Lake) -> None:
    writer = Writer(lake, table(), table("party"))
    first, second = (
        changes(table(), [{"id": 1}, {"id": 2, "_missing": "note"}], 10),
        changes(table("party"), [{"id": 3}], 10),
    )
    made = writer.cut(first, second, changes(table(), [{"id": 4}], 10))
    mark = tails.read_mark(lake, "main", 1)
    assert mark == made
    assert (mark.tables, mark.rows("public/claim"), mark.missing("public/claim")) == (
        ["public/claim", "public/party"],
        3,
        1,
    )
    cut = tails.open_cut(lake, "main", 1)
    ((version, batch), (_, more)) = cut.batches("public/claim")
    assert version == 1 and batch["id"].to_pylist() == [1, 2] and more["id"].to_pylist() == [4]
    assert batch["_cut"].to_pylist() == [1, 1] and batch["_incarnation"].to_pylist() == [1, 1]
    assert batch.schema.names[-3:] == ["id", "note", "_old_id"]
    assert cut.transactions().to_pylist()[0]["counts"] == [("public/claim", 1), ("public/party", 1)]
    assert all(section.offset % 8 == 0 for section in mark.sections)


@pytest.mark.parametrize("sized", [1, 3])
def test_a_large_cut_is_what_a_small_one_is(lake: Lake, sized: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_LARGE", 4096)
    writer = Writer(lake, table(), table("party"))
    large = changes(table(), [{"id": n, "note": None if n % 3 else "é" * n} for n in range(1, 100 * sized)], 10)
    odd = changes(table("party"), [{"id": 7}], 10)
    part = writer.tail.put_part([large, odd])
    made = writer.cut(odd, large, parts=[part])
    assert tails.read_mark(lake, "main", 1) == made
    assert ids(lake, 1) == [*range(1, 100 * sized)] * 2 and ids(lake, 1, "public/party") == [7, 7]
    held = tails.open_cut(lake, "main", 1).batches("public/claim")
    notes = [note for _, batch in held for note in batch["note"].to_pylist()]
    assert notes == large.batch["note"].to_pylist() * 2
    assert all(section.offset % 8 == 0 for section in made.all_sections())


def test_numbers_go_on_in_a_new_owner(new_lake: Callable[[], Lake]) -> None:
    Writer(new_lake()).cut()
    second = Writer(new_lake()).cut()
    assert (second.cut, second.epoch, second.end_lsn) == (2, 2, 20)


@pytest.mark.case("L2")
def test_a_zombie_is_stopped_at_its_next_append(new_lake: Callable[[], Lake]) -> None:
    zombie = Writer(new_lake())
    zombie.cut()
    heir = Writer(new_lake())
    heir.cut()
    with pytest.raises(Fenced):
        zombie.cut()
    assert heir.cut().cut == 3
    assert [tails.read_mark(heir.lake, "main", n).epoch for n in (1, 2, 3)] == [1, 2, 2]


@pytest.mark.case("L2")
def test_a_zombie_that_is_taken_over_while_it_writes_a_cut_is_stopped_as_well(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie = Writer(folder_lake)
    zombie.cut()
    link = os.link

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        owners.claim(folder_lake, "main")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(Fenced):
        zombie.cut()


@pytest.mark.case("L2")
def test_a_zombie_that_wins_a_number_is_told_before_it_confirms(new_lake: Callable[[], Lake]) -> None:
    zombie = Writer(new_lake())
    zombie.cut()
    heir = Writer(new_lake())
    with pytest.raises(Fenced):
        zombie.cut()  # its cut 2 is whole and counts, but it must not confirm it
    with pytest.raises(StorageGone, match="earlier owner") as refused:
        heir.cut()
    assert refused.value.retry  # the rightful owner goes on, from the zombie's cut
    again = Writer(new_lake())
    assert again.cut().cut == 3 and ids(again.lake, 2) == [20]


def test_the_newest_claim_wins(new_lake: Callable[[], Lake]) -> None:
    first, second = owners.claim(new_lake(), "main"), owners.claim(new_lake(), "main")
    second.check()
    with pytest.raises(Fenced):
        first.check()
    owners.claim(new_lake(), "other")
    second.check()
    assert new_lake().sources() == ["main", "other"]


@pytest.mark.case("R4")
def test_an_answer_lost_after_the_append_is_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(lakes.create(tmp_path))
    put = writer.lake.store.put_new

    def twice(key: str, data: bytes, mark: str = "") -> None:
        put(key, data, mark)
        put(key, data, mark)

    monkeypatch.setattr(writer.lake.store, "put_new", twice, raising=False)
    writer.saved = "there"
    assert writer.cut().cut == 1


@pytest.mark.case("R1")
def test_positions_never_go_back(folder_lake: Lake) -> None:
    writer = Writer(folder_lake)
    writer.cut(lsn=50)
    with pytest.raises(LakeError, match="go back"):
        writer.cut(lsn=40)
    assert writer.cut(lsn=50).cut == 2


def test_parts_are_seen_once_a_cut_names_them(lake: Lake) -> None:
    writer = Writer(lake)
    parts = [writer.tail.put_part([changes(table(), [{"id": n}], 0)]) for n in (1, 2)]
    writer.cut()  # something else in between
    assert ids(lake, 1) == [10]
    writer.tail.drop(0)
    mark = writer.cut(lsn=30, parts=[replace(part, end_lsn=30) for part in parts])
    assert ids(lake, 2) == [1, 2, 30]
    assert mark.rows("public/claim") == 3
    lsns = [v for _, b in tails.open_cut(lake, "main", 2).batches("public/claim") for v in b["_end_lsn"].to_pylist()]
    assert lsns == [30, 30, 30]


def test_dropping_keeps_parts_that_a_later_cut_names(folder_lake: Lake) -> None:
    writer = Writer(folder_lake)
    writer.cut()
    orphan = writer.tail.put_part([changes(table(), [{"id": 5}], 0)])
    writer = Writer(folder_lake)  # that transaction starts again after a kill
    part = writer.tail.put_part([changes(table(), [{"id": 6}], 0)])
    writer.cut()
    writer.cut()
    writer.tail.drop(2)
    names = folder_lake.store.list("tail/main")
    assert orphan.name not in names and part.name in names  # still pending
    writer.cut(parts=[replace(part, end_lsn=40)])
    writer.tail.drop(3)
    assert ids(folder_lake, 4) == [6, 40]
    assert tails.cut_numbers(folder_lake, "main") == [4]
    writer.tail.drop(99)
    assert ids(folder_lake, 4) == [6, 40]


@pytest.mark.case("L8")
@pytest.mark.parametrize("damage", ["empty", "cut short", "a bit flipped", "magic"])
def test_a_damaged_cut_is_named(tmp_path: Path, damage: str) -> None:
    lake = lakes.create(tmp_path)
    mark = Writer(lake).cut()
    path = tmp_path / "tail/main" / mark.name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "a bit flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"empty": b"", "cut short": data[:-9], "magic": data[:-1] + b"X"}.get(damage, data))
    with pytest.raises(LakeError, match=mark.name) as caught:
        tails.open_cut(lake, "main", 1)
    assert caught.value.hint
    if damage != "a bit flipped":  # a footer alone has no checksum
        with pytest.raises(LakeError, match=mark.name):
            Tail(lake, "main", owners.claim(lake, "main")).last()


def test_a_footer_larger_than_the_first_look_is_read(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_FOOTER_GUESS", 100)
    assert Writer(folder_lake).cut() == tails.read_mark(folder_lake, "main", 1)


def test_what_is_no_lake_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotALake):
        lakes.open_lake(tmp_path / "nothing")
    made = lakes.create(tmp_path)
    assert lakes.create(tmp_path).lake_id == lakes.open_lake(tmp_path).lake_id == made.lake_id
    card = tmp_path / lakes.LAKE
    card.write_text(card.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(NewerLake):
        lakes.open_lake(tmp_path)
    card.write_text("")
    with pytest.raises(NotALake):
        lakes.open_lake(tmp_path)
