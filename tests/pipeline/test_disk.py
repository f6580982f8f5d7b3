"""The lake's disk: full for a while, or as a power cut would leave it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_capture import once, options, query, running, until
from tests.values.lake import Lake

from claimhouse.lake.lake import open_lake
from claimhouse.lake.snapshot import take
from claimhouse.postgres.stream import Stream


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("only root can mount a disk of its own")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.case("L13")
def test_a_full_disk_confirms_nothing_shows_nothing_in_part_and_is_gone_on_with(
    postgres: Any, tmp_path: Path, small_disk: Path
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    asked = options(postgres, tmp_path, location=str(small_disk / "lake"), spill_bytes=1 << 16)
    ballast = small_disk / "ballast"
    waits: list[str] = []
    with running(asked) as capture:
        capture._on_event = lambda kind, fields: waits.append(fields["reason"]) if kind == "reconnect" else None
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(0,)])
        with ballast.open("wb") as file:
            free = shutil.disk_usage(small_disk).free
            file.write(bytes(free - (1 << 18)))
        postgres.execute("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
        ((end,),) = postgres.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        until(lambda: len(waits) >= 2)
        assert all("No space left" in reason or "no space is left" in reason for reason in waits)
        assert query(asked, "SELECT count(*) FROM t") == [(0,)]
        confirmed = "SELECT max(confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE database = %s"
        assert postgres.execute(confirmed, [postgres.name])[0][0] < end
        ballast.unlink()
        until(lambda: query(asked, "SELECT count(*) FROM t") == [(20000,)], 40)
    once(asked)
    lake = Lake(postgres.dsn, small_disk)
    assert len(lake.log("public/t")) == 20000
    assert lake.differences() == []


class Synced:
    """What of a folder is on disk: a file's bytes as they were at its fsync, a name as of its folder's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, set[str]] = {}
        fsync = os.fsync

        def noted(handle: int) -> None:
            fsync(handle)
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if path.is_dir():
                self._names[path] = {p.name for p in path.iterdir()}
            else:
                self._bytes[os.fstat(handle).st_ino] = path.read_bytes()

        monkeypatch.setattr(os, "fsync", noted)

    def left(self, folder: Path, target: Path) -> Path:
        """The folder as the disk would have it after a power cut, as another one."""
        target.mkdir()
        for path in sorted(p for p in folder.iterdir() if p.name in self._names.get(folder, ())):
            if path.is_dir():
                self.left(path, target / path.name)
            else:
                (target / path.name).write_bytes(self._bytes.get(path.stat().st_ino, b""))
        return target


@pytest.mark.case("L14")
def test_what_was_confirmed_is_there_after_a_power_cut(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT generate_series(1, 500)")
    asked, synced = options(postgres, tmp_path, flush_interval=0.05), Synced(monkeypatch)
    confirm, left = Stream.confirm, []

    def power_cut(stream: Stream, lsn: int, **more: Any) -> None:
        left.append((lsn, synced.left(tmp_path / "lake", tmp_path / f"left{len(left)}")))
        confirm(stream, lsn, **more)

    monkeypatch.setattr(Stream, "confirm", power_cut)
    for n in range(3):
        postgres.execute(f"INSERT INTO t VALUES ({1000 + n}); UPDATE t SET v = 'x' WHERE id <= {n * 100}")
        with running(asked):
            until(lambda n=n: query(asked, f"SELECT id FROM t WHERE id = {1000 + n}") == [(1000 + n,)])
            time.sleep(0.2)  # a flush
    monkeypatch.undo()
    for lsn, folder in left:
        assert take(open_lake(folder), "main").mark.end_lsn >= lsn
    shutil.rmtree(tmp_path / "lake")
    left[-1][1].rename(tmp_path / "lake")  # the server goes on from where that disk was
    assert len(left) > 8 and list((tmp_path / "lake/changes").rglob("*.parquet"))
    once(asked)
    lake = Lake(postgres.dsn, tmp_path)
    assert lake.rows("SELECT * FROM t") == sorted(postgres.execute("SELECT * FROM t"))
    assert lake.differences() == []
