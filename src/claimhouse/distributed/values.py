"""PostgreSQL's text from Debezium's, a column at a time, so that both runtimes cast the same text by the same cast.

Debezium decodes a value before it writes it, so its spelling differs from PostgreSQL's, by type: dates end in Z, bytea
is bare hex, arrays are JSON, an interval is ISO 8601, infinity in a date is a far day. What is written below is the way
back. Ordinary types go through Arrow's string functions; the rare ones through Python, once per distinct value.

What Debezium does not keep, no way back restores: `loses` tells it, and a table that has such a column says so.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.table import Column

NOT_CARRIED = ("interval[]", "money[]")
_NUMERIC, _BIT, _VARBIT, _TIME, _TIMETZ, _INTERVAL, _POINT = 1700, 1560, 1562, 1083, 1266, 1186, 600
_DATE, _TIMESTAMP, _TIMESTAMPTZ, _BYTEA, _BOOL = 1082, 1114, 1184, 17, 16
HEX = 0  # stands for a type that Debezium does not know: it comes as the hex of PostgreSQL's text
TEXT = 25
# Built-in types that Debezium knows; `wire_type` says what any other type comes as.
_WORDS = """16 17 18 19 20 21 23 25 26 114 142 600 650 700 701 774 790 829 869 1042 1043 1082 1083 1114 1184 1186 1266
1560 1562 1700 2950 3614 3802 3904 3906 3908 3910 3912 3926"""
KNOWN = frozenset(map(int, _WORDS.split()))
KNOWN_BY_NAME = frozenset(("citext", "ltree", "hstore"))
_LOSES = {
    _TIME: "24:00:00 arrives as 00:00:00",
    _TIMETZ: "the offset, values arrive in UTC",
    _VARBIT: "leading zeros",
    790: "the currency sign and grouping",
}
_GEOMETRY = ("box", "path", "polygon", "line", "lseg", "circle")
# PGStatement's far days, which stand for infinity.
_DATES = {
    "+5877611-06-21Z": "infinity",
    "-5877611-06-22Z": "-infinity",
    "+292278994-08-16Z": "infinity",
    "-292275055-05-16Z": "-infinity",
}
_SPECIAL = {"NAN": "NaN", "POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}
_PLAIN_MOMENT = r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:(\.\d*?[1-9])0*|\.0*)?Z$"


def loses(column: Column, wire: int) -> str | None:
    """What streamed values of a column lack, in words; None where nothing. `wire` is that of `source_text`."""
    if column.type in NOT_CARRIED:
        return "every value, the column does not come"
    if column.type.removesuffix("[]") in _GEOMETRY:
        return "PostgreSQL's spelling, it arrives as geometry"
    lost = [_LOSES[wire]] if wire in _LOSES else []
    if column.type.endswith("[]"):
        lost.append("lower bounds other than 1 and further dimensions")
    return "; ".join(lost) or None


def source_text(values: pa.Array, column: Column, wire: int) -> pa.Array:
    """A column of Debezium's text as PostgreSQL prints it (NULL stays NULL).

    `wire` is the type that Debezium took it for (a domain's base type; of a list its element's), or HEX.
    """
    if column.kind.startswith("list<"):
        return _each(values, lambda text: _array(text, column, wire))
    if wire == HEX:
        return _each(values, _unhex)
    if wire in _PLAIN:
        return _PLAIN[wire](values)
    if wire in _RARE:
        return _each(values, lambda text: _RARE[wire](text, column))
    return values


def _bool(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(values, "true"), "t", pc.if_else(pc.equal(values, "false"), "f", values))


def _bytes(values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise("\\x", values, "")


def _numeric(values: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(values, "[A-Z]{3}")).as_py():
        return values
    return _each(values, lambda text: _SPECIAL.get(text, text))


def _moments(values: pa.Array, zone: str) -> pa.Array:
    """`2026-01-02T03:04:05.120Z` → `2026-01-02 03:04:05.12` + zone."""
    plain = pc.replace_substring_regex(values, _PLAIN_MOMENT, r"\1 \2\3" + zone)
    odd = pc.match_substring_regex(plain, r"^[+-]|^0000|Z$|^\d{4}-\d\d-\d\dT")
    if not pc.any(odd).as_py():
        return plain
    return pc.if_else(odd, _each(pc.if_else(odd, values, None), lambda t: _odd_moment(t, zone)), plain)


def _dates(values: pa.Array) -> pa.Array:
    plain = pc.replace_substring_regex(values, r"^(\d{4}-\d\d-\d\d)Z$", r"\1")
    odd = pc.match_substring_regex(plain, r"^[+-]|^0000|Z$")
    if not pc.any(odd).as_py():
        return plain
    return pc.if_else(odd, _each(pc.if_else(odd, values, None), lambda t: _DATES.get(t) or _odd_moment(t, "")), plain)


_MOMENT = re.compile(r"([+-]?)(\d+)-(\d\d)-(\d\d)(?:T(\d\d:\d\d)(:\d\d)?(\.\d+)?)?Z")


def _odd_moment(text: str, zone: str) -> str:
    """A moment outside years 1 … 9999, or infinity."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return text
    sign, digits, month, day, clock, seconds, fraction = found.groups()
    year = -int(digits) if sign == "-" else int(digits)
    if abs(year) > 290_000_000 // 1000 and abs(year) > 294_277:
        return "infinity" if year > 0 else "-infinity"
    fraction = (fraction or "").rstrip("0").rstrip(".")
    rest = f" {clock}{seconds or ':00'}{fraction}{zone}" if clock else ""
    return f"{year if year > 0 else 1 - year:04d}-{month}-{day}{rest}" + ("" if year > 0 else " BC")


def _time(text: str, column: Column) -> str:
    zone = "+00" if column.type.startswith("timetz") or "with time zone" in column.type.split("without")[0] else ""
    body = text.removesuffix("Z")
    body = body if body.count(":") == 2 else body + ":00"
    return (body.rstrip("0").rstrip(".") if "." in body else body) + zone


_ISO = re.compile(r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?)S)?)?")


def _interval(text: str, _: Column) -> str:
    """`P0Y10M3DT4H5M6.7S` → `10 mons 3 days 04:05:06.7`, as IntervalStyle postgres has it."""
    found = _ISO.fullmatch(text)
    if found is None:
        return text
    years, months, days, hours, minutes = (int(g or 0) for g in found.groups()[:5])
    months += 12 * years
    micros = (hours * 60 + minutes) * 60_000_000 + round(float(found[6] or 0) * 1e6)
    sign = -1 if months < 0 else 1
    words: list[str] = []
    before = False  # whether the field before was negative: then a positive one shows its sign
    for number, unit in ((sign * (abs(months) // 12), "year"), (sign * (abs(months) % 12), "mon"), (days, "day")):
        if number:
            words.append(f"{'+' if before and number > 0 else ''}{number} {unit}{'' if number == 1 else 's'}")
            before = number < 0
    if micros or not words:
        hours, rest = divmod(abs(micros), 3_600_000_000)
        minutes, rest = divmod(rest, 60_000_000)
        seconds, rest = divmod(rest, 1_000_000)
        fraction = f".{rest:06d}".rstrip("0").rstrip(".") if rest else ""
        mark = "-" if micros < 0 else "+" if before else ""
        words.append(f"{mark}{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}")
    return " ".join(words)


def _bits(text: str, column: Column) -> str:
    if text in {"true", "false"}:  # bit(1)
        return "1" if text == "true" else "0"
    number = int.from_bytes(bytes.fromhex(text) if _is_hex(text) else base64.b64decode(text), "little")
    return f"{number:0{max(column.typmod, 1) if not column.type.startswith('bit varying') else 1}b}"


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)


def _point(text: str, _: Column) -> str:
    value = json.loads(text)
    return f"({_short(value['x'])},{_short(value['y'])})"


def _short(number: float) -> str:
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _unhex(text: str) -> str:
    try:
        return bytes.fromhex(text).decode()
    except ValueError:
        return text


def _hstore(text: str, _: Column) -> str:
    words = {k: "NULL" if v is None else json.dumps(str(v), ensure_ascii=False) for k, v in json.loads(text).items()}
    return ", ".join(f"{json.dumps(k, ensure_ascii=False)}=>{v}" for k, v in words.items())


def _array(text: str, column: Column, wire: int) -> str:
    """`["a",null]` → `{a,NULL}`, elements spelled as PostgreSQL spells them."""
    items = json.loads(text)
    return "{" + ",".join("NULL" if i is None else _quoted(_element(i, column, wire)) for i in items) + "}"


def _element(value: Any, column: Column, wire: int) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    text = json.dumps(value, separators=(",", ":")) if isinstance(value, dict | list) else str(value)
    if wire == HEX:
        return _unhex(text)
    if wire in _PLAIN:
        return _PLAIN[wire](pa.array([text])).to_pylist()[0]
    return _RARE[wire](text, column) if wire in _RARE else text


_BARE = re.compile(r'[^\s{},"\\]+')


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text) and text.upper() != "NULL":
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _each(values: pa.Array, one: Callable[[str], str]) -> pa.Array:
    """A Python function over the distinct values of a column."""
    encoded = values.dictionary_encode()
    words = pa.array([one(v) for v in encoded.dictionary.to_pylist()], pa.string())
    return words.take(encoded.indices)


_PLAIN: dict[int, Callable[[pa.Array], pa.Array]] = {
    _BOOL: _bool,
    _BYTEA: _bytes,
    _NUMERIC: _numeric,
    _DATE: _dates,
    _TIMESTAMP: lambda v: _moments(v, ""),
    _TIMESTAMPTZ: lambda v: _moments(v, "+00"),
}
_RARE: dict[int, Callable[[str, Column], str]] = {
    _TIME: _time,
    _TIMETZ: _time,
    _INTERVAL: _interval,
    _BIT: _bits,
    _VARBIT: _bits,
    _POINT: _point,
}
