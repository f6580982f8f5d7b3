"""Every type: a random value becomes the server's text, the text a lake value, and that the server's text again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.values.book import AS_TEXT, CASES, EXACT, Case, array_of, row_of
from tests.values.paths import same

from claimhouse.errors import Unsupported
from claimhouse.postgres.server import connect
from claimhouse.postgres.types import KINDS, TYPES, cast, kind_of, render, same_text
from claimhouse.table import Column, arrow_type

# Arrays of every type go the whole way in tests/values: here one of each kind is enough.
LISTED = ("int8", "bool", "float8", "text", "bytea", "numeric(12,2)", "date", "timestamp", "timestamptz", "uuid")
ROWS = {t.name for t in TYPES}
BUILT_IN = [c for c in CASES if row_of(c) in ROWS and c.since == 14]
BUILT_IN += [array_of(c) for c in CASES if c.type in LISTED]


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
    try:
        return [row[0] for row in session.execute(query, [values])]
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(f"this PostgreSQL was built without {type_}: {error.diag.message_primary}")


@pytest.mark.case("T15")
@pytest.mark.parametrize("case", BUILT_IN, ids=str)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_a_random_value_comes_back_as_the_server_printed_it(
    session: psycopg.Connection[Any], case: Case, data: st.DataObject
) -> None:
    kind = case.kind
    pairs = data.draw(st.lists(st.one_of(case.values, st.just((None, None))), min_size=1, max_size=25))
    text = printed(session, case.type, [sent for sent, _ in pairs])
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


@pytest.mark.case("T13")
def test_arrays_of_any_type_are_lists_unless_their_separator_is_another(session: psycopg.Connection[Any]) -> None:
    assert kind_of(1007) == "list<int4>"
    assert kind_of(99999, -1, 25) == "list<text>"
    assert kind_of(99999, -1, 99998) == "list<text>"  # an enum's array
    assert kind_of(99999, -1, 99998, ":") == "text"
    assert kind_of(1020, -1, 603, ";") == "text"  # box[]
    assert kind_of(22, -1, 21) == "text"  # int2vector is no array


@pytest.mark.case("T3")
@pytest.mark.parametrize(
    "type_",
    ["numeric(12,2)", "numeric(5)", "numeric(38,38)", "numeric", "numeric(39,2)", "numeric(3,-2)", "numeric(2,5)"],
)
def test_numeric_is_a_decimal_exactly_where_a_decimal_holds_it(session: psycopg.Connection[Any], type_: str) -> None:
    if type_ in ("numeric(3,-2)", "numeric(2,5)") and session.info.server_version < 150000:
        pytest.skip("such a scale came with PostgreSQL 15")
    expected = {"numeric(12,2)": "decimal(12,2)", "numeric(5)": "decimal(5,0)", "numeric(38,38)": "decimal(38,38)"}
    session.execute("DROP TABLE IF EXISTS pg_temp.t")
    session.execute(f"CREATE TEMP TABLE t (c {type_}, d {type_}[])")
    (scalar,), (array,) = session.execute(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'pg_temp.t'::regclass AND attnum > 0 ORDER BY attnum"
    )
    kind = expected.get(type_, "text")
    assert (kind_of(1700, scalar), kind_of(1231, array)) == (kind, f"list<{kind}>")


@pytest.mark.case("T13")
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


@pytest.mark.case("T2")
def test_floats_are_told_apart_bit_by_bit() -> None:
    typed, _ = cast(pa.array(["0", "-0", "NaN", "1e-45"]), column("float4"))
    assert same_text(typed, None, pa.array(["-0", "-0", "NaN", "0"]), column("float4")).to_pylist() == [
        False,
        True,
        True,
        False,
    ]
