"""A value of every kind, captured from PostgreSQL into the stack's lake, is for Trino what was sent."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.conftest import Database
from tests.stack.book import publish
from tests.values.book import book, of_each_kind
from tests.values.paths import INSERTED, Typed

from claimhouse.distributed.native import Stack
from claimhouse.distributed.streaming import Streaming
from claimhouse.distributed.topology import s3_options
from claimhouse.distributed.views import schema_name
from claimhouse.lake.lake import open_lake
from claimhouse.pipeline import Capture, CaptureOptions

pytestmark = pytest.mark.stack

SOURCE = f"types{os.getpid()}"  # a kept stack has those of earlier runs


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    """A database of the stack's own PostgreSQL, named as the source."""
    with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {SOURCE}".encode())
    dsn = make_conninfo(stack.admin_dsn, dbname=SOURCE)
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Database(dsn, SOURCE, conn)


@pytest.mark.case("L9")
def test_trino_reads_a_value_of_every_kind_as_it_was_sent(stack: Stack, database: Database) -> None:
    table = Typed(database, of_each_kind(book(database)), 20261130, rows=8)
    table.insert()
    table.insert_empty()
    options, place = s3_options(stack.topology, stack.secrets), f"s3://{stack.topology.bucket}/{SOURCE}"
    Capture(CaptureOptions(SOURCE, database.dsn, place, options, once=True)).run()
    table.insert(INSERTED)
    table.update()
    Capture(CaptureOptions(SOURCE, database.dsn, place, options, once=True)).run()
    lake = open_lake(place, options)
    Streaming(lake, SOURCE, lambda: None).prepare(0, "none")
    assert publish(stack, lake, SOURCE)
    names = ["id", *table.columns]
    found = stack.trino.run(f"SELECT {', '.join(names)} FROM {schema_name(SOURCE, 'public')}.typed")
    kinds = ["int4", *(c.kind for c in table.cases)]
    rows = [{n: plain(v, k) for n, v, k in zip(names, row, kinds, strict=True)} for row in found]
    wrong = table.wrong("Trino", {row["id"]: row for row in rows}, known=to_milliseconds)
    assert not wrong, "\n".join(wrong[:20])


def plain(value: Any, kind: str) -> Any:
    """A value of Trino's JSON as the kind's own."""
    if value is None or kind in ("text", "bool", "int2", "int4", "int8"):
        return value
    if kind.startswith("list<"):
        return [plain(v, kind[5:-1]) for v in value]
    if kind.startswith("decimal"):
        return Decimal(value)
    match kind:
        case "float4":
            return float(np.float32(value))
        case "float8":
            return float(value)
        case "bytes":
            return base64.b64decode(value)
        case "date":
            return date.fromisoformat(value)
        case "timestamptz":
            return value.removesuffix(" UTC")
        case _:
            return datetime.fromisoformat(value)


def to_milliseconds(value: Any) -> Any:
    """What Trino's Delta connector makes of an instant: milliseconds, rounded; so the last one is a year beyond."""
    if isinstance(value, list):
        return [to_milliseconds(v) for v in value]
    if not isinstance(value, datetime) or value.tzinfo is None:
        return value
    if value.year == 9999 and value.microsecond >= 999_500 and (value.month, value.day, value.hour) == (12, 31, 23):
        return "+10000-01-01 00:00:00.000"
    rounded = value.replace(microsecond=0, tzinfo=None) + timedelta(milliseconds=(value.microsecond + 500) // 1000)
    return rounded.isoformat(" ", "milliseconds")
