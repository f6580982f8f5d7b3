"""pgoutput decoded: whole transactions out of the stream, as columns.

Messages stay in the buffer they came in; what they are, whose, and of which table is read by NumPy gathers (see
transactions), and the rows of each table version are built together (see rows). Only what announces a table (R) or a
schema change (M) is looked at one by one, in stream order. Messages are kept as they came until the Commit of their
transaction arrives; a transaction that outgrows `spill_bytes` before that is given out in parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from claimhouse.change import Changes, Decoded
from claimhouse.errors import SourceError, Unsupported
from claimhouse.postgres.frames import Raw
from claimhouse.postgres.rows import Group, Relation, RelationColumn, Shape, build
from claimhouse.postgres.transactions import BEGIN, COMMIT, MESSAGE, RELATION, ExtendsXids, Stretch, Unfinished
from claimhouse.table import Table

__all__ = ["DDL_PREFIX", "Decoder", "Relation", "RelationColumn"]

DDL_PREFIX = "claimhouse.ddl"
META_BYTES = 64  # what the log adds to a row, about: to ask Arrow costs more than to make a small batch
_NEVER = -1
_Spans = list[tuple[int, Shape | None]]  # from which message on which shape holds


@dataclass(slots=True)
class _Known:
    """A relation as last announced, and its shape: None where its rows are not wanted.

    `ddl` is the number of DDL messages before `resolve` was asked, _NEVER after `forget`.
    """

    relation: Relation
    shape: Shape | None
    ddl: int

    @property
    def asks_again(self) -> bool:
        """Whether its next rows must be asked for: a table that is not wanted may be by then, and is announced once."""
        return self.shape is None or self.ddl == _NEVER


class Decoder:
    """Turns `Raw` into `Decoded`.

    `resolve(relation, lsn)` names the table version for the rows that follow; None: skip them. It is asked when a
    relation is first announced, when its announcement changes, at its first announcement after a `claimhouse.ddl`
    message, after `forget`, and as long as it answers None; `lsn` is where the transaction's commit record starts.
    `on_message(prefix, content, lsn, xid)` gets each transactional logical message whose prefix starts with
    `claimhouse.`, in order with the calls of `resolve`; its `lsn` is where the transaction's commit record starts, too.
    """

    def __init__(
        self,
        resolve: Callable[[Relation, int], Table | None],
        xids: ExtendsXids,
        *,
        on_message: Callable[[str, bytes, int, int], None] | None = None,
        spill_bytes: int = 32 << 20,
    ) -> None:
        self._resolve = resolve
        self._xids = xids
        self._on_message = on_message
        self._spill_bytes = spill_bytes
        self._known: dict[int, _Known] = {}
        self._ddl = 0
        self._beat = 0
        self._held: list[Raw] = []
        self._held_bytes = 0
        self._in_transaction = False
        self._unfinished: Unfinished | None = None

    def feed(self, raw: Raw) -> list[Decoded]:
        """Whole transactions that end in `raw`, and parts of one that grows too large; order is the stream's.

        All transactions are in one Decoded, but for one of which parts were given out before: that ends in its own.
        """
        kinds = np.frombuffer(raw.buffer, np.uint8)[raw.offsets]
        commits = np.flatnonzero(kinds == COMMIT)
        done: list[Decoded] = []
        begin = 0
        for end in self._cuts(commits):
            done.append(self._decode(Raw.join([*self._release(), raw.part(begin, end)])))
            begin = end
        rest = kinds[begin:]
        self._in_transaction = bool((rest == BEGIN).any()) or (self._in_transaction and not len(commits))
        if self._in_transaction:
            self._held.append(raw.part(begin, len(raw)))
            self._held_bytes += len(self._held[-1].buffer)
        else:
            self._note_beats(raw, begin + np.flatnonzero(rest == MESSAGE))
        if self._held_bytes > self._spill_bytes:
            done.append(self._decode(Raw.join(self._release()), part=True))
        return done

    def idle_position(self, raw: Raw) -> int:
        """After `feed(raw)`: the position below which nothing is outstanding; 0 inside a transaction."""
        return 0 if self._in_transaction else max(raw.wal_end, self._beat)

    def forget(self, oid: int | None = None) -> None:
        """Ask `resolve` again before the next rows of that relation, or of all."""
        for known in self._known.values():
            if oid in (None, known.relation.oid):
                known.ddl = _NEVER

    def reset(self) -> None:
        """Drop the unfinished transaction: the connection is made anew, and brings it again from its start."""
        self._release()
        self._in_transaction = False
        self._unfinished = None

    def _cuts(self, commits: np.ndarray) -> list[int]:
        """Behind which messages to cut: the last commit; and the first, if it ends a transaction with parts."""
        ends = {int(commits[-1]) + 1} if len(commits) else set()
        if self._unfinished and len(commits):
            ends.add(int(commits[0]) + 1)
        return sorted(ends)

    def _release(self) -> list[Raw]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _note_beats(self, raw: Raw, places: np.ndarray) -> None:
        with _as_the_protocol_says():
            for start, end in zip(raw.offsets[places].tolist(), raw.ends[places].tolist(), strict=True):
                self._note_beat(*struct.unpack(">Bq", raw.buffer[start + 1 : min(start + 10, end)]))

    def _note_beat(self, flags: int, lsn: int) -> None:
        """A message outside of transactions is sent once all that ends before it was."""
        if not flags & 1:
            self._beat = max(self._beat, lsn)

    def _decode(self, raw: Raw, *, part: bool = False) -> Decoded:
        with _as_the_protocol_says():
            stretch = Stretch(raw, self._unfinished, self._xids)
            rows = stretch.rows()
        groups = self._groups(stretch, rows)
        with _as_the_protocol_says():
            batches = build(stretch, groups)
        decoded = Decoded(part=part, size=len(raw.buffer) + META_BYTES * sum(len(places) for _, places in groups))
        counts: list[tuple[str, np.ndarray]] = []
        for (shape, places), built in zip(groups, batches, strict=True):
            kept, batch = len(places), built
            if isinstance(batch, Unsupported):
                kept, batch = _good(stretch, shape, places)
                decoded.errors.append((shape.table, stretch.position_of(places[kept]), str(built)))
            if batch is not None:
                decoded.changes.append(Changes(shape.table, batch))
                counts.append((shape.folder, stretch.transaction[places[:kept]]))
        if part:
            self._unfinished = stretch.unfinished(self._unfinished, counts)
            return decoded
        decoded.end_lsn = int(stretch.end_lsn[-1])
        decoded.max_committed_at = int(stretch.committed_at.max())
        decoded.transactions = stretch.table(self._unfinished, counts)
        self._unfinished = None
        return decoded

    def _groups(self, stretch: Stretch, rows: dict[int, np.ndarray]) -> list[Group]:
        """The rows by table version, by first appearance."""
        spans = self._spans(stretch, rows)
        found: list[Group] = []
        for oid, places in rows.items():
            if oid not in spans:
                raise SourceError(f"the stream brought rows of a relation ({oid}) that it had not announced")
            bounds = [*np.searchsorted(places, [place for place, _ in spans[oid]]).tolist(), len(places)]
            for (_, shape), begin, end in zip(spans[oid], bounds, bounds[1:], strict=False):
                if shape is not None and end > begin:
                    found.append((shape, places[begin:end]))
        return sorted(found, key=lambda group: int(group[1][0]))

    def _spans(self, stretch: Stretch, rows: dict[int, np.ndarray]) -> dict[int, _Spans]:
        """Per relation, its shapes in order; the first is the one that held before this stretch."""
        announced = np.flatnonzero(stretch.kinds == RELATION)
        oids = stretch.memory.words(stretch.raw.offsets[announced] + 1).tolist()
        first = dict(zip(reversed(oids), reversed(announced.tolist()), strict=True))
        for oid, places in rows.items():
            known = self._known.get(oid)
            if known and known.asks_again and places[0] < first.get(oid, len(stretch.kinds)):
                self._ask(known.relation, stretch.lsn_of(places[0]))
        spans: dict[int, _Spans] = {oid: [(-1, self._known[oid].shape)] for oid in rows if oid in self._known}
        for place in np.flatnonzero((stretch.kinds == RELATION) | (stretch.kinds == MESSAGE)).tolist():
            body = stretch.body(place)
            if body[0] == MESSAGE:
                self._take_message(stretch, place, body)
            elif known := self._take_relation(parse_relation(body), stretch.lsn_of(place)):
                spans.setdefault(known.relation.oid, []).append((place, known.shape))
        return spans

    def _take_relation(self, relation: Relation, lsn: int) -> _Known | None:
        """What is known now, None if this announcement told nothing new."""
        known = self._known.get(relation.oid)
        if known and known.relation == relation and known.ddl == self._ddl and not known.asks_again:
            return None
        return self._ask(relation, lsn)

    def _ask(self, relation: Relation, lsn: int) -> _Known:
        table = self._resolve(relation, lsn)
        known = _Known(relation, None if table is None else Shape(relation, table), self._ddl)
        self._known[relation.oid] = known
        return known

    def _take_message(self, stretch: Stretch, place: int, body: bytes) -> None:
        with _as_the_protocol_says():
            flags, lsn = struct.unpack_from(">Bq", body, 1)
        prefix, _, rest = body[10:].partition(b"\0")
        self._note_beat(flags, lsn)
        if not flags & 1 or not prefix.startswith(b"claimhouse."):
            return
        if prefix == DDL_PREFIX.encode():
            self._ddl += 1
        if self._on_message:
            xid = int(stretch.xid[stretch.transaction[place]])
            self._on_message(prefix.decode("utf-8", "replace"), rest[4:], stretch.lsn_of(place), xid)


@contextmanager
def _as_the_protocol_says() -> Iterator[None]:
    """What NumPy and struct raise inside becomes our error; a value may be in it, so it is not shown."""
    try:
        yield
    except (IndexError, ValueError, OverflowError, struct.error) as error:
        raise SourceError(f"the stream brought what is no pgoutput message ({type(error).__name__})") from None


def parse_relation(body: bytes) -> Relation:
    """The Relation message `R…`. Raises SourceError."""
    with _as_the_protocol_says():
        return _parse_relation(body)


def _parse_relation(body: bytes) -> Relation:
    (oid,) = struct.unpack_from(">I", body, 1)
    schema, name, rest = body[5:].split(b"\0", 2)
    identity, count = chr(rest[0]), struct.unpack_from(">H", rest, 1)[0]
    columns: list[RelationColumn] = []
    place = 3
    for _ in range(count):
        end = rest.index(b"\0", place + 1)
        type_oid, typmod = struct.unpack_from(">Ii", rest, end + 1)
        columns.append(RelationColumn(rest[place], rest[place + 1 : end].decode(), type_oid, typmod))
        place = end + 9
    return Relation(oid, schema.decode() or "pg_catalog", name.decode(), identity, tuple(columns))


def _good(stretch: Stretch, shape: Shape, places: np.ndarray) -> tuple[int, pa.RecordBatch | None]:
    """The rows before the first transaction with one that cannot be kept: how many, and their batch."""
    edges = [0, *(np.flatnonzero(np.diff(stretch.transaction[places])) + 1).tolist()]
    good, bad, kept = 0, len(edges), None  # the rows before edges[good] can be kept, those before edges[bad] cannot
    while bad - good > 1:
        middle = (good + bad) // 2
        (built,) = build(stretch, [(shape, places[: edges[middle]])])
        if isinstance(built, Unsupported):
            bad = middle
        else:
            good, kept = middle, built
    return edges[good], kept
