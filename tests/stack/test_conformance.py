"""One workload through both runtimes: the logs agree row for row, at every transaction, in every value."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from tests.stack.conftest import until

from claimhouse.change import BY_CUT
from claimhouse.distributed.native import Stack
from claimhouse.distributed.topology import s3_options
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake, changes_key, open_lake
from claimhouse.pipeline import Capture
from claimhouse.pipeline.options import CaptureOptions

pytestmark = pytest.mark.stack

KINDS = f"kinds_{os.getpid()}"  # a kept stack has the tables of earlier runs
TABLE = """
CREATE TABLE {kinds} (
    id int PRIMARY KEY, b bool, i2 smallint, i8 bigint, f4 real, f8 float8, n numeric(12,2), bare numeric, t text,
    c char(5), raw bytea, d date, ts timestamp, tz timestamptz, tm time, iv interval, u uuid, j jsonb, ia int[],
    ta text[], na numeric(5,2)[], o oid, ip inet, r int4range, bits bit(3))
"""
ORDINARY = (
    "1, true, 7, 9007199254740993, 1.1, 1e300, 1234567.80, 0.1000, 'a\"b\\N', 'ch', '\\x00ff', '2026-01-02',"
    " '2026-01-02 03:04:05.123456', '2026-01-02 03:04:05.12+02', '12:34:56.5', '1 year -2 mons 3 days 04:05:06.7',"
    " 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1.0}', '{1,NULL,3}', '{a,NULL,\"q\\\"x\"}', '{1.50}',"
    " 4000000000, '10.0.0.1/8', '[1,5)', B'101'"
)
WORKLOAD = (
    [f"INSERT INTO kinds VALUES ({ORDINARY})"],
    ["INSERT INTO kinds (id, d, ts, tz, f4, f8, bare) VALUES"
     " (2, 'infinity', '-infinity', 'infinity', 'NaN', '-Infinity', 'NaN')"],
    ["INSERT INTO kinds (id, d, ts, tz, bare) VALUES"
     " (3, '0044-03-15 BC', '0044-03-15 01:02:03 BC', '21016-01-01 00:00+00', '1e40')"],
    ["INSERT INTO kinds (id, t) VALUES (4, '')", "UPDATE kinds SET t = NULL WHERE id = 4"],
    ["DELETE FROM kinds WHERE id = 4"],
    ["ALTER TABLE kinds ALTER t SET STORAGE EXTERNAL", "UPDATE kinds SET t = repeat('long ', 2000) WHERE id = 1"],
    ["UPDATE kinds SET b = false WHERE id = 1"],
    ["UPDATE kinds SET id = 11 WHERE id = 1"],
    ["INSERT INTO kinds (id) SELECT generate_series(100, 400)", "UPDATE kinds SET n = id WHERE id >= 100"],
    ["INSERT INTO log VALUES ('x', 1), ('x', 1)"],
    ["DELETE FROM kinds WHERE id BETWEEN 100 AND 200", "UPDATE log SET b = 9 WHERE a = 'x'"],
    ["TRUNCATE kinds", "INSERT INTO kinds (id, i8) VALUES (1, -9223372036854775808)"],
)  # fmt: skip


@pytest.fixture
def embedded(stack: Stack, tmp_path: Path) -> Iterator[Lake]:
    """The embedded runtime beside the stack, on the same source."""
    stop = threading.Event()
    events: list[str] = []
    options = CaptureOptions("other", stack.admin_dsn, str(tmp_path / "lake"), tables=[KINDS, "log"], flush_interval=1)
    capture = Capture(options, lambda kind, fields: events.append(kind))
    thread = threading.Thread(target=capture.run, args=(stop,))
    thread.start()
    until(lambda: events.count("copied") >= 2, within=120)
    yield open_lake(tmp_path / "lake")
    stop.set()
    thread.join(60)


def streamed(lake: Lake, source: str, folder: str, after: int, upto: int) -> list[tuple[Any, ...]] | None:
    """A table's streamed rows between two positions, in order, without what a runtime may number as it likes."""
    table = delta.open_table(lake, changes_key(source, folder))
    if table is None:
        return None
    rows = table.to_pyarrow_dataset().to_table().sort_by([("_end_lsn", "ascending"), ("_seq", "ascending")])
    own = {"_seq", "_schema", "_copy", *(f.name for f in BY_CUT)}
    names = sorted(set(rows.column_names) - own)
    lines = pa.Table.to_pylist(rows)
    kept = [r for r in lines if r["_op"] != "r" and after < r["_end_lsn"] <= upto]
    return [tuple(str(r[n]) if isinstance(r[n], float) else _plain(r[n]) for n in names) for r in kept]


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) and value and isinstance(value[0], tuple) else value


@pytest.mark.case("L9")
def test_both_runtimes_log_the_same_rows(
    stack: Stack, source: psycopg.Connection[Any], request: pytest.FixtureRequest
) -> None:
    source.execute(TABLE.replace("{kinds}", KINDS).encode())
    until(lambda: stack.trino.run(f"SELECT count(*) FROM main__public.{KINDS}")[0][0] == 0, within=300)
    other: Lake = request.getfixturevalue("embedded")
    ours = open_lake(stack.topology.lake, s3_options(stack.topology, stack.secrets))
    after = _position(source)
    for statements in WORKLOAD:
        with source.transaction():
            for statement in statements:
                source.execute(statement.replace("kinds", KINDS).encode())
    upto = _position(source)

    def same() -> bool:
        for folder in (f"public/{KINDS}", "public/log"):
            left = streamed(other, "other", folder, after, upto)
            right = streamed(ours, "main", folder, after, upto)
            assert left and right, (folder, left is None, right is None)
            assert len(left) == len(right), folder
            for one, two in zip(left, right, strict=True):
                assert one == two, folder
        return True

    until(same, within=240, every=2)


def _position(source: psycopg.Connection[Any]) -> int:
    row = source.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])
