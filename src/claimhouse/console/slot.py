"""The slot's health, asked of the source now and then: it is told before lag, for a lost slot cannot be caught up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from claimhouse.console.background import Background
from claimhouse.dsn import Dsn
from claimhouse.errors import ClaimhouseError
from claimhouse.postgres.publication import slot_states
from claimhouse.postgres.server import connect, current_lsn


@dataclass
class SlotWatch(Background):
    """Asks every `every` seconds on one connection. `newest` is what the server said last, None before that."""

    dsn: Dsn
    slots: str = "claimhouse_%"
    every: float = 5.0
    newest: dict[str, Any] | None = None
    trouble: str | None = None
    asked_at: float = 0.0

    def health(self) -> list[dict[str, Any]]:
        """Each slot with a `level` (ok, warn, error) and what there is to say."""
        if self.newest is None:
            return []
        return [{**s, **_judged(s)} for s in self.newest["slots"]]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self.dsn.reveal()) as conn:
                    while True:
                        self._ask(conn)
                        if self._stop.wait(self.every):
                            return
            except ClaimhouseError as error:
                self.trouble = str(error)
            except Exception as error:  # the driver's own, told without its text, which may hold the address
                self.trouble = f"the source does not answer ({type(error).__name__})"
            if self._stop.wait(self.every):
                return

    def _ask(self, conn: Any) -> None:
        here = current_lsn(conn)
        fields = ("name", "wal_status", "safe_wal_size", "retained_bytes", "behind_bytes", "active_pid")
        slots = []
        for state in slot_states(conn, self.slots):
            slot = {f: getattr(state, f) for f in fields}
            slots.append({**slot, "inactive_since": state.inactive_since, "invalidation": state.invalidation_reason})
        self.newest = {"lsn": here, "slots": slots}
        self.trouble, self.asked_at = None, time.time()


def _judged(slot: dict[str, Any]) -> dict[str, str]:
    if slot["wal_status"] == "lost" or slot["invalidation"]:
        return {
            "level": "error",
            "says": f"lost: {slot['invalidation'] or 'its WAL is gone'}; the lake must be repaired",
        }
    if slot["wal_status"] == "unreserved":
        return {"level": "error", "says": "its WAL is about to be removed: start the capture now"}
    if not slot["active_pid"]:
        return {"level": "warn", "says": "nobody reads it; the source keeps its WAL until somebody does"}
    if slot["safe_wal_size"] is not None and slot["safe_wal_size"] < 256 << 20:
        return {"level": "warn", "says": "little WAL is left before the server drops it"}
    return {"level": "ok", "says": f"read by process {slot['active_pid']}"}
