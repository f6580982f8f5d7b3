"""A real book to run on: chainladder's prism data (MPL-2.0), lived through in date order as transactions.

34,244 claims of 2008 to 2017, each reported once, paid at most once and closed. `replay` plays the days one after the
other into PostgreSQL: a report inserts a claim, a settlement inserts the payment and closes the claim in the same
transaction. So a lake that follows sees the book grow as the insurer saw it, and any moment of it can be compared with
what chainladder makes of the same rows.

The data come with the package chainladder (extra `reserving`); nothing here imports it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from claimhouse.errors import UsageError

SCHEMA: LiteralString = """
CREATE TABLE prism_claim (
    claim_no       bigint PRIMARY KEY,
    line           text NOT NULL,
    type           text NOT NULL,
    accident_date  date NOT NULL,
    report_date    date NOT NULL,
    close_date     date,
    status         text NOT NULL CHECK (status IN ('OPEN', 'CLOSED')),
    limit_amount   numeric(14,2) NOT NULL,
    deductible     numeric(14,2) NOT NULL,
    paid           numeric(20,14) NOT NULL,
    changed_on     date NOT NULL,
    CHECK ((status = 'CLOSED') = (close_date IS NOT NULL))
);
COMMENT ON COLUMN prism_claim.paid IS 'Overwritten at each payment, as many systems do.';
COMMENT ON COLUMN prism_claim.changed_on IS 'Day of the book on which the row last changed.';
CREATE TABLE prism_payment (
    payment_id     bigint PRIMARY KEY,
    claim_no       bigint NOT NULL REFERENCES prism_claim,
    payment_date   date NOT NULL,
    amount         numeric(20,14) NOT NULL
);
"""
_REPORT: LiteralString = """
INSERT INTO prism_claim
SELECT c, l, t, a, r, NULL, 'OPEN', m, d, 0, r
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::date[], %s::date[], %s::numeric[], %s::numeric[])
    AS x (c, l, t, a, r, m, d)
"""
_PAY: LiteralString = """
INSERT INTO prism_payment SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::date[], %s::numeric[])
"""
_CLOSE: LiteralString = """
UPDATE prism_claim SET status = 'CLOSED', close_date = d, paid = paid + p, changed_on = d
FROM unnest(%s::bigint[], %s::date[], %s::numeric[]) AS x (c, d, p) WHERE claim_no = c
"""


@dataclass(frozen=True)
class Row:
    """One claim of the data, whole."""

    claim: int
    line: str
    type: str
    accident: date
    report: date
    settle: date
    limit: Decimal
    deductible: Decimal
    paid: Decimal


@dataclass
class Replayed:
    """What a replay did."""

    claims: int = 0
    payments: int = 0
    transactions: int = 0
    last_day: date | None = field(default=None)


def data_file() -> Path:
    """prism.csv in the installed package chainladder. Raises UsageError."""
    spec = find_spec("chainladder")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "utils" / "data" / "prism.csv").is_file():
            return path
    raise UsageError("the prism data are not installed", hint="pip install 'claimhouse[reserving]'")


def rows(path: Path | None = None, limit: int | None = None) -> list[Row]:
    """The claims of the file in its order, every digit kept."""
    with (path or data_file()).open(newline="") as file:
        found = [_row(line) for line in csv.DictReader(file)]
    return found[:limit]


def _row(line: dict[str, str]) -> Row:
    settled, closed = _day(line["PaymentDate"]), _day(line["CloseDate"])
    if settled != closed:
        raise UsageError("the prism data are not as expected: a payment and its closing differ in date")
    return Row(
        int(line["ClaimNo"]),
        line["Line"],
        line["Type"],
        _day(line["AccidentDate"]),
        _day(line["ReportDate"]),
        settled,
        Decimal(line["Limit"]),
        Decimal(line["Deductible"]),
        Decimal(line["TotalPayment"]),
    )


def _day(text: str) -> date:
    if "/" not in text:
        return date.fromisoformat(text)
    month, day, year = map(int, text.split("/"))
    return date(year, month, day)


def _connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, application_name="claimhouse prism", options="-c search_path=public")


def create(dsn: str) -> None:
    """Make the two empty tables."""
    with _connect(dsn) as connection, connection.transaction():
        connection.execute(SCHEMA)


def replay(
    dsn: str,
    *,
    after: date | None = None,
    until: date | None = None,
    days: int = 1,
    limit: int | None = None,
    path: Path | None = None,
) -> Replayed:
    """Play the days after `after` and up to `until` (both may be open) into the tables that `create` made.

    `days`: days of the book in one transaction. `limit`: only the first claims of the file.
    """
    done = Replayed()
    first, last = after or date.min, until or date.max
    moved = ((day, kind, row) for day, kind, row in _events(rows(path, limit)) if first < day <= last)
    with _connect(dsn) as connection:
        for _, group in groupby(moved, key=lambda event: event[0].toordinal() // days):
            events = list(group)
            with connection.transaction():
                _play(connection, events, done)
            done.transactions += 1
            done.last_day = events[-1][0]
    return done


def _events(claims: list[Row]) -> Iterator[tuple[date, int, Row]]:
    """(day, 0 report | 1 settlement, claim) in order of days; on one day reports come first."""
    events = [(row.report, 0, row) for row in claims] + [(row.settle, 1, row) for row in claims]
    yield from sorted(events, key=lambda event: (event[0], event[1], event[2].claim))


def _play(connection: psycopg.Connection[Any], events: list[tuple[date, int, Row]], done: Replayed) -> None:
    reported = [row for _, kind, row in events if kind == 0]
    settled = [row for _, kind, row in events if kind == 1]
    paid = [row for row in settled if row.paid]
    if reported:
        columns = zip(
            *((r.claim, r.line, r.type, r.accident, r.report, r.limit, r.deductible) for r in reported), strict=True
        )
        connection.execute(_REPORT, [list(column) for column in columns])
    if paid:
        columns = zip(*((r.claim, r.claim, r.settle, r.paid) for r in paid), strict=True)
        connection.execute(_PAY, [list(column) for column in columns])
    if settled:
        columns = zip(*((r.claim, r.settle, r.paid) for r in settled), strict=True)
        connection.execute(_CLOSE, [list(column) for column in columns])
    done.claims += len(reported)
    done.payments += len(paid)
