"""Objects come into being whole, durable and once."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from tests.query.book import Book

from claimhouse.errors import LakeError, SettingsError, StorageGone
from claimhouse.lake.lake import Lake
from claimhouse.lake.storage import BucketStore, Exists, let_go, open_store
from claimhouse.query.session import Session


@pytest.mark.case("L12")
def test_of_eight_that_race_for_a_name_one_wins(new_lake: Callable[[], Lake]) -> None:
    stores = [new_lake().store for _ in range(8)]
    # moto looks whether an object is there and stores it in two steps: on it the eight come one after another.
    turns = contextlib.nullcontext() if stores[0].local else threading.Lock()
    start = threading.Barrier(8)

    def put(number: int) -> bool:
        start.wait()
        try:
            with turns:
                stores[number].put_new("tail/main/1.cut", b"the same bytes")
        except Exists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(8))) == 1
    assert stores[0].get("tail/main/1.cut") == b"the same bytes"


def test_reading_listing_and_deleting_agree(lake: Lake) -> None:
    store = lake.store
    big = os.urandom(5 << 20)
    for name in ("b", "a", "sub/c"):
        store.put_new(f"folder/{name}", big if name == "b" else b"0123456789")
    assert store.list("folder") == ["a", "b"]
    assert store.folders("folder") == ["sub"]
    assert store.list("absent") == [] and store.folders("absent") == []
    assert store.end("folder/a", 4) == b"6789" and store.end("folder/a", 99) == b"0123456789"
    opened = store.open("folder/b")
    store.delete(["folder/b", "folder/never"])
    assert opened.to_pybytes() == big
    assert not store.exists("folder/b") and store.exists("folder/a")
    for read in (store.get, store.open, lambda key: store.end(key, 1)):
        with pytest.raises(KeyError):
            read("folder/b")


@pytest.mark.case("L6", "L14")
def test_a_half_written_file_is_no_object_and_is_swept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put_new("tail/main/1.cut", b"whole")
    left = tmp_path / "tail/main/.2.cut.99-1-ff.tmp"
    left.write_bytes(b"ha")
    assert store.list("tail/main") == ["1.cut"]
    store.sweep("tail/main")
    assert left.exists()  # somebody may be writing it now
    os.utime(left, (time.time() - 3600,) * 2)
    store.sweep("tail/main")
    assert [p.name for p in (tmp_path / "tail/main").iterdir()] == ["1.cut"]


@pytest.mark.case("L14")
def test_a_new_object_is_fsynced_with_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    open_store(tmp_path / "lake").put_new("tail/main/1.cut", b"whole")
    names = synced
    assert names[-2].startswith(".1.cut") and names[-1] == "main"
    assert {"tail", "lake", tmp_path.name} <= set(names[:-2])


@pytest.mark.case("L13")
def test_a_full_disk_is_told_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    write, calls = os.writev, 0

    def full(fd: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        return write(fd, [data[0][:3]])

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(StorageGone, match="No space left") as caught:
        store.put_new("tail/1.cut", b"whole")
    assert caught.value.retry and "space" in (caught.value.hint or "")
    assert list((tmp_path / "tail").iterdir()) == []
    store.put_new("tail/1.cut", b"whole")
    assert store.get("tail/1.cut") == b"whole"


@pytest.mark.case("L12", "R4")
@pytest.mark.parametrize("stands", ["ours", "theirs", "nothing"])
def test_a_lost_answer_is_resolved_by_looking(bucket: Any, monkeypatch: pytest.MonkeyPatch, stands: str) -> None:
    store = open_store(*bucket)
    assert isinstance(store, BucketStore)
    put, lost = obstore.put, True

    def answer_lost(where: Any, key: str, body: bytes, **more: Any) -> Any:
        nonlocal lost
        if lost:
            lost = False
            if stands != "nothing":
                put(where, key, body if stands == "ours" else b"theirs", **more)
            raise GenericError("connection closed before message completed")
        return put(where, key, body, **more)

    monkeypatch.setattr(obstore, "put", answer_lost)
    if stands == "theirs":
        with pytest.raises(Exists):
            store.put_new("tail/1.cut", b"ours")
    else:
        store.put_new("tail/1.cut", b"ours")
        assert store.get("tail/1.cut") == b"ours"


@pytest.mark.case("L12")
def test_a_bucket_that_stays_silent_is_given_up_after_a_bound(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(*bucket)
    calls: list[str] = []

    def silent(where: Any, key: str, body: bytes, **more: Any) -> Any:
        calls.append(key)
        raise GenericError("503 SlowDown")

    monkeypatch.setattr(obstore, "put", silent)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(StorageGone):
        store.put_new("tail/1.cut", b"ours")
    assert 2 < len(calls) < 20


def test_only_folders_and_buckets_hold_lakes() -> None:
    with pytest.raises(SettingsError, match="gs://"):
        open_store("gs://bucket/lake")


@pytest.mark.parametrize("name", ["a[1]", "a]", "a^b", "a|b", "a\\b", "a\nb", "a%20b"])
def test_a_folder_that_delta_tables_cannot_be_written_to_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="in its path"):
        open_store(tmp_path / name / "lake")


@pytest.mark.parametrize("name", ["50% of it", "a*b?", "it's {x,y} #1", "Übung"])
def test_other_folders_hold_a_lake_whatever_their_names(tmp_path: Path, name: str) -> None:
    book = Book(tmp_path / name / "lake")
    table = book.table("t", {"id": "int8"}, rows=[{"id": 1}])
    book.cut()
    book.flush()
    book.fold(table)
    book.commit(("c", table, {"id": 2}))
    book.cut()
    book.flush()
    with Session(book.lake) as session:
        assert session.count("main", "public", "t") == 2


def test_a_mapped_object_takes_no_memory_once_it_is_let_go_and_can_be_read_again(tmp_path: Path) -> None:
    store, data = open_store(tmp_path), os.urandom(16 << 20)
    store.put_new("tail/main/1.part", data)
    buffer = store.open("tail/main/1.part")
    assert buffer.to_pybytes() == data
    before = _mapped_bytes()
    let_go(buffer)
    assert before - _mapped_bytes() > 12 << 20
    store.delete(["tail/main/1.part"])
    assert buffer.to_pybytes() == data


def _mapped_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


def test_a_second_name_keeps_an_object_that_loses_its_first(lake: Lake) -> None:
    lake.store.put_new("current/main/a.parquet", b"rows")
    for _ in range(2):
        lake.store.copy("current/main/a.parquet", "bases/main/1/a.parquet")
    lake.store.delete(["current/main/a.parquet"])
    assert lake.store.get("bases/main/1/a.parquet") == b"rows"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
def test_what_this_user_may_not_read_is_told_as_that_and_not_as_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put_new("control/one", b"1")
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        for read in (store.get, store.open, store.exists, store.list, store.folders, lambda key: store.end(key, 1)):
            with pytest.raises(LakeError, match="may not be read by this user"):
                read("control/one")
    finally:
        os.seteuid(0)
    assert store.get("control/one") == b"1"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_this_user_may_only_read_is_told_as_that_and_never_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = open_store(tmp_path)
    store.put_new("control/one", b"1")
    calls: tuple[Callable[[], None], ...] = (
        lambda: store.put_new("control/two", b"2"),
        lambda: store.copy("control/one", "control/three"),
        lambda: store.delete(["control/one"]),
    )

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    for where, function in ((os, "open"), (os, "link"), (Path, "unlink")):
        monkeypatch.setattr(where, function, refused)
    assert store.get("control/one") == b"1" and store.list("control") == ["one"]
    for call in calls:
        with pytest.raises(LakeError, match=r"control/\w+ may not be written by this user") as caught:
            call()
        assert not caught.value.retry and "rights" in str(caught.value.hint)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = open_store(tmp_path)

    def refused(one: Any, other: Any) -> None:
        raise OSError(number, os.strerror(number), str(one), None, str(other))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(LakeError, match="control/one could not be linked to its name") as caught:
        store.put_new("control/one", b"1")
    assert "hard links" in str(caught.value.hint) and not caught.value.retry
    assert store.list("control") == [] and not list((tmp_path / "control").iterdir())


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_folder_whose_storage_fails_is_told_as_a_bucket_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = open_store(tmp_path)
    store.put_new("tail/1.cut", b"whole")
    (tmp_path / "tail/.2.cut.99-1-ff.tmp").write_bytes(b"ha")

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: store.get("tail/1.cut"),
        "open": lambda: store.open("tail/1.cut"),
        "end": lambda: store.end("tail/1.cut", 1),
        "exists": lambda: store.exists("tail/1.cut"),
        "list": lambda: store.list("tail"),
        "folders": lambda: store.folders("tail"),
        "put_new": lambda: store.put_new("tail/2.cut", b"whole"),
        "copy": lambda: store.copy("tail/1.cut", "tail/3.cut"),
        "delete": lambda: store.delete(["tail/1.cut"]),
        "sync": lambda: store.sync(["tail/1.cut"]),
        "sweep": lambda: store.sweep("tail"),
    }
    broken = ((os, "scandir"), (os, "fsync"), (os, "link"), (Path, "open"), (Path, "stat"), (Path, "unlink"))
    for name, call in calls.items():
        with monkeypatch.context() as patched, pytest.raises(StorageGone, match=r"tail\S* could not be") as caught:
            for where, function in broken:
                patched.setattr(where, function, fails)
            call()
        assert os.strerror(number) in str(caught.value), name
        assert caught.value.retry and caught.value.hint, name
