"""A mart that follows a lake's cuts, each at the cost of the claims that it touched.

    follower = MartFollower(lake, load("demo"), valuation)
    follower.step(cut)                     # to a later cut
    follower.mart.figures("totals")        # as the lake said at follower.moment

The model's tables stand in memory (mirror.py) and move by the rows that each cut brings; whose claims those rows
touch, as they were and as they are, the model tells. What the mirror cannot follow makes mirror and mart anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow as pa

from claimhouse.errors import UsageError
from claimhouse.lake.lake import Lake
from claimhouse.marts import compose
from claimhouse.marts.figure import find
from claimhouse.marts.fresh import LAST_DAY, ClaimMart, changed_sql, touched_claims
from claimhouse.marts.mirror import ANEW, Mirror, Moment, Stale
from claimhouse.marts.model import Model

MANY = 2_000  # touched claims from which on all are computed: then it is no dearer


class MartFollower:
    """One figure per claim of one source, kept at `moment`. For one thread at a time.

    Raises UsageError or ModelError for a model that does not tell whose claims each of its tables' rows touch, NotThere
    while a table is still being copied.
    """

    def __init__(
        self, lake: Lake, model: Model, valuation: date | str = LAST_DAY, *, source: str | None = None
    ) -> None:
        self.lake, self.model, self.asked = lake, model, source
        self.mart = ClaimMart(model, params={"valuation": valuation})
        self._narrow = _needed(model, self.mart.name)
        self._changed = {table: changed_sql(model, table) for table in self._narrow.changed}
        self._mirror: Mirror | None = None
        self._made = 0.0
        self.start()

    def start(self) -> None:
        """Make it anew at the newest cut."""
        mirror = Mirror(self.lake, self._narrow, self.asked)
        self.close()
        self._mirror, self._made = mirror, time.monotonic()
        self.mart.rebuild(mirror.connection)

    @property
    def mirror(self) -> Mirror:
        assert self._mirror is not None
        return self._mirror

    @property
    def moment(self) -> Moment:
        """Where the mart stands."""
        return self.mirror.moment

    def step(self, last: int) -> int:
        """Take in the cuts up to `last`; how many claims were computed anew, -1 for all of them.

        Where the cuts cannot be followed the mart is made anew, and then stands at the newest one.
        """
        if last <= self.moment.cut:
            return 0
        try:
            if time.monotonic() - self._made > ANEW:
                raise Stale("it has stood for long")
            change = self.mirror.read(last)
        except Stale:
            self.start()
            return -1
        rows = [(name, some) for name, s in change.settled.items() for some in (s.before, s.after) if some.num_rows]
        touched = self._touched(rows)
        change.apply()
        touched |= self._touched(rows)
        if len(touched) > MANY:
            self.mart.rebuild(self.mirror.connection)
            return -1
        self.mart.refresh(self.mirror.connection, sorted(touched))
        return len(touched)

    def value(self, valuation: date) -> None:
        """Value the mart at another day: every claim is computed."""
        if str(self.mart.params["valuation"]) != str(valuation):
            self.mart = ClaimMart(self.model, params={"valuation": valuation})
            self.mart.rebuild(self.mirror.connection)

    def close(self) -> None:
        """Let go of the tables."""
        if self._mirror is not None:
            self._mirror.close()

    def _touched(self, rows: Iterable[tuple[str, pa.Table]]) -> set[Any]:
        """The claims that rows touch as the tables now stand."""
        found: set[Any] = set()
        for name, some in rows:
            found |= touched_claims(self.mirror.connection, self._changed[name], some)
        return found


def _needed(model: Model, name: str) -> Model:
    """The part of a model that a figure reads. Raises UsageError where changes of a table could go unnoticed."""
    inputs = {n: model.inputs[n] for n in compose.needs(find(name)) if n in model.inputs}
    part = Model(model.name, model.title, model.file, inputs)
    tables = {t for n in inputs for t in part.tables(n)}
    if untold := sorted(tables - set(model.changed)):
        raise UsageError(f"{model.file}: [changed] does not say whose claims a row of {untold[0]} touches")
    return Model(model.name, model.title, model.file, inputs, {t: q for t, q in model.changed.items() if t in tables})
