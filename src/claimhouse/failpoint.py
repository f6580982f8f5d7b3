"""Named places where a test may kill the process, as a power cut would.

`CLAIMHOUSE_FAILPOINT="tail.before_link"` kills at the first passing of that place, `"tail.before_link:3"` at the third.
The process dies by SIGKILL: no handler, no `finally`, no flush of buffers. Costs one comparison when unset. Imports
nothing of ours.
"""

from __future__ import annotations

import os
import signal

NAMES: tuple[str, ...] = (
    "cut.before_append",
    "cut.before_confirm",
    "cut.after_confirm",
    "tail.before_write",
    "tail.half_written",
    "tail.before_link",
    "tail.after_link",
    "part.after_write",
    "flush.before_table",
    "flush.after_table",
    "flush.before_record",
    "flush.after_record",
    "flush.before_row",
    "flush.after_row",
    "fold.before_commit",
    "fold.after_commit",
    "base.before_card",
    "drop.midway",
    "fraud.before_append",
    "fraud.after_append",
)

_name, _left = "", 0


def arm(setting: str) -> None:
    """Arm the place that `name` or `name:count` says, none for an empty text. Raises ValueError."""
    global _name, _left
    name, _, count = setting.partition(":")
    if name and name not in NAMES:
        raise ValueError(f"no failpoint is called {name!r}")
    _name, _left = name, int(count or 1)


def due(name: str) -> bool:
    """Whether the next `hit(name)` kills; for places that prepare the damage first."""
    return name == _name and _left <= 1


def hit(name: str) -> None:
    """Die here if this is the armed place and its count has come."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("CLAIMHOUSE_FAILPOINT", ""))
