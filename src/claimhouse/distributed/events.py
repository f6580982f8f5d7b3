"""Debezium's messages as rows of the distributed tail: one schema, and the Spark expressions that fill it.

A row of the tail is an event of a captured table (`row`), the END of a transaction (`end`), the word that a transaction
is complete and belongs to the cut (`commit`), or a batch's own record (`mark`: how far each topic was read). Messages
outside of transactions (heartbeats) are no rows. Values stay as Debezium wrote them, a map from column to text: types
are a matter of the table's shape, which only the catalog knows.

Of an update that changes the key Debezium makes a delete and a create; its headers tell, so that the create becomes one
update with the old key and the delete only counts as arrived (`x`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_TEXTS = pa.map_(pa.string(), pa.string())
TAIL = pa.schema(
    [
        pa.field("era", pa.int32()),
        pa.field("batch", pa.int64()),
        pa.field("kind", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("part", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("schema", pa.string()),
        pa.field("name", pa.string()),
        pa.field("xid", pa.int64()),  # 32 bits, as Debezium gives it
        pa.field("seq", pa.int64()),
        pa.field("lsn", pa.int64()),
        pa.field("op", pa.string()),  # c, u, d, t; x: counts only; m: a logical message
        pa.field("at", pa.int64()),  # commit time, microseconds since 1970
        pa.field("before", _TEXTS),
        pa.field("after", _TEXTS),
        pa.field("old", _TEXTS),  # the former key, where it changed
        pa.field("end_lsn", pa.int64()),  # of `end`, `commit` and `mark`
        pa.field("events", pa.int64()),  # how many events the transaction has
        pa.field("note", pa.string()),
    ]
)
ERA = 16  # batches a partition: what is flushed is dropped by whole partitions

_ENVELOPE = (
    "before MAP<STRING,STRING>, after MAP<STRING,STRING>, op STRING, status STRING, id STRING, event_count BIGINT,"
    " ts_ms BIGINT, source STRUCT<schema: STRING, `table`: STRING, lsn: BIGINT, txId: BIGINT, ts_us: BIGINT>,"
    " transaction STRUCT<id: STRING, total_order: BIGINT>, message STRUCT<prefix: STRING, content: STRING>"
)


def parse(raw: DataFrame) -> DataFrame:
    """Kafka records (with headers) → rows of the tail, `row` and `end` only. Unreadable records become `dead`.

    Without `era` and `batch`: a number that differs from batch to batch would have Spark compile each batch anew.
    """
    from pyspark.sql import functions as f

    text = raw.value.cast("string")
    read = raw.where(raw.value.isNotNull()).select(
        "topic",
        raw.partition.alias("part"),
        "offset",
        f.from_json(text, _ENVELOPE, {"mode": "PERMISSIVE"}).alias("e"),
        _header("__debezium.oldkey").alias("oldkey"),
        _header("__debezium.newkey").isNotNull().alias("moved"),
    )
    event, end = f.col("e.op").isNotNull(), f.col("e.status") == "END"
    kind = f.when(event, "row").when(end, "end").when(f.col("e.status") == "BEGIN", "begin").otherwise("dead")
    op = f.when(f.col("moved") & (f.col("e.op") == "d"), "x").when(
        f.col("oldkey").isNotNull() & (f.col("e.op") == "c"), "u"
    )
    head = f.split(f.when(event, f.col("e.transaction.id")).otherwise(f.col("e.id")), ":")
    return read.select(
        kind.alias("kind"),
        "topic",
        "part",
        "offset",
        f.col("e.source.schema").alias("schema"),
        f.col("e.source.table").alias("name"),
        f.get(head, f.lit(0)).try_cast("bigint").alias("xid"),
        f.col("e.transaction.total_order").alias("seq"),
        f.col("e.source.lsn").alias("lsn"),
        op.otherwise(f.col("e.op")).alias("op"),
        f.when(event, f.col("e.source.ts_us")).otherwise(f.col("e.ts_ms") * 1000).alias("at"),
        f.col("e.before").alias("before"),
        f.col("e.after").alias("after"),
        f.from_json("oldkey", "MAP<STRING,STRING>").alias("old"),
        f.when(end, f.get(head, f.lit(1)).try_cast("bigint")).alias("end_lsn"),
        f.when(end, f.col("e.event_count")).alias("events"),
        f.when(f.col("e.op") == "m", f.concat_ws(" ", "e.message.prefix", "e.message.content")).alias("note"),
    ).where("kind <> 'begin' AND (kind <> 'row' OR xid IS NOT NULL)")


def placed(events: pa.Table, batch: int) -> pa.Table:
    """The rows of a batch as the tail has them."""
    place = {"era": pa.scalar(batch // ERA, pa.int32()), "batch": pa.scalar(batch, pa.int64())}
    for at, (name, value) in enumerate(place.items()):
        events = events.add_column(at, name, pa.repeat(value, events.num_rows))
    return events.select(TAIL.names).cast(TAIL)


def _header(name: str) -> Column:
    from pyspark.sql import functions as f

    found: Any = f.filter("headers", lambda h: h["key"] == name)
    return f.get(found, f.lit(0))["value"].cast("string")
