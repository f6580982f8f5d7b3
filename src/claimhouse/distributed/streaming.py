"""The streaming query: all topics in, one append per micro-batch to the tail table, and in it the cut.

Spark reads Kafka, keeps the offsets and parses on its executors; the driver counts, and appends the batch to the tail
table by delta-rs, because there it takes a twentieth of the time that Spark's own append takes, and the time between a
commit and its reader is what this table is for. A batch is bounded (MAX_EVENTS), so its memory is.

A batch is one Delta commit that holds its rows, the ENDs that came, a `commit` row for each transaction that is
complete now, and the offsets that it reached. So rows, cut and progress become durable together or not at all. A batch
that Spark repeats after a crash finds its offsets in the table and appends nothing; a lost checkpoint costs a reading
of Kafka, not a row. The table has one writer, numbered batches in the Delta app transaction, and the owner epoch is
looked at after each append.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema

from claimhouse.distributed.cuts import Cuts, End
from claimhouse.distributed.events import ERA, TAIL, parse, placed
from claimhouse.errors import LakeError
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake, tail_events_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_EVENTS = 20_000  # of one micro-batch
STATS = ("batch", "kind", "xid", "end_lsn")
_PROPERTIES: dict[str, str | None] = {
    "delta.enableDeletionVectors": "false",
    "delta.logRetentionDuration": "interval 2 hours",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.dataSkippingStatsColumns": ",".join(STATS),
}


@dataclass(slots=True)
class Progress:
    """How far the streaming query is; `lag` is seconds from a commit at the source to its cut, of the newest batch."""

    batch: int = 0
    end_lsn: int = 0
    committed_at: int = 0
    cut_at: float = 0.0
    lag: float = 0.0
    waiting: int = 0
    events: int = 0
    dead: int = 0
    seconds: float = 0.0
    appended: float = 0.0  # of `seconds`, the append alone


@dataclass(slots=True)
class Streaming:
    """One source's tail table and the state beside it. `fenced` raises once another owner has taken over."""

    lake: Lake
    source: str
    fenced: Callable[[], None]
    done: Callable[[Progress], None] = lambda _: None
    cuts: Cuts = field(default_factory=Cuts)
    offsets: dict[str, Any] = field(default_factory=dict)  # "topic/partition" -> last offset that the tail holds
    progress: Progress = field(default_factory=Progress)
    first: dict[int, int] = field(default_factory=dict)  # transaction -> the batch that brought its first row
    truncated: dict[int, set[tuple[str, str]]] = field(default_factory=dict)  # open transaction -> tables it emptied
    fresh: bool = True  # nothing appended by this process yet: what Kafka gives may be a repeat
    _table: DeltaTable | None = None  # kept from append to append, opened anew behind each checkpoint
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @property
    def key(self) -> str:
        return tail_events_key(self.source)

    def prepare(self, end_lsn: int, cluster: str) -> None:
        """Make the tail table or read back what it knows. `end_lsn` is where the lake's newest cut ends."""
        self.cuts.end_lsn = end_lsn
        self.offsets = {"cluster": cluster}
        table = delta.open_table(self.lake, self.key)
        if table is None:
            DeltaTable.create(
                self.lake.store.uri(self.key),
                Schema.from_arrow(TAIL),
                partition_by=["era"],
                configuration=_PROPERTIES,
                storage_options=self.lake.store.delta_options or None,
            )
            return
        held = table.to_pyarrow_dataset()
        marks = held.to_table(["batch", "end_lsn", "note"], filter=pc.field("kind") == "mark").sort_by("batch")
        if marks.num_rows:
            newest = marks.slice(marks.num_rows - 1).to_pylist()[0]
            self.progress.batch = newest["batch"]
            self.cuts.end_lsn = max(end_lsn, newest["end_lsn"] or 0)
            known = json.loads(newest["note"])
            # Another broker has other offsets: then only transactions tell what is a repeat.
            self.offsets = known if known.get("cluster") == cluster else self.offsets
        self._reopen(held)

    def _reopen(self, held: Any) -> None:
        """What has arrived of transactions that no cut holds yet."""
        words = held.to_table(
            ["kind", "xid", "end_lsn", "events", "at"], filter=pc.field("kind").isin(["commit", "end"])
        ).to_pylist()
        self.cuts.done = {w["xid"]: w["end_lsn"] for w in words if w["kind"] == "commit"}
        begun = pc.field("xid").is_valid() & (pc.field("kind") == "row")
        rows = (
            held.to_table(["xid", "batch"], filter=begun)
            .group_by("xid")
            .aggregate([("batch", "min"), ("xid", "count")])
        )
        for row in rows.to_pylist():
            self.first[row["xid"]] = row["batch_min"]
            if row["xid"] not in self.cuts.done:
                self.cuts.rows([(row["xid"], row["xid_count"])])
        self._note_truncates(held.to_table(_TRUNCATED, filter=begun & (pc.field("op") == "t")))
        ends = sorted((w for w in words if w["kind"] == "end"), key=lambda w: w["end_lsn"])
        self.cuts.ended(End(w["xid"], w["end_lsn"], w["events"], w["at"]) for w in ends)

    def start(self, spark: SparkSession, kafka: str, prefix: str, checkpoint: str, every: float) -> Any:
        """Start the query over all topics of a prefix; its handle."""
        raw = (
            spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", kafka)
            .option("subscribePattern", prefix.replace(".", r"\.") + r"\..*")
            .option("kafka.isolation.level", "read_committed")
            .option("kafka.metadata.max.age.ms", "5000")
            .option("startingOffsets", "earliest")
            .option("failOnDataLoss", "true")
            .option("includeHeaders", "true")
            .option("maxOffsetsPerTrigger", str(MAX_EVENTS))
            .load()
        )
        return (
            raw.writeStream.foreachBatch(self.append)
            .option("checkpointLocation", checkpoint)
            .trigger(processingTime=f"{max(1, round(every * 1000))} milliseconds")
            .queryName("claimhouse")
            .start()
        )

    def append(self, raw: DataFrame, _: int) -> None:
        """One micro-batch: rows, ENDs, commits and offsets as one commit of the tail table."""
        began = time.time()
        batch = self.progress.batch + 1
        events = self._unseen(placed(parse(raw).toArrow(), batch))
        if not events.num_rows:
            return
        again = self.cuts.replayed(events.column("xid").unique().to_pylist())
        if again:
            events = events.filter(pc.invert(pc.is_in(events.column("xid"), pa.array(sorted(again), pa.int64()))))
        made = self._count(events)
        appending = time.time()
        with self._one_at_a_time:
            before = self._table or delta.open_table(self.lake, self.key)
            opened = before.version() if before is not None else 0
            made_table = delta.write(
                self.lake,
                self.key,
                pa.concat_tables([events, self._words(batch, made)]),
                self.lake.app_id(self.source, "tail_events"),
                batch,
                stats=STATS,
                table=before,
            )
            behind = made_table.version() // delta.CHECKPOINT_EVERY > opened // delta.CHECKPOINT_EVERY
            self._table = None if behind else made_table
        self.fresh = False
        self.fenced()
        self._tell(batch, events, made, began, appending)

    def _unseen(self, events: pa.Table) -> pa.Table:
        """Without what the tail holds already; only a first batch can bring such."""
        if not self.fresh or not events.num_rows:
            return events
        places = pc.binary_join_element_wise(events.column("topic"), events.column("part").cast(pa.string()), "/")
        known = [self.offsets.get(place, -1) for place in places.to_pylist()]
        return events.filter(pc.greater(events.column("offset"), pa.array(known, pa.int64())))

    def _count(self, events: pa.Table) -> list[End]:
        columns = {n: events.column(n).to_pylist() for n in _COUNTED}
        for topic, part, offset in zip(columns["topic"], columns["part"], columns["offset"], strict=True):
            place = f"{topic}/{part}"
            self.offsets[place] = max(offset, self.offsets.get(place, -1))
        kinds, xids = np.array(columns["kind"], dtype=object), columns["xid"]
        counts = Counter(xids[i] for i in np.flatnonzero(kinds == "row") if xids[i] is not None)
        self.cuts.rows(counts.items())
        for xid in counts:
            self.first.setdefault(xid, self.progress.batch + 1)
        self._note_truncates(events.filter(pc.equal(events.column("op"), "t")).select(_TRUNCATED))
        ends = sorted(np.flatnonzero(kinds == "end"), key=lambda i: columns["offset"][i])
        self.cuts.ended(End(xids[i], columns["end_lsn"][i], columns["events"][i], columns["at"][i]) for i in ends)
        return self.cuts.cut()

    def _note_truncates(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            if row["xid"] not in self.cuts.done:
                self.truncated.setdefault(row["xid"], set()).add((row["schema"], row["name"]))

    def _words(self, batch: int, made: list[End]) -> pa.Table:
        """The batch's own rows: what is complete now, and how far each topic was read."""
        place = {"era": batch // ERA, "batch": batch}
        rows: list[dict[str, Any]] = [
            {**place, "kind": "commit", "xid": e.xid, "at": e.at, "end_lsn": e.end_lsn, "events": e.count} for e in made
        ]
        rows += [
            {**place, "kind": "truncate", "schema": schema, "name": name, "xid": e.xid, "end_lsn": e.end_lsn}
            for e in made
            for schema, name in sorted(self.truncated.pop(e.xid, ()))
        ]
        rows.append({**place, "kind": "mark", "end_lsn": self.cuts.end_lsn, "note": json.dumps(self.offsets)})
        return pa.Table.from_pylist(rows, TAIL)

    def _tell(self, batch: int, events: pa.Table, made: list[End], began: float, appending: float) -> None:
        progress = self.progress
        progress.batch, progress.end_lsn, progress.waiting = batch, self.cuts.end_lsn, self.cuts.waiting
        progress.events, progress.cut_at = events.num_rows, time.time()
        progress.dead += pc.sum(pc.equal(events.column("kind"), "dead")).as_py() or 0
        progress.seconds, progress.appended = progress.cut_at - began, progress.cut_at - appending
        if made:
            progress.committed_at = max(e.at for e in made)
            progress.lag = progress.cut_at - progress.committed_at / 1e6
        self.done(progress)

    def floor(self, lsn: int) -> int:
        """The oldest batch that holds a row of a transaction beyond that position, ended or not."""
        done = dict(self.cuts.done)
        needed = [batch for xid, batch in list(self.first.items()) if done.get(xid, lsn + 1) > lsn]
        return min(needed, default=self.progress.batch + 1)

    def drop(self, upto: int) -> None:
        """Remove whole partitions that hold nothing beyond that position; their transactions are forgotten."""
        era = self.floor(upto) // ERA
        with self._one_at_a_time:
            self._table, table = None, delta.open_table(self.lake, self.key)
            if table is None or not any(int(p["era"]) < era for p in table.partitions()):
                return
            table.delete(f"era < {era}")
            gone = {xid for xid, lsn in self.cuts.done.items() if lsn <= upto and self.first.get(xid, 0) // ERA < era}
            self.cuts.done = {xid: lsn for xid, lsn in self.cuts.done.items() if xid not in gone}
            self.first = {xid: batch for xid, batch in self.first.items() if xid not in gone}
        table.cleanup_metadata()
        table.vacuum(retention_hours=1, dry_run=False, enforce_retention_duration=False)


_TRUNCATED = ["xid", "schema", "name"]
_COUNTED = ("kind", "topic", "part", "offset", "xid", "end_lsn", "events", "at")


def cluster_id(spark: SparkSession, kafka: str) -> str:
    """The Kafka cluster's id. Raises LakeError where no broker answers."""
    jvm: Any = spark._jvm
    settings = jvm.java.util.HashMap()
    settings.put("bootstrap.servers", kafka)
    admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(settings)
    try:
        return str(admin.describeCluster().clusterId().get())
    except Exception as error:
        raise LakeError("no kafka broker answers", hint="claimhouse stack status") from error
    finally:
        admin.close()
