"""What the console follows beside its requests: one thread each, started once, ended with the console."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Self

PATIENCE = 5.0  # seconds that an end waits for the look under way


@dataclass
class Background(ABC):
    """A follower's thread. `_run` looks until `_stop` is set, and waits by it between two looks."""

    _stop: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)

    def start(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @abstractmethod
    def _run(self) -> None: ...
