"""How one column of values is written as text: for JSON, and plainly for CSV and tables.

Works on whole Arrow columns; Python sees single values only where a type has no columnar way. Numbers keep all their
digits, moments are ISO 8601 with microseconds (and Z where they carry a zone), bytes are PostgreSQL's `\\x` hex,
`NaN` and `Infinity` are spelled as PostgreSQL spells them and are strings in JSON, which has no such numbers.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from claimhouse.postgres.render import SPECIAL, digits, floats, hexadecimal

pc: Any = pyarrow.compute  # its functions are made when it is imported, so checkers know none
_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def plain(values: pa.Array) -> pa.Array:
    """Each value as plain text (nested ones as JSON); NULL stays NULL."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if pa.types.is_string(kind):
        return values
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return hexadecimal(values)
    if pa.types.is_timestamp(kind):
        return _moments(values)
    if pa.types.is_date32(kind):
        return _far(values.cast(pa.int32()), values.cast(pa.string()), "D", (1 << 31) - 1)
    if pa.types.is_floating(kind):
        return floats(values)
    if pa.types.is_decimal(kind):
        return digits(values)
    if pa.types.is_nested(kind):
        return pc.if_else(pc.is_valid(values), as_json(values), pa.scalar(None, pa.string()))
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())


def single(value: object) -> Any:
    """One value of a row for a JSON document: what JSON has no word for is a text, as `plain` writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return SPECIAL[str(value)]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        text = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat("T", "microseconds")
        return text + ("Z" if value.tzinfo else "")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, list | tuple):
        return [single(v) for v in value]
    if isinstance(value, dict):
        return {str(k): single(v) for k, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def as_json(values: pa.Array) -> pa.Array:
    """Each value as a JSON text; NULL is `null`."""
    return pc.fill_null(_json(values), "null")


def _json(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _json(values.dictionary_decode())
    if pa.types.is_map(kind):
        return _json_map(values)
    if pa.types.is_struct(kind):
        parts = [as_json(pc.struct_field(values, [i])) for i in range(kind.num_fields)]
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return pc.if_else(pc.is_valid(values), objects(names, parts), pa.scalar(None, pa.string()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        joined = _joined(values, as_json(values.flatten()))
        return pc.binary_join_element_wise("[", joined, "]", "")
    text = plain(values)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return text
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(values), text, pc.binary_join_element_wise('"', text, '"', ""))
    return _quoted(text)


def objects(names: list[str], texts: list[pa.Array]) -> pa.Array:
    """JSON objects out of columns of JSON texts. A name that comes twice gets a number."""
    parts: list[Any] = []
    for place, (name, text) in enumerate(zip(unique(names), texts, strict=True)):
        parts += [("," if place else "{") + json.dumps(name, ensure_ascii=False) + ":", text]
    return pc.binary_join_element_wise(*parts, "}", "")


def unique(names: list[str]) -> list[str]:
    """The names, later ones of the same spelling with `_1`, `_2`…"""
    out: list[str] = []
    taken: set[str] = set()
    for name in names:
        wanted, number = name, 0
        while wanted in taken:
            number += 1
            wanted = f"{name}_{number}"
        taken.add(wanted)
        out.append(wanted)
    return out


def _json_map(values: pa.Array) -> pa.Array:
    entry = pa.struct([("key", values.type.key_type), ("value", values.type.item_type)])
    lists = values.cast(pa.list_(entry))
    entries = lists.flatten()
    keys = _quoted(plain(pc.struct_field(entries, [0])))
    pairs = pc.binary_join_element_wise(keys, as_json(pc.struct_field(entries, [1])), ":")
    return pc.binary_join_element_wise("{", _joined(lists, pairs), "}", "")


def _joined(lists: pa.Array, items: pa.Array) -> pa.Array:
    """The items of each list, comma-joined; `items` are those of all lists that are not NULL, in order."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("i4")
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), ",")
    return pc.if_else(pc.is_valid(lists), joined, pa.scalar(None, pa.string()))


def _quoted(text: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(text, r'[\x00-\x1f"\\]')).as_py():
        for raw, escaped in _ESCAPES:
            text = pc.replace_substring(text, raw, escaped)
        for code in range(32):
            if pc.any(pc.match_substring(text, chr(code))).as_py():
                text = pc.replace_substring(text, chr(code), f"\\u{code:04x}")
    return pc.binary_join_element_wise('"', text, '"', "")


def _moments(values: pa.Array) -> pa.Array:
    zone = values.type.tz
    unit = "ns" if values.type.unit == "ns" else "us"
    values = values.cast(pa.timestamp(unit))
    text = pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)
    text = pc.binary_join_element_wise(text, "Z", "") if zone else text
    return _far(values.cast(pa.int64()), text, unit, (1 << 63) - 1, "Z" if zone else "")


def _far(counts: pa.Array, text: pa.Array, unit: str, forever: int, end: str = "") -> pa.Array:
    """The texts, with those for which Arrow has none: DuckDB's infinity, and years beyond 32767."""
    odd = pc.fill_null(pc.match_substring(text, "out of range"), False)
    if not pc.any(odd).as_py():
        return text
    found = {forever: "infinity", -forever: "-infinity"}
    texts = [found.get(n) or f"{np.datetime64(n, unit)}{end}" for n in counts.filter(odd).to_pylist()]
    return pc.replace_with_mask(text, odd, pa.array(texts, pa.string()))
