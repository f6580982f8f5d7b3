"""Writes an answer in the format that was asked for, batch by batch: memory follows the batch, not the answer.

`FORMATS` is the list that the command line offers. Data formats (json, csv, parquet, arrow) hold every digit; the two
for people (table, markdown) show control characters as visible escapes, so that no row can drive a terminal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from claimhouse.errors import UsageError
from claimhouse.query import render
from claimhouse.query.render import pc

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LONGEST_CELL = 100  # characters of a value in a table for people
_VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write(
    reader: pa.RecordBatchReader,
    name: str,
    out: BinaryIO,
    *,
    escape_formulas: bool = False,
    cut: list[str] | None = None,
) -> int:
    """Write all batches in the named format; returns the number of rows.

    `escape_formulas` puts an apostrophe before text of a CSV that a spreadsheet would run (OWASP). A table shows a
    hundred characters of a value: columns that hold longer ones go into `cut`.
    Raises UsageError for an unknown format.
    """
    if name not in FORMATS:
        raise UsageError(f"no format is called {name}", hint="one of: " + ", ".join(FORMATS))
    if name == "csv":
        return write_csv(reader, out, escape_formulas=escape_formulas)
    if name == "table":
        return write_table(reader, out, cut)
    return FORMATS[name](reader, out)


def write_json(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    """An array of objects, one a line. Decimals and integers are full-digit numbers; NaN and infinities are strings."""
    rows = 0
    names = reader.schema.names
    out.write(b"[")
    for batch in reader:
        if batch.num_rows:
            lines = render.objects(names, [render.as_json(c) for c in batch.columns])
            out.write(b",\n" if rows else b"\n")
            out.write(_lines(lines, ",\n"))
            rows += batch.num_rows
    out.write(b"\n]\n")
    return rows


def write_csv(reader: pa.RecordBatchReader, out: BinaryIO, *, escape_formulas: bool = False) -> int:
    """RFC 4180 with a header line. NULL is nothing, an empty text is `""`."""
    rows = 0
    header = [_csv_field(pa.array([n], pa.string()), escape_formulas)[0].as_py() for n in reader.schema.names]
    out.write((",".join(header) + "\r\n").encode())
    for batch in reader:
        if not batch.num_rows:
            continue
        fields = [_csv_field(render.plain(c), escape_formulas and not _is_number(c.type)) for c in batch.columns]
        lines = fields[0] if len(fields) == 1 else pc.binary_join_element_wise(*fields, ",")
        out.write(_lines(lines, "\r\n") + b"\r\n")
        rows += batch.num_rows
    return rows


def _csv_field(text: pa.Array, escape_formulas: bool) -> pa.Array:
    if escape_formulas:
        risky = pc.match_substring_regex(text, "^[=+\\-@\t\r\n\\x00＝＋－＠]")  # full width too
        text = pc.if_else(risky, pc.binary_join_element_wise("'", text, ""), text)
    quoting = pc.or_(pc.equal(text, ""), pc.match_substring_regex(text, '[",\r\n]'))
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.fill_null(pc.if_else(quoting, quoted, text), "")


def _lines(lines: pa.Array, between: str) -> bytes:
    """The rows' texts, joined. Rows of one batch, so they fit in memory."""
    return pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), between)[0].as_buffer().to_pybytes()


def write_parquet(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    """One Parquet file with the answer's own types."""
    rows = 0
    with pq.ParquetWriter(_Counting(out), reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_arrow(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    """An Arrow IPC stream."""
    rows = 0
    with pa.ipc.new_stream(_Counting(out), reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_table(reader: pa.RecordBatchReader, out: BinaryIO, cut: list[str] | None = None) -> int:
    """Aligned text for people; the first batch decides the widths. Columns whose values were cut go into `cut`."""
    names = [_visible(n) for n in reader.schema.names]
    right = [_is_number(f.type) for f in reader.schema]
    widths = [_width(n) for n in names]
    rows = 0
    for batch in reader:
        cells = [_cells(c) for c in batch.columns]
        for place, column in enumerate(cells):
            if any(len(value) > LONGEST_CELL for value in column):
                cells[place] = [_short(value) for value in column]
                if cut is not None and names[place] not in cut:
                    cut.append(names[place])
        if not rows and batch.num_rows:
            widths = [max([w, *map(_width, c)]) for w, c in zip(widths, cells, strict=True)]
            _write_head(out, names, widths)
        body = [_aligned(row, widths, right) for row in zip(*cells, strict=True)]
        out.write("".join(body).encode())
        rows += batch.num_rows
    if not rows:
        _write_head(out, names, widths)
    return rows


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _write_head(out: BinaryIO, names: list[str], widths: list[int]) -> None:
    out.write(_aligned(names, widths, [False] * len(names)).encode())
    out.write(("-+-".join("-" * w for w in widths) + "\n").encode())


def _aligned(cells: tuple[str, ...] | list[str], widths: list[int], right: list[bool]) -> str:
    padded = []
    for cell, width, from_right in zip(cells, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if from_right else cell + space)
    return " | ".join(padded).rstrip() + "\n"


def write_markdown(reader: pa.RecordBatchReader, out: BinaryIO) -> int:
    """A Markdown table; pipes, line ends and tags in values are escaped."""
    names = [_markdown(_visible(n)) for n in reader.schema.names]
    right = [_is_number(f.type) for f in reader.schema]
    out.write(f"| {' | '.join(names)} |\n|{'|'.join(' ---: ' if r else ' --- ' for r in right)}|\n".encode())
    rows = 0
    for batch in reader:
        cells = [[_markdown(c) for c in _cells(column)] for column in batch.columns]
        out.write("".join(f"| {' | '.join(row)} |\n" for row in zip(*cells, strict=True)).encode())
        rows += batch.num_rows
    return rows


def _markdown(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\").replace("|", "\\|")


def _cells(column: pa.Array) -> list[str]:
    return [_visible(v) if v is not None else "" for v in render.plain(column).to_pylist()]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda m: _VISIBLE.get(m[0], f"\\x{ord(m[0]):02x}"), text)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum((not unicodedata.combining(c)) + (unicodedata.east_asian_width(c) in "WF") for c in text)


class _Counting:
    """A sink for Arrow that need not be seekable: standard output may be a pipe."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._written, self.closed = out, 0, False

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


FORMATS: dict[str, Callable[[pa.RecordBatchReader, BinaryIO], int]] = {
    "table": write_table,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
    "arrow": write_arrow,
    "markdown": write_markdown,
}
