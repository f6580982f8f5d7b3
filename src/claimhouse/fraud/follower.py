"""Follows a lake's cuts and keeps its hits: waits for the next cut, scores what it touched, writes the events down.

    follow(lake, load("demo"), stop)          # returns when stop is set

At its start it scores every claim at the newest cut and compares with what the log says holds, so it does not matter
how it ended before: events of one evaluation are one commit, and an evaluation that was not written is done again at
the cut that is then the newest. The rules that need all claims (statistics) get a bounded share of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from claimhouse.fraud import model as models
from claimhouse.fraud.engine import Engine
from claimhouse.fraud.hits import Event, HitWriter
from claimhouse.fraud.rule import RuleSet, load_rules
from claimhouse.lake.lake import Lake
from claimhouse.lake.tail import cut_numbers
from claimhouse.marts.mirror import ANEW, Mirror, Moment, NotThere, Stale
from claimhouse.marts.model import Model

PAUSE_LOCAL, PAUSE_REMOTE = 0.02, 0.5  # seconds between two looks for a new cut
EVERY = 0.2  # seconds from the begin of one evaluation to the next: what comes meanwhile is scored together
DECISIONS = 5.0  # seconds between two looks for what people decided
PATIENCE = 0.5  # seconds between two tries for tables that are still being copied


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation: at which cut, whole or of what changed, how many events and hits, and how long it took.

    `lag`: seconds from the oldest commit that it took in to the hits' being durable, by this machine's clock.
    """

    moment: Moment
    whole: bool
    events: int
    held: int
    seconds: float
    lag: float


class Follower:
    """One source's rules, kept up with its cuts. The one writer of its hits."""

    def __init__(self, lake: Lake, model: Model, rules: RuleSet | None = None, source: str | None = None) -> None:
        self.lake, self.model, self.rules = lake, model, rules or load_rules()
        self.asked = source
        self.mirror: Mirror | None = None
        self.engine: Engine | None = None
        self.writer: HitWriter | None = None
        self._made = 0.0
        self._looked = 0.0

    def start(self) -> Step:
        """Score every claim at the newest cut. Raises NotThere while a table is not visible."""
        began = time.monotonic()
        mirror = Mirror(self.lake, self.model, self.asked)
        if self.mirror is not None:
            self.mirror.close()
        self.mirror, self._made = mirror, began
        if self.writer is None or self.writer.source != mirror.source:
            self.writer = HitWriter(self.lake, mirror.source)
        self.engine = Engine(mirror.connection, self.model, self.rules, self.writer.held())
        self._decided()
        return self._written(self.engine.all(), True, began, mirror.moment.at)

    def step(self) -> Step | None:
        """Score what the cuts since the last step touched; None if there was none. Raises Fenced, LakeError."""
        assert self.mirror and self.engine
        began = time.monotonic()
        if began - self._looked > DECISIONS:
            self._decided()
        numbers = cut_numbers(self.lake, self.mirror.source)
        if not numbers or numbers[-1] <= self.mirror.moment.cut:
            late = self.engine.whole()
            return self._written(late, False, began, self.mirror.moment.at) if late else None
        if began - self._made > ANEW:
            return self.start()
        try:
            change = self.mirror.read(numbers[-1])
        except Stale:
            return self.start()
        events = self.engine.change(change.settled, change.apply)
        return self._written(events, False, began, change.first_at)

    def _written(self, events: list[Event], whole: bool, began: float, first_at: int) -> Step:
        assert self.mirror and self.engine and self.writer
        moment = self.mirror.moment
        count = self.writer.append(events, moment, self.rules.rules)
        lag = time.time() - first_at / 1e6
        if late := self.engine.whole():  # what takes long must not hold up what is found at once
            count += self.writer.append(late, moment, self.rules.rules)
        held = sum(map(len, self.engine.held.values()))
        return Step(moment, whole, count, held, time.monotonic() - began, lag)

    def _decided(self) -> None:
        assert self.writer is not None
        self.writer.decided()
        self._looked = time.monotonic()

    def close(self) -> None:
        if self.mirror is not None:
            self.mirror.close()


def follow(
    lake: Lake,
    model: Model | str = "demo",
    stop: threading.Event | None = None,
    *,
    rules: RuleSet | None = None,
    source: str | None = None,
    on_step: Callable[[Step], None] | None = None,
    once: bool = False,
) -> Step | None:
    """Keep a lake's hits until `stop` is set, or bring them to the newest cut `once`; the last step.

    Waits while the model's tables are still being copied. Raises Fenced when another begins to do the same, ModelError,
    UsageError, LakeError.
    """
    stop = stop or threading.Event()
    follower = Follower(lake, models.load(model) if isinstance(model, str) else model, rules, source)
    pause = PAUSE_LOCAL if lake.store.local else PAUSE_REMOTE
    last: Step | None = None
    try:
        while not stop.is_set():
            try:
                last = follower.start()
                break
            except NotThere:
                if once:
                    raise
                stop.wait(PATIENCE)
        while last is not None:
            if on_step is not None:
                on_step(last)
            if once:
                return last
            step = None
            stop.wait(max(0.0, EVERY - last.seconds))
            while step is None and not stop.is_set():
                step = follower.step()
                if step is None:
                    stop.wait(pause)
            if step is None:
                return last
            last = step
        return last
    finally:
        follower.close()
