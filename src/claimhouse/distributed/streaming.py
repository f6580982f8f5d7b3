"""The streaming query: all topics in, one append per micro-batch to the tail table, and in it the cut.

A batch is one Delta commit that holds its rows, the ENDs that came, a `commit` row for each transaction that is
complete now, and the offsets that it reached. So rows, cut and progress become durable together or not at all. A batch
that Spark repeats after a crash finds its offsets in the table and appends nothing; a lost checkpoint costs a reading
of Kafka, not a row. The table has one writer, numbered batches in the Delta app transaction, and the owner epoch is
looked at after each append.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from claimhouse.distributed.cuts import Cuts, End
from claimhouse.distributed.events import ERA, TAIL_DDL, parse
from claimhouse.errors import LakeError
from claimhouse.failpoint import hit

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_EVENTS = 200_000  # of one micro-batch
ONE_FILE = 20_000  # a batch of at most so many events makes one file
_PROPERTIES = (
    "'delta.enableDeletionVectors'='false', 'delta.checkpointInterval'='100',"
    " 'delta.logRetentionDuration'='interval 2 hours', 'delta.deletedFileRetentionDuration'='interval 1 hours',"
    " 'delta.dataSkippingStatsColumns'='batch,kind,xid,end_lsn'"
)
_OWN = "kind STRING, xid BIGINT, at BIGINT, end_lsn BIGINT, events BIGINT, note STRING"


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


@dataclass(slots=True)
class Streaming:
    """One source's tail table and the state beside it. `fenced` raises once another owner has taken over."""

    spark: SparkSession
    path: str
    app_id: str
    fenced: Callable[[], None]
    done: Callable[[Progress], None] = lambda _: None
    cuts: Cuts = field(default_factory=Cuts)
    offsets: dict[str, int] = field(default_factory=dict)  # "topic/partition" -> last offset that the tail holds
    progress: Progress = field(default_factory=Progress)
    fresh: bool = True  # nothing appended by this process yet: what Kafka gives may be a repeat

    def prepare(self, end_lsn: int, cluster: str) -> None:
        """Make the tail table or read back what it knows. `end_lsn` is where the lake's newest cut ends."""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS delta.`{self.path}` ({TAIL_DDL}) USING delta PARTITIONED BY (era)"
            f" TBLPROPERTIES ({_PROPERTIES})"
        )
        tail = self.spark.read.format("delta").load(self.path)
        marks = tail.where("kind = 'mark'").orderBy(tail.batch.desc()).limit(1).collect()
        self.cuts.end_lsn = end_lsn
        if not marks:
            self.offsets = {"cluster": cluster}  # type: ignore[dict-item]
            return
        known: dict[str, Any] = json.loads(marks[0]["note"])
        self.progress.batch = int(marks[0]["batch"])
        self.cuts.end_lsn = max(end_lsn, int(marks[0]["end_lsn"] or 0))
        # Another broker has other offsets: then only transactions tell what is a repeat.
        self.offsets = known if known.get("cluster") == cluster else {"cluster": cluster}  # type: ignore[dict-item]
        self._reopen(tail)

    def _reopen(self, tail: DataFrame) -> None:
        commits = tail.where("kind = 'commit'").select("xid", "end_lsn").collect()
        self.cuts.done = {r["xid"]: r["end_lsn"] for r in commits}
        rows = tail.where("kind = 'row' AND xid IS NOT NULL").groupBy("xid").count().collect()
        self.cuts.rows((r["xid"], r["count"]) for r in rows)
        ends = tail.where("kind = 'end'").select("xid", "end_lsn", "events", "at").collect()
        self.cuts.ended(End(*r) for r in sorted(ends, key=lambda r: r["end_lsn"]))

    def start(self, kafka: str, prefix: str, checkpoint: str, every: float) -> Any:
        """Start the query over all topics of a prefix; its handle."""
        raw = (
            self.spark.readStream.format("kafka")
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
        events = parse(self._unseen(raw), batch).persist()
        try:
            narrow = events.select("kind", "topic", "part", "offset", "xid", "end_lsn", "events", "at").toArrow()
            if narrow.num_rows == 0:
                return
            made = self._count(narrow)
            self._write(events, narrow.num_rows, batch, made, _xids(narrow))
        finally:
            events.unpersist()
        self.fresh = False
        self.fenced()
        progress = self.progress
        progress.batch, progress.end_lsn, progress.waiting = batch, self.cuts.end_lsn, self.cuts.waiting
        progress.events, progress.cut_at = narrow.num_rows, time.time()
        progress.dead += sum(1 for k in narrow.column("kind").to_pylist() if k == "dead")
        progress.seconds = progress.cut_at - began
        if made:
            progress.committed_at = max(e.at for e in made)
            progress.lag = progress.cut_at - progress.committed_at / 1e6
        self.done(progress)

    def _unseen(self, raw: DataFrame) -> DataFrame:
        """Without what the tail holds already; only a first batch can bring such."""
        if not self.fresh:
            return raw
        from pyspark.sql import functions as f

        known = [(k, v) for k, v in self.offsets.items() if k != "cluster"]
        if not known:
            return raw
        pairs = f.create_map(*[f.lit(word) for pair in known for word in pair])
        place = f.concat_ws("/", raw.topic, raw.partition.cast("string"))
        return raw.where(raw.offset > f.coalesce(pairs[place], f.lit(-1)))

    def _count(self, narrow: Any) -> list[End]:
        kinds = np.array(narrow.column("kind").to_pylist(), dtype=object)
        columns = {
            n: narrow.column(n).to_pylist() for n in ("topic", "part", "offset", "xid", "end_lsn", "events", "at")
        }
        for topic, part, offset in zip(columns["topic"], columns["part"], columns["offset"], strict=True):
            place = f"{topic}/{part}"
            if offset > self.offsets.get(place, -1):
                self.offsets[place] = offset
        xids = columns["xid"]
        self.cuts.rows(Counter(xids[i] for i in np.flatnonzero(kinds == "row") if xids[i] is not None).items())
        ends = sorted(np.flatnonzero(kinds == "end"), key=lambda i: columns["offset"][i])
        self.cuts.ended(End(xids[i], columns["end_lsn"][i], columns["events"][i], columns["at"][i]) for i in ends)
        return self.cuts.cut()

    def _write(self, events: DataFrame, count: int, batch: int, made: list[End], xids: set[int]) -> None:
        from pyspark.sql import functions as f

        again = {x for x in xids if x in self.cuts.done} - {e.xid for e in made}
        if again:
            events = events.where(~f.coalesce(events.xid.isin(list(again)), f.lit(False)))
        own = [("commit", e.xid, e.at, e.end_lsn, e.count, None) for e in made]
        own.append(("mark", None, None, self.cuts.end_lsn, None, json.dumps(self.offsets)))
        words = self.spark.createDataFrame(own, _OWN)
        words = words.withColumn("era", f.lit(batch // ERA)).withColumn("batch", f.lit(batch).cast("bigint"))
        whole = events.unionByName(words, allowMissingColumns=True)
        if count <= ONE_FILE:
            whole = whole.coalesce(1)
        hit("stack.before_append")
        (
            whole.write.format("delta")
            .mode("append")
            .option("txnAppId", self.app_id)
            .option("txnVersion", str(batch))
            .save(self.path)
        )
        hit("stack.after_append")

    def drop(self, before_batch: int, upto: int) -> None:
        """Remove whole partitions of batches below that number, all of whose transactions end at or below `upto`."""
        era = before_batch // ERA
        if era > 0:
            self.spark.sql(f"DELETE FROM delta.`{self.path}` WHERE era < {era}")
            self.cuts.forget(upto)


def _xids(narrow: Any) -> set[int]:
    return {x for x in narrow.column("xid").unique().to_pylist() if x is not None}


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
