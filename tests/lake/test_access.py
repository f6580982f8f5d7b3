"""Readings are chained: what is changed or taken out later is noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from claimhouse.errors import LakeError
from claimhouse.lake import access
from claimhouse.lake.access import Access, AccessLog
from claimhouse.lake.lake import Lake


def seen(number: int, day: str = "2026-03-30") -> Access:
    return Access("mw", "claim", {"claim_number": str(number)}, True, "test", when=f"{day}T10:00:0{number}.000000Z")


@pytest.fixture
def kept(folder_lake: Lake) -> Lake:
    """Three readings on one day, two on the next."""
    log = AccessLog(folder_lake)
    for number, day in enumerate(["2026-03-30"] * 3 + ["2026-03-31"] * 2):
        log.write(seen(number, day))
    return folder_lake


def names(lake: Lake, day: str) -> list[str]:
    return [f"{access.FOLDER}/{day}/{name}" for name in lake.store.list(f"{access.FOLDER}/{day}")]


def put(lake: Lake, name: str, data: bytes) -> None:
    lake.store.delete([name])
    lake.store.put_new(name, data)


def test_what_is_written_is_read_in_order_and_found_whole(lake: Lake) -> None:
    written = [seen(n) for n in range(3)]
    for one in written:
        AccessLog(lake).write(one)  # each a process of its own
    assert [replace(a, previous="") for a in access.read(lake)] == written
    assert list(access.read(lake, first=date(2026, 3, 31))) == []
    found = access.check(lake)
    assert (found.readings, found.first, found.last) == (3, "2026-03-30", "2026-03-30")


def test_several_writers_at_once_make_one_chain(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    log = AccessLog(lake)  # shared by threads, as the page's
    work = [
        threading.Thread(target=writer.write, args=(seen(n),)) for n in range(6) for writer in (log, AccessLog(lake))
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert access.check(lake).readings == 12


@pytest.mark.parametrize("place", [0, 1])
def test_a_reading_that_was_changed_is_missed_by_the_next(kept: Lake, place: int) -> None:
    name = names(kept, "2026-03-30")[place]
    put(kept, name, kept.store.get(name).replace(b'"mw"', b'"xx"'))
    with pytest.raises(LakeError, match="are not those that were written"):
        access.check(kept)


@pytest.mark.parametrize(("day", "place"), [("2026-03-30", 0), ("2026-03-30", 1), ("2026-03-30", 2), ("2026-03-31", 0)])
def test_a_reading_that_was_taken_out_is_missed(kept: Lake, day: str, place: int) -> None:
    kept.store.delete([names(kept, day)[place]])
    with pytest.raises(LakeError, match="are not those that were written"):
        access.check(kept)


def test_the_oldest_day_may_go_and_the_chain_goes_on(kept: Lake) -> None:
    head = access.check(kept).head
    kept.store.delete(names(kept, "2026-03-30"))
    (kept_folder,) = [day for day in kept.store.folders(access.FOLDER) if names(kept, day)]
    assert kept_folder == "2026-03-31" and access.check(kept).head == head
    AccessLog(kept).write(seen(5, "2026-03-29"))  # a clock that went back does not open an older day
    assert access.check(kept).readings == 3 and len(names(kept, "2026-03-31")) == 3


def test_a_day_between_may_not_go(kept: Lake) -> None:
    AccessLog(kept).write(seen(6, "2026-04-01"))
    kept.store.delete(names(kept, "2026-03-31"))
    with pytest.raises(LakeError):
        access.check(kept)


def test_a_damaged_reading_is_named(kept: Lake) -> None:
    name = names(kept, "2026-03-31")[-1]
    put(kept, name, b"{")
    with pytest.raises(LakeError, match=f"{name} is damaged"):
        list(access.read(kept))


def test_a_lake_without_readings_is_whole(folder_lake: Lake) -> None:
    assert access.check(folder_lake) == access.Chain(0, "", "", "")
