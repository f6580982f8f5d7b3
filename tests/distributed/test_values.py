"""PostgreSQL's text from Debezium's, as seen from Debezium 3.7 with the connector's settings."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from claimhouse.distributed.values import HEX, loses, source_text
from claimhouse.table import Column

CASES = [
    ("boolean", 16, "bool", "true", "t"),
    ("integer", 23, "int4", "42", "42"),
    ("numeric", 1700, "text", "NAN", "NaN"),
    ("numeric", 1700, "text", "POSITIVE_INFINITY", "Infinity"),
    ("numeric(12,2)", 1700, "decimal(12,2)", "1234567.80", "1234567.80"),
    ("text", 25, "text", 'a"b\\N', 'a"b\\N'),
    ("bytea", 17, "bytes", "00ff", "\\x00ff"),
    ("bytea", 17, "bytes", "", "\\x"),
    ("date", 1082, "date", "2026-01-02Z", "2026-01-02"),
    ("date", 1082, "date", "+5877611-06-21Z", "infinity"),
    ("date", 1082, "date", "-0043-03-15Z", "0044-03-15 BC"),
    ("timestamp without time zone", 1114, "timestamp", "2026-01-02T03:04:05.123456Z", "2026-01-02 03:04:05.123456"),
    ("timestamp without time zone", 1114, "timestamp", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05"),
    ("timestamp without time zone", 1114, "timestamp", "-292275055-05-16T23:00:00Z", "-infinity"),
    ("timestamp without time zone", 1114, "timestamp", "-0043-03-15T01:02:03Z", "0044-03-15 01:02:03 BC"),
    ("timestamp with time zone", 1184, "timestamptz", "2026-01-02T01:04:05.120000Z", "2026-01-02 01:04:05.12+00"),
    ("timestamp with time zone", 1184, "timestamptz", "2026-01-02T01:04:05.000000Z", "2026-01-02 01:04:05+00"),
    ("timestamp with time zone", 1184, "timestamptz", "infinity", "infinity"),
    ("timestamp with time zone", 1184, "timestamptz", "+21016-01-01T00:00:00.000000Z", "21016-01-01 00:00:00+00"),
    ("time without time zone", 1083, "text", "12:34:56.5Z", "12:34:56.5"),
    ("interval", 1186, "text", "P0Y10M3DT4H5M6.7S", "10 mons 3 days 04:05:06.7"),
    ("interval", 1186, "text", "P0Y0M-1DT2H3M4S", "-1 days +02:03:04"),
    ("interval", 1186, "text", "P0Y0M0DT0H0M0S", "00:00:00"),
    ("bit(3)", 1560, "text", "BQ==", "101"),
    ("point", 600, "text", '{"x":1.0,"y":2.5,"wkb":"","srid":null}', "(1,2.5)"),
    ("public.comp", HEX, "text", "28312c227120782229", '(1,"q x")'),
    ("integer[]", 23, "list<int4>", "[1,null,3]", "{1,NULL,3}"),
    ("text[]", 25, "list<text>", '["a",null,"q\\"x"," ","NULL"]', '{a,NULL,"q\\"x"," ","NULL"}'),
    ("date[]", 1082, "list<date>", '["2026-01-02Z"]', "{2026-01-02}"),
    ("boolean[]", 16, "list<bool>", "[true,false]", "{t,f}"),
    ("bytea[]", 17, "list<bytes>", '["01"]', '{"\\\\x01"}'),
]


@pytest.mark.parametrize(("type_", "wire", "kind", "given", "expected"), CASES, ids=lambda v: str(v)[:24])
def test_a_value_comes_back_as_postgresql_prints_it(
    type_: str, wire: int, kind: str, given: str, expected: str
) -> None:
    typmod = 3 if type_ == "bit(3)" else -1
    column = Column("c", "c", 1, type_, wire, typmod, kind)
    assert source_text(pa.array([given, None]), column, wire).to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("type_", "wire", "lost"),
    [
        ("integer", 23, None),
        ("timestamp with time zone", 1184, None),
        ("time with time zone", 1266, "offset"),
        ("public.fee", 790, "currency"),
        ("circle", HEX, "geometry"),
        ("time without time zone[]", 1083, "24:00:00.*dimensions"),
        ("interval[]", 1186, "does not come"),
    ],
)
def test_a_column_whose_values_debezium_does_not_keep_is_told(type_: str, wire: int, lost: str | None) -> None:
    told = loses(Column("c", "c", 1, type_, wire, -1, "text"), wire)
    assert (told is None) if lost is None else re.search(lost, told or "")
