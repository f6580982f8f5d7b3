"""Where a lake holds a claims book: the source whose tables are those of claims/schema.sql.

Claim pages read these tables by name. A lake without them is shown table by table instead; its figures come through a
model file of its own (claimhouse.marts).
"""

from __future__ import annotations

from dataclasses import dataclass

from claimhouse.query.names import TableName
from claimhouse.query.session import Session
from claimhouse.quoting import quote

SCHEMA = "public"
# the tables, and of those that other books may have too, the columns that tell
_NAMES = """
claim policy party adjuster exposure coverage reserve_txn payment payment_line recovery_txn activity claim_party
claim_status_history insured_asset provider invoice catastrophe policy_version"""
TABLES = tuple(_NAMES.split())
LATEST = "CURRENT_DATE + INTERVAL 1 YEAR"  # a day after it is a mistake; the book's own clock may run before ours
_TELLING = {"claim": {"claim_id", "claim_number", "policy_id", "loss_date", "reported_at", "status", "line"}}


@dataclass(frozen=True)
class Book:
    """A claims book's source; `sql` fills `{claim}` and its like with the tables' full names."""

    source: str

    def name(self, table: str) -> str:
        return ".".join(map(quote, (self.source, SCHEMA, table)))

    def sql(self, text: str, **values: str) -> str:
        return text.format_map({**{t: self.name(t) for t in TABLES}, **values})

    def names(self, *tables: str) -> list[str]:
        return [self.name(t) for t in tables]


def find_book(session: Session) -> Book | None:
    """The first source of a session that holds a whole claims book, None where none does.

    Raises NotExact, QueryError where there is one whose claims cannot be read at the session's moment.
    """
    known: dict[str, dict[str, TableName]] = {}
    for table in session.names.tables:
        if table.schema == SCHEMA:
            known.setdefault(table.source, {})[table.name] = table
    for source, tables in sorted(known.items()):
        if set(TABLES) <= set(tables) and all(
            columns <= _columns(session, tables[t]) for t, columns in _TELLING.items()
        ):
            for name in TABLES:
                if hidden := session.hidden(tables[name]):
                    raise hidden
            return Book(source)
    return None


def _columns(session: Session, table: TableName) -> set[str]:
    """A table's columns by the source's names, at the session's moment or the first one known."""
    return set(session.columns(table))
