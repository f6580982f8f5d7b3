"""One engine's process: its own group, its pid on record, its output in a log file.

The launcher may end and come back: what runs is found again by the recorded pid AND the process's start time, so that
a reused pid is never taken for ours. Signals go to the group; nothing is ever ended by name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from claimhouse.errors import ClaimhouseError

_HANDED_ON = frozenset(
    ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "CLAIMHOUSE_FAILPOINT", "CLAIMHOUSE_CACHE")
)


class NotHealthy(ClaimhouseError):
    """An engine did not come up, or went away; its log says why."""

    retry = True


@dataclass(frozen=True, slots=True)
class Process:
    """A process by name, below one folder: `run/<name>.json` is its record and `logs/<name>.log` its output."""

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The running process, None where there is none."""
        with suppress(OSError, ValueError, KeyError):
            record = json.loads(self._record.read_text())
            if _started(record["pid"]) == record["started"]:
                return record["pid"]
        return None

    def start(self, command: Sequence[str], env: Mapping[str, str], *, priority: int = 0) -> int:
        """Start it unless it runs, and give its pid. `env` goes over a bare environment: secrets come by it."""
        if (pid := self.pid) is not None:
            return pid
        for folder in (self.log.parent, self._record.parent):
            folder.mkdir(parents=True, exist_ok=True)
        base = {k: v for k, v in os.environ.items() if k in _HANDED_ON}
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**base, **env},
                cwd=self.folder,
                start_new_session=True,
            )
        if priority:
            os.setpriority(os.PRIO_PGRP, child.pid, priority)
        self._record.write_text(json.dumps({"pid": child.pid, "started": _started(child.pid)}))
        return child.pid

    def wait(self, healthy: Callable[[], bool], *, within: float) -> None:
        """Return once `healthy` says so. Raises NotHealthy when the process ends first or time is up."""
        deadline = time.monotonic() + within
        while True:
            with suppress(Exception):
                if healthy():
                    return
            if self.pid is None:
                raise NotHealthy(f"{self.name} ended while it started", hint=f"read {self.log}")
            if time.monotonic() > deadline:
                raise NotHealthy(f"{self.name} is not healthy after {within:.0f} s", hint=f"read {self.log}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _gone(pid, 10)

    def stop(self, *, within: float = 30) -> None:
        """Ask it to end, then make it."""
        pid = self.pid
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        if not _gone(pid, within):
            self.kill()
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.folder / "run" / f"{self.name}.json"


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 for one that is no more (or is only waited for)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def _gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not _started(pid):
            return True
        time.sleep(0.05)
    return False
