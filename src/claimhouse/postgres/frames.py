"""What comes off a replication connection: many messages in one buffer, told apart by offsets.

Nothing here makes an object per message. `Raw` is what a read of the stream gives and the decoder takes; several can be
joined into one. The rest finds and makes the frames of PostgreSQL's protocol: a type byte, a length, a body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_PREFIX = struct.Struct(">ci")
_LENGTH = struct.Struct(">xi").unpack_from


@dataclass(frozen=True, slots=True)
class Raw:
    """What one read brought: pgoutput messages `buffer[offsets[i]:ends[i]]`, in stream order (int64[n] both).

    `wal_end` is the highest position that a keepalive told: every transaction that ends before it was sent before it.
    `asked`: the server waits for a position to be confirmed, as it does when it shuts down. `closed`: nothing follows;
    the next read raises.
    """

    buffer: bytes | bytearray | memoryview
    offsets: np.ndarray
    ends: np.ndarray
    wal_end: int = 0
    closed: bool = False
    asked: bool = False

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, begin: int, end: int) -> Raw:
        """The messages [begin, end), over their share of the buffer."""
        if begin == end:
            return Raw(b"", self.offsets[:0], self.ends[:0])
        first, last = int(self.offsets[begin]), int(self.ends[end - 1])
        view = memoryview(self.buffer)[first:last]
        return Raw(view, self.offsets[begin:end] - first, self.ends[begin:end] - first)

    @classmethod
    def join(cls, raws: Sequence[Raw]) -> Raw:
        """One Raw with the messages of all (at least one), in order."""
        if len(raws) == 1:
            return raws[0]
        shifts = np.cumsum([0, *(len(r.buffer) for r in raws[:-1])])
        return cls(
            b"".join(r.buffer for r in raws),
            np.concatenate([r.offsets + shift for r, shift in zip(raws, shifts, strict=True)]),
            np.concatenate([r.ends + shift for r, shift in zip(raws, shifts, strict=True)]),
            max(r.wal_end for r in raws),
            any(r.closed for r in raws),
            any(r.asked for r in raws),
        )


def frame(kind: bytes, body: bytes) -> bytes:
    """One frame, to send."""
    return _PREFIX.pack(kind, len(body) + 4) + body


def size(received: bytes | memoryview) -> int:
    """The size of the frame that starts here; 5 while even that cannot be told."""
    return 1 + _LENGTH(received)[0] if len(received) >= 5 else 5


def split(received: bytes | memoryview) -> tuple[list[int], int]:
    """Where the whole frames start, and where the last of them ends."""
    starts: list[int] = []
    found = starts.append
    place, total = 0, len(received)
    while place + 5 <= total:
        after = place + 1 + _LENGTH(received, place)[0]
        if after > total:
            break
        found(place)
        place = after
    return starts, place


def spans(received: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each whole frame."""
    starts, end = split(received)
    return zip(starts, [*starts[1:], end], strict=False)


def fields(body: bytes) -> tuple[str, str, str]:
    """SQLSTATE, message and hint of an ErrorResponse."""
    found = {field[:1]: field[1:].decode("utf-8", "replace") for field in body.split(b"\0") if field}
    return found.get(b"C", ""), found.get(b"M", ""), found.get(b"H", "")
