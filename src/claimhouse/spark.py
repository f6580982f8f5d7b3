"""The lake's tables as temporary views of a Spark session: `claimhouse.spark.register(spark, location)`.

Each view is a table's state at the newest flush, from the Delta versions that one flush record names, so all of them
together hold whole transactions of one moment; call `register` again for a newer one. Open-source Spark has no client
for Glue on the registries, hence temporary views. Needs a session with Delta Lake; Spark is imported by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from claimhouse.change import old_name
from claimhouse.errors import NotExact
from claimhouse.lake import flushes, registry
from claimhouse.lake.flushes import TableRecord
from claimhouse.lake.lake import changes_key, current_key, open_lake
from claimhouse.lake.registry import Copy, TableState
from claimhouse.lake.tail import cut_numbers, read_mark
from claimhouse.table import Column, Table

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

_TYPES = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "int",
    "int8": "bigint",
    "float4": "float",
    "float8": "double",
    "text": "string",
    "bytes": "binary",
    "date": "date",
    "timestamp": "timestamp_ntz",
    "timestamptz": "timestamp",
}
_META = ("_end_lsn", "_committed_at", "_missing")


def register(
    session: SparkSession, location: str, *, source: str = "main", storage_options: Mapping[str, str] | None = None
) -> list[str]:
    """Make or replace a temporary view per table, named as the table (`schema__table` outside of public); their names.

    Raises NotALake, NotExact where nothing is flushed yet.
    """
    lake = open_lake(location, storage_options)
    numbers = cut_numbers(lake, source)
    mark = read_mark(lake, source, numbers[-1]) if numbers else None
    if mark is None or not mark.flush:
        raise NotExact(f"source {source} has no flush yet", hint="wait for the first flush, then register again")
    record = flushes.load(lake, source, mark.flush)
    known = registry.load(lake, source, record.registry)
    made: list[str] = []
    for state in known.tables.values():
        entry = record.table(state.folder)
        copy = state.copy_at(record.end_lsn)
        if copy is None or entry.changes is None or state.status == "gone":
            continue
        log = _read(session, lake.store.uri(changes_key(source, state.folder)), entry.changes)
        base = None
        if entry.current is not None:
            base = _read(session, lake.store.uri(current_key(source, state.folder)), entry.current)
        name = state.name if state.schema == "public" else f"{state.schema}__{state.name}"
        _state(state, log, base, copy, entry).createOrReplaceTempView(name)
        made.append(name)
    return made


def _read(session: SparkSession, uri: str, version: int) -> DataFrame:
    uri = uri.replace("s3://", "s3a://", 1)
    return session.read.format("delta").option("versionAsOf", version).load(uri)


def _state(state: TableState, log: DataFrame, base: DataFrame | None, copy: Copy, entry: TableRecord) -> DataFrame:
    from pyspark.sql import functions as f

    table = state.table
    above = entry.current_lsn if base is not None else copy.at
    position = f.col("_end_lsn").cast("decimal(38,0)") * 281474976710656 + f.col("_seq")
    stream = log.where((f.col("_op") != "r") & (f.col("_end_lsn") > above)).withColumn("_pos", position)
    cleared = stream.where("_op = 't'").agg(f.max("_pos").alias("_cleared"))
    stream = stream.crossJoin(cleared).where("_op <> 't' AND (_cleared IS NULL OR _pos > _cleared)")
    ground = base if base is not None else log.where((f.col("_op") == "r") & (f.col("_copy") == copy.number))
    if base is None and table.identity == "key":
        ground = _last_read(ground, table)
    ground = _filled(ground, table, _META).crossJoin(cleared).where("_cleared IS NULL").drop("_cleared")
    stream = _filled(stream, table, ("_op", "_pos", *_META), olds=True)
    if table.identity == "key":
        return _keyed(table, ground, stream)
    if table.identity == "full":
        return _whole(table, ground, stream)
    columns = [*(c.physical for c in table.columns), *_META]
    return ground.select(columns).unionByName(stream.where("_op <> 'd'").select(columns))


def _last_read(ground: DataFrame, table: Table) -> DataFrame:
    """A copy can bring a key twice: the last read counts."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    window = Window.partitionBy(*(c.physical for c in table.key)).orderBy(f.desc("_cut"), f.desc("_seq"))
    return ground.withColumn("_nth", f.row_number().over(window)).where("_nth = 1").drop("_nth")


def _filled(frame: DataFrame, table: Table, meta: tuple[str, ...], *, olds: bool = False) -> DataFrame:
    """The shape's columns; rows older than a column show its default."""
    from pyspark.sql import functions as f

    have = set(frame.columns)
    columns: list[SparkColumn] = [f.col(name) for name in meta]
    for column in table.columns:
        value = _stored(column.physical, column, have)
        if column.missing is not None and column.since > 1:
            value = f.when(f.col("_schema") < column.since, _default(column)).otherwise(value)
        columns.append(value.alias(column.physical))
    if olds:
        columns += [_stored(old_name(c.physical), c, have).alias(old_name(c.physical)) for c in table.key]
    return frame.select(columns)


def _stored(name: str, column: Column, have: set[str]) -> SparkColumn:
    from pyspark.sql import functions as f

    return f.col(f"`{name}`") if name in have else f.lit(None).cast(_type(column.kind))


def _default(column: Column) -> SparkColumn:
    from pyspark.sql import functions as f

    text = column.missing or ""
    if column.kind == "bytes":
        return f.unhex(f.lit(text[2:]))
    if column.kind.startswith("list<"):
        return f.lit(None).cast(_type(column.kind))
    return f.lit(text == "t" if column.kind == "bool" else text).cast(_type(column.kind))


def _keyed(table: Table, ground: DataFrame, stream: DataFrame) -> DataFrame:
    """Each touched key's newest change joined to the ground; values that did not come along are the ground's."""
    from pyspark.sql import functions as f

    keys = [c.physical for c in table.key]
    rest = [c for c in table.columns if not c.key]
    moved = f.lit(False)
    for key in keys:
        moved = moved | f.col(old_name(key)).isNotNull()
    own = f.struct(*keys, (f.col("_pos") * 2 + 1).alias("_at"), (f.col("_op") != "d").alias("_live"))
    former = [f.coalesce(old_name(k), k).alias(k) for k in keys]
    gone = f.struct(*former, (f.col("_pos") * 2 + 0).alias("_at"), f.lit(False).alias("_live"))
    variants = f.when(moved, f.array(own, gone)).otherwise(f.array(own))
    touched = stream.select(f.explode(variants).alias("_variant"), *_META, *(c.physical for c in rest)).select(
        "_variant.*", *_META, *(c.physical for c in rest)
    )
    picks: list[Any] = [f.max_by("_live", "_at").alias("_live")]
    for column in rest:
        came = f.col("_live") & ~f.coalesce(f.array_contains(f.split("_missing", ","), column.physical), f.lit(False))
        picks.append(f.max_by(column.physical, f.when(came, f.col("_at"))).alias(column.physical))
        picks.append(f.max(came).alias(f"_came_{column.physical}"))
    picks += [f.max_by(name, "_at").alias(name) for name in ("_end_lsn", "_committed_at")]
    newest = touched.groupBy(*keys).agg(*picks).alias("_n")
    joined = ground.alias("_g").join(newest, [f.col(f"_g.{k}") == f.col(f"_n.{k}") for k in keys], "full")
    untouched = f.col("_n._live").isNull()
    columns: list[SparkColumn] = []
    for column in table.columns:
        name = column.physical
        if column.key:
            columns.append(f.coalesce(f"_n.{name}", f"_g.{name}").alias(name))
        else:
            ours = untouched | ~f.col(f"_n._came_{name}")
            columns.append(f.when(ours, f.col(f"_g.{name}")).otherwise(f.col(f"_n.{name}")).alias(name))
    columns += [
        f.when(untouched, f.col(f"_g.{name}")).otherwise(f.col(f"_n.{name}")).alias(name)
        for name in ("_end_lsn", "_committed_at")
    ]
    return joined.where(untouched | f.col("_n._live")).select(columns)


def _whole(table: Table, ground: DataFrame, stream: DataFrame) -> DataFrame:
    """Rows without a key: each image as often as it came, less as often as it went."""
    from pyspark.sql import functions as f

    names = [c.physical for c in table.columns]
    olds = [f.col(old_name(n)).alias(n) for n in names]
    images = ground.select(*names, "_end_lsn", f.lit(1).alias("_n"))
    sign = f.when(f.col("_op") == "d", -1).otherwise(1)
    images = images.unionByName(stream.select(*names, "_end_lsn", sign.alias("_n")))
    images = images.unionByName(stream.where("_op = 'u'").select(*olds, "_end_lsn", f.lit(-1).alias("_n")))
    counted = images.groupBy(*names).agg(f.sum("_n").alias("_n"), f.max("_end_lsn").alias("_end_lsn")).where("_n > 0")
    repeated = counted.withColumn("_i", f.explode(f.sequence(f.lit(1), f.col("_n").cast("int"))))
    return repeated.select(*names, "_end_lsn")


def _type(kind: str) -> str:
    if kind.startswith("list<"):
        return f"array<{_type(kind[5:-1])}>"
    return kind if kind.startswith("decimal(") else _TYPES[kind]
