"""Arrow from PostgreSQL's text: one cast per kind, a whole column at once.

The ordinary values go through Arrow's own parsers. Where a column holds something its kind cannot (infinity, BC, a year
beyond 9999, NaN in a decimal, an odd array), the parser refuses, and only then those rows are looked at: they get a
stand-in, and their text is returned beside the column as `exact`.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.errors import Unsupported
from claimhouse.postgres import arrays
from claimhouse.table import Column, arrow_type

Cast = tuple[pa.Array, pa.Array | None]

_NO_TEXT = pa.scalar(None, pa.string())
_FIRST = datetime(1, 1, 1)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999999)
_STAND_INS = {
    "date": (date(1, 1, 1), date(9999, 12, 31)),
    "timestamp": (_FIRST, _LAST),
    "timestamptz": (_FIRST.replace(tzinfo=UTC), _LAST.replace(tzinfo=UTC)),
}


def cast(text: pa.Array, column: Column) -> Cast:
    """A column of PostgreSQL's text as Arrow of the column's kind; NULL stays NULL.

    Returns (typed, exact): `exact` holds the text where `typed` does not hold the value but a stand-in (0001-01-01,
    9999-12-31 23:59:59.999999, or NULL), and is None if there is no such row. Raises Unsupported, without the value.
    """
    try:
        return _cast(text, column.kind)
    except (pa.ArrowInvalid, ValueError):
        raise Unsupported(
            f"column {column.name} ({column.type}) holds a value that cannot be kept as {column.kind}",
            hint="the table's shape in the lake and in PostgreSQL differ; copy the table anew",
        ) from None


def _cast(text: pa.Array, kind: str) -> Cast:
    match kind:
        case "text":
            text.validate(full=True)  # a SQL_ASCII database sends what it likes
            return text, None
        case "bool":
            return _bools(text), None
        case "bytes":
            return _bytes(text), None
        case "date" | "timestamp" | "timestamptz":
            return _moments(text, kind)
        case _ if kind.startswith("decimal"):
            return _decimals(text, arrow_type(kind))
        case _ if kind.startswith("list<"):
            return _lists(text, kind[5:-1])
        case _:
            return text.cast(arrow_type(kind)), None


def _bools(text: pa.Array) -> pa.Array:
    yes = pc.equal(text, "t")
    if not pc.all(pc.or_(yes, pc.equal(text, "f"))).as_py() and text.null_count < len(text):
        raise ValueError("neither t nor f")
    return yes


def _decimals(text: pa.Array, type_: pa.DataType) -> Cast:
    try:
        return text.cast(type_), None
    except pa.ArrowInvalid:
        odd = pc.is_in(text, pa.array(["NaN", "Infinity", "-Infinity"]))
        return pc.if_else(odd, _NO_TEXT, text).cast(type_), pc.if_else(odd, text, _NO_TEXT)


def _moments(text: pa.Array, kind: str) -> Cast:
    type_ = arrow_type(kind)
    try:
        return text.cast(type_), None
    except pa.ArrowInvalid:
        low = pc.match_substring_regex(text, r"^(-infinity|[0-9]{4,}-.* BC)$")
        high = pc.match_substring_regex(text, r"^(infinity|[0-9]{5,}-.*[0-9])$")
        odd = pc.or_(low, high)
        first, last = (pa.scalar(moment, type_) for moment in _STAND_INS[kind])
        typed = pc.if_else(odd, _NO_TEXT, text).cast(type_)
        typed = pc.if_else(low, first, pc.if_else(high, last, typed))
        return typed, pc.if_else(odd, text, _NO_TEXT)


# hex digit -> its value, anything else 255
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_NIBBLE[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def _bytes(text: pa.Array) -> pa.Array:
    """`\\x01ff` for a whole column: each value, prefix included, is a run of two-character cells."""
    if not len(text):
        return pa.array([], pa.binary())
    present = text.is_valid().to_numpy(zero_copy_only=False)
    full = pc.fill_null(text, "\\x")
    starts = np.frombuffer(full.buffers()[1], np.int32)[full.offset : full.offset + len(full) + 1]
    cells = np.frombuffer(full.buffers()[2], np.uint8)[starts[0] : starts[-1]]
    starts = starts - starts[0]
    lengths = np.diff(starts)
    if (lengths & 1).any() or (lengths < 2).any():
        raise ValueError("not in hex")
    pairs = cells.reshape(-1, 2)
    prefix = starts[:-1] >> 1
    body = np.ones(len(pairs), bool)
    body[prefix] = False
    nibbles = _NIBBLE[pairs[body]]
    if (pairs[prefix] != np.frombuffer(b"\\x", np.uint8)).any() or (nibbles == 255).any():
        raise ValueError("not in hex")
    ends = (starts >> 1) - np.arange(len(starts), dtype=np.int32)
    data = nibbles[:, 0] << 4 | nibbles[:, 1]
    return pa.Array.from_buffers(pa.binary(), len(text), [_bitmap(present), pa.py_buffer(ends), pa.py_buffer(data)])


def _bitmap(present: np.ndarray) -> pa.Buffer | None:
    return None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))


def _lists(text: pa.Array, kind: str) -> Cast:
    lists, odd = arrays.split(text, words=kind == "text")
    values, exact = _cast(lists.values, kind)
    nulls = lists.is_null().to_numpy(zero_copy_only=False)
    if exact is not None:
        inexact = np.flatnonzero(exact.is_valid().to_numpy(zero_copy_only=False))
        rows = np.searchsorted(lists.offsets.to_numpy(), inexact, side="right") - 1
        odd = odd.copy()
        odd[rows] = True
    typed = pa.ListArray.from_arrays(lists.offsets, values, mask=pa.array(nulls | odd))
    return typed.cast(pa.list_(values.type)), pc.if_else(pa.array(odd), text, _NO_TEXT) if odd.any() else None
