"""Where a lake holds a claims book: the source whose tables are those of claims/schema.sql.

Claim pages read these tables by name. A lake without them is shown table by table instead; its figures come through a
model file of its own (claimhouse.marts).
"""

from __future__ import annotations

from dataclasses import dataclass

from claimhouse.query.guard import quote
from claimhouse.query.session import Session

SCHEMA = "public"
# the tables, and of those that other books may have too, the columns that tell
TABLES = (
    "claim policy party adjuster exposure coverage reserve_txn payment payment_line recovery_txn activity claim_party "
    "claim_status_history insured_asset provider invoice catastrophe policy_version"
).split()
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
    """The first source of a session that holds a whole claims book, None where none does."""
    visible: dict[str, set[str]] = {}
    for table in session.tables():
        if table.schema == SCHEMA:
            visible.setdefault(table.source, set()).add(table.name)
    for source, names in sorted(visible.items()):
        if set(TABLES) <= names and _tells(session, source):
            return Book(source)
    return None


def _tells(session: Session, source: str) -> bool:
    for table in session.tables():
        if (table.source, table.schema) == (source, SCHEMA) and not _TELLING.get(table.name, set()) <= set(
            session.columns(table)
        ):
            return False
    return True
