"""The valued-as-of bar: which moment a page shows, and the way to any other.

The slider runs over the transactions since the moment from which every table is exact; each of its steps is one. Where
a lake has several sources, a step is a time, since positions belong to one source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from claimhouse.console.moments import Line, Moments
from claimhouse.errors import ClaimhouseError
from claimhouse.lake.lake import Lake
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.query.moment import iso
from claimhouse.query.session import Session


@dataclass
class Steps:
    """The moments that the slider has, oldest first; `first` is the first that shows every table."""

    lines: dict[str, Line]
    first: int = 0

    @property
    def single(self) -> Line | None:
        return next(iter(self.lines.values())) if len(self.lines) == 1 else None

    def __len__(self) -> int:
        return len(self.single) if self.single is not None else len(self._times())

    def at(self, index: int) -> dict[str, Any] | None:
        """One step, None where there are none."""
        if not len(self):
            return None
        index = max(0, min(index, len(self) - 1))
        if self.single is not None:
            return self.single.at(index)
        time = iso(int(self._times()[index]))
        return {"index": index, "at": time, "xid": None, "committed_at": time, "rows": None}

    def index_of(self, session: Session) -> int:
        """The step that a session's moment comes to: the last transaction in it."""
        if self.single is not None:
            return max(0, self.single.upto(next(iter(session.positions.values())).lsn) - 1)
        newest = [x.committed[: x.upto(session.positions[s].lsn)].max(initial=0) for s, x in self.lines.items()]
        return max(0, int(np.searchsorted(self._times(), max(newest, default=0), side="right")) - 1)

    def _times(self) -> np.ndarray:
        final = min((int(x.committed.max(initial=0)) for x in self.lines.values()), default=0)
        times = np.unique(np.concatenate([x.committed for x in self.lines.values()] or [np.empty(0, np.int64)]))
        return times[times < final]


class Bar:
    """Knows each source's transactions; `steps` are those up to the newest snapshot that was seen."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._moments: dict[str, Moments] = {}
        self._newest: dict[str, LakeSnapshot] = {}

    def see(self, snapshot: LakeSnapshot) -> None:
        """Remember the newest snapshot of a source."""
        known = self._newest.get(snapshot.source)
        if known is None or known.mark.cut < snapshot.mark.cut:
            self._newest[snapshot.source] = snapshot

    def steps(self) -> Steps:
        lines = {s: self._moments.setdefault(s, Moments(self.lake, s)).line(n) for s, n in self._newest.items()}
        return Steps(lines, self._first(lines))

    def shown(self, session: Session) -> dict[str, Any]:
        """What the bar says of a session's moment."""
        for snapshot in session.snapshots.values():
            self.see(snapshot)
        steps = self.steps()
        step = steps.at(steps.index_of(session))
        marks = [s.mark for s in session.snapshots.values()]
        return {
            "now": session.at is None,
            "at": session.at,
            "step": step,
            "first": steps.first,
            "last": max(0, len(steps) - 1),
            "positions": {s: str(p) for s, p in session.positions.items()},
            "written_at": max((m.written_at for m in marks), default=0) / 1e6,
            "error": None,
        }

    def lost(self, at: str | None, error: ClaimhouseError) -> dict[str, Any]:
        """What the bar says where the moment cannot be shown."""
        steps = self.steps()
        shown = {"now": at is None, "at": at, "step": steps.at(len(steps) - 1), "positions": {}, "written_at": 0}
        return {**shown, "first": steps.first, "last": max(0, len(steps) - 1), "error": str(error)}

    def _first(self, lines: dict[str, Line]) -> int:
        """The first step at which every table was exact; 0 where that never was, or there are several sources."""
        if len(lines) != 1:
            return 0
        source, line = next(iter(lines.items()))
        states = self._newest[source].registry.tables.values()
        exact = [min(c.exact_from for c in s.copies if c.exact_from is not None) for s in states if _exact(s)]
        first = line.upto(max(exact, default=0))
        return first if first < len(line) else 0


def _exact(state: Any) -> bool:
    return state.status == "live" and any(c.exact_from is not None for c in state.copies)
