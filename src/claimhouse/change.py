"""What a change IS: one row of the log, in columns, the same in both runtimes.

A row of `changes/<table>` is one version of one source row. Source columns stand under their physical names; the
columns below stand before them. Order is (`_incarnation`, `_end_lsn`, `_seq`). Imports only `table`.

`_op`            r snapshot, c insert, u update, d delete, t truncate
`_incarnation`   grows when the source is rebuilt or failed over
`_end_lsn`       end LSN of the commit; of an `r` row the position P that its copy counts for
`_seq`           place within the transaction (its numbers may differ between runtimes)
`_xid`           64-bit transaction id; NULL for `r`, and for a correction: a change without an event of the source's
`_committed_at`  commit time, microseconds, UTC; of an `r` row the time it was read
`_cut`           number of the cut that brought it
`_schema`        version of the table's shape that it was written under
`_copy`          number of the table copy that an `r` row belongs to; NULL for streamed rows
`_missing`       physical names of unchanged TOAST columns whose values did not come along, comma-joined; else NULL
`_exact`         physical name -> PostgreSQL's text, where the column's kind could not hold the value; else NULL
`_old_<name>`    for u: the identity columns before the change, where they changed (identity 'full': always)

A `d` row carries its key (identity 'full': the whole row) in the source columns themselves; a `t` row carries nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from claimhouse.table import Table, arrow_type

EXACT = pa.map_(pa.string(), pa.string())

# What decoders produce and tail sections hold.
META: tuple[pa.Field, ...] = (
    pa.field("_op", pa.string()),
    pa.field("_end_lsn", pa.int64()),
    pa.field("_seq", pa.int64()),
    pa.field("_xid", pa.int64()),
    pa.field("_committed_at", pa.timestamp("us", tz="UTC")),
    pa.field("_schema", pa.int32()),
    pa.field("_copy", pa.int32()),
    pa.field("_missing", pa.string()),
    pa.field("_exact", EXACT),
)
# What the cut adds to each row, the same for all of its rows.
BY_CUT: tuple[pa.Field, ...] = (pa.field("_incarnation", pa.int32()), pa.field("_cut", pa.int64()))

TRANSACTIONS = pa.schema(
    [
        pa.field("xid", pa.int64()),
        pa.field("end_lsn", pa.int64()),
        pa.field("committed_at", pa.timestamp("us", tz="UTC")),
        pa.field("counts", pa.map_(pa.string(), pa.int64())),  # table folder -> rows
    ]
)


def old_name(physical: str) -> str:
    """The log column that keeps an identity column's value before an update."""
    return "_old_" + physical


def section_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a batch of changes of one table version, as decoders produce it."""
    columns = [pa.field(c.physical, arrow_type(c.kind)) for c in table.columns]
    olds = [pa.field(old_name(c.physical), arrow_type(c.kind)) for c in table.key]
    return pa.schema([*META, *columns, *olds])


def log_schema(table: Table) -> pa.Schema:
    """The Arrow schema of `changes/<table>` for one table version."""
    return pa.schema([*META, *BY_CUT, *list(section_schema(table))[len(META) :]])


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of one table version in commit order; `batch` has `section_schema(table)`."""

    table: Table
    batch: pa.RecordBatch


@dataclass(slots=True)
class Decoded:
    """What one read of the stream came to.

    `changes` are whole transactions, unless `part`: then they belong to ONE transaction that has not ended yet, their
    `_end_lsn` is 0 and is told by the cut that completes it. `end_lsn` is the position up to which everything is
    contained, 0 where no transaction ended. `transactions` has the schema TRANSACTIONS. `errors` names tables whose
    rows cannot be kept from a position on (its transaction's end; in a part, where its commit record starts), and why:
    rows before it are in `changes`, those from it on are left out. `size` is about what `changes` hold, in bytes.
    """

    changes: list[Changes] = field(default_factory=list)
    transactions: pa.RecordBatch | None = None
    end_lsn: int = 0
    max_committed_at: int = 0  # microseconds since 1970, of these transactions
    part: bool = False
    errors: list[tuple[Table, int, str]] = field(default_factory=list)
    size: int = 0


def lsn_text(lsn: int) -> str:
    """`0/16B3748`, as PostgreSQL prints it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """The number behind `0/16B3748`. Raises ValueError."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError("an LSN looks like 0/16B3748")
    return (int(high, 16) << 32) | int(low, 16)
