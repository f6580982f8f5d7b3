"""A small claims book in PostgreSQL and its lake, with what a hostile or careless hand could have typed into it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from claimhouse.claims.loader import load
from claimhouse.console.app import Console
from claimhouse.console.server import Served, listen
from claimhouse.lake.lake import Lake, open_lake
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.postgres.embedded import Embedded

IMAGE = '<img src=x onerror="document.title=1">'
FORMULA = "=HYPERLINK(1)"
TOKEN = "the-token-of-the-tests"


@dataclass
class ClaimsLake:
    """`number` is the claim that was changed after the copy: its cause, place, notes and status."""

    dsn: str
    location: str
    number: str = ""
    claim_id: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def lake(self) -> Lake:
        return open_lake(self.location)

    def capture(self) -> None:
        """Bring everything that is committed by now into the lake."""
        Capture(CaptureOptions("main", self.dsn, self.location, once=True)).run()

    @contextmanager
    def captured(self) -> Iterator[None]:
        """A capture that runs meanwhile."""
        drain = threading.Event()
        running = Capture(CaptureOptions("main", self.dsn, self.location))
        thread = threading.Thread(target=running.run, args=(drain,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            drain.set()
            thread.join(60)

    def execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(statement, values)  # type: ignore[arg-type]

    def new_claim(self, number: str) -> None:
        """A claim like the planted one."""
        self.execute(
            "INSERT INTO claim (claim_number, policy_id, line, cause, loss_date, loss_state, loss_place, reported_at,"
            " status, adjuster_id, created_at, updated_at) SELECT %s, policy_id, line, 'glass', loss_date, loss_state,"
            " 'Springfield', max(reported_at) OVER () + interval '1 minute', 'new', adjuster_id, created_at, updated_at"
            " FROM claim ORDER BY claim_id = %s DESC LIMIT 1",
            number,
            self.claim_id,
        )


def make(server: Embedded, folder: Path) -> ClaimsLake:
    """Load a book of some hundred claims, copy it, change one claim three times, capture."""
    name = "console_" + folder.name.replace("-", "_").lower()[-20:]
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    made = ClaimsLake(make_conninfo(server.dsn, dbname=name), str(folder / "lake"))
    load(made.dsn, scale=0.03, labels_to=folder)
    made.capture()
    with psycopg.connect(made.dsn, autocommit=True) as conn:
        row = conn.execute(
            "SELECT claim_id, claim_number FROM claim WHERE status <> 'closed' ORDER BY reported_at DESC LIMIT 1"
        ).fetchone()
        assert row is not None
        made.claim_id, made.number = row
    made.execute("UPDATE claim SET notes = %s WHERE claim_id = %s", IMAGE, made.claim_id)
    made.execute("UPDATE claim SET loss_place = %s WHERE claim_id = %s", IMAGE, made.claim_id)
    made.execute("UPDATE claim SET cause = %s WHERE claim_id = %s", FORMULA, made.claim_id)
    made.capture()
    return made


def drop(server: Embedded, made: ClaimsLake) -> None:
    """The database and its slot."""
    name = psycopg.conninfo.conninfo_to_dict(made.dsn)["dbname"]
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s AND NOT active",
            [name],
        )


@contextmanager
def served(console: Console) -> Iterator[Served]:
    """A console that listens on a free port of loopback."""
    running = listen(console, token=lambda: TOKEN)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(20)


def hits_of(number: str) -> list[dict[str, object]]:
    """Entries as the rules' side gives them: two claims, three hits, one of them withdrawn."""
    hit = {
        "rule": "duplicate_invoice",
        "title": "Invoice billed twice",
        "score": 90.0,
        "reason": "The provider's invoice was booked on another claim, too.",
        "values": {"invoice": IMAGE, "amount": "1,200.00"},
        "lsn": 0x5600000,
        "first_held": "2026-01-05T10:00:00Z",
        "withdrawn": None,
    }
    late = {**hit, "rule": "late_report", "title": "Reported late", "score": 30.0, "withdrawn": "2026-01-06T10:00:00Z"}
    since = hit["first_held"]
    return [
        {"claim": number, "score": 91.0, "band": "high", "previous": 60.0, "since": since, "hits": [hit, late]},
        {"claim": "CLM-OTHER", "score": 55.0, "band": "medium", "previous": None, "since": since, "hits": [hit]},
    ]
