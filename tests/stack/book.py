"""A small demo book for the engines: written into a lake on the stack's S3 by the embedded runtime, shown by Trino."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from claimhouse.claims import Simulator, load
from claimhouse.distributed.catalog import Catalog
from claimhouse.distributed.mover import wire_type
from claimhouse.distributed.native import Stack
from claimhouse.distributed.streaming import Streaming
from claimhouse.distributed.topology import s3_options
from claimhouse.distributed.trino import Trino
from claimhouse.distributed.views import schema_name
from claimhouse.fraud import model as fraud_models
from claimhouse.lake import delta, flushes, registry
from claimhouse.lake.lake import TRANSACTIONS, Lake, open_lake
from claimhouse.lake.tail import cut_numbers, read_mark
from claimhouse.marts import load as load_model
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.query.names import LOG

SOURCE = f"book{os.getpid()}"  # a kept stack has those of earlier runs
Run = Callable[[str], list[tuple[Any, ...]]]


@dataclass
class Book:
    """One lake as the engines see it. `read` names the tables that figures and rules read, logs by `…__log`."""

    lake: Lake
    trino: Trino
    read: set[str]

    @property
    def over_views(self) -> Run:
        """Runs SQL that names the book's tables as the models do, over Trino's views."""
        return Trino(self.trino.url, catalog=self.catalog, schema=schema_name(SOURCE, "public")).run

    @property
    def catalog(self) -> str:
        return self.trino.catalog

    def copied(self) -> Run:
        """The same over copies of the views: of many views Trino plans for seconds."""
        return Trino(self.trino.url, catalog=self.catalog, schema=self.flat).run

    @cached_property
    def flat(self) -> str:
        """The schema of the copies, which are made at the first look and stay as they are."""
        flat, views = f"{SOURCE}__flat", schema_name(SOURCE, "public")
        self.trino.run(f"CREATE SCHEMA {flat} WITH (location = '{self.lake.location}/flat')")
        for (table,) in self.trino.run(f"SHOW TABLES FROM {views}"):
            self.trino.run(f"CREATE TABLE {flat}.{table} AS SELECT * FROM {views}.{table}")
        return flat

    def transactions(self) -> list[dict[str, Any]]:
        """Those of the lake, in the order of the log."""
        table = delta.open_table(self.lake, TRANSACTIONS)
        assert table is not None
        return table.to_pyarrow_dataset().to_table().sort_by("end_lsn").to_pylist()

    def folder(self, stack: Stack, place: Path) -> Path:
        """A stack's folder that names this lake and source."""
        replace(stack.topology, source=SOURCE, lake=self.lake.location).save(place / "topology.json")
        type(stack.secrets)(**asdict(stack.secrets)).save(place / "secrets.json")
        return place


def make(stack: Stack) -> Book:
    """Load the book, capture it, let it live for 200 transactions, capture those, and publish the views."""
    with psycopg.connect(stack.admin_dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {SOURCE}".encode())
    dsn = make_conninfo(stack.admin_dsn, dbname=SOURCE)
    load(dsn, scale=0.03, seed=7)
    options, place = s3_options(stack.topology, stack.secrets), f"s3://{stack.topology.bucket}/{SOURCE}"
    models = (load_model("demo"), fraud_models.load())
    read = {t for m in models for name in m.inputs for t in m.tables(name)}
    tables = sorted({f"public.{t.removesuffix(LOG)}" for t in read})
    asked = CaptureOptions(SOURCE, dsn, place, options, tables=tables, once=True)
    Capture(asked).run()
    for _ in range(4):  # so the lake has several cuts of changes
        Simulator(dsn, rate=0, workers=1, change_after=None).run(transactions=50)
        Capture(asked).run()
    lake = open_lake(place, options)
    Streaming(lake, SOURCE, lambda: None).prepare(0, "none")
    assert publish(stack, lake)
    return Book(lake, stack.trino, read)


def publish(stack: Stack, lake: Lake, source: str = SOURCE) -> list[str]:
    """Bring Trino's tables and views up to the lake's newest flush; the views that were made."""
    mark = read_mark(lake, source, cut_numbers(lake, source)[-1])
    record = flushes.load(lake, source, mark.flush)
    with psycopg.connect(make_conninfo(stack.admin_dsn, dbname=source)) as conn:
        catalog = Catalog(stack.trino, lake, stack.topology.catalog, source, "-", lambda c: wire_type(conn, c.type_oid))
        return catalog.publish(record, registry.load(lake, source, record.registry), 0)
