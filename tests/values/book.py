"""A value book of every type: what is sent to PostgreSQL, and what the lake must hold of it.

One case per row of `TYPES`, and cases of types that are in no table: enums, domains, composites, extensions'. A test
holds the book against the table of types, so that a type without values fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from claimhouse.postgres import arrays

EXACT = object()  # expected where the kind cannot hold the value: the server's text, in `_exact`
AS_TEXT = object()  # expected: whatever text the server prints
Pair = tuple[str | None, Any]  # what is sent, and what is expected
Values = st.SearchStrategy[Pair]

SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine", {x}', 'é😀');
CREATE TYPE pair AS (a int, "b c" text);
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE DOMAIN amount AS numeric(12,2);
CREATE DOMAIN positive AS amount CHECK (VALUE > 0);
CREATE DOMAIN label AS text;
CREATE DOMAIN grades AS int[];
CREATE DOMAIN tempers AS mood;
CREATE DOMAIN instant AS timestamptz;
"""
EXTENSIONS = ("hstore", "ltree", "citext", "cube", "isn")


@dataclass(frozen=True)
class Case:
    """One type as a column declares it, the kind that keeps it, and its values. `row` is its row of TYPES, or none.

    `since`: the first PostgreSQL that has these values. `alone`: its arrays are no lists, or are another case's.
    """

    type: str
    kind: str
    values: Values
    row: str = ""
    since: int = 14
    alone: bool = False

    def __str__(self) -> str:
        return self.type


def texts_of(*values: str) -> Values:
    """These, each as the server prints it."""
    return st.sampled_from(values).map(lambda v: (v, AS_TEXT))


def built(made: st.SearchStrategy[Any], spell: Callable[[Any], str] = str) -> Values:
    return made.map(lambda v: (spell(v), AS_TEXT))


def exactly(values: st.SearchStrategy[str]) -> Values:
    return values.map(lambda v: (v, v))


FAR = ["infinity", "-infinity", "0044-03-15 BC", "294246-12-31", "12020-02-29", "21016-01-01"]
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ODD_WORDS = ["", "NULL", "null", "\\N", "a\\Nb", "a,b", '"', "\\", "{}", " x ", "\t\n", "\r\n", "é€😀", "'"]
odd_words = st.one_of(words, st.sampled_from(ODD_WORDS))
dates = st.one_of(
    st.dates().map(lambda d: (d.isoformat(), d)), st.sampled_from([*FAR, "5874897-12-31"]).map(lambda f: (f, EXACT))
)
moments = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31, 23, 59, 59, 999999))
far_stamps = st.sampled_from([*FAR, "294247-01-01 00:00:00", "4713-01-01 00:00:00.000001 BC"])
stamps = st.one_of(moments.map(lambda m: (m.isoformat(" "), m)), far_stamps.map(lambda f: (f, EXACT)))
far_zoned = st.sampled_from(["infinity", "-infinity", "12020-02-29 10:00:00.5+00", "21016-01-01 00:00+00"])
stamptzs = st.one_of(
    moments.map(lambda m: (m.isoformat(" ") + "+00", m.replace(tzinfo=UTC))), far_zoned.map(lambda f: (f, EXACT))
)
seconds = st.datetimes(min_value=datetime(1600, 1, 1), max_value=datetime(2300, 1, 1)).map(lambda m: m.isoformat(" "))
numbers = st.integers(-(10**6), 10**6)
words_only = st.text(st.sampled_from("abcXYZ_09"), min_size=1, max_size=8)
hexes = st.binary(max_size=40).map(lambda b: ("\\x" + b.hex(), b))
points = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(lambda p: f"({p[0]!r},{p[1]!r})")
bits = st.text(st.sampled_from("01"), max_size=70)


def bools() -> Values:
    return st.booleans().map(lambda b: (str(b), b))


def integers(low: int, high: int) -> Values:
    return st.integers(low, high).map(lambda n: (str(n), n))


def decimals(precision: int, scale: int) -> Values:
    digits = st.integers(-(10**precision) + 1, 10**precision - 1)
    made = digits.map(lambda n: Decimal(f"{n}E-{scale}")).map(lambda d: (f"{d:f}", d))
    return st.one_of(made, st.just(("NaN", EXACT)))


def floats(width: int) -> Values:
    held = st.floats(width=32 if width == 32 else 64, allow_nan=True, allow_infinity=True)
    return held.map(lambda f: (repr(f).replace("inf", "Infinity"), f))


def ranges(points: st.SearchStrategy[Any]) -> Values:
    """Ranges over these, some bounds infinite, some of them empty. Bounds come in order."""

    def spelled(two: tuple[Any, Any], brackets: tuple[str, str]) -> str:
        first, last = sorted(two, key=lambda p: (isinstance(p, str), p))
        return f"{brackets[0]}{first},{last}{brackets[1]}"

    bounded = st.builds(spelled, st.tuples(points, points), st.tuples(st.sampled_from("[("), st.sampled_from("])")))
    half = points.map(lambda p: f"[{p},)") | points.map(lambda p: f"(,{p}]")
    return built(st.one_of(bounded, half, st.sampled_from(["(,)", "empty"])))


def multiranges(single: Values) -> Values:
    return st.lists(single, max_size=3).map(lambda pairs: ("{" + ",".join(str(t) for t, _ in pairs) + "}", AS_TEXT))


def lists(elements: Values) -> Values:
    """Arrays of these: elements NULL, none at all, bounds of their own, several dimensions.

    Where one element is EXACT the whole is, and so is what is no list of one dimension that starts at 1.
    """

    def made(pairs: list[Pair], shape: int) -> Pair:
        values = [value for _, value in pairs]
        plain = arrays.literal(text for text, _ in pairs)
        if shape == 1 and pairs:
            return f"[{len(pairs)}:{2 * len(pairs) - 1}]={plain}", EXACT if len(pairs) > 1 else values
        if shape == 2 and pairs:
            return f"{{{plain},{plain}}}", EXACT
        return plain, EXACT if EXACT in values else values

    element = st.one_of(elements, elements, elements, st.just((None, None)))
    return st.builds(made, st.lists(element, max_size=5), st.sampled_from([0] * 6 + [1, 2])).map(_first_bound)


def _first_bound(pair: Pair) -> Pair:
    """`[1:1]={x}` says no more than `{x}`, which is what PostgreSQL prints."""
    text, expected = pair
    return pair if text is None or not text.startswith("[1:1]=") else (text, EXACT if EXACT in expected else expected)


dense = st.dates(datetime(1900, 1, 1).date(), datetime(2100, 1, 1).date())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | words_only,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words_only, inner, max_size=3),
    max_leaves=5,
)
intervals = st.tuples(st.integers(-9999, 9999), st.integers(-9999, 9999), st.timedeltas(timedelta(-9), timedelta(9)))
clock_times = st.one_of(st.times().map(str), st.just("24:00:00"))


def spaced(value: Any) -> str:
    """JSON as somebody may have written it: json keeps the spelling, jsonb does not."""
    return f' {{"b":{json.dumps(value, ensure_ascii=False)},  "a" : 1.0, "a":2}}\n'


def _positive(pair: Pair) -> Pair:
    text, value = pair
    if value is EXACT:
        return pair
    return (str(text).lstrip("-"), abs(value)) if value else ("1.00", Decimal("1.00"))


def _to_the_millisecond(text: str) -> Pair:
    whole = f"{text[:19]}.125"
    return whole, datetime.fromisoformat(whole)


def _lexeme(word: str) -> str:
    return "'" + (word.replace("\\", "\\\\").replace("'", "''")) + "'"


def _in_composite(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '""') + '"'


int_ranges = ranges(st.integers(-(2**31), 2**31 - 2))
long_ranges = ranges(st.integers(-(2**62), 2**62))
num_ranges = ranges(st.integers(-(10**20), 10**20))
stamp_ranges = ranges(seconds.map(lambda s: f'"{s}"'))
zoned_ranges = ranges(seconds.map(lambda s: f'"{s}+00"'))
date_ranges = ranges(dense.map(str))
texts = exactly(odd_words)

CASES: tuple[Case, ...] = (
    Case("bool", "bool", bools()),
    Case("int2", "int2", integers(-(2**15), 2**15 - 1)),
    Case("int4", "int4", integers(-(2**31), 2**31 - 1)),
    Case("int8", "int8", integers(-(2**63), 2**63 - 1)),
    Case("oid", "int8", integers(0, 2**32 - 1)),
    Case("float4", "float4", floats(32)),
    Case("float8", "float8", floats(64)),
    Case("numeric(12,2)", "decimal(12,2)", decimals(12, 2)),
    Case("numeric(38,10)", "decimal(38,10)", decimals(38, 10)),
    Case("numeric(38,38)", "decimal(38,38)", decimals(38, 38)),
    Case("numeric(5)", "decimal(5,0)", decimals(5, 0)),
    Case("numeric", "text", st.decimals().map(lambda d: (str(d).lstrip("-s"), AS_TEXT))),
    Case("numeric(50,3)", "text", integers(-(10**47) + 1, 10**47 - 1).map(lambda p: (p[0], f"{p[0]}.000"))),
    Case("numeric(3,-2)", "text", integers(-999, 999).map(lambda p: (f"{p[0]}00", AS_TEXT)), since=15),
    Case("money", "text", built(st.integers(-(2**63), 2**63 - 1), lambda n: str(Decimal(n) / 100))),
    Case("text", "text", texts),
    Case("varchar(40)", "text", texts),
    Case("bpchar(12)", "text", built(odd_words)),
    Case('"char"', "text", st.sampled_from("aZ\\").map(lambda c: (c, AS_TEXT))),
    Case("name", "text", texts),
    Case("bytea", "bytes", hexes),
    Case("date", "date", dates),
    Case("timestamp", "timestamp", stamps),
    Case("timestamptz", "timestamptz", stamptzs),
    Case("timestamp(3)", "timestamp", seconds.map(_to_the_millisecond)),
    Case("time", "text", built(clock_times)),
    Case("timetz", "text", built(st.tuples(clock_times, st.sampled_from(["-03:30", "+00", "+14"])), "".join)),
    Case("interval", "text", built(intervals, lambda i: f"{i[0]} mons {i[1]} days {i[2].total_seconds()} seconds")),
    Case("interval", "text", texts_of("infinity", "-infinity"), since=17, alone=True),
    Case("uuid", "text", exactly(st.uuids().map(str))),
    Case("json", "text", exactly(json_values.map(spaced))),
    Case("jsonb", "text", built(json_values, spaced)),
    Case("jsonpath", "text", texts_of("$.a[*] ? (@ > 1)", 'strict $."b c".size()', "$")),
    Case("xml", "text", texts_of('<a b="1">é &amp; <c/></a>', "text only", "<?xml version='1.0'?><r/>")),
    Case("bit(5)", "text", exactly(st.text(st.sampled_from("01"), min_size=5, max_size=5))),
    Case("varbit", "text", exactly(bits)),
    Case("inet", "text", built(st.ip_addresses() | st.sampled_from(["10.0.0.1/8", "::1/64"]))),
    Case("cidr", "text", texts_of("10.0.0.0/8", "192.168.100.128/25", "2001:4f8:3:ba::/64", "0.0.0.0/0")),
    Case("macaddr", "text", built(st.binary(min_size=6, max_size=6), lambda b: b.hex(":"))),
    Case("macaddr8", "text", built(st.binary(min_size=8, max_size=8), lambda b: b.hex(":"))),
    Case("point", "text", built(points)),
    Case("lseg", "text", built(st.tuples(points, points), lambda p: f"[{p[0]},{p[1]}]")),
    Case("path", "text", built(st.lists(points, min_size=1, max_size=4), lambda p: f"[{','.join(p)}]")),
    Case("box", "text", built(st.tuples(points, points), lambda p: f"{p[0]},{p[1]}"), alone=True),
    Case("polygon", "text", built(st.lists(points, min_size=1, max_size=4), lambda p: f"({','.join(p)})")),
    Case("line", "text", texts_of("{1,-2,3}", "{0,1,-1e-7}", "{0.1,0.2,0.3}")),
    Case("circle", "text", built(st.tuples(points, st.floats(0, 1e6)), lambda c: f"<{c[0]},{c[1]!r}>")),
    Case("tsvector", "text", built(st.lists(odd_words.filter(bool), max_size=4), lambda w: " ".join(map(_lexeme, w)))),
    Case("tsquery", "text", texts_of("fat & (rat | !'it''s')", "a <-> b:*", "'two words':AB")),
    Case("int4range", "text", int_ranges),
    Case("int8range", "text", long_ranges),
    Case("numrange", "text", num_ranges),
    Case("tsrange", "text", stamp_ranges),
    Case("tstzrange", "text", zoned_ranges),
    Case("daterange", "text", date_ranges),
    Case("int4multirange", "text", multiranges(int_ranges)),
    Case("int8multirange", "text", multiranges(long_ranges)),
    Case("nummultirange", "text", multiranges(num_ranges)),
    Case("tsmultirange", "text", multiranges(stamp_ranges)),
    Case("tstzmultirange", "text", multiranges(zoned_ranges)),
    Case("datemultirange", "text", multiranges(date_ranges)),
    Case("int2vector", "text", built(st.lists(st.integers(-9, 9), max_size=4), lambda n: " ".join(map(str, n)))),
    Case("oidvector", "text", built(st.lists(st.integers(0, 2**32 - 1), max_size=4), lambda n: " ".join(map(str, n)))),
    Case("tid", "text", built(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 99)), lambda t: f"({t[0]},{t[1]})")),
    Case("xid", "text", built(st.integers(0, 2**32 - 1))),
    Case("cid", "text", built(st.integers(0, 2**32 - 1))),
    Case("xid8", "text", built(st.integers(0, 2**64 - 1))),
    Case("pg_lsn", "text", built(st.integers(0, 2**64 - 1), lambda n: f"{n >> 32:X}/{n & 0xFFFFFFFF:X}")),
    Case("pg_snapshot", "text", texts_of("10:20:10,14,15", "9:9:")),
    Case("regclass", "text", texts_of("pg_catalog.pg_class", "information_schema.columns", "pg_catalog.pg_type")),
    Case("regtype", "text", texts_of("pg_catalog.int4", "timestamptz", "information_schema.sql_identifier")),
    Case("regproc", "text", texts_of("pg_catalog.now", "-")),
    # types of no row
    Case("mood", "text", texts_of("sad", "ok", 'it\'s "fine", {x}', "é😀")),
    Case("pair", "text", built(st.tuples(numbers, odd_words), lambda p: f"({p[0]},{_in_composite(p[1])})")),
    Case("floatrange", "text", ranges(st.floats(-1e9, 1e9))),
    Case("amount", "decimal(12,2)", decimals(12, 2)),
    Case("positive", "decimal(12,2)", decimals(12, 2).map(_positive)),
    Case("label", "text", texts),
    Case("grades", "list<int4>", lists(integers(-9, 9)), alone=True),
    Case("tempers", "text", texts_of("sad", "ok")),
    Case("instant", "timestamptz", stamptzs),
    Case("hstore", "text", texts_of("a=>1", '"b c"=>NULL, "\\"q"=>"x,y"', "")),
    Case("ltree", "text", texts_of("Top.Science.Astronomy", "a", "")),
    Case("citext", "text", exactly(odd_words)),
    Case("cube", "text", texts_of("(1,2),(3,4.5)", "(0)")),
    Case("isbn13", "text", texts_of("978-0-393-04002-9")),
)  # fmt: skip


def row_of(case: Case) -> str:
    """The row of TYPES that a case is about: its name without a modifier."""
    found = re.match(r'"?(\w+)', case.type)
    assert found is not None
    return found[1]


def array_of(case: Case) -> Case:
    """The case of its arrays."""
    return Case(f"{case.type}[]", f"list<{case.kind}>", lists(case.values), since=case.since)


def book(postgres: Any) -> list[Case]:
    """The cases that a server can have, their arrays among them; makes the types that they need in its database."""
    postgres.execute(SETUP)
    lacking = _extended(postgres) | (set() if _reads_xml(postgres) else {"xml"})
    version = postgres.conn.info.server_version // 10000
    cases = [c for c in CASES if c.since <= version and c.type not in lacking]
    return [*cases, *(array_of(c) for c in cases if not c.alone)]


def of_each_kind(cases: Iterable[Case]) -> list[Case]:
    """The first case of each kind: enough where each further type is only one more text to an engine."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.kind, case)
    return list(first.values())


def _extended(postgres: Any) -> set[str]:
    """Makes the extensions that there are; the types of the others."""
    there = {name for (name,) in postgres.execute("SELECT name FROM pg_available_extensions")}
    for name in there & {*EXTENSIONS}:
        postgres.execute(f"CREATE EXTENSION {name}")
    return {"isbn13" if name == "isn" else name for name in {*EXTENSIONS} - there}


def _reads_xml(postgres: Any) -> bool:
    """Not every PostgreSQL was built with libxml."""
    try:
        return bool(postgres.execute("SELECT '<a/>'::xml IS NOT NULL")[0][0])
    except psycopg.errors.FeatureNotSupported:
        return False


def drawn(values: Values, count: int, start: int) -> list[Pair]:
    """Values of a case, the same ones for the same start."""
    found: list[Pair] = []

    @seed(start)
    @settings(
        max_examples=count, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(values)
    def collect(pair: Pair) -> None:
        found.append(pair)

    collect()
    return found[:count]


def filled(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """As many, NULL among them: where there are too few distinct values, some come again."""
    some = [(None, None), *pairs]
    return [some[n % len(some)] for n in range(count)]
