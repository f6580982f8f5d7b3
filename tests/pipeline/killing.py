"""A capture in a process of its own that dies by SIGKILL at a named place; from a fork server, so it starts at once."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

from tests.model.harness import capture_process
from tests.values.lake import Lake

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["claimhouse.pipeline.capture", "tests.model.harness"])


def killed(lake: Lake, place: str, *, spill_bytes: int = 64 << 20) -> bool:
    """Captures once; whether it died at the place (`cut.before_confirm:2`: its second passing) or came to its end."""
    log = Path(lake.location).with_name("log")
    process = _fork.Process(
        target=capture_process, args=(lake.dsn, lake.location, True, place, str(log), {}, spill_bytes), daemon=True
    )
    process.start()
    process.join(60)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(log.read_text() if log.exists() else f"ended with {process.exitcode}")
    return process.exitcode != 0
