"""PostgreSQL's array literals, `{1,NULL,"a b"}`: taken apart for the lake, and put together again for `verify`.

Most literals are plain (no quotes inside) and are split for a whole column at once; only the others meet the parser
below, row by row. A list in the lake has one dimension that starts at 1: what has more, or starts elsewhere, is None
here and keeps its text in `_exact`.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}]*)', re.DOTALL)
_QUOTED = re.compile(r"""[\s{},"\\]""", re.ASCII)
_PLAIN = r'^\{[^{}"\\]*\}$'


def parse(literal: str) -> list[str | None] | None:
    """The elements of a literal; None where it has several dimensions or bounds of its own.

    Raises ValueError where the text is no array literal.
    """
    if literal.startswith("["):
        return None
    if not (literal.startswith("{") and literal.endswith("}")):
        raise ValueError("not an array literal")
    if literal == "{}":
        return []
    if literal[1] == "{":
        return None
    elements: list[str | None] = []
    place, end = 1, len(literal) - 1
    while True:
        token = _TOKEN.match(literal, place, end)
        if token is None:  # cannot be: the pattern matches the empty string
            raise ValueError("not an array literal")
        quoted, bare = token.groups()
        if quoted is not None:
            elements.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            elements.append(None if bare.upper() == "NULL" else bare)
        place = token.end()
        if place == end:
            return elements
        if literal[place] != ",":
            raise ValueError("not an array literal")
        place += 1


def literal(elements: Iterable[str | None]) -> str:
    """The literal that PostgreSQL prints for these elements."""
    return "{" + ",".join("NULL" if e is None else _quote(e) for e in elements) + "}"


def _quote(element: str) -> str:
    if element and element.upper() != "NULL" and not _QUOTED.search(element):
        return element
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


def split(text: pa.Array, *, words: bool) -> tuple[pa.ListArray, np.ndarray]:
    """Literals, as lists of text; and which rows (bool, n) are no list: several dimensions, bounds of their own.

    `words`: elements are free text. Elements of other kinds hold neither comma nor quote nor brace themselves, so that
    their quotes are simply dropped. Raises ValueError.
    """
    plain_text = text
    if not words:
        plain_text = pc.replace_substring(pc.replace_substring(text, '"', ""), "\\\\", "\\")
        plain = pc.match_substring_regex(plain_text, r"^\{[^{}]*\}$")
    else:
        plain = pc.match_substring_regex(text, _PLAIN)
    others = np.flatnonzero(pc.fill_null(pc.invert(plain), False).to_numpy(zero_copy_only=False))
    lists = _split_plain(pc.if_else(plain, plain_text, pa.scalar(None, pa.string())))
    odd = np.zeros(len(text), bool)
    if not len(others):
        return lists, odd
    parsed = [parse(value) for value in text.take(pa.array(others)).to_pylist()]
    odd[others] = [p is None for p in parsed]
    places = np.arange(len(text))
    places[others] = len(text) + np.arange(len(others))
    both = pa.concat_arrays([lists, pa.array(parsed, pa.list_(pa.string()))])
    return both.take(pa.array(places)), odd


def _split_plain(text: pa.Array) -> pa.ListArray:
    """Lists of plain literals; NULL stays NULL. An empty piece can only stand for an empty array."""
    pieces = pc.split_pattern(pc.utf8_slice_codeunits(text, 1, -1), ",")
    values = pieces.values
    ends = pieces.offsets.to_numpy()
    empty = pc.equal(values, "")
    if pc.any(empty).as_py():
        gone = np.concatenate([[0], np.cumsum(empty.to_numpy(zero_copy_only=False))])
        ends = (ends - gone[ends]).astype(np.int32)
        values = values.filter(pc.invert(empty))
    values = pc.if_else(pc.equal(values, "NULL"), pa.scalar(None, pa.string()), values)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=pieces.is_null())
