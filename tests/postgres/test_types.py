"""Every type: a random value becomes the server's text, the text a lake value, and that the server's text again."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimhouse.errors import Unsupported
from claimhouse.postgres import arrays
from claimhouse.postgres.server import connect
from claimhouse.postgres.types import KINDS, TYPES, cast, kind_of, render, same_text
from claimhouse.table import Column, arrow_type

EXACT = object()  # expected where the kind cannot hold the value: the server's text, in `exact`
AS_TEXT = object()  # expected: whatever text the server prints


def column(kind: str) -> Column:
    return Column("c", "c", 1, "some type", 0, -1, kind)


@pytest.fixture(scope="module")
def session(server: Any) -> Iterator[psycopg.Connection[Any]]:
    with connect(server.dsn) as conn:
        yield conn


def printed(session: psycopg.Connection[Any], type_: str, values: list[str | None]) -> list[str | None]:
    """What the server prints for these values of the type."""
    # format() asks the type's output function, as replication does; a cast to text is another thing for some types.
    query = f"SELECT CASE WHEN v IS NOT NULL THEN format('%%s', v::{type_}) END FROM unnest(%s::text[]) u(v)"
    return [row[0] for row in session.execute(query, [values])]


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, float):
        return struct.pack("d", found) == struct.pack("d", expected) or (math.isnan(found) and math.isnan(expected))
    return type(found) is type(expected) and found == expected


def as_float4(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


FAR = ["infinity", "-infinity", "0044-03-15 BC", "294246-12-31", "12020-02-29"]
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
odd_words = st.one_of(
    words, st.sampled_from(["", "NULL", "null", "\\N", "a,b", '"', "\\", "{}", " x ", "\t\n", "é€😀"])
)
dates = st.one_of(st.dates().map(lambda d: (d.isoformat(), d)), st.sampled_from(FAR).map(lambda f: (f, EXACT)))
moments = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31, 23, 59, 59, 999999))
stamps = st.one_of(moments.map(lambda m: (m.isoformat(" "), m)), st.sampled_from(FAR).map(lambda f: (f, EXACT)))
stamptzs = st.one_of(
    moments.map(lambda m: (m.isoformat(" ") + "+00", m.replace(tzinfo=UTC))),
    st.sampled_from(FAR[:2]).map(lambda f: (f, EXACT)),
    st.just(("12020-02-29 10:00:00.5+00", EXACT)),
)
floats = st.floats(allow_nan=True, allow_infinity=True)
float4s = st.floats(width=32)
bytes_ = st.binary(max_size=40)


def decimals(precision: int, scale: int) -> st.SearchStrategy[tuple[str, Any]]:
    digits = st.integers(-(10**precision) + 1, 10**precision - 1)
    numbers = digits.map(lambda n: Decimal(f"{n}E-{scale}")).map(lambda d: (f"{d:f}", d))
    return st.one_of(numbers, st.just(("NaN", EXACT)))


def integers(low: int, high: int) -> st.SearchStrategy[tuple[str, Any]]:
    return st.integers(low, high).map(lambda n: (str(n), n))


def lists(elements: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """Arrays of these, some elements NULL; where an element is EXACT the whole is."""

    def made(pairs: list[tuple[str | None, Any]]) -> tuple[str, Any]:
        values = [value for _, value in pairs]
        return arrays.literal(text for text, _ in pairs), EXACT if EXACT in values else values

    return st.lists(st.one_of(elements, st.just((None, None))), max_size=5).map(made)


texts = odd_words.map(lambda w: (w, w))
plain_floats = floats.map(lambda f: (repr(f).replace("inf", "Infinity"), f))
# The type, its kind, and pairs of what is sent and what the lake must hold.
CASES: list[tuple[str, str, st.SearchStrategy[tuple[str, Any]]]] = [
    ("bool", "bool", st.booleans().map(lambda b: (str(b), b))),
    ("int2", "int2", integers(-(2**15), 2**15 - 1)),
    ("int4", "int4", integers(-(2**31), 2**31 - 1)),
    ("int8", "int8", integers(-(2**63), 2**63 - 1)),
    ("oid", "int8", integers(0, 2**32 - 1)),
    ("float8", "float8", plain_floats),
    ("float4", "float4", float4s.map(lambda f: (repr(f).replace("inf", "Infinity"), as_float4(f)))),
    ("numeric(12,2)", "decimal(12,2)", decimals(12, 2)),
    ("numeric(38,10)", "decimal(38,10)", decimals(38, 10)),
    ("numeric(38,38)", "decimal(38,38)", decimals(38, 38)),
    ("numeric(5)", "decimal(5,0)", decimals(5, 0)),
    ("numeric", "text", st.decimals(allow_nan=True, allow_infinity=True).map(lambda d: (str(d).lstrip("-s"), AS_TEXT))),
    ("numeric(50,3)", "text", integers(-(10**47) + 1, 10**47 - 1).map(lambda p: (p[0], p[0] + ".000"))),
    ("text", "text", texts),
    ("varchar(40)", "text", texts),
    ("bpchar(12)", "text", odd_words.map(lambda w: (w, AS_TEXT))),
    ('"char"', "text", st.sampled_from("aZ\\").map(lambda c: (c, AS_TEXT))),
    ("name", "text", texts),
    ("bytea", "bytes", bytes_.map(lambda b: ("\\x" + b.hex(), b))),
    ("date", "date", dates),
    ("timestamp", "timestamp", stamps),
    ("timestamptz", "timestamptz", stamptzs),
    ("time", "text", st.one_of(st.times().map(str), st.just("24:00:00")).map(lambda t: (t, AS_TEXT))),
    ("timetz", "text", st.times().map(lambda t: (f"{t}-03:30", AS_TEXT))),
    ("interval", "text", st.timedeltas(max_value=timedelta(3 * 10**6)).map(lambda t: (f"{t.days} days", AS_TEXT))),
    ("uuid", "text", st.uuids().map(lambda u: (str(u), str(u)))),
    ("jsonb", "text", st.integers().map(lambda n: (f'{{"a": [{n}, null]}}', f'{{"a": [{n}, null]}}'))),
    ("bit(5)", "text", st.integers(0, 31).map(lambda n: (f"{n:05b}", f"{n:05b}"))),
    ("inet", "text", st.ip_addresses().map(lambda a: (str(a), AS_TEXT))),
    ("money", "text", st.integers(-(10**6), 10**6).map(lambda n: (str(n), AS_TEXT))),
    ("int4range", "text", st.integers(0, 99).map(lambda n: (f"[{n},)", f"[{n},)"))),
    ("int8[]", "list<int8>", lists(integers(-(2**63), 2**63 - 1))),
    ("bool[]", "list<bool>", lists(st.booleans().map(lambda b: (str(b), b)))),
    ("float8[]", "list<float8>", lists(plain_floats)),
    ("text[]", "list<text>", lists(texts)),
    ("bytea[]", "list<bytes>", lists(bytes_.map(lambda b: ("\\x" + b.hex(), b)))),
    ("numeric(7,3)[]", "list<decimal(7,3)>", lists(decimals(7, 3))),
    ("date[]", "list<date>", lists(dates)),
    ("timestamp[]", "list<timestamp>", lists(stamps)),
    ("timestamptz[]", "list<timestamptz>", lists(stamptzs)),
    ("uuid[]", "list<text>", lists(st.uuids().map(lambda u: (str(u), str(u))))),
]


@pytest.mark.parametrize(("type_", "kind", "values"), CASES, ids=[case[0] for case in CASES])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_a_random_value_comes_back_as_the_server_printed_it(
    session: psycopg.Connection[Any], type_: str, kind: str, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    pairs = data.draw(st.lists(st.one_of(values, st.just((None, None))), min_size=1, max_size=25))
    text = printed(session, type_, [sent for sent, _ in pairs])
    typed, exact = cast(pa.array(text, pa.string()), column(kind))
    typed.validate(full=True)
    assert typed.type == arrow_type(kind)
    exacts = [None] * len(text) if exact is None else exact.to_pylist()
    for (_, expected), found, kept, shown in zip(pairs, typed.to_pylist(), exacts, text, strict=True):
        if expected is EXACT:
            assert kept == shown
        elif expected is AS_TEXT:
            assert (found, kept) == (shown, None)
        else:
            assert same(found, expected) and kept is None, (found, expected)
    again = pa.array(text, pa.string())
    if "float" not in kind:
        assert render(typed, exact, column(kind)).to_pylist() == text
    assert same_text(typed, exact, again, column(kind)).to_pylist() == [True] * len(text)
    other = text[1:] + text[:1]
    unlike = same_text(typed, exact, pa.array(other, pa.string()), column(kind)).to_pylist()
    assert unlike == [a == b for a, b in zip(text, other, strict=True)]


def test_the_table_of_types_agrees_with_the_server(session: psycopg.Connection[Any]) -> None:
    rows = session.execute("SELECT oid::bigint, typname, typarray::bigint FROM pg_type").fetchall()
    known = {oid: (name, array) for oid, name, array in rows}
    kinds = {kind.name for kind in KINDS}
    for type_ in TYPES:
        name, array = known[type_.oid]
        assert name == type_.name
        assert type_.array in (array, 0)
        assert type_.kind in kinds or type_.kind == "decimal"


def test_arrays_of_any_type_are_lists_unless_their_separator_is_another(session: psycopg.Connection[Any]) -> None:
    assert kind_of(1007) == "list<int4>"
    assert kind_of(99999, -1, 25) == "list<text>"
    assert kind_of(99999, -1, 99998) == "list<text>"  # an enum's array
    assert kind_of(99999, -1, 99998, ":") == "text"
    assert kind_of(1020, -1, 603, ";") == "text"  # box[]
    assert kind_of(22, -1, 21) == "text"  # int2vector is no array


@pytest.mark.parametrize(
    "type_",
    ["numeric(12,2)", "numeric(5)", "numeric(38,38)", "numeric", "numeric(39,2)", "numeric(3,-2)", "numeric(2,5)"],
)
def test_numeric_is_a_decimal_exactly_where_a_decimal_holds_it(session: psycopg.Connection[Any], type_: str) -> None:
    expected = {"numeric(12,2)": "decimal(12,2)", "numeric(5)": "decimal(5,0)", "numeric(38,38)": "decimal(38,38)"}
    session.execute("DROP TABLE IF EXISTS pg_temp.t")
    session.execute(f"CREATE TEMP TABLE t (c {type_}, d {type_}[])")
    (scalar,), (array,) = session.execute(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'pg_temp.t'::regclass AND attnum > 0 ORDER BY attnum"
    )
    kind = expected.get(type_, "text")
    assert (kind_of(1700, scalar), kind_of(1231, array)) == (kind, f"list<{kind}>")


@pytest.mark.parametrize("literal", ["{{1,2},{3,4}}", "[0:1]={1,2}", "[2:2][1:1]={{7}}"])
def test_an_array_of_odd_bounds_or_dimensions_keeps_its_text(literal: str) -> None:
    for kind in ("list<int4>", "list<text>"):
        typed, exact = cast(pa.array([literal, "{1}"]), column(kind))
        assert typed.to_pylist()[0] is None
        assert exact is not None and exact.to_pylist() == [literal, None]
        assert same_text(typed, exact, pa.array([literal, "{1}"]), column(kind)).to_pylist() == [True, True]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int4", "secret"),
        ("int2", "99999"),
        ("bool", "x"),
        ("bytes", "\\x0"),
        ("bytes", "01"),
        ("bytes", "\\x0g"),
        ("date", "secret"),
        ("timestamp", "secret"),
        ("decimal(5,2)", "12345.00"),
        ("decimal(5,2)", "1.234"),
        ("list<int4>", "{1,secret}"),
        ("list<int4>", "secret"),
        ("list<text>", 'secret"'),
        ("float8", "secret"),
    ],
)
def test_what_no_kind_can_hold_is_refused_without_showing_it(kind: str, text: str) -> None:
    with pytest.raises(Unsupported) as caught:
        cast(pa.array([None, text]), column(kind))
    assert text not in str(caught.value) and text not in str(caught.value.hint)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Unsupported):
        cast(pa.array([b"\xff\xfe"]).view(pa.string()), column("text"))


@pytest.mark.parametrize(
    "kind",
    ["bool", "int8", "float8", "decimal(9,2)", "text", "bytes", "date", "timestamptz", "list<text>", "list<int4>"],
)
def test_nothing_and_nulls_alone_are_cast_too(kind: str) -> None:
    for text in (pa.array([], pa.string()), pa.nulls(3, pa.string()), pa.array(["x", None, None])[1:]):
        typed, exact = cast(text, column(kind))
        assert typed.type == arrow_type(kind) and typed.null_count == len(text) and exact is None
        assert same_text(typed, exact, text, column(kind)).to_pylist() == [True] * len(text)


def test_a_slice_is_cast_like_a_whole() -> None:
    for kind, texts in {
        "bytes": ["\\x01", "\\x", "\\x0203", None],
        "text": ["a", "", "ccc", None],
        "list<int4>": ["{1}", "{}", "{2,3}", None],
    }.items():
        whole, _ = cast(pa.array(texts), column(kind))
        part, _ = cast(pa.array(["", *texts, ""])[1:5] if kind == "text" else pa.array(texts)[1:], column(kind))
        assert part.to_pylist() == (whole.to_pylist() if kind == "text" else whole.to_pylist()[1:])
        assert render(whole[1:], None, column(kind)).to_pylist() == texts[1:]


def test_a_stand_in_and_the_value_it_stands_for_are_not_the_same() -> None:
    typed, exact = cast(pa.array(["infinity", "9999-12-31"]), column("date"))
    assert typed.to_pylist() == [date(9999, 12, 31)] * 2
    assert same_text(typed, exact, pa.array(["9999-12-31", "infinity"]), column("date")).to_pylist() == [False, False]


def test_floats_are_told_apart_bit_by_bit() -> None:
    typed, _ = cast(pa.array(["0", "-0", "NaN", "1e-45"]), column("float4"))
    assert same_text(typed, None, pa.array(["-0", "-0", "NaN", "0"]), column("float4")).to_pylist() == [
        False,
        True,
        True,
        False,
    ]
