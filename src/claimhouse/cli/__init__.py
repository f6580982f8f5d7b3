"""The command line: one module per command, each importing what it needs only when it runs.

What every command keeps: stdout is data and stderr is talk; exit 0 fine, 1 findings, 2 error; no prompt; whatever goes
wrong ends in `error: …` and `hint: …`, never in a traceback (`guard`).
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The `claimhouse` script."""
    from claimhouse.cli.guard import guarded
    from claimhouse.cli.lean import lean

    lean()
    sys.exit(guarded(sys.argv[1:]))


__all__ = ["main"]
