"""The tuples of many pgoutput messages, walked one column at a time over all of them at once.

A tuple is a run of cells: a kind byte (`t` text, `n` NULL, `u` unchanged TOAST), and for text a length and the bytes.
Where a cell starts is known only from the one before it, so the walk goes column by column; but each step is taken for
all rows together. What comes out are places in the buffer; `strings` gathers them into an Arrow array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

TEXT, NULL, UNCHANGED = ord("t"), ord("n"), ord("u")


class Memory:
    """A buffer, and ways to read numbers at many places of it at once. Places are int64[n] everywhere."""

    def __init__(self, buffer: bytes | bytearray | memoryview) -> None:
        self.arrow = pa.py_buffer(buffer)
        self.bytes = np.frombuffer(buffer, np.uint8)
        # A number at EVERY place: overlapping, unaligned. Native order and a swap read faster than foreign order.
        self._words = self._every(np.dtype(np.uint32))
        self._longs = self._every(np.dtype(np.int64))

    def _every(self, dtype: np.dtype) -> np.ndarray:
        count = max(0, len(self.bytes) - dtype.itemsize + 1)
        return np.ndarray((count,), dtype, buffer=self.bytes, strides=(1,)) if count else np.empty(0, dtype)

    def words(self, places: np.ndarray) -> np.ndarray:
        """The unsigned 32-bit numbers that stand there, as uint32[n]."""
        found = self._words[places]
        return found.byteswap(inplace=True)

    def longs(self, places: np.ndarray) -> np.ndarray:
        """The signed 64-bit numbers that stand there."""
        found = self._longs[places]
        return found.byteswap(inplace=True)

    def strings(self, start: np.ndarray, length: np.ndarray, present: np.ndarray) -> pa.Array:
        """The texts at these places, which must ascend; NULL where not `present` (bool[n]).

        One array of 2n - 1 strings is laid over the buffer, texts and the gaps between them in turn, at no cost; taking
        every other one copies the texts together.
        """
        n = len(start)
        if not n:
            return pa.array([], pa.string())
        base = int(start[0])
        wide = int(start[-1]) + int(length[-1]) - base >= 1 << 31
        edges = np.empty(2 * n, np.int64 if wide else np.int32)
        edges[0::2] = start - base
        edges[1::2] = start + length - base
        type_ = pa.large_string() if wide else pa.string()
        laid = pa.Array.from_buffers(type_, 2 * n - 1, [None, pa.py_buffer(edges), self.arrow.slice(base)])
        texts = laid.take(pa.array(np.arange(0, 2 * n, 2)))
        if wide:
            texts = texts.cast(pa.string())
        return texts if present.all() else _strings(present, *texts.buffers()[1:])

    def few_strings(self, start: np.ndarray, length: np.ndarray, present: np.ndarray) -> pa.Array:
        """The same for few and short texts, in any order: byte by byte."""
        ends = np.zeros(len(start) + 1, np.int32)
        np.cumsum(length, out=ends[1:])
        places = np.arange(ends[-1]) + np.repeat(start - ends[:-1], length)
        return _strings(present, pa.py_buffer(ends), pa.py_buffer(self.bytes[places]))


def _strings(present: np.ndarray, ends: pa.Buffer, data: pa.Buffer) -> pa.Array:
    bitmap = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(pa.string(), len(present), [bitmap, ends, data])


@dataclass(slots=True)
class Cells:
    """One column's cells over n rows: kind byte, and start and length of the text (length 0 where there is none)."""

    kind: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Cells:
        return Cells(self.kind[rows], self.start[rows], self.length[rows])

    def put(self, rows: np.ndarray, other: Cells) -> Cells:
        """These cells, with the other's in those rows."""
        new = Cells(self.kind.copy(), self.start.copy(), self.length.copy())
        new.kind[rows], new.start[rows], new.length[rows] = other.kind, other.start, other.length
        return new

    def strings(self, memory: Memory) -> pa.Array:
        return memory.strings(self.start, self.length, self.kind == TEXT)


def walk(memory: Memory, cursor: np.ndarray, counts: np.ndarray) -> tuple[list[Cells], np.ndarray]:
    """The cells of tuples whose first cells stand at `cursor`, per column; and where the tuples end.

    Row i has `counts[i]` cells: in columns beyond them it is NULL.
    """
    walked: list[Cells] = []
    least, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    last_byte, last_word = len(memory.bytes) - 1, len(memory.bytes) - 4
    for column in range(most):
        if column < least:
            kind = memory.bytes[cursor]
        else:
            kind = np.where(counts > column, memory.bytes[np.minimum(cursor, last_byte)], NULL).astype(np.uint8)
        text = kind == TEXT
        if text.all():
            start = cursor + 5
            length = memory.words(cursor + 1).astype(np.int64)
        else:
            start = cursor + np.where(text, 5, counts > column)
            length = np.where(text, memory.words(np.minimum(cursor + 1, last_word)), 0).astype(np.int64)
        walked.append(Cells(kind, start, length))
        cursor = start + length
    return walked, cursor
