"""What a table, a column and a column's kind ARE, for every part of claimhouse.

A *kind* is how the lake keeps a PostgreSQL type: one of a dozen words that each engine has a type for. Whatever no
kind can hold exactly is kept as PostgreSQL's own text, so that nothing is rounded. A *table* here is one version of a
source table's shape; a DDL makes the next version. Imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

Identity = Literal["key", "full", "none"]

_SIMPLE: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)\Z")
_LIST = re.compile(r"list<(.+)>\Z")


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type that holds a kind, e.g. `decimal(12,2)` or `list<int8>`.

    Raises KeyError for a word that is no kind.
    """
    if found := _DECIMAL.match(kind):
        return pa.decimal128(int(found[1]), int(found[2]))
    if found := _LIST.match(kind):
        return pa.list_(arrow_type(found[1]))
    return _SIMPLE[kind]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of one table version.

    `physical` is its name in the Delta tables: the encoded first name of this attribute, which a later RENAME does not
    change. `key` is its 1-based place in the replica identity, 0 for none. `missing` is the text that rows older than
    the column show without having it stored (pg_attribute.attmissingval); it holds for rows whose `_schema` is below
    `since`.
    """

    name: str
    physical: str
    attnum: int
    type: str
    type_oid: int
    typmod: int
    kind: str
    nullable: bool = True
    key: int = 0
    missing: str | None = None
    since: int = 1


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a source table's shape.

    `identity`: 'key' (rows are told apart by the columns with `key` > 0), 'full' (no key: by all their columns),
    'none' (append-only: neither UPDATE nor DELETE is captured).
    """

    source: str
    schema: str
    name: str
    oid: int
    version: int
    identity: Identity
    columns: tuple[Column, ...]
    place: str = ""  # the folder, where it is not the name's: a renamed table keeps its own

    @property
    def folder(self) -> str:
        """The table's place below `changes/<source>/` and `current/<source>/`: `schema/table`, both encoded."""
        return self.place or f"{encode_name(self.schema)}/{encode_name(self.name)}"

    @property
    def label(self) -> str:
        """How messages name the table."""
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns that tell rows apart, in key order; all of them for identity 'full', none for 'none'."""
        if self.identity == "full":
            return self.columns
        if self.identity == "none":
            return ()
        return tuple(sorted((c for c in self.columns if c.key), key=lambda c: c.key))

    def column(self, name: str) -> Column:
        """The column of that source name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in _TABLE_FIELDS}
        told["columns"] = [{name: getattr(c, name) for name in _COLUMN_FIELDS} for c in self.columns]
        return told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        told = dict(data)
        told["columns"] = tuple(Column(**c) for c in data["columns"])
        return cls(**told)


_COLUMN_FIELDS = tuple(f.name for f in fields(Column))
_TABLE_FIELDS = tuple(f.name for f in fields(Table))


# Encoding of names: letters a-z, digits and underscore stay; a run of anything else becomes `_x` + the UTF-8 bytes in
# hex + `_`. An underscore that leads a name or stands before an `x` is itself written so: the encoding is reversible,
# no encoded name starts with `_` (which is ours) unless with `_x`, and none holds what Spark, Glue or DuckDB fold.
_KEEP = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_ESCAPED = re.compile(r"_x((?:[0-9a-f]{2})+)_")


def encode_name(name: str) -> str:
    """The one reversible spelling of a source name in folders, topics, Glue, Delta and SQL.

    >>> encode_name("claim_party"), encode_name("Claim"), encode_name("_op")
    ('claim_party', '_x43_laim', '_x5f_op')
    """
    out: list[str] = []
    run: list[str] = []

    def close() -> None:
        if run:
            out.append("_x" + "".join(run).encode("utf-8").hex() + "_")
            run.clear()

    for place, char in enumerate(name):
        escape = char not in _KEEP or (char == "_" and (place == 0 or name[place + 1 : place + 2] == "x"))
        if escape:
            run.append(char)
        else:
            close()
            out.append(char)
    close()
    return "".join(out)


def decode_name(encoded: str) -> str:
    """The source name that `encode_name` spelled so."""
    return _ESCAPED.sub(lambda m: bytes.fromhex(m[1]).decode("utf-8"), encoded)
