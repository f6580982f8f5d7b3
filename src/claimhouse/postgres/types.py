"""Which kind each PostgreSQL type is kept as: the one visible table, and the doors to its casts.

A value comes from PostgreSQL as text (stream and copy alike). `cast` makes Arrow from it, one cast per kind; `render`
makes PostgreSQL's text from Arrow again, by another path, so that `verify` never compares a cast with itself. A type
that is not in the table (enum, composite, domain over text, hstore, whatever an extension brings) is kept as text.
"""

from __future__ import annotations

from dataclasses import dataclass

from claimhouse.postgres.casts import cast
from claimhouse.postgres.render import render, same_text

__all__ = ["KINDS", "TYPES", "Kind", "PgType", "cast", "decimal_kind", "kind_of", "render", "same_text"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How the engines name a kind, and what of it goes to `_exact`."""

    name: str
    arrow: str
    delta: str
    spark: str
    trino: str
    duckdb: str
    exact: str = ""


_FAR = "infinity, -infinity, BC, years beyond 9999"
KINDS: tuple[Kind, ...] = (
    Kind("bool", "bool", "boolean", "BOOLEAN", "boolean", "BOOLEAN"),
    Kind("int2", "int16", "short", "SMALLINT", "smallint", "SMALLINT"),
    Kind("int4", "int32", "integer", "INT", "integer", "INTEGER"),
    Kind("int8", "int64", "long", "BIGINT", "bigint", "BIGINT"),
    Kind("float4", "float", "float", "FLOAT", "real", "FLOAT"),
    Kind("float8", "double", "double", "DOUBLE", "double", "DOUBLE"),
    Kind("decimal(p,s)", "decimal128(p,s)", "decimal(p,s)", "DECIMAL(p,s)", "decimal(p,s)", "DECIMAL(p,s)", "NaN"),
    Kind("text", "string", "string", "STRING", "varchar", "VARCHAR"),
    Kind("bytes", "binary", "binary", "BINARY", "varbinary", "BLOB"),
    Kind("date", "date32", "date", "DATE", "date", "DATE", _FAR),
    Kind("timestamp", "timestamp[us]", "timestamp_ntz", "TIMESTAMP_NTZ", "timestamp(6)", "TIMESTAMP", _FAR),
    Kind(
        "timestamptz",
        "timestamp[us, UTC]",
        "timestamp",
        "TIMESTAMP",
        "timestamp(3) with time zone",
        "TIMESTAMP WITH TIME ZONE",
        _FAR,
    ),
    Kind(
        "list<kind>",
        "list<kind>",
        "array",
        "ARRAY<kind>",
        "array(kind)",
        "kind[]",
        "more than one dimension, lower bounds other than 1, an element that its kind cannot hold",
    ),
)


@dataclass(frozen=True, slots=True)
class PgType:
    """One built-in type: `array` is the oid of its array type, kept as a list of the kind; 0 for none."""

    name: str
    oid: int
    array: int
    kind: str
    note: str = ""


TYPES: tuple[PgType, ...] = (
    PgType("bool", 16, 1000, "bool"),
    PgType("int2", 21, 1005, "int2"),
    PgType("int4", 23, 1007, "int4"),
    PgType("int8", 20, 1016, "int8"),
    PgType("oid", 26, 1028, "int8", "unsigned 32 bits"),
    PgType("float4", 700, 1021, "float4"),
    PgType("float8", 701, 1022, "float8"),
    PgType("numeric", 1700, 1231, "decimal", "text where undeclared, p > 38, s < 0 or s > p"),
    PgType("money", 790, 791, "text", "in the server's lc_monetary"),
    PgType("text", 25, 1009, "text"),
    PgType("varchar", 1043, 1015, "text"),
    PgType("bpchar", 1042, 1014, "text", "char(n), padding kept"),
    PgType("char", 18, 1002, "text", 'the one-byte "char"'),
    PgType("name", 19, 1003, "text"),
    PgType("bytea", 17, 1001, "bytes"),
    PgType("date", 1082, 1182, "date"),
    PgType("timestamp", 1114, 1115, "timestamp"),
    PgType("timestamptz", 1184, 1185, "timestamptz", "in UTC"),
    PgType("time", 1083, 1183, "text", "knows 24:00:00"),
    PgType("timetz", 1266, 1270, "text"),
    PgType("interval", 1186, 1187, "text", "IntervalStyle postgres"),
    PgType("uuid", 2950, 2951, "text"),
    PgType("json", 114, 199, "text"),
    PgType("jsonb", 3802, 3807, "text"),
    PgType("jsonpath", 4072, 4073, "text"),
    PgType("xml", 142, 143, "text"),
    PgType("bit", 1560, 1561, "text"),
    PgType("varbit", 1562, 1563, "text"),
    PgType("inet", 869, 1041, "text"),
    PgType("cidr", 650, 651, "text"),
    PgType("macaddr", 829, 1040, "text"),
    PgType("macaddr8", 774, 775, "text"),
    PgType("point", 600, 1017, "text"),
    PgType("lseg", 601, 1018, "text"),
    PgType("path", 602, 1019, "text"),
    PgType("box", 603, 0, "text", "its array is separated by semicolons: text"),
    PgType("polygon", 604, 1027, "text"),
    PgType("line", 628, 629, "text"),
    PgType("circle", 718, 719, "text"),
    PgType("tsvector", 3614, 3643, "text"),
    PgType("tsquery", 3615, 3645, "text"),
    PgType("int4range", 3904, 3905, "text"),
    PgType("int8range", 3926, 3927, "text"),
    PgType("numrange", 3906, 3907, "text"),
    PgType("tsrange", 3908, 3909, "text"),
    PgType("tstzrange", 3910, 3911, "text"),
    PgType("daterange", 3912, 3913, "text"),
    PgType("int4multirange", 4451, 6150, "text"),
    PgType("int8multirange", 4536, 6157, "text"),
    PgType("nummultirange", 4532, 6151, "text"),
    PgType("tsmultirange", 4533, 6152, "text"),
    PgType("tstzmultirange", 4534, 6153, "text"),
    PgType("datemultirange", 4535, 6155, "text"),
    PgType("int2vector", 22, 0, "text"),
    PgType("oidvector", 30, 0, "text"),
    PgType("tid", 27, 1010, "text"),
    PgType("xid", 28, 1011, "text"),
    PgType("cid", 29, 1012, "text"),
    PgType("xid8", 5069, 271, "text"),
    PgType("pg_lsn", 3220, 3221, "text"),
    PgType("pg_snapshot", 5038, 5039, "text"),
    PgType("regclass", 2205, 2210, "text"),
    PgType("regtype", 2206, 2211, "text"),
    PgType("regproc", 24, 1008, "text"),
)
_BY_OID = {t.oid: t for t in TYPES}
_BY_ARRAY = {t.array: t for t in TYPES if t.array}


def kind_of(type_oid: int, typmod: int = -1, element_oid: int = 0, delimiter: str = ",") -> str:
    """The kind that a PostgreSQL type is kept as.

    `type_oid` is the type's, of a domain its base type's; `typmod` goes with it. `element_oid` is, of an array type,
    its element's base type (0: no array; only needed for arrays of types that TYPES does not name), `delimiter` the
    element's pg_type.typdelim.
    """
    if known := _BY_OID.get(type_oid):
        return decimal_kind(typmod) if known.kind == "decimal" else known.kind
    element = _BY_ARRAY.get(type_oid)
    if element is not None:
        return f"list<{kind_of(element.oid, typmod)}>"
    if element_oid and delimiter == ",":
        inner = kind_of(element_oid, typmod)
        return f"list<{inner}>"
    return "text"


def decimal_kind(typmod: int) -> str:
    """The kind of numeric with that type modifier: `decimal(p,s)` where 0 <= s <= p <= 38, else text.

    PostgreSQL packs the precision above 16 bits, and the scale as 11 bits, two's complement, below.
    """
    if typmod < 4:
        return "text"
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4) & 0x7FF ^ 0x400) - 0x400
    return f"decimal({precision},{scale})" if 0 <= scale <= precision <= 38 else "text"
