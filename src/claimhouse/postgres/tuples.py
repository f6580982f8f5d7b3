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

    def strings(self, start: np.ndarray, length: np.ndarray, present: np.ndarray | None = None) -> pa.Array:
        """The texts at these places, which must ascend; NULL where not `present` (bool[n], None: all are).

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
        texts = laid.take(pa.array(np.arange(0, 2 * n, 2))).cast(pa.string())
        if present is None or present.all():
            return texts
        bitmap = pa.py_buffer(np.packbits(present, bitorder="little"))
        return pa.Array.from_buffers(pa.string(), n, [bitmap, *texts.buffers()[1:]])


@dataclass(slots=True)
class Cells:
    """One column's cells over n rows: kind byte, and start and length of the text (length 0 where there is none)."""

    kind: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        return Cells(self.kind[rows], self.start[rows], self.length[rows])

    def put(self, rows: np.ndarray, other: Cells) -> Cells:
        """These cells, with the other's in those rows."""
        new = Cells(self.kind.copy(), self.start.copy(), self.length.copy())
        new.kind[rows], new.start[rows], new.length[rows] = other.kind, other.start, other.length
        return new

    def strings(self, memory: Memory) -> pa.Array:
        return memory.strings(self.start, self.length, self.kind == TEXT)


def walk(memory: Memory, cursor: np.ndarray, columns: int) -> tuple[list[Cells], np.ndarray]:
    """The cells of tuples whose first cells stand at `cursor`, per column; and where the tuples end."""
    walked: list[Cells] = []
    last_word = len(memory.bytes) - 4
    for _ in range(columns):
        kind = memory.bytes[cursor]
        text = kind == TEXT
        if text.all():
            length = memory.words(cursor + 1).astype(np.int64)
            start = cursor + 5
        else:
            length = np.where(text, memory.words(np.minimum(cursor + 1, last_word)), 0).astype(np.int64)
            start = np.where(text, cursor + 5, cursor + 1)
        walked.append(Cells(kind, start, length))
        cursor = start + length
    return walked, cursor
