"""What a command need not load: pandas, which Arrow takes in beside itself wherever it is installed.

Arrow asks for pandas when it makes an array, only to know whether it was given one of its own; that import costs a
second, more than most commands do. In a command's process there is no pandas for Arrow alone: it comes with
chainladder, which the reserves are computed by, and with nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType


class _NoPandas:
    """A finder that says there is no pandas until chainladder wants it."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            if "chainladder" not in sys.modules:
                raise ModuleNotFoundError("pandas is left out of commands", name=name)
            sys.meta_path.remove(self)  # type: ignore[arg-type]


def lean() -> None:
    """Spare this process pandas."""
    sys.meta_path.insert(0, _NoPandas())  # type: ignore[arg-type]
