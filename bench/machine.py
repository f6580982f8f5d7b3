"""What the kernel tells of processes (CPU time, memory), and on which core they run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from claimhouse.postgres.embedded import Embedded

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*pids: int) -> float:
    """CPU seconds, user and system, that these processes have used so far; of one that ended, none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def family_cpu(server: Embedded) -> float:
    """CPU seconds that a server has used so far with all its processes, those that ended included."""
    parent = server.pid or 0
    fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / _TICKS
    return ended + cpu_seconds(parent, *_children(parent))


def peak_mib(pid: int | str = "self") -> float:
    """The most memory that a process has had, mapped files included."""
    return _status(pid, "VmHWM:")


def own_mib(pid: int) -> float:
    """The memory that is a process's own now: without the files that it maps."""
    return _status(pid, "RssAnon:")


def _status(pid: int | str, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this kernel does not tell {name}")


class Watched(threading.Thread):
    """Samples a process's own memory until stopped; `most` is the most seen, in MiB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.most = pid, 0.0
        self._halt = threading.Event()

    def run(self) -> None:
        while not self._halt.wait(0.05):
            with suppress(OSError):
                self.most = max(self.most, own_mib(self.pid))

    def __enter__(self) -> Watched:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self.join()


def pin(core: int | None) -> None:
    """Keep this thread, and whatever it starts from now on, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextmanager
def cores_apart(server: Embedded) -> Iterator[tuple[int | None, int | None]]:
    """(the server's core, ours): the server and this thread with what it starts run on the first until the end.

    Both None where there is one core only.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2 or server.pid is None:
        yield None, None
        return
    theirs, ours = sorted(cores)[:2]
    _pin_family(server.pid, {theirs})
    os.sched_setaffinity(0, {theirs})
    try:
        yield theirs, ours
    finally:
        os.sched_setaffinity(0, cores)
        _pin_family(server.pid, cores)


def _pin_family(parent: int, cores: set[int]) -> None:
    for pid in (parent, *_children(parent)):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(pid, cores)


def _children(parent: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(stat.parent.name)


class Stopwatch:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @property
    def wall(self) -> float:
        return time.monotonic() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu
