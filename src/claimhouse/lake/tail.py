"""The tail: the newest changes of all tables of a source, one immutable object per cut.

A cut object's existence IS the commit. It is made by one durable conditional create (storage.put_new), so there is
nothing to repair after a crash: whatever is no whole object was never committed. Layout: docs/lake-format.md.

Reading costs as little as the reader asks for: a footer is the last few KB, an opened cut is mapped memory whose
sections are decoded table by table. Parts (of a transaction larger than memory) are objects of the same make that no
one looks at until a cut names them.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from claimhouse.change import BY_CUT, META, TRANSACTIONS, Changes
from claimhouse.errors import LakeError, StorageGone
from claimhouse.failpoint import hit
from claimhouse.lake.lake import FORMAT, Lake, tail_folder
from claimhouse.lake.owner import Owner
from claimhouse.lake.storage import Bytes, Exists, let_go

if TYPE_CHECKING:
    from deltalake import DeltaTable

MAGIC = b"CHCUT01\n"
_CLOSE = struct.Struct("<II8s")  # footer length, CRC-32, magic
_FOOTER_GUESS = 64 << 10
_LARGE = 1 << 20  # bytes of a batch that are written from where they lie


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of one table version inside a cut or part: an Arrow IPC stream at `offset`."""

    table: str  # folder; "" for the transactions
    schema: int
    offset: int
    length: int
    rows: int
    missing: int  # rows that have `_missing`


@dataclass(frozen=True, slots=True)
class Part:
    """A stored piece of a transaction that has not ended when it was written."""

    name: str
    sections: tuple[Section, ...]
    end_lsn: int = 0  # of the commit, known when a cut names the part


@dataclass(frozen=True, slots=True)
class CutMark:
    """What a cut's footer says; field by field as in docs/lake-format.md."""

    source: str
    cut: int
    epoch: int
    incarnation: int
    written_at: int
    end_lsn: int
    max_committed_at: int
    registry: str
    flush: int
    flushed_cut: int
    sections: tuple[Section, ...] = ()
    parts: tuple[Part, ...] = ()
    transactions: int = 0
    format: int = FORMAT

    @property
    def name(self) -> str:
        return cut_name(self.cut)

    @property
    def tables(self) -> list[str]:
        """The folders of the tables that have rows in this cut, sorted."""
        found = {s.table for s in self.sections} | {s.table for p in self.parts for s in p.sections}
        return sorted(found - {""})

    def rows(self, folder: str) -> int:
        return sum(s.rows for s in self.all_sections() if s.table == folder)

    def missing(self, folder: str) -> int:
        """How many of a table's rows lack an unchanged TOAST value."""
        return sum(s.missing for s in self.all_sections() if s.table == folder)

    def all_sections(self) -> Iterator[Section]:
        """Those of its parts, then its own."""
        for part in self.parts:
            yield from part.sections
        yield from self.sections


@dataclass(slots=True)
class Cut:
    """An opened cut: its mark, and its rows by table as they are asked for."""

    lake: Lake
    mark: CutMark
    buffer: pa.Buffer
    _parts: dict[str, pa.Buffer] = field(default_factory=dict)

    def batches(self, folder: str) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(schema version, rows with `_incarnation` and `_cut`) of one table in order of the log.

        Columns: META, BY_CUT, then as in `section_schema`. Raises LakeError for a damaged part.
        """
        before: pa.Buffer | None = None
        for part in self.mark.parts:
            for section in part.sections:
                if section.table == folder:
                    buffer = self._part(part.name)
                    for batch in read_section(buffer, section):
                        yield section.schema, self._complete(_with_end(batch, part.end_lsn))
                    let_go(buffer)
                    if before is not None:
                        let_go(before)  # who takes batches ahead went on reading in it
                    before = buffer
        for section in self.mark.sections:
            if section.table == folder:
                for batch in read_section(self.buffer, section):
                    yield section.schema, self._complete(batch)

    def transactions(self) -> pa.Table:
        """The cut's transactions, schema TRANSACTIONS."""
        sections = [s for s in self.mark.sections if s.table == ""]
        batches = [b for s in sections for b in read_section(self.buffer, s)]
        return pa.Table.from_batches(batches, TRANSACTIONS)

    def let_go(self) -> None:
        """Take no memory until it is read again."""
        for buffer in (self.buffer, *self._parts.values()):
            let_go(buffer)

    def _part(self, name: str) -> pa.Buffer:
        if name not in self._parts:
            key = f"{tail_folder(self.mark.source)}/{name}"
            try:
                self._parts[name] = _checked(self.lake.store.open(key), key)[0]
            except KeyError:
                raise LakeError(f"{key} is missing, but cut {self.mark.cut} names it", hint=_RESTORE) from None
        return self._parts[name]

    def _complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows, place = batch.num_rows, len(META)
        added = [
            pa.array(np.full(rows, self.mark.incarnation, np.int32)),
            pa.array(np.full(rows, self.mark.cut, np.int64)),
        ]
        fields = list(batch.schema)
        schema = pa.schema([*fields[:place], *BY_CUT, *fields[place:]])
        return pa.RecordBatch.from_arrays([*batch.columns[:place], *added, *batch.columns[place:]], schema=schema)


class Tail:
    """The owner's side of a source's tail. One thread appends; another may load and drop."""

    def __init__(self, lake: Lake, source: str, owner: Owner) -> None:
        self.lake, self.source, self.owner = lake, source, owner
        self._folder = tail_folder(source)
        self._last: CutMark | None = None
        self._next_part = 1
        self._pending: frozenset[str] = frozenset()
        self.handles: dict[str, DeltaTable] = {}  # of the logs that the flush wrote last

    def last(self) -> CutMark | None:
        """The newest cut's mark, None in a new lake. Raises LakeError when it is damaged."""
        if self._last is None:
            numbers = cut_numbers(self.lake, self.source)
            self._last = read_mark(self.lake, self.source, numbers[-1]) if numbers else None
        return self._last

    def append(
        self,
        changes: Sequence[Changes],
        transactions: pa.RecordBatch | Sequence[pa.RecordBatch] | None,
        *,
        end_lsn: int,
        max_committed_at: int,
        incarnation: int,
        registry: str,
        flush: int = 0,
        flushed_cut: int = 0,
        parts: Sequence[Part] = (),
    ) -> CutMark:
        """Commit the next cut, durably. `parts` belong to a transaction that ends at `end_lsn` of theirs.

        Returns its mark. Raises Fenced (stop for good), StorageGone (all or nothing was committed: `last` tells, go on
        from there), LakeError for a position that goes back.
        """
        last = self.last()
        self._no_way_back(last, end_lsn, incarnation)
        body, sections = _body(changes, transactions)
        mark = CutMark(
            source=self.source,
            cut=last.cut + 1 if last else 1,
            epoch=self.owner.epoch,
            incarnation=incarnation,
            written_at=time.time_ns() // 1000,
            end_lsn=end_lsn,
            max_committed_at=max(max_committed_at, last.max_committed_at if last else 0),
            registry=registry,
            flush=flush,
            flushed_cut=flushed_cut,
            sections=sections,
            parts=tuple(parts),
            transactions=sum(b.num_rows for b in _batches(transactions)),
        )
        self._last = None  # whatever happens now, the storage tells
        self._put(mark, _sealed(body, asdict(mark)))
        self._last = mark
        self._pending -= {p.name for p in parts}
        self.owner.check()
        return mark

    def _put(self, mark: CutMark, pieces: list[Bytes]) -> None:
        key = f"{self._folder}/{mark.name}"
        try:
            self.lake.store.put_new(key, pieces, "tail")
        except Exists:
            if self.lake.store.get(key) == b"".join(pieces):
                return
            self.owner.check()
            raise StorageGone(  # that owner is stopped at its next write; this one only looks again
                f"cut {mark.cut} of source {self.source} was written by an earlier owner that had not ended",
                hint="it goes on from that cut; run again where it does not by itself",
            ) from None

    def _no_way_back(self, last: CutMark | None, end_lsn: int, incarnation: int) -> None:
        if last and (incarnation, end_lsn) < (last.incarnation, last.end_lsn):
            raise LakeError(
                f"cut {last.cut + 1} of source {self.source} would go back in the log",
                hint="the source was restored or replaced; `claimhouse repair` begins a new incarnation",
            )

    def put_part(self, changes: Sequence[Changes]) -> Part:
        """Store a piece of a transaction that has not ended. Rows' `_end_lsn` is 0. Raises StorageGone."""
        last = self.last()
        body, sections = _body(changes, None)
        cut = last.cut + 1 if last else 1
        name = f"{cut:020d}-{self.owner.epoch}-{self._next_part:06d}.part"
        self._next_part += 1
        footer = {"format": FORMAT, "source": self.source, "sections": [asdict(s) for s in sections]}
        self.lake.store.put_new(f"{self._folder}/{name}", _sealed(body, footer), "")
        hit("part.after_write")
        self._pending |= {name}
        return Part(name, sections)

    def load(self, first: int, last: int) -> list[Cut]:
        """The cuts of that range, opened. Raises KeyError if one is missing, LakeError if one is damaged."""
        return load(self.lake, self.source, first, last)

    def drop(self, upto: int) -> int:
        """Remove the objects of flushed cuts up to that number, and parts that no cut will name; how many.

        The newest cut always stays.
        """
        pending = self._pending  # before the listing: a part that a cut names meanwhile counts as pending
        names = self.lake.store.list(self._folder)
        cuts = sorted(_number(n) for n in names if n.endswith(".cut"))
        upto = min(upto, cuts[-1] - 1) if cuts else 0
        gone = [cut_name(n) for n in cuts if n <= upto]
        parts = [n for n in names if n.endswith(".part") and _number(n) <= upto and n not in pending]
        if parts:
            kept = {p.name for n in cuts if n > upto for p in read_mark(self.lake, self.source, n).parts}
            gone += [n for n in parts if n not in kept]
        for place, name in enumerate(gone):
            self.lake.store.delete([f"{self._folder}/{name}"])
            if place == len(gone) // 2:
                hit("drop.midway")
        return len(gone)


def load(lake: Lake, source: str, first: int, last: int) -> list[Cut]:
    """The cuts first … last of a source, opened and checked.

    Raises KeyError if one is missing (it was dropped meanwhile), LakeError if one is damaged.
    """
    return [open_cut(lake, source, number) for number in range(first, last + 1)]


def open_cut(lake: Lake, source: str, number: int) -> Cut:
    """One cut, its checksum verified. Raises KeyError, LakeError."""
    key = f"{tail_folder(source)}/{cut_name(number)}"
    buffer, footer = _checked(lake.store.open(key), key)
    return Cut(lake, _mark(footer, key), buffer)


def read_mark(lake: Lake, source: str, number: int) -> CutMark:
    """A cut's footer alone, from the end of its object. Raises KeyError, LakeError."""
    key = f"{tail_folder(source)}/{cut_name(number)}"
    end = lake.store.end(key, _FOOTER_GUESS)
    length = _footer_length(end, key)
    if length + _CLOSE.size > len(end):
        end = lake.store.end(key, length + _CLOSE.size)
    return _mark(_footer(end, length, key), key)


def cut_numbers(lake: Lake, source: str) -> list[int]:
    """The numbers of the cuts whose objects exist, ascending."""
    return sorted(_number(n) for n in lake.store.list(tail_folder(source)) if n.endswith(".cut"))


def cut_name(number: int) -> str:
    return f"{number:020d}.cut"


def read_section(buffer: pa.Buffer, section: Section) -> list[pa.RecordBatch]:
    """A section's batches, without copying."""
    with pa.ipc.open_stream(buffer.slice(section.offset, section.length)) as stream:
        return list(stream)


_RESTORE = "the lake is damaged: restore this object from a copy, or copy the source anew into a new lake"


def _number(name: str) -> int:
    return int(name[:20])


def _batches(given: pa.RecordBatch | Sequence[pa.RecordBatch] | None) -> Sequence[pa.RecordBatch]:
    if given is None:
        return ()
    return (given,) if isinstance(given, pa.RecordBatch) else given


class _Gathered:
    """A file of Arrow's that keeps what is written to it as it is: the buffers of a batch are not copied."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[Bytes] = []
        self._size = 0

    def write(self, data: Bytes) -> int:
        self.pieces.append(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None: ...

    def close(self) -> None: ...


_Sink = pa.BufferOutputStream | _Gathered


def _body(
    changes: Sequence[Changes], transactions: pa.RecordBatch | Sequence[pa.RecordBatch] | None
) -> tuple[_Sink, tuple[Section, ...]]:
    """What stands before the footer, and what lies where. Batches of one table version share a section."""
    groups: dict[tuple[str, int], list[pa.RecordBatch]] = {}
    for change in changes:
        if change.batch.num_rows:
            groups.setdefault((change.table.folder, change.table.version), []).append(change.batch)
    if found := [b for b in _batches(transactions) if b.num_rows]:
        groups["", 0] = found
    # A call for each buffer costs more than to copy a small one.
    large = any(b.get_total_buffer_size() >= _LARGE for batches in groups.values() for b in batches)
    sink = _Gathered() if large else pa.BufferOutputStream()
    sink.write(MAGIC)
    sections = tuple(_write_section(sink, *name, batches) for name, batches in groups.items())
    return sink, sections


def _write_section(sink: _Sink, table: str, version: int, batches: list[pa.RecordBatch]) -> Section:
    offset = sink.tell()
    with pa.ipc.new_stream(sink, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    length = sink.tell() - offset
    sink.write(b"\0" * (-length % 8))
    rows = sum(b.num_rows for b in batches)
    missing = sum(b.num_rows - b.column("_missing").null_count for b in batches) if table else 0
    return Section(table, version, offset, length, rows, missing)


def _sealed(sink: _Sink, footer: dict[str, Any]) -> list[Bytes]:
    """The whole object in pieces: body, footer, its length, the CRC of all before it, magic."""
    text = json.dumps(footer, separators=(",", ":")).encode()
    body = sink.pieces if isinstance(sink, _Gathered) else [sink.getvalue()]
    pieces = [*body, text + struct.pack("<I", len(text))]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return [*pieces, struct.pack("<I", crc) + MAGIC]


def _footer_length(end: bytes, key: str) -> int:
    if len(end) < len(MAGIC) + _CLOSE.size:
        raise LakeError(f"{key} is damaged: it has {len(end)} bytes", hint=_RESTORE)
    length, _, magic = _CLOSE.unpack_from(end, len(end) - _CLOSE.size)
    if magic != MAGIC:
        raise LakeError(f"{key} is damaged: it does not end as a cut does", hint=_RESTORE)
    return length


def _footer(end: bytes | memoryview, length: int, key: str) -> dict[str, Any]:
    try:
        return json.loads(bytes(end[len(end) - _CLOSE.size - length : len(end) - _CLOSE.size]))
    except ValueError:
        raise LakeError(f"{key} is damaged: its footer cannot be read", hint=_RESTORE) from None


def _checked(buffer: pa.Buffer, key: str) -> tuple[pa.Buffer, dict[str, Any]]:
    """A whole object's buffer and footer, its checksum verified. Raises LakeError."""
    view = memoryview(buffer)
    length = _footer_length(bytes(view[-_CLOSE.size - len(MAGIC) :]), key)
    crc = _CLOSE.unpack_from(view, len(view) - _CLOSE.size)[1]
    if zlib.crc32(view[: 4 - _CLOSE.size]) != crc or bytes(view[: len(MAGIC)]) != MAGIC:
        raise LakeError(f"{key} is damaged: its checksum differs", hint=_RESTORE)
    return buffer, _footer(view, length, key)


def _mark(footer: dict[str, Any], key: str) -> CutMark:
    if footer.get("format") != FORMAT:
        raise LakeError(f"{key} has format {footer.get('format')}, this claimhouse knows {FORMAT}", hint="upgrade")
    fields = dict(footer)
    fields["sections"] = _sections(footer["sections"])
    fields["parts"] = tuple(Part(p["name"], _sections(p["sections"]), p["end_lsn"]) for p in footer["parts"])
    return CutMark(**fields)


def _sections(raw: Iterable[dict[str, Any]]) -> tuple[Section, ...]:
    return tuple(Section(**s) for s in raw)


def _with_end(batch: pa.RecordBatch, end_lsn: int) -> pa.RecordBatch:
    place = batch.schema.get_field_index("_end_lsn")
    return batch.set_column(place, META[place], pa.array(np.full(batch.num_rows, end_lsn, np.int64)))
