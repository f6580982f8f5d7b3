"""A table's state at a position as a Spark DataFrame: what `lake.state` is for DuckDB.

The *ground* is what a state builds on: the rows of `current`, or, without one, the `r` rows of the copy. The *stream*
is every later change up to the position. Where rows have a key, the newest change of each touched key decides; where
they have none, each image counts as often as it came, less as often as it went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from claimhouse.change import old_name
from claimhouse.lake.registry import Copy
from claimhouse.lake.state import may_be_missing, seen
from claimhouse.query.moment import Position
from claimhouse.table import Column, Table

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

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
_ORDER = ("_incarnation", "_end_lsn", "_seq")


def rows_at(shape: Table, log: DataFrame, base: DataFrame | None, copy: Copy, after: Position) -> DataFrame:
    """The live rows: the shape's columns by the source's names, and `_end_lsn`, `_committed_at`, `_missing`.

    `log` ends at the position that is asked for, `base` are the rows of `current` as of `after`; without one, `after`
    is where the copy counts from.
    """
    from pyspark.sql import functions as f

    later = (f.col("_incarnation") == after.incarnation) & (f.col("_end_lsn") > after.lsn)
    stream = log.where((f.col("_op") != "r") & ((f.col("_incarnation") > after.incarnation) | later))
    if copy.sees is not None:
        stream = stream.where(f"NOT {seen(copy.sees)}")
    stream = stream.withColumn("_pos", f.struct(*_ORDER))
    cleared = stream.where("_op = 't'").agg(f.max("_pos").alias("_cleared"))
    stream = stream.crossJoin(cleared).where("_op <> 't' AND (_cleared IS NULL OR _pos > _cleared)")
    ground = base if base is not None else log.where((f.col("_op") == "r") & (f.col("_copy") == copy.number))
    if base is None and shape.identity == "key":
        ground = _last_read(ground, shape)
    ground = _filled(ground, shape, _META).crossJoin(cleared).where("_cleared IS NULL").drop("_cleared")
    stream = _filled(stream, shape, ("_op", "_pos", *_META), olds=True)
    if shape.identity == "key":
        rows = _keyed(shape, ground, stream)
    elif shape.identity == "full":
        rows = _whole(shape, ground, stream)
    else:
        columns = [*(c.physical for c in shape.columns), *_META]
        rows = ground.select(columns).unionByName(stream.where("_op <> 'd'").select(columns))
    named = [f.col(f"`{c.physical}`").alias(_shown(c)) for c in shape.columns]
    return rows.select(*named, *_META)


def _shown(column: Column) -> str:
    """The source's name, unless it could meet one of ours."""
    return column.physical if column.name.startswith("_") else column.name


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
    """Each touched key's newest change joined to the ground.

    A value that did not come along is the one that came before it under this key, else the ground's. Where the row came
    here by a key change since, both are another row's: it is NULL, and `_missing` names the column.
    """
    from pyspark.sql import functions as f

    keys, rest = [c.physical for c in table.key], [c for c in table.columns if not c.key]
    newest = _newest(table, stream).alias("_n")
    joined = ground.alias("_g").join(newest, [f.col(f"_g.{k}") == f.col(f"_n.{k}") for k in keys], "full")
    untouched, begun = f.col("_n._live").isNull(), f.col("_n._begun")
    columns: list[SparkColumn] = [f.coalesce(f"_n.{k}", f"_g.{k}").alias(k) for k in keys]
    unknown: list[SparkColumn] = []
    for column in rest:
        name, came = column.physical, f.col(f"_n._came_{column.physical}")
        theirs = came.isNotNull() & (begun.isNull() | (came >= begun))
        ours = untouched | (~theirs & begun.isNull())
        value = f.when(ours, f.col(f"_g.{name}")).when(theirs, f.col(f"_n.{name}"))
        columns.append(value.alias(name))
        if may_be_missing(column):
            lacking = f.when(ours, _names(f.col("_g._missing"), name)).otherwise(~theirs)
            unknown.append(f.when(lacking, f.lit(name)))
    columns += [
        f.when(untouched, f.col(f"_g.{name}")).otherwise(f.col(f"_n.{name}")).alias(name)
        for name in ("_end_lsn", "_committed_at")
    ]
    lacks = f.concat_ws(",", *unknown) if unknown else f.lit("")
    columns.append(f.nullif(lacks, f.lit("")).alias("_missing"))
    return joined.where(untouched | f.col("_n._live")).select(columns)


def _newest(table: Table, stream: DataFrame) -> DataFrame:
    """Per touched key: whether it lives, since when (`_begun`: NULL if from before), and each column's last value."""
    from pyspark.sql import functions as f

    keys, rest = [c.physical for c in table.key], [c.physical for c in table.columns if not c.key]
    moved = f.lit(False)
    for key in keys:
        moved = moved | (f.col(old_name(key)).isNotNull() & (f.col(old_name(key)) != f.col(key)))
    own = f.struct(
        *keys,
        f.struct("_pos", f.lit(1).alias("_side")).alias("_at"),
        (f.col("_op") != "d").alias("_live"),
        ((f.col("_op") == "c") | moved).alias("_begins"),
    )
    former = f.struct(
        *(f.coalesce(old_name(k), k).alias(k) for k in keys),
        f.struct("_pos", f.lit(0).alias("_side")).alias("_at"),
        f.lit(False).alias("_live"),
        f.lit(False).alias("_begins"),
    )
    variants = f.when(moved, f.array(own, former)).otherwise(f.array(own))
    touched = stream.select(f.explode(variants).alias("_variant"), *_META, *rest).select("_variant.*", *_META, *rest)
    begun = f.max(f.when(f.col("_begins"), f.col("_at")))
    picks: list[Any] = [f.max_by("_live", "_at").alias("_live"), begun.alias("_begun")]
    for name in rest:
        came = f.when(f.col("_live") & ~_names(f.col("_missing"), name), f.col("_at"))
        picks += [f.max_by(name, came).alias(name), f.max(came).alias(f"_came_{name}")]
    picks += [f.max_by(name, "_at").alias(name) for name in ("_end_lsn", "_committed_at")]
    return touched.groupBy(*keys).agg(*picks)


def _names(missing: SparkColumn, name: str) -> SparkColumn:
    """Whether a `_missing` text names a column."""
    from pyspark.sql import functions as f

    return f.coalesce(f.array_contains(f.split(missing, ","), name), f.lit(False))


def _whole(table: Table, ground: DataFrame, stream: DataFrame) -> DataFrame:
    """Rows without a key: each image as often as it came, less as often as it went."""
    from pyspark.sql import functions as f

    names, at = [c.physical for c in table.columns], ("_end_lsn", "_committed_at")
    olds = [f.col(old_name(n)).alias(n) for n in names]
    images = ground.select(*names, *at, f.lit(1).alias("_n"))
    sign = f.when(f.col("_op") == "d", -1).otherwise(1)
    images = images.unionByName(stream.select(*names, *at, sign.alias("_n")))
    images = images.unionByName(stream.where("_op = 'u'").select(*olds, *at, f.lit(-1).alias("_n")))
    newest = [f.max(f.when(f.col("_n") > 0, f.col(name))).alias(name) for name in at]
    counted = images.groupBy(*names).agg(f.sum("_n").alias("_n"), *newest).where("_n > 0")
    repeated = counted.withColumn("_i", f.explode(f.sequence(f.lit(1), f.col("_n").cast("int"))))
    return repeated.select(*names, *at, f.lit(None).cast("string").alias("_missing"))


def _type(kind: str) -> str:
    if kind.startswith("list<"):
        return f"array<{_type(kind[5:-1])}>"
    return kind if kind.startswith("decimal(") else _TYPES[kind]
