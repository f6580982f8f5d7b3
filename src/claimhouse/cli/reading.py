"""Who reads what on the command line goes into the lake's access log, as on the page, before an answer is given.

The writing goes on beside the query, so that the query is not slower for it; `Reading.kept` waits for it.
"""

from __future__ import annotations

import getpass
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claimhouse.lake.access import Access
    from claimhouse.lake.lake import Lake

LONGEST = 20_000  # characters of a statement that are kept


class Reading:
    """One command's reading of a lake; `audited` False writes nothing."""

    def __init__(self, lake: Lake, command: str, at: str | None, *, audited: bool) -> None:
        self._lake, self._by, self._at, self._audited = lake, f"cli.{command}", at or "now", audited
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def note(self, what: str, key: dict[str, str], *, found: bool = True) -> None:
        """Begin to write down what is read."""
        from claimhouse.lake.access import Access

        if self._audited and what:
            made = Access(login(), what, {n: v[:LONGEST] for n, v in key.items()}, found, self._by, self._at)
            self._thread = threading.Thread(target=self._write, args=(made,), name="access")
            self._thread.start()

    def kept(self) -> None:
        """Returns once what was noted is durable. Where it cannot be, as in a lake that may only be read, says so."""
        from claimhouse.cli.talk import warn
        from claimhouse.errors import ClaimhouseError

        if self._thread is not None:
            self._thread.join()
        failure = self._failure
        if isinstance(failure, ClaimhouseError | OSError):
            why = (failure.strerror or type(failure).__name__) if isinstance(failure, OSError) else str(failure)
            warn(
                f"this reading is not on record: {why} (--no-access-log, or [query] access_log = false, asks for none)"
            )
        elif failure is not None:
            raise failure

    def _write(self, made: Access) -> None:
        from claimhouse.lake.access import AccessLog

        try:
            AccessLog(self._lake).write(made)
        except Exception as error:  # told by `kept`
            self._failure = error


def login() -> str:
    """The name under which somebody is logged in."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"
