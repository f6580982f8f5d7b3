"""What lives beside the demo's capture: the page and the rules, each the command that a user would start, as a process
of its own.

They hear no Ctrl-C of the terminal, for whoever started them ends them; if that one is killed, the system ends them.
What they say is kept in a log beside the lake.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from claimhouse.errors import ClaimhouseError

PAGE_NEEDS = ("fastapi", "uvicorn", "jinja2")
_PR_SET_PDEATHSIG = 1


class Beside:
    """One command beside this one; `on_line` is told what it prints. Start it from the main thread."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, *, nice: int = 0) -> None:
        self.name, self.arguments, self.log, self.nice = name, list(arguments), log, nice
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, on_line: Callable[[str], None] = lambda line: None) -> None:
        command = [sys.executable, "-m", "claimhouse", *self.arguments]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=_bound(self.nice),
            )
        self._reader = threading.Thread(target=self._read, args=(on_line,), name=self.name, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def check(self) -> None:
        """Raises ClaimhouseError if it ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ClaimhouseError(
                f"{self.name} ended by itself (exit code {code}){_last_words(self.log)}", hint=f"read {self.log}"
            )

    def stop(self, *, within: float = 15.0) -> None:
        """Ask it to end, then make it; returns once it has ended."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join(5)

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process and self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                on_line(line.strip())


def page_missing() -> str | None:
    """The first module that the page needs and that is not installed, None where all are."""
    return next((name for name in PAGE_NEEDS if importlib.util.find_spec(name) is None), None)


def _bound(nice: int) -> Callable[[], None]:
    """For the new process: end with the one that started it, and let others go first."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def bind() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        os.nice(nice)

    return bind


def _last_words(log: Path) -> str:
    """The error that a log ends with, for a message."""
    with suppress(OSError):
        said = re.findall(r"^error: (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        return f": {said[-1]}" if said else ""
    return ""
