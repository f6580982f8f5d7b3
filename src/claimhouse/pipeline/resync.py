"""Copying a table anew on request, told in the stream itself: whoever captures the source reads it in its place.

A logical message needs no other way from the one who asks to the one who captures, reaches a capture of either runtime,
and waits in the WAL where none runs. A table that was stopped by an error is taken up again by it.
"""

from __future__ import annotations

import psycopg

from claimhouse.postgres.server import explained

PREFIX = "claimhouse.resync"


def ask(conn: psycopg.Connection, oid: int) -> None:
    """Ask for a new copy of the table with that oid. Needs autocommit. Raises SourceError."""
    with explained("asking for a new copy"):
        conn.execute("SELECT pg_logical_emit_message(true, %s, %s)", (PREFIX, str(oid)))


def read(content: bytes) -> int | None:
    """The oid that a message of PREFIX names; None where anyone else wrote it."""
    return int(content) if content.isdigit() and len(content) <= 10 else None
