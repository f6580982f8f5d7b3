"""The figures that can be read from a mart, kept fresh beside the pages: totals and large losses of the present.

A page shows one cut. So the mart is moved to a page's own cut when the page asks, at the cost of the claims that
changed since; a thread keeps it at most some seconds behind, so that this is little. It is made when a page first asks,
and let go when none did for a while. Whatever it cannot answer (a past moment, another valuation, a page at an older
cut, a lake or a model that cannot be followed) is None, and is computed from the tables.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from claimhouse.console.background import Background
from claimhouse.console.reader import Reading
from claimhouse.errors import ClaimhouseError
from claimhouse.lake.lake import Lake
from claimhouse.lake.tail import cut_numbers
from claimhouse.marts.follower import MartFollower
from claimhouse.marts.fresh import readable
from claimhouse.marts.model import Model

BEHIND = 3.0  # seconds that the thread stays behind the newest cut: longer than a session of the present is kept
IDLE = 600.0  # seconds without a question after which the mart is let go
BEAT = 0.5
AGAIN = 30.0  # seconds until a mart that could not be made is tried again


class Standing(Background):
    """Ask it from any thread. Before `start` it answers nothing."""

    def __init__(self, lake: Lake) -> None:
        super().__init__()
        self.lake = lake
        self.trouble: str | None = None
        self.answered = 0
        self._wanted: tuple[Model, date] | None = None
        self._asked = 0.0
        self._follower: MartFollower | None = None
        self._seen: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        super().stop()

    def want(self, model: Model, valuation: date) -> None:
        """Pages of the present are valued at this day."""
        self._asked = time.monotonic()
        if self._wanted != (model, valuation):
            self._wanted = (model, valuation)
            self._wake.set()

    def ask(self, reading: Reading, model: Model, name: str, params: Mapping[str, Any]) -> pa.Table | None:
        """A figure's rows at a reading's cut, None where they must be computed."""
        if reading.at is not None or not readable(name) or not self._lock.acquire(blocking=False):
            return None
        try:
            follower = self._follower
            if follower is None or follower.model is not model:
                return None
            if str(params.get("valuation")) != str(follower.mart.params["valuation"]):
                return None
            mark = reading.session.snapshots[follower.moment.source].mark
            follower.step(mark.cut)
            if follower.moment.cut != mark.cut:
                return None
            found = follower.mart.figures(name, params)
            self.answered += 1
            return found
        except (ClaimhouseError, duckdb.Error, OSError) as error:
            self._failed(error)
            return None
        finally:
            self._lock.release()

    def _run(self) -> None:
        rest = BEAT
        while not self._stop.is_set():
            self._wake.wait(rest)
            self._wake.clear()
            rest = BEAT
            if self._stop.is_set() or self._wanted is None:
                continue
            try:
                with self._lock:
                    self._keep(*self._wanted)
            except (ClaimhouseError, duckdb.Error, OSError) as error:
                self._failed(error)
                rest = AGAIN
        self._let_go()

    def _keep(self, model: Model, valuation: date) -> None:
        """Bring the mart to what is wanted, and near the newest cut."""
        if time.monotonic() - self._asked > IDLE:
            self._let_go()
            self._wanted = None
            return
        if self._follower is None or self._follower.model is not model:
            self._let_go()
            self._follower = MartFollower(self.lake, model, valuation)
            self.trouble = None
        self._follower.value(valuation)
        now, numbers = time.monotonic(), cut_numbers(self.lake, self._follower.moment.source)
        self._seen.append((now, numbers[-1] if numbers else 0))
        while self._seen and now - self._seen[0][0] > BEHIND:
            self._follower.step(self._seen.popleft()[1])

    def _failed(self, error: Exception) -> None:
        self.trouble = str(error)
        self._let_go()

    def _let_go(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None
        self._seen.clear()
