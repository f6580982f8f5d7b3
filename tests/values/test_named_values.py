"""The values that the cases name, each on its ways into the lake: by copy, by INSERT, by UPDATE."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.values.lake import Lake
from tests.values.paths import same


class Exact(str):
    """Expected in `_exact`: the text of a value that its kind cannot hold."""


Value = tuple[str, str | None, Any]  # type, what is sent, what is expected


def insist(postgres: Any, folder: Path, values: list[Value]) -> None:
    """A column for each; one row is copied, one inserted, one updated, and all are what was sent to every reader."""
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _, _) in enumerate(values))
    sent = [text for _, text, _ in values]
    cells = ", ".join(f"%s::{kind}" for kind, _, _ in values)
    postgres.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t VALUES (3)")
    postgres.execute(f"INSERT INTO t VALUES (1, {cells})", sent)
    lake = Lake(postgres.dsn, folder)
    lake.capture()
    postgres.execute(f"INSERT INTO t VALUES (2, {cells})", sent)
    sets = ", ".join(f"c{n} = %s::{kind}" for n, (kind, _, _) in enumerate(values))
    postgres.execute(f"UPDATE t SET {sets} WHERE id = 3", sent)
    lake.capture()
    logged = {(r["id"], r["_op"]): r for r in lake.log("public/t")}
    folded = {r["id"]: r for r in lake.folded("public/t")}
    asked = {r["id"]: r for r in lake.asked("SELECT * FROM t")}
    for number, op in ((1, "r"), (2, "c"), (3, "u")):
        for row in (logged[number, op], folded[number], asked[number]):
            kept = dict(row.get("_exact") or ())
            for n, (kind, text, expected) in enumerate(values):
                if not isinstance(expected, Exact):
                    assert same(row[f"c{n}"], expected), (kind, text, row[f"c{n}"])
                if "_exact" in row:
                    assert kept.get(f"c{n}") == (expected if isinstance(expected, Exact) else None), (kind, text)
    assert lake.differences() == []


@pytest.mark.case("T1")
def test_whole_numbers_up_to_their_ends_and_oids_beyond_31_bits(postgres: Any, tmp_path: Path) -> None:
    ends = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
    values: list[Value] = [(k, str(v), v) for k, n in ends.items() for v in (-n, -1, 0, n - 1)]
    insist(postgres, tmp_path, [*values, ("oid", "4000000000", 4_000_000_000), ("bigint", None, None)])


@pytest.mark.case("T1")
def test_numbers_that_a_serial_gave(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE t (a smallserial, b serial, c bigserial PRIMARY KEY, v int)")
    postgres.execute("SELECT setval('t_c_seq', 9007199254740992); INSERT INTO t (v) VALUES (1)")
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    postgres.execute("INSERT INTO t (v) VALUES (2)")
    lake.capture()
    assert lake.rows("SELECT * FROM t") == [(1, 1, 2**53 + 1, 1), (2, 2, 2**53 + 2, 2)]


@pytest.mark.case("T2")
def test_floats_that_are_no_numbers_or_whole_ones(postgres: Any, tmp_path: Path) -> None:
    texts = ("NaN", "Infinity", "-Infinity", "-0", "1", "16777216")
    values: list[Value] = [(k, t, float(t)) for k in ("real", "double precision") for t in texts]
    more = ("9007199254740993", "5e-324", "1.7976931348623157e308")
    insist(postgres, tmp_path, [*values, *(("double precision", t, float(t)) for t in more)])


@pytest.mark.case("T3", "T4")
def test_a_numeric_is_never_rounded(postgres: Any, tmp_path: Path) -> None:
    long = "9" * 40 + ".5"
    values: list[Value] = [
        ("numeric(12,2)", "-0.01", Decimal("-0.01")),
        ("numeric(12,2)", "NaN", Exact("NaN")),
        ("numeric(38,10)", "9" * 28 + ".0000000001", Decimal("9" * 28 + ".0000000001")),
        ("numeric(5)", "-99999", Decimal("-99999")),
        ("numeric", long, long),
        ("numeric", "0.1000", "0.1000"),
        ("numeric", "NaN", "NaN"),
        ("numeric", "-Infinity", "-Infinity"),
        ("numeric(50,3)", "1" * 47 + ".125", "1" * 47 + ".125"),
        ("numeric(12,2)[]", "{1.50,NULL}", [Decimal("1.50"), None]),
        ("numeric(12,2)[]", "{NaN,1}", Exact("{NaN,1.00}")),
        ("money", "-92233720368547758.08", "-$92,233,720,368,547,758.08"),
        ("money", None, None),
    ]
    insist(postgres, tmp_path, values)


@pytest.mark.case("T5")
def test_characters_are_those_that_were_sent(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE EXTENSION citext")
    odd = ("", "\\N", "a\\Nb", "NULL", "tab\tline\n\r\n", "a,\"b\"'c'", "é€😀", " both ")
    values: list[Value] = [(kind, text, text) for kind in ("text", "varchar(20)", "citext") for text in odd]
    values += [("char(4)", "é", "é   "), ("char(4)", "", "    "), ('"char"', "z", "z"), ("name", "N" * 63, "N" * 63)]
    insist(postgres, tmp_path, [*values, ("text", None, None), ("text[]", '{"",NULL,"NULL"}', ["", None, "NULL"])])


@pytest.mark.case("T6")
def test_bytes_are_those_that_were_sent(postgres: Any, tmp_path: Path) -> None:
    raw = bytes(range(256))
    values: list[Value] = [("bytea", "\\x" + b.hex(), b) for b in (b"", b"\0", b"\\x00", raw, b"\0\xff" * (1 << 19))]
    listed = [b"", b"\0", None, raw]
    text = "{" + ",".join("NULL" if b is None else f'"\\\\x{b.hex()}"' for b in listed) + "}"
    insist(postgres, tmp_path, [*values, ("bytea[]", text, listed)])


@pytest.mark.case("T8", "T9")
def test_moments_are_exact_however_far(postgres: Any, tmp_path: Path) -> None:
    values: list[Value] = [
        *(("date", t, Exact(t)) for t in ("infinity", "-infinity", "0044-03-15 BC", "21016-01-01", "5874897-12-31")),
        *(("date", t, date.fromisoformat(t)) for t in ("1582-10-04", "1582-10-15", "0001-01-01", "9999-12-31")),
        ("timestamp", "1500-02-28 23:59:59.999999", datetime(1500, 2, 28, 23, 59, 59, 999999)),
        ("timestamp", "2026-01-02 03:04:05.000001", datetime(2026, 1, 2, 3, 4, 5, 1)),
        ("timestamp(3)", "2026-01-02 03:04:05.1234", datetime(2026, 1, 2, 3, 4, 5, 123000)),
        ("timestamp", "4713-01-01 00:00:00.000001 BC", Exact("4713-01-01 00:00:00.000001 BC")),
        ("timestamp", "294247-01-01 00:00:00", Exact("294247-01-01 00:00:00")),
        ("timestamptz", "2026-01-02 03:04:05.123456+05:45", datetime(2026, 1, 1, 21, 19, 5, 123456, UTC)),
        *(("timestamptz", t, Exact(t)) for t in ("infinity", "-infinity")),
        ("timestamptz", "21016-01-01 01:00:00+01", Exact("21016-01-01 00:00:00+00")),
        *(("time", t, t) for t in ("24:00:00", "00:00:00", "23:59:59.999999")),
        *(("timetz", t, t) for t in ("24:00:00+14", "12:30:00-03:30")),
    ]
    insist(postgres, tmp_path, values)


@pytest.mark.case("T7", "T10", "T11", "T12")
def test_what_has_no_kind_of_its_own_is_the_servers_text(postgres: Any, tmp_path: Path) -> None:
    texts = {
        "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",),
        "json": (' {"b":1,  "a" : 1.0, "a":2}', "null", "1e5"),
        "jsonb": ('{"a": 1.0, "b": [1, null]}', "null"),
        "inet": ("10.0.0.1/8", "::1"),
        "cidr": ("10.0.0.0/8", "2001:4f8:3:ba::/64"),
        "macaddr": ("08:00:2b:01:02:03",),
        "macaddr8": ("08:00:2b:01:02:03:04:05",),
        "bit(5)": ("10101",),
        "varbit": ("", "1"),
        "interval": ("-1 mons +2 days -04:05:06.7", "00:00:00"),
        "int4range": ("empty", "(,)", "[1,5)", "[1,)"),
        "tstzrange": ('["2026-01-01 00:00:00+00",infinity)',),
        "nummultirange": ("{}", "{(,1.5],[2,3)}"),
    }
    values: list[Value] = [(kind, text, text) for kind, some in texts.items() for text in some]
    insist(postgres, tmp_path, [*values, ("boolean", "t", True), ("boolean", "f", False), ("boolean", None, None)])


@pytest.mark.case("T13")
def test_arrays_are_lists_of_one_dimension_or_exact(postgres: Any, tmp_path: Path) -> None:
    values: list[Value] = [
        ("int[]", "{}", []),
        ("int[]", "{1,NULL,3}", [1, None, 3]),
        ("int[]", "{NULL}", [None]),
        ("int[]", "{{1,2},{3,4}}", Exact("{{1,2},{3,4}}")),
        ("int[]", "[0:1]={1,2}", Exact("[0:1]={1,2}")),
        ("text[]", "[5:6]={a,NULL}", Exact("[5:6]={a,NULL}")),
        ("date[]", "{2026-01-02,infinity}", Exact("{2026-01-02,infinity}")),
        ("boolean[]", "{t,NULL,f}", [True, None, False]),
        ("float8[]", "{NaN,-Infinity,-0}", [float("nan"), float("-inf"), -0.0]),
        ("uuid[]", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        ("int[]", None, None),
    ]
    insist(postgres, tmp_path, values)


@pytest.mark.case("T14")
def test_types_that_a_user_made_are_kept_as_text_or_as_what_they_stand_on(postgres: Any, tmp_path: Path) -> None:
    postgres.execute("CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE TYPE mood AS ENUM ('sad', 'it''s, {ok}')")
    postgres.execute("CREATE TYPE pair AS (a int, b text); CREATE DOMAIN amount AS numeric(12,2)")
    postgres.execute("CREATE DOMAIN positive AS amount CHECK (VALUE > 0); CREATE DOMAIN grades AS int[]")
    postgres.execute("CREATE TYPE floatrange AS RANGE (subtype = float8)")
    values: list[Value] = [
        ("mood", "it's, {ok}", "it's, {ok}"),
        ("mood[]", '{sad,NULL,"it\'s, {ok}"}', ["sad", None, "it's, {ok}"]),
        ("positive", "1.50", Decimal("1.50")),
        ("grades", "{1,2}", [1, 2]),
        ("pair", '(1,"x, ""y""")', '(1,"x, ""y""")'),
        ("floatrange", "[0.5,)", "[0.5,)"),
        ("hstore", '"a"=>"1", "b"=>NULL', '"a"=>"1", "b"=>NULL'),
        ("ltree", "Top.Science", "Top.Science"),
        ("mood", None, None),
    ]
    insist(postgres, tmp_path, values)
