"""A value of every kind, captured from PostgreSQL, is for Spark what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.values.book import book, of_each_kind
from tests.values.lake import Lake
from tests.values.paths import INSERTED, Typed

import claimhouse.spark

pytestmark = pytest.mark.stack


@pytest.mark.case("L9")
def test_spark_reads_a_value_of_every_kind_as_it_was_sent(spark: Any, postgres: Any, tmp_path: Path) -> None:
    table = Typed(postgres, of_each_kind(book(postgres)), 20261130, rows=8)
    table.insert()
    table.insert_empty()
    lake = Lake(postgres.dsn, tmp_path)
    lake.capture()
    table.insert(INSERTED)
    table.update()
    lake.capture()
    lake.folded("public/typed")
    assert claimhouse.spark.register(spark, lake.location) == ["typed"]
    held = spark.table("typed").toArrow().to_pylist()
    wrong = table.wrong("Spark", {row["id"]: row for row in held})
    assert not wrong, "\n".join(wrong[:20])
