"""The list of cases behind docs/acceptance.md: what may happen, what claimhouse does, and which of it a release needs.

The tests of a case are not listed here: they say so themselves, by `@pytest.mark.case("O3")`.
"""

# ruff: noqa: E501 -- one case is one line

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One row: what comes, and what claimhouse makes of it. `gate`: a release needs a test that shows it."""

    id: str
    gate: bool
    comes: str
    does: str


GROUPS: dict[str, str] = {
    "T": "Types",
    "O": "Operations and what tells rows apart",
    "N": "The first copy and the stream after it",
    "S": "Schema changes",
    "R": "Going on after a fault",
    "K": "Kafka, Connect and Spark",
    "L": "The lake",
}
_Y, _N = True, False
# fmt: off
CASES: tuple[Case, ...] = (
    Case("T1", _Y, "whole numbers up to their ends, serials, an oid beyond 31 bits", "the same number, by copy and by stream"),
    Case("T2", _Y, "real and double precision: NaN, both infinities, minus zero, whole numbers", "the same bits"),
    Case("T3", _Y, "numeric with and without precision, NaN, infinities, more than 38 digits", "a decimal where one holds it, else the exact text; never rounded"),
    Case("T4", _N, "money, also negative and NULL", "PostgreSQL's text"),
    Case("T5", _Y, "text of every kind: padding, `\\N`, quotes, characters of 1 to 4 bytes, empty and NULL", "the same characters; NULL is not the empty text"),
    Case("T6", _Y, "bytea: empty, with zero bytes, of megabytes, in arrays", "the same bytes"),
    Case("T7", _N, "boolean and bit strings", "a boolean; the bits as text"),
    Case("T8", _Y, "dates and timestamps: infinity, BC, years beyond 9999, before 1582, micro- and milliseconds", "the same moment, or a stand-in with the exact text in `_exact`"),
    Case("T9", _N, "time with and without zone, 24:00:00", "PostgreSQL's text"),
    Case("T10", _N, "interval", "PostgreSQL's text"),
    Case("T11", _Y, "uuid, json, jsonb, xml, network addresses", "PostgreSQL's text, json in the spelling it was sent in"),
    Case("T12", _N, "ranges and multiranges with infinite bounds", "PostgreSQL's text"),
    Case("T13", _Y, "arrays of every type: NULL elements, empty, of several dimensions, of odd bounds", "a list; what is no list of one dimension from 1 on is kept in `_exact`"),
    Case("T14", _Y, "enums (with a label that comes later), domains, composites, extensions' types, types of no table", "PostgreSQL's text, a domain as what it stands on; nothing is left out"),
    Case("T15", _Y, "random values of every type; damaged messages", "value, text and value again are equal; damage is an error of ours, never a wrong row"),
    Case("T16", _Y, "a role or database with other spellings of dates, intervals, floats, zones", "the same values"),

    Case("O1", _Y, "INSERT, UPDATE and DELETE under every replica identity, with keys of several columns", "the right old row for each; without an identity a table is append-only, and the application can go on writing"),
    Case("O2", _Y, "an UPDATE that changes the key", "the old key is gone, the new one is there, the row's history goes on"),
    Case("O3", _Y, "large values that an UPDATE did not touch and the server does not send", "the value stays what it was; none becomes NULL"),
    Case("O4", _Y, "a key written several times in one transaction or one batch", "the last change wins"),
    Case("O5", _Y, "TRUNCATE of one table, of several, by cascade, of a partitioned table and of one partition", "emptied, at its place among the other changes"),
    Case("O6", _Y, "a table without a primary key", "append-only and named so, with the SQL that would change it; whole under REPLICA IDENTITY FULL"),
    Case("O7", _Y, "COPY and INSERT of many rows: several events at one position, a kill between them", "every row once"),
    Case("O8", _Y, "a transaction larger than the server's memory for decoding, with savepoints rolled back", "what was committed, whole or not at all"),
    Case("O9", _N, "PREPARE TRANSACTION, then COMMIT or ROLLBACK PREPARED", "seen at the second commit, or never"),
    Case("O10", _Y, "a transaction that is rolled back", "never seen"),
    Case("O11", _Y, "transactions that run at the same time, and restarts in the middle of them", "each is there once, in order of their commits"),
    Case("O12", _Y, "names with quotes, dots, backslashes, capitals, 63 bytes, a digit first", "captured and queried under their own names"),
    Case("O13", _N, "unlogged and temporary tables, views, generated columns", "named as not captured; stored generated columns where the server sends them"),

    Case("N1", _Y, "rows written while their table is copied", "there exactly once"),
    Case("N2", _Y, "a kill within the copy, or between it and the stream", "the next run ends at the source's rows, none twice"),
    Case("N3", _Y, "a restart, even of a role that may no longer SELECT", "streams on, copies nothing again"),
    Case("N4", _Y, "a reader while a table is copied", "is refused, or sees the copy before; never a part"),
    Case("N5", _N, "an empty table, one without columns, a column list, a row filter", "captured; what a publication leaves out is named"),
    Case("N6", _Y, "tables that come into a publication or leave it; publications of all tables or of a schema", "new tables are copied, what went unseen is copied anew, another's publication is taken as it is"),
    Case("N7", _N, "one table copied anew on request (`claimhouse resync`)", "the others stream on; the table is replaced once the copy is right"),

    Case("S1", _Y, "columns added, dropped, renamed, several in one statement, in a row", "followed; a past moment has the columns of its time"),
    Case("S2", _Y, "a column of another type, wider or narrower", "the table is copied anew where old rows differ; the others stream on"),
    Case("S3", _Y, "DDL between the rows of one transaction, and a kill before it was confirmed", "each row is read in the shape that it was written in, once"),
    Case("S4", _Y, "ADD COLUMN … DEFAULT, and rows older than it", "older rows show the default"),
    Case("S5", _N, "a table or schema renamed; a table dropped and made again under its name", "a renamed table goes on; a new one never shows the former one's rows"),
    Case("S6", _Y, "another replica identity while the stream runs", "the next rows are right"),
    Case("S7", _N, "partitions attached, detached, dropped, with columns in another order", "captured as their root; a publication that shows them one by one is refused by name"),
    Case("S8", _Y, "two columns whose names differ only by case", "that table is errored by name, the others go on"),

    Case("R1", _Y, "a confirmed position", "what is not confirmed comes again, what is does not; it never goes back"),
    Case("R2", _Y, "captured tables idle while others are written", "the slot moves on"),
    Case("R3", _Y, "confirmations that never reach the server", "no row is applied twice"),
    Case("R4", _Y, "a write to the lake whose answer is lost", "found as written, not made again"),
    Case("R5", _Y, "the connection lost while a cut is being written", "mended; nothing lost, nothing twice"),
    Case("R6", _Y, "a slot that is missing, lost, moved or made anew", "stops and says what is gone; `claimhouse repair` bridges it by copies"),
    Case("R7", _Y, "a second capture on the slot", "refused, and told the pid"),
    Case("R8", _Y, "a server that is behind the lake, or goes another way than it", "stops; its history belongs under another source name"),
    Case("R9", _N, "a standby that is promoted", "goes on where the standby had all that the lake has"),
    Case("R10", _Y, "SIGTERM; a fast shutdown of the server", "what was read is cut, confirmed and flushed; the server is not kept waiting"),
    Case("R11", _N, "rights taken away, row level security", "stops with the right that is missing; not tried again in vain"),
    Case("R12", _Y, "a value or a shape that cannot be kept", "that table is errored, named once, with a dead letter at its position; the others go on. Nothing is skipped by position: `claimhouse resync` copies the table anew, after which its rows are the source's again"),

    Case("K1", _Y, "Connect and Spark killed under load", "the lake is exact"),
    Case("K2", _Y, "the broker lost under load; another one that is sent the same again", "each transaction once"),
    Case("K3", _Y, "events twice, replayed, out of order across partitions", "whole transactions, once, in order of their commits"),
    Case("K4", _Y, "a message that cannot be read", "kept as dead and counted; cuts stop before the transaction that lacks it rather than show it in part"),
    Case("K5", _N, "a slow or broken link to the broker", "catches up"),

    Case("L1", _Y, "the same batch written twice", "the table is the same"),
    Case("L2", _Y, "two writers of one source, one of them a zombie", "the newer owner goes on, the zombie stops for good before it confirms anything"),
    Case("L3", _Y, "a batch that changes nothing in the end", "its position is recorded all the same"),
    Case("L4", _Y, "large tables, large batches", "claimhouse uses no MERGE; tables of 100,000 rows are folded and read right"),
    Case("L5", _Y, "several events of one key in a batch", "all are in the log, the newest counts"),
    Case("L6", _Y, "a kill between a data file and its commit", "an orphan that nobody reads and that upkeep removes"),
    Case("L7", _Y, "a Delta table's `_last_checkpoint` empty, missing, stale; its checkpoint damaged", "read all the same, or an error that names the table"),
    Case("L8", _Y, "a commit of a Delta table cut short, of zero bytes, missing; a damaged or missing cut", "an error that names it, for readers and for the writer"),
    Case("L9", _Y, "other readers of the same lake", "DuckDB, delta-rs, Spark and Trino find the same values"),
    Case("L10", _Y, "a second engine that would write the same tables", "refused; by its rights it cannot"),
    Case("L11", _Y, "compaction and vacuum beside a writer and readers", "a reader within the retention meets no error"),
    Case("L12", _Y, "S3 that is slow, refuses, breaks off, or answers a conditional PUT late", "tried again within a bound, or told; a name is taken once"),
    Case("L13", _Y, "a full disk", "nothing is confirmed, nothing seen in part; goes on once there is space"),
    Case("L14", _Y, "a power cut", "what was confirmed to the server is on disk"),
)
# fmt: on
