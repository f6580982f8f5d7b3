"""PostgreSQL's text from the lake's values: the way back, by other means than the way in.

`verify` compares what it renders here with what PostgreSQL prints. Floats have several spellings, so they are compared
as numbers, bit by bit (NaN equals NaN, -0 is not 0).
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from claimhouse.postgres import arrays
from claimhouse.table import Column

SPECIAL = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)], "S2").view(np.uint8).reshape(256, 2)


def render(values: pa.Array, exact: pa.Array | None, column: Column) -> pa.Array:
    """The text that PostgreSQL prints for a lake column's values (string array, NULL stays NULL).

    `exact` is the column's part of `_exact`: where it is not NULL, it is the text. Floats get one of their spellings.
    """
    text = _render(values, column.kind)
    return text if exact is None else pc.coalesce(exact, text)


def same_text(values: pa.Array, exact: pa.Array | None, text: pa.Array, column: Column) -> pa.Array:
    """Which rows (bool, never NULL) hold in the lake what PostgreSQL prints as `text`; NULL equals NULL only."""
    kind = column.kind
    if kind in ("float4", "float8"):
        return pa.array(_bits(values.to_pylist(), kind) == _bits(text.to_pylist(), kind))
    if kind in ("list<float4>", "list<float8>"):
        return pa.array(_same_lists(values, exact, text, kind[5:-1]))
    rendered = render(values, exact, column)
    equal = pc.fill_null(pc.equal(rendered, text), False)
    return pc.or_(equal, pc.and_(rendered.is_null(), text.is_null()))


def _render(values: pa.Array, kind: str) -> pa.Array:
    match kind:
        case "text":
            return values.cast(pa.string())
        case "bool":
            return pc.if_else(values, "t", "f")
        case "bytes":
            return hexadecimal(values)
        case "timestamp" | "timestamptz":
            plain = values.cast(pa.timestamp("us")).cast(pa.string())
            trimmed = pc.utf8_rtrim(pc.utf8_rtrim(plain, characters="0"), characters=".")
            return trimmed if kind == "timestamp" else pc.binary_join_element_wise(trimmed, "+00", "")
        case "float4" | "float8":
            return floats(values)
        case _ if kind.startswith("decimal"):
            return digits(values)
        case _ if kind.startswith("list<"):
            return _literals(values, kind[5:-1])
        case _:
            return values.cast(pa.string())


def digits(values: pa.Array) -> pa.Array:
    """Decimals with all their digits. Arrow writes small ones with an exponent: only those are written by Python."""
    text = values.cast(pa.string())
    short = pc.fill_null(pc.match_substring(text, "E"), False)
    if not pc.any(short).as_py():
        return text
    return pc.replace_with_mask(
        text, short, pa.array([f"{v:f}" for v in values.filter(short).to_pylist()], pa.string())
    )


def floats(values: pa.Array) -> pa.Array:
    """Floats, what is no number by PostgreSQL's words."""
    text = values.cast(pa.string())
    for arrow, postgres in SPECIAL.items():
        text = pc.if_else(pc.equal(text, arrow), postgres, text)
    return text


def hexadecimal(values: pa.Array) -> pa.Array:
    """Bytes as `\\x01ff`."""
    compact = pa.concat_arrays([values.cast(pa.binary()), pa.array([b""], pa.binary())])  # always offset 0, with data
    offsets = np.frombuffer(compact.buffers()[1], np.int32)[: len(values) + 1]
    data = np.frombuffer(compact.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    ends = (offsets - offsets[0]) * 2
    digits = pa.py_buffer(np.ascontiguousarray(_HEX[data]))
    text = pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(ends.astype(np.int32)), digits])
    text = pc.binary_join_element_wise("\\x", text, "")
    return pc.if_else(values.is_valid(), text, pa.scalar(None, pa.string()))


def _literals(values: pa.Array, kind: str) -> pa.Array:
    elements = _render(values.flatten(), kind).to_pylist()
    lengths = pc.fill_null(values.value_lengths(), 0).to_numpy()
    ends = np.cumsum(lengths).tolist()
    rows = zip(values.is_valid().to_pylist(), ends, lengths.tolist(), strict=True)
    texts = [arrays.literal(elements[end - length : end]) if valid else None for valid, end, length in rows]
    return pa.array(texts, pa.string())


def _bits(numbers: Sequence[float | str | None], kind: str) -> np.ndarray:
    """Floats, or their spellings, as integers that are equal where the floats are the same (n int64, n + 1 bits)."""
    type_, view = (np.float32, np.uint32) if kind == "float4" else (np.float64, np.uint64)
    floats = np.array([0.0 if n is None else float(n) for n in numbers], np.float64).astype(type_)
    bits = np.where(np.isnan(floats), np.array([np.nan], type_).view(view), floats.view(view)).astype(object)
    bits[[place for place, n in enumerate(numbers) if n is None]] = None
    return bits


def _same_lists(values: pa.Array, exact: pa.Array | None, text: pa.Array, kind: str) -> list[bool]:
    exacts = [None] * len(values) if exact is None else exact.to_pylist()
    return [_same_list(*row, kind) for row in zip(values.to_pylist(), exacts, text.to_pylist(), strict=True)]


def _same_list(value: list[float | None] | None, exact: str | None, text: str | None, kind: str) -> bool:
    if exact is not None or text is None or value is None:
        return exact == text and (exact is not None or value is None)
    wanted = arrays.parse(text)
    return wanted is not None and list(_bits(value, kind)) == list(_bits(wanted, kind))
