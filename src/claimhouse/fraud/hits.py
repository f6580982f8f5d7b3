"""The log of hits: which rule held on which claim, from which moment of the source on, and until which.

`marts/fraud/hits` is a Delta table, append-only: one row per event. `held` begins a hit, `revised` gives it another
score or other values, `withdrawn` ends it; nothing is deleted. What holds at a moment is the last event of each rule
and claim up to it. A commit holds all events of one evaluation and records its cut, so a repeat after a crash is told.
Beside it `marts/fraud/dispositions` has what people decided, for readers that know Delta only.
One writer a source: each takes the next number of `control/fraud/owner/<source>` and looks whether a later one came.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import duckdb
import pyarrow as pa

from claimhouse.errors import Fenced
from claimhouse.failpoint import hit as failpoint
from claimhouse.fraud.disposition import Dispositions
from claimhouse.fraud.evaluate import Hit
from claimhouse.fraud.rule import Rule
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake
from claimhouse.lake.relation import files_sql
from claimhouse.lake.storage import Exists
from claimhouse.marts.mirror import Moment
from claimhouse.query.moment import Position

KEY = "marts/fraud/hits"
DECIDED = "marts/fraud/dispositions"
JOIN_EVERY, SMALL, RETENTION = 64, 32 << 20, 3600

_WHEN = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("incarnation", pa.int32()),
        pa.field("cut", pa.int64()),
        pa.field("lsn", pa.int64()),  # end of the cut at which it was found so
        pa.field("at", _WHEN),  # newest commit time at that cut
        pa.field("found_at", _WHEN),  # when it was found, by this machine's clock
        pa.field("seq", pa.int32()),  # order within one commit
        pa.field("event", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("class", pa.string()),
        pa.field("claim_id", pa.string()),
        pa.field("claim_number", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("weight", pa.float64()),
        pa.field("values", pa.string()),  # JSON
    ]
)
# One row per decision, in order of `number`. Notes stay where people wrote them.
DECISIONS = pa.schema(
    [
        pa.field("source", pa.string()),  # whose rules' process copied it
        pa.field("number", pa.int64()),
        pa.field("claim_number", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("who", pa.string()),
        pa.field("at", _WHEN),
        pa.field("score", pa.float64()),  # 0 to 100, that the decider saw
    ]
)
Kind = Literal["held", "revised", "withdrawn"]

_NOW = """
SELECT source, rule, arg_max(class, place) AS class, claim_id, arg_max(claim_number, place) AS claim_number,
    arg_max(score, place) AS score, arg_max(weight, place) AS weight, arg_max("values", place) AS "values",
    arg_max(incarnation, place) FILTER (event = 'held') AS incarnation,
    arg_max(cut, place) FILTER (event = 'held') AS since_cut,
    arg_max(lsn, place) FILTER (event = 'held') AS since_lsn,
    arg_max("at", place) FILTER (event = 'held') AS since_at
FROM (SELECT *, row_number() OVER (ORDER BY cut, found_at, seq) AS place FROM {log})
GROUP BY source, rule, claim_id HAVING arg_max(event, place) <> 'withdrawn'
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of what holds."""

    kind: Kind
    hit: Hit


def prepare(lake: Lake) -> None:
    """Make both tables where they are not, empty, so that engines can be told of them before any rule has run."""
    for key, schema in ((KEY, SCHEMA), (DECIDED, DECISIONS)):
        if delta.open_table(lake, key) is None:
            with suppress(delta.CommitFailedError):  # another process was first
                delta.write(lake, key, schema.empty_table(), lake.app_id("", "prepared"), 1, stats=("source",))


def events(lake: Lake, until: Mapping[str, Position] | None = None) -> pa.Table | None:
    """Every event in order, schema SCHEMA; with `until` those up to each source's position. None: no rules ran."""
    table = delta.open_table(lake, KEY)
    if table is None or (table.version() == 0 and delta.recorded(table, lake.app_id("", "prepared"))):
        return None
    found = _events(lake, table.version())
    if until is None:
        return found
    connection = duckdb.connect(config={"threads": 1})
    connection.register("log", found)
    where = [f"(source = '{s}' AND (incarnation, lsn) <= ({p.incarnation}, {p.lsn}))" for s, p in until.items()]
    return connection.sql(f"FROM log WHERE {' OR '.join(where) or 'false'}").to_arrow_table()


def current(lake: Lake, until: Mapping[str, Position] | None = None) -> pa.Table:
    """What holds, now or at a position: source, rule, claim_id, score, values, since_lsn, since_at, …"""
    log = events(lake, until)
    return holding(SCHEMA.empty_table() if log is None else log)


def holding(log: pa.Table) -> pa.Table:
    """What holds after these events."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("log", log)
    return connection.sql(_NOW.format(log="log")).to_arrow_table()


@lru_cache(maxsize=4)
def _events(lake: Lake, version: int) -> pa.Table:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    lake.store.attach(connection)
    uris = [f.uri for f in delta.files(lake, KEY, version)]
    return connection.sql(f"{files_sql(uris, SCHEMA)} ORDER BY cut, found_at, seq").to_arrow_table().cast(SCHEMA)


class HitWriter:
    """The one writer of a source's hits. Raises Fenced once another has begun."""

    def __init__(self, lake: Lake, source: str) -> None:
        self.lake, self.source = lake, source
        self._folder = f"control/fraud/owner/{source}"
        self._app = lake.app_id(source, "fraud")
        self.epoch = self._claim()
        self._commits = 0
        self._begun = False
        self._decisions = Dispositions(lake)

    def _claim(self) -> int:
        names = self.lake.store.list(self._folder)
        epoch = int(names[-1].partition(".")[0]) + 1 if names else 1
        card = json.dumps({"at": time.time_ns() // 1000, "nonce": uuid.uuid4().hex}).encode()
        while True:
            try:
                self.lake.store.put_new(self._card(epoch), card)
                return epoch
            except Exists:
                epoch += 1

    def _card(self, epoch: int) -> str:
        return f"{self._folder}/{epoch:012d}.json"

    def check(self) -> None:
        """Raises Fenced if a later writer has begun."""
        if self.lake.store.exists(self._card(self.epoch + 1)):
            raise Fenced(
                f"the rules of source {self.source} are evaluated by another process (this was {self.epoch})",
                hint="one `claimhouse fraud run` a lake; stop one of them",
            )

    def held(self) -> dict[tuple[str, str], Hit]:
        """What holds in the log, by rule and claim."""
        rows = [r for r in current(self.lake).to_pylist() if r["source"] == self.source]
        found = (Hit(r["rule"], r["claim_id"], r["claim_number"], r["score"], r["values"]) for r in rows)
        return {(hit.rule, hit.claim): hit for hit in found}

    def recorded(self) -> int:
        """The cut of the last commit, 0 before the first."""
        return delta.recorded(delta.open_table(self.lake, KEY), self._app)

    def append(self, changes: Iterable[Event], moment: Moment, rules: Mapping[str, Rule]) -> int:
        """Write an evaluation's events as one durable commit; how many. Raises Fenced."""
        rows = rows_of(changes, moment, rules)
        self._begun = self._begun or self.recorded() > 0
        if not rows.num_rows and self._begun:
            return 0
        self.check()
        failpoint("fraud.before_append")
        table = delta.open_table(self.lake, KEY)
        stats = ("source", "cut", "lsn", "rule", "claim_id")
        table = delta.write(self.lake, KEY, rows, self._app, moment.cut, stats=stats, table=table)
        failpoint("fraud.after_append")
        self.check()
        self._commits += 1
        if self._commits % JOIN_EVERY == 0:
            self._join(table)
        return rows.num_rows

    def decided(self) -> int:
        """Copy the decisions that the table does not have yet as one commit; how many. Raises Fenced, LakeError."""
        table = delta.open_table(self.lake, DECIDED)
        app = self.lake.app_id(self.source, "dispositions")
        rows = decisions_of(self._decisions, self.source, delta.recorded(table, app))
        if not rows.num_rows:
            return 0
        self.check()
        newest = rows["number"][-1].as_py()
        delta.write(self.lake, DECIDED, rows, app, newest, stats=("source", "number"), table=table)
        self.check()
        return rows.num_rows

    def _join(self, table: Any) -> None:
        """Join small files; files and commits that only old versions name go after an hour."""
        delta.compact(self.lake, KEY, table, SMALL)
        delta.vacuum(self.lake, KEY, table, [table.version()], RETENTION)


def rows_of(changes: Iterable[Event], moment: Moment, rules: Mapping[str, Rule]) -> pa.Table:
    """Events as rows of the log, in a settled order."""
    ordered = sorted(changes, key=lambda e: (e.hit.claim, e.hit.rule))
    now = time.time_ns() // 1000
    rows = [
        {
            "source": moment.source,
            "incarnation": moment.incarnation,
            "cut": moment.cut,
            "lsn": moment.lsn,
            "at": moment.at,
            "found_at": now,
            "seq": seq,
            "event": event.kind,
            "rule": event.hit.rule,
            "class": rules[event.hit.rule].kind if event.hit.rule in rules else "",
            "claim_id": event.hit.claim,
            "claim_number": event.hit.number,
            "score": event.hit.score,
            "weight": rules[event.hit.rule].weight if event.hit.rule in rules else 0.0,
            "values": event.hit.values,
        }
        for seq, event in enumerate(ordered)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def decisions_of(made: Dispositions, source: str, after: int) -> pa.Table:
    """The decisions above a number as rows, schema DECISIONS; each has the number of its place in the order."""
    rows = [
        {
            "source": source,
            "number": number,
            "claim_number": d.claim,
            "verdict": d.verdict,
            "who": d.who,
            "at": datetime.fromisoformat(d.at),
            "score": d.score,
        }
        for number, d in enumerate(made.all(), 1)
        if number > after
    ]
    return pa.Table.from_pylist(rows, DECISIONS)
