"""Real streams of a real server, decoded, against what the server says itself."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import emptied
from tests.postgres.streaming import Source, Xids, all_changes, as_text, replay, table_of

from claimhouse.change import TRANSACTIONS
from claimhouse.errors import ClaimhouseError, SourceError
from claimhouse.postgres.frames import Raw
from claimhouse.postgres.pgoutput import Decoder, Relation, parse_relation
from claimhouse.table import Column, Table, encode_name

MIXED = """CREATE TABLE mixed (
    id bigint, part text, a int2, b numeric(12,2), c text, d date, e timestamptz, f float8, g bool, h varchar(20),
    i timestamp, j bytea, k int[], l text[], m jsonb, n numeric, o uuid, PRIMARY KEY (id, part))"""
LONG = "(SELECT string_agg(md5(g::text || random()::text), '') FROM generate_series(1, 200) g)"  # TOASTed
VALUES = """'p' || n % 3, n % 100, CASE WHEN n % 7 = 0 THEN 'NaN' ELSE n / 3.0 END, 'text ' || n,
    CASE n % 5 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity'::date WHEN 2 THEN NULL ELSE '2024-02-29'::date + n END,
    CASE n % 6 WHEN 0 THEN '0044-03-15 10:00:00 BC' ELSE '2024-01-01'::timestamptz + n * interval '7 ms' END,
    CASE n % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' ELSE n / 7.0 END::float8, n % 2 = 0, repeat('x', n % 20),
    '2000-01-01'::timestamp + n * interval '1 second', decode(md5(n::text), 'hex'),
    CASE n % 3 WHEN 0 THEN '{{1,2},{3,4}}' WHEN 1 THEN '[0:1]={1,NULL}' ELSE '{1,NULL,3}' END::int[],
    ARRAY['a', NULL, 'b,"' || n], jsonb_build_object('n', n), n / 9.0, gen_random_uuid()"""


def texts(postgres: Any, table: str, key: list[str]) -> dict[tuple[str, ...], dict[str, str | None]]:
    """The table's rows by key, each value as its output function prints it."""
    postgres.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 3")
    names = [r[0] for r in postgres.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "ORDER BY attnum", [table])]  # fmt: skip
    cells = ", ".join(f"CASE WHEN {n} IS NOT NULL THEN format('%s', {n}) END" for n in names)
    rows = [dict(zip(names, row, strict=True)) for row in postgres.execute(f"SELECT {cells} FROM {table}")]
    return {tuple(row[k] for k in key): row for row in rows}


def test_many_rows_of_many_types_arrive_as_the_server_prints_them(postgres: Any) -> None:
    postgres.execute(MIXED)
    source = Source(postgres)
    postgres.execute(f"INSERT INTO mixed SELECT n, {VALUES} FROM generate_series(1, 8000) n")
    (decoded,) = source.decode()
    assert replay(decoded.changes) == texts(postgres, "mixed", ["id", "part"])
    assert [c.batch.num_rows for c in decoded.changes] == [8000]


def test_a_few_rows_of_many_tables_are_decoded_like_many_rows(postgres: Any) -> None:
    for n in range(12):
        postgres.execute(MIXED.replace("mixed", f"mixed{n}"))
    source = Source(postgres)
    postgres.execute("BEGIN")
    for n in range(12):
        postgres.execute(f"INSERT INTO mixed{n} SELECT n, {VALUES} FROM generate_series({n}, {n + n % 4}) n")
    postgres.execute("UPDATE mixed7 SET part = 'other', f = 'Infinity' WHERE id = 8")
    postgres.execute("DELETE FROM mixed3; TRUNCATE mixed5, mixed6")
    postgres.execute("COMMIT")
    (decoded,) = source.decode()
    assert len(decoded.changes) == 12 and decoded.transactions is not None
    for n in range(12):
        mine = [c for c in decoded.changes if c.table.name == f"mixed{n}"]
        assert replay(mine) == texts(postgres, f"mixed{n}", ["id", "part"])
    counts = dict(decoded.transactions.column("counts")[0].as_py())
    assert counts == {f"public/mixed{n}": 1 + n % 4 + {7: 1, 3: 4, 5: 1, 6: 1}.get(n, 0) for n in range(12)}


def test_a_row_of_a_very_wide_table_does_not_widen_those_of_others(postgres: Any) -> None:
    wide = ", ".join(f"c{n} int" for n in range(1200))
    postgres.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {wide})")
    for n in range(30):
        postgres.execute(f"CREATE TABLE t{n} (id int PRIMARY KEY, v text)")
    source = Source(postgres)
    postgres.execute("BEGIN; INSERT INTO wide (id, c1199) VALUES (1, 7)")
    for n in range(30):
        postgres.execute(f"INSERT INTO t{n} SELECT g, 'v' || g FROM generate_series(1, 900) g")
    postgres.execute("COMMIT")
    tracemalloc.start()
    (decoded,) = source.decode()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20  # 27,000 rows as wide as the widest would be 550 MB
    found = {c.table.name: c.batch for c in decoded.changes}
    assert found["wide"].column("c1199").to_pylist() == [7] and len(found) == 31
    assert all(found[f"t{n}"].column("v").to_pylist() == [f"v{g}" for g in range(1, 901)] for n in range(30))


@pytest.mark.case("O5")
def test_truncates_stand_in_order_among_the_rows_of_all_their_tables(postgres: Any) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    source = Source(postgres)
    for n in range(40):
        postgres.execute(f"BEGIN; INSERT INTO a VALUES ({n}); INSERT INTO b VALUES ({n}); TRUNCATE b, a;"
                         f" INSERT INTO b VALUES ({n}); COMMIT; TRUNCATE a, b")  # fmt: skip
    found = {c.table.name: as_text(c) for c in all_changes(source.decode())}
    for name, order in (("a", "ctt"), ("b", "ctct")):
        ops = "".join(row["_op"] or "" for row in found[name])
        assert ops == order * 40


@pytest.mark.case("O3", "O8", "O10")
@pytest.mark.parametrize("seed", range(4))
def test_random_transactions_replayed_equal_the_table(postgres: Any, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    postgres.execute(MIXED + "; ALTER TABLE mixed ALTER c SET STORAGE EXTERNAL")
    if seed % 2:
        postgres.execute("ALTER TABLE mixed REPLICA IDENTITY FULL")
    keyed = table_of_keyed if seed % 2 else None
    source = Source(postgres, resolve=keyed)
    added = 0
    for _ in range(40):
        postgres.execute("BEGIN")
        for _ in range(rng.randrange(1, 5)):
            low = rng.randrange(300)
            savepoint = rng.random() < 0.3
            if savepoint:
                postgres.execute("SAVEPOINT s")
            match rng.randrange(12):
                case 0 | 1 | 2 | 3:
                    postgres.execute(
                        f"INSERT INTO mixed SELECT n, {VALUES} FROM generate_series({low}, {low + 40}) n "
                        "ON CONFLICT DO NOTHING"
                    )
                case 4:
                    postgres.execute(f"UPDATE mixed SET c = {LONG} WHERE id BETWEEN {low} AND {low + 9}")
                case 5 | 6:
                    postgres.execute(f"UPDATE mixed SET a = a + 1, d = NULL WHERE id BETWEEN {low} AND {low + 30}")
                case 7:
                    postgres.execute(f"UPDATE mixed SET id = id + 100000 WHERE id BETWEEN {low} AND {low + 5}")
                case 8:
                    postgres.execute(
                        "UPDATE mixed SET id = id - 100000 WHERE id IN (SELECT m.id FROM mixed m WHERE "
                        "m.id > 100000 AND NOT EXISTS (SELECT FROM mixed o WHERE o.id = m.id - 100000))"
                    )
                case 9:
                    postgres.execute(f"DELETE FROM mixed WHERE id BETWEEN {low} AND {low + 20}")
                case 10 if rng.random() < 0.2:
                    postgres.execute("TRUNCATE mixed")
                case 11 if rng.random() < 0.4 and not savepoint:
                    added += 1
                    postgres.execute(f"ALTER TABLE mixed ADD COLUMN z{added} int[]")
                    postgres.execute(f"UPDATE mixed SET z{added} = ARRAY[id, NULL] WHERE id < {low}")
            if savepoint and rng.random() < 0.5:
                postgres.execute("ROLLBACK TO SAVEPOINT s")
        postgres.execute("ROLLBACK" if rng.random() < 0.15 else "COMMIT")
    expected = texts(postgres, "mixed", ["id", "part"])
    assert len(expected) > 50
    for piece in (None, 3):
        state = replay(all_changes(source.decode(piece=piece)))
        # Columns that came later are not in rows written before them.
        assert state.keys() == expected.keys()
        assert {k: dict.fromkeys(expected[k]) | row for k, row in state.items()} == expected


def table_of_keyed(relation: Relation, lsn: int) -> Table:
    """The table with its primary key, although REPLICA IDENTITY FULL flags every column."""
    table = table_of(relation)
    columns = tuple(
        Column(**{**{f: getattr(c, f) for f in Column.__slots__}, "key": {"id": 1, "part": 2}.get(c.name, 0)})
        for c in table.columns
    )
    return Table(table.source, table.schema, table.name, table.oid, len(columns), "key", columns)


def one_table(postgres: Any, identity: str = "DEFAULT") -> Source:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v int, big text, n numeric(5,2))")
    postgres.execute(f"ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY {identity}")
    return Source(postgres)


@pytest.mark.case("O3")
def test_unchanged_toast_is_named_missing_and_is_not_null(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute(f"INSERT INTO t VALUES (1, 1, {LONG}, 1), (2, 1, 'short', 1)")
    postgres.execute("UPDATE t SET v = 2")
    postgres.execute("UPDATE t SET big = NULL, v = 3")
    rows = [r for c in all_changes(source.decode()) for r in as_text(c)]
    assert [(r["_op"], r["id"], r["_missing"]) for r in rows] == [
        ("c", "1", None), ("c", "2", None), ("u", "1", "big"), ("u", "2", None), ("u", "1", None), ("u", "2", None),
    ]  # fmt: skip
    assert [r["big"] for r in rows[2:]] == [None, "short", None, None]


@pytest.mark.case("O3")
def test_two_unchanged_toast_columns_are_both_named(postgres: Any) -> None:
    postgres.execute('CREATE TABLE t (id int PRIMARY KEY, "A b" text, c text, d text)')
    postgres.execute('ALTER TABLE t ALTER "A b" SET STORAGE EXTERNAL, ALTER d SET STORAGE EXTERNAL')
    source = Source(postgres)
    postgres.execute(f"INSERT INTO t VALUES (1, {LONG}, 'c', {LONG}); UPDATE t SET c = 'new'")
    postgres.execute("UPDATE t SET d = 'new'")
    rows = [r for c in all_changes(source.decode()) for r in as_text(c)]
    name = encode_name("A b")
    assert [r["_missing"] for r in rows] == [None, f"{name},d", name]


@pytest.mark.case("O3")
def test_a_full_old_tuple_fills_in_unchanged_toast(postgres: Any) -> None:
    source = one_table(postgres, "FULL")
    postgres.execute(f"INSERT INTO t VALUES (1, 1, {LONG}, 'NaN')")
    postgres.execute("UPDATE t SET v = 2")
    (long,) = postgres.execute("SELECT big FROM t")[0]
    rows = [r for c in all_changes(source.decode()) for r in as_text(c)]
    assert (rows[1]["big"], rows[1]["_missing"]) == (long, None)
    assert {k: v for k, v in rows[1].items() if k.startswith("_old_")} == {
        "_old_id": "1", "_old_v": "1", "_old_big": long, "_old_n": "NaN",
    }  # fmt: skip


@pytest.mark.case("O3")
def test_a_toasted_key_that_did_not_change_is_filled_in_from_the_old_key(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (k text PRIMARY KEY, v int, w text)")
    postgres.execute("ALTER TABLE t ALTER k SET STORAGE EXTERNAL, ALTER w SET STORAGE EXTERNAL")
    source = Source(postgres)
    postgres.execute(f"INSERT INTO t SELECT substr({LONG}, 1, 2500), 1, {LONG}")
    postgres.execute("UPDATE t SET v = 2")
    (key,) = postgres.execute("SELECT k FROM t")[0]
    row = [r for c in all_changes(source.decode()) for r in as_text(c)][1]
    assert (row["k"], row["_missing"], row["_old_k"]) == (key, "w", None)


@pytest.mark.case("O2")
def test_a_key_change_tells_the_whole_old_key_and_other_updates_none(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (a int, b date, v int, PRIMARY KEY (a, b))")
    source = Source(postgres)
    postgres.execute("INSERT INTO t VALUES (1, 'infinity', 1), (2, '2024-01-01', 1)")
    postgres.execute("UPDATE t SET a = 10 WHERE a = 1; UPDATE t SET v = 9; UPDATE t SET b = '-infinity'")
    decoded = source.decode()
    rows = [r for c in all_changes(decoded) for r in as_text(c) if r["_op"] == "u"]
    assert [(r["a"], r["b"], r["_old_a"], r["_old_b"]) for r in rows] == [
        ("10", "infinity", "1", "infinity"),
        ("2", "2024-01-01", None, None),
        ("10", "infinity", None, None),
        ("2", "-infinity", "2", "2024-01-01"),
        ("10", "-infinity", "10", "infinity"),
    ]
    (batch,) = [c.batch for c in all_changes(decoded)]
    assert dict(batch.column("_exact")[2].as_py()) == {"b": "infinity", "_old_b": "infinity"}


@pytest.mark.case("O1")
def test_the_old_key_under_full_identity_is_told_only_where_the_key_changed(postgres: Any) -> None:
    postgres.execute("CREATE TABLE mixed (id int, part int, v int, PRIMARY KEY (id, part))")
    postgres.execute("ALTER TABLE mixed REPLICA IDENTITY FULL")
    source = Source(postgres, resolve=table_of_keyed)
    postgres.execute("INSERT INTO mixed VALUES (1, 1, 1); UPDATE mixed SET v = 2; UPDATE mixed SET part = 5")
    rows = [r for c in all_changes(source.decode()) for r in as_text(c)]
    assert [(r["_old_id"], r["_old_part"]) for r in rows] == [(None, None), (None, None), ("1", "1")]


@pytest.mark.case("O1", "S6")
def test_a_delete_carries_the_key_or_with_full_identity_the_row(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("INSERT INTO t VALUES (1, 7, 'x', 1), (2, 8, 'y', 2); DELETE FROM t WHERE id = 1")
    postgres.execute("ALTER TABLE t REPLICA IDENTITY FULL; DELETE FROM t")
    rows = [r for c in all_changes(source.decode()) for r in as_text(c) if r["_op"] == "d"]
    assert [(r["id"], r["v"], r["big"], r["n"], r["_missing"]) for r in rows] == [
        ("1", None, None, None, None), ("2", "8", "y", "2.00", None),
    ]  # fmt: skip


@pytest.mark.case("O1")
def test_an_identity_by_index_is_the_key(postgres: Any) -> None:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v int)")
    postgres.execute("CREATE UNIQUE INDEX u ON t (code); ALTER TABLE t REPLICA IDENTITY USING INDEX u")
    source = Source(postgres)
    postgres.execute("INSERT INTO t VALUES (1, 'a', 1); UPDATE t SET id = 2; UPDATE t SET code = 'b'; DELETE FROM t")
    rows = [r for c in all_changes(source.decode()) for r in as_text(c)]
    assert [(r["_op"], r["id"], r["code"], r["_old_code"]) for r in rows] == [
        ("c", "1", "a", None), ("u", "2", "a", None), ("u", "2", "b", "a"), ("d", None, "b", None),
    ]  # fmt: skip


@pytest.mark.case("O5")
def test_truncate_stands_in_its_place_for_each_table(postgres: Any) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a)")
    source = Source(postgres)
    postgres.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
    postgres.execute("BEGIN; INSERT INTO a VALUES (2); TRUNCATE a CASCADE; INSERT INTO a VALUES (3); COMMIT")
    postgres.execute("TRUNCATE b")
    changes = {c.table.name: as_text(c) for c in all_changes(source.decode())}
    assert [(r["_op"], r["id"]) for r in changes["a"]] == [("c", "1"), ("c", "2"), ("t", None), ("c", "3")]
    assert [(r["_op"], r["id"]) for r in changes["b"]] == [("c", "1"), ("t", None), ("t", None)]


def test_rows_know_their_transaction_and_their_place_in_it(postgres: Any) -> None:
    source = one_table(postgres)
    began = datetime.now(UTC)
    postgres.execute("BEGIN; INSERT INTO t VALUES (1), (2); COMMIT; BEGIN; UPDATE t SET v = 1 WHERE id = 2")
    (xid,) = postgres.execute("SELECT pg_current_xact_id()::text::bigint")[0]
    postgres.execute("COMMIT")
    (decoded,) = source.decode()
    (changes,), transactions = decoded.changes, decoded.transactions
    assert transactions is not None and transactions.schema.equals(TRANSACTIONS)
    transactions.validate(full=True)
    batch = changes.batch
    assert batch.column("_end_lsn").to_pylist() == [*[transactions.column("end_lsn")[0].as_py()] * 2, decoded.end_lsn]
    assert decoded.end_lsn == transactions.column("end_lsn")[1].as_py() <= source.lsn()
    assert batch.column("_xid")[2].as_py() == xid + (3 << 32) == transactions.column("xid")[1].as_py()
    seqs = batch.column("_seq").to_pylist()
    assert seqs[0] < seqs[1]
    moments = batch.column("_committed_at").to_pylist()
    assert began <= moments[0] <= moments[2] <= datetime.now(UTC)
    assert decoded.max_committed_at == round(moments[2].timestamp() * 10**6)
    assert transactions.column("counts").to_pylist() == [[("public/t", 2)], [("public/t", 1)]]
    assert batch.column("_schema").to_pylist() == [1, 1, 1] and batch.column("_copy").null_count == 3


@pytest.mark.case("O10")
def test_empty_and_rolled_back_transactions_leave_nothing_but_progress(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
    postgres.execute("SELECT pg_logical_emit_message(true, 'claimhouse.heartbeat', 'x')")
    (decoded,) = source.decode()
    assert decoded.changes == [] and decoded.end_lsn > 0 and decoded.max_committed_at > 0
    assert decoded.transactions is not None and decoded.transactions.num_rows == 0


def test_an_announcement_that_says_nothing_new_does_not_ask_again(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("INSERT INTO t VALUES (1); ANALYZE t; CREATE INDEX ON t (v); INSERT INTO t VALUES (2)")
    raws = source.raws()
    announced = [r for raw in raws for r in range(len(raw)) if raw.buffer[raw.offsets[r]] == ord("R")]
    decoder = source.decoder()
    for raw in [*raws, *raws]:  # as if the connection was made anew
        decoder.feed(raw)
    assert len(announced) > 1 and len(source.resolved) == 1


@pytest.mark.case("S3")
def test_a_new_shape_starts_at_its_row_within_one_transaction(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute(
        "BEGIN; INSERT INTO t VALUES (1, 1); ALTER TABLE t ADD w text; INSERT INTO t VALUES (2, 2, 'b', 2, 'w')"
    )
    postgres.execute("ALTER TABLE t DROP v; UPDATE t SET w = 'x'; COMMIT; INSERT INTO t VALUES (3, 'c', 3, 'y')")
    (decoded,) = source.decode()
    assert [c.table.version for c in decoded.changes] == [1, 2, 3]
    assert [[f.name for f in c.table.columns] for c in decoded.changes] == [
        ["id", "v", "big", "n"], ["id", "v", "big", "n", "w"], ["id", "big", "n", "w"],
    ]  # fmt: skip
    assert [[r["id"] for r in as_text(c)] for c in decoded.changes] == [["1"], ["2"], ["1", "2", "3"]]
    assert decoded.transactions is not None
    assert decoded.transactions.column("counts").to_pylist() == [[("public/t", 4)], [("public/t", 1)]]


def test_ddl_messages_come_in_order_and_have_the_next_announcement_ask_anew(postgres: Any) -> None:
    source = one_table(postgres)
    told: list[tuple[str, bytes, int, int, int]] = []

    def on_message(prefix: str, content: bytes, lsn: int, xid: int) -> None:
        told.append((prefix, content, lsn, xid, len(source.resolved)))

    emit = "SELECT pg_logical_emit_message"
    postgres.execute("BEGIN; INSERT INTO t VALUES (1); ALTER TABLE t DROP v, ADD v int")
    postgres.execute(f"{emit}(true, 'claimhouse.ddl', 'one'); INSERT INTO t VALUES (2); COMMIT")
    postgres.execute(f"{emit}(false, 'claimhouse.ddl', 'no'); {emit}(true, 'else', 'no')")
    postgres.execute(f"BEGIN; {emit}(true, 'claimhouse.ddl', 'gone'); ROLLBACK; INSERT INTO t VALUES (3)")
    (decoded,) = source.decode(on_message=on_message)
    assert [(prefix, content, asked) for prefix, content, _, _, asked in told] == [("claimhouse.ddl", b"one", 1)]
    (first, second) = [row for c in decoded.changes for row in c.batch.column("_xid").to_pylist()][:2]
    assert told[0][3] == first == second and 0 < told[0][2] < decoded.end_lsn
    assert [len(as_text(c)) for c in decoded.changes] == [1, 2]


def test_an_equal_announcement_after_a_ddl_message_asks_anew(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'claimhouse.ddl', '')")
    postgres.execute("ALTER TABLE t ALTER v SET DEFAULT 5; CREATE INDEX ON t (v); INSERT INTO t VALUES (2)")
    source.decode()
    assert len(source.resolved) == 2


def test_forget_asks_again_before_the_next_rows(postgres: Any) -> None:
    source = one_table(postgres)
    decoder = source.decoder()
    wanted = [True]
    source.resolve = lambda relation, lsn: table_of(relation) if wanted[0] else None
    postgres.execute("INSERT INTO t VALUES (1)")
    raw = Raw.join(source.raws())
    assert len(all_changes(decoder.feed(raw))) == 1
    wanted[0] = False
    decoder.forget(12345)
    only_rows = raw.part(0, 0)
    begin, insert, commit = (raw.part(n, n + 1) for n in range(len(raw)) if raw.buffer[raw.offsets[n]] in b"BIC")
    only_rows = Raw.join([begin, insert, commit])
    assert len(all_changes(decoder.feed(only_rows))) == 1
    decoder.forget()
    assert all_changes(decoder.feed(only_rows)) == [] and len(source.resolved) == 2


def test_unwanted_tables_are_skipped_and_not_counted(postgres: Any) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    source = Source(postgres, resolve=lambda relation, lsn: table_of(relation) if relation.name == "b" else None)
    postgres.execute("BEGIN; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); COMMIT; INSERT INTO a VALUES (2)")
    (decoded,) = source.decode()
    assert [c.table.name for c in decoded.changes] == ["b"] and decoded.transactions is not None
    assert decoded.transactions.column("counts").to_pylist() == [[("public/b", 1)]]


def test_columns_are_matched_by_name_and_unpublished_ones_are_null(postgres: Any) -> None:
    if postgres.conn.info.server_version < 150000:
        pytest.skip("column lists came with PostgreSQL 15")
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, secret text, v int)")
    source = Source(postgres, tables="TABLE t (id, v)")

    def resolve(relation: Relation, lsn: int) -> Table:
        table = table_of(relation)
        hidden = Column("secret", "secret", 2, "text", 25, -1, "text")
        return Table(
            table.source, table.schema, table.name, table.oid, 1, "key", (table.columns[1], hidden, table.columns[0])
        )

    source.resolve = resolve
    postgres.execute("INSERT INTO t VALUES (1, 's', 5); UPDATE t SET id = 2; TRUNCATE t")
    (changes,) = all_changes(source.decode())
    assert [(r["v"], r["secret"], r["id"], r["_old_id"]) for r in as_text(changes)] == [
        ("5", None, "1", None), ("5", None, "2", "1"), (None, None, None, None),
    ]  # fmt: skip


@pytest.mark.case("R12")
def test_a_value_that_cannot_be_kept_ends_its_table_and_no_other(postgres: Any) -> None:
    postgres.execute("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)")

    def resolve(relation: Relation, lsn: int) -> Table:
        table = table_of(relation)
        v = table.columns[1]
        wrong = Column(v.name, v.physical, v.attnum, "integer", 23, -1, "int4")
        columns = (table.columns[0], wrong) if relation.name == "a" else table.columns
        return Table(table.source, table.schema, table.name, table.oid, 1, "key", columns)

    source = Source(postgres, resolve=resolve)
    for n in range(5):
        value = "secret" if n == 3 else str(n)
        postgres.execute(f"BEGIN; INSERT INTO a VALUES ({n + 10}, '{n}'), ({n}, '{value}')")
        postgres.execute(f"INSERT INTO b VALUES ({n}, '{value}'); COMMIT")
    for options in ({}, {"piece": 3}):
        decoded = source.decode(**options)
        kept = {
            name: [r["v"] for c in all_changes(decoded) if c.table.name == name for r in as_text(c)] for name in "ab"
        }
        assert kept["b"] == ["0", "1", "2", "secret", "4"]
        assert kept["a"][:6] == ["0", "0", "1", "1", "2", "2"]
        ((table, lsn, message),) = [e for d in decoded for e in d.errors]
        rows = pa.concat_batches([d.transactions for d in decoded if d.transactions is not None])
        assert table.name == "a" and "secret" not in message and lsn == rows.column("end_lsn")[3].as_py()
    assert kept["a"][6:] == ["4", "4"]  # told apart here: what the caller skips from now on is his


@pytest.mark.case("O8")
def test_a_transaction_larger_than_memory_comes_in_parts(postgres: Any) -> None:
    postgres.execute(MIXED + "; CREATE TABLE t (id int PRIMARY KEY)")
    source = Source(postgres)
    postgres.execute("INSERT INTO t VALUES (1)")
    postgres.execute(
        f"BEGIN; INSERT INTO mixed SELECT n, {VALUES} FROM generate_series(1, 3000) n; INSERT INTO t VALUES (2)"
    )
    postgres.execute("UPDATE mixed SET a = 1; COMMIT; INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)")
    decoded = source.decode(piece=300, spill_bytes=100_000)
    parts = [d for d in decoded if d.part]
    assert len(parts) > 5 and all(d.end_lsn == 0 and d.transactions is None for d in parts)
    assert all(lsn == 0 for d in parts for c in d.changes for lsn in c.batch.column("_end_lsn").to_pylist())
    first = decoded.index(parts[0])
    assert [r["id"] for d in decoded[:first] for c in d.changes for r in as_text(c)] == ["1"]
    last = decoded[decoded.index(parts[-1]) + 1]
    assert last.transactions is not None and last.transactions.num_rows == 1
    (row,) = last.transactions.to_pylist()
    assert dict(row["counts"]) == {"public/mixed": 6000, "public/t": 1} and row["end_lsn"] == last.end_lsn > 0
    whole = [c for d in (*parts, last) for c in d.changes]
    xids = {x for c in whole for x in c.batch.column("_xid").to_pylist()}
    assert xids == {row["xid"]}
    assert replay(c for c in whole if c.table.name == "mixed") == texts(postgres, "mixed", ["id", "part"])
    seqs = [s for c in whole if c.table.name == "mixed" for s in c.batch.column("_seq").to_pylist()]
    assert seqs == sorted(set(seqs))
    (entire,) = source.decode()
    assert [s for c in entire.changes if c.table.name == "mixed" for s in c.batch.column("_seq").to_pylist()] == seqs
    after = decoded[decoded.index(last) + 1 :]
    assert [r["id"] for d in after for c in d.changes for r in as_text(c)] == ["3", "4"]


@pytest.mark.case("R5")
def test_after_a_reset_the_unfinished_transaction_is_taken_from_its_start(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("BEGIN; INSERT INTO t SELECT generate_series(1, 100); INSERT INTO t VALUES (0); COMMIT")
    raw = Raw.join(source.raws())
    for spill in (1 << 20, 10):
        decoder = source.decoder(spill_bytes=spill)
        half = decoder.feed(raw.part(0, 50))
        assert len(half) == (spill == 10) and decoder.idle_position(raw) == 0
        decoder.reset()
        (decoded,) = decoder.feed(raw)
        assert decoded.transactions is not None
        assert dict(decoded.transactions.column("counts")[0].as_py()) == {"public/t": 101}
        assert [c.batch.num_rows for c in decoded.changes] == [101]


def test_the_idle_position_is_told_only_between_transactions(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("INSERT INTO t VALUES (1); CREATE TABLE other (id int)")
    end = source.lsn()
    raw = Raw.join(source.raws())
    decoder = source.decoder()
    decoder.feed(raw.part(0, 2))
    assert decoder.idle_position(raw) == 0
    decoder.feed(raw.part(2, len(raw)))
    assert decoder.idle_position(raw) >= end


def test_a_message_outside_of_transactions_is_progress_by_itself(postgres: Any) -> None:
    source = one_table(postgres)
    (lsn,) = postgres.execute("SELECT pg_logical_emit_message(false, 'claimhouse.beat', '') - '0/0'::pg_lsn")[0]
    raw = Raw.join(source.raws())
    decoder = source.decoder()
    assert decoder.feed(raw) == []
    assert decoder.idle_position(raw.part(0, len(raw))) >= lsn  # without any keepalive


@pytest.mark.case("O9")
def test_prepared_transactions_come_at_their_second_commit(postgres: Any) -> None:
    if not int(postgres.execute("SHOW max_prepared_transactions")[0][0]):
        pytest.skip("the server allows no prepared transactions")
    source = one_table(postgres)
    for n in (1, 2):
        postgres.execute(f"BEGIN; INSERT INTO t VALUES ({n}); PREPARE TRANSACTION '{postgres.name}_{n}'")
    try:
        postgres.execute("INSERT INTO t VALUES (3)")
        postgres.execute(f"COMMIT PREPARED '{postgres.name}_2'")
    finally:  # what stays prepared would hold up every new slot of the server
        for (name,) in postgres.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            postgres.execute(f"ROLLBACK PREPARED '{name}'")
    assert [r["id"] for c in all_changes(source.decode()) for r in as_text(c)] == ["3", "2"]


@pytest.mark.case("O12")
def test_names_of_any_kind_come_through(postgres: Any) -> None:
    names = ['Quoted_" . Table', "a\\b", "ünï ςode", "1st", "x" * 63]
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        postgres.execute(f'CREATE TABLE {quoted} ({quoted} int PRIMARY KEY, "_op" text)')
    source = Source(postgres)
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        postgres.execute(f"INSERT INTO {quoted} VALUES (1, 'mine')")
    changes = all_changes(source.decode())
    assert [c.table.name for c in changes] == names == [c.table.columns[0].name for c in changes]
    assert all(as_text(c)[0]["_x5f_op"] == "mine" for c in changes)


@pytest.mark.case("T15")
def test_a_damaged_stream_is_an_error_and_not_a_wrong_row(postgres: Any) -> None:
    source = one_table(postgres)
    postgres.execute("INSERT INTO t VALUES (1)")
    raw = Raw.join(source.raws())
    kinds = [raw.buffer[o] for o in raw.offsets]
    unannounced = Raw.join([raw.part(n, n + 1) for n, kind in enumerate(kinds) if kind != ord("R")])
    with pytest.raises(SourceError):
        source.decoder().feed(unannounced)
    damaged = bytearray(raw.buffer)
    damaged[int(raw.offsets[kinds.index(ord("I"))]) + 7] += 1  # the number of columns
    with pytest.raises(SourceError):
        source.decoder().feed(Raw(damaged, raw.offsets, raw.ends))


@pytest.mark.case("T15")
def test_damage_anywhere_is_an_error_of_ours_or_harmless(postgres: Any) -> None:
    postgres.execute(MIXED + "; CREATE TABLE t (id int PRIMARY KEY)")
    source = Source(postgres)
    postgres.execute(f"INSERT INTO mixed SELECT n, {VALUES} FROM generate_series(1, 5) n; UPDATE mixed SET part = 'q'")
    postgres.execute("INSERT INTO t VALUES (1); DELETE FROM mixed; TRUNCATE t, mixed")
    raw = Raw.join(source.raws())
    rng = random.Random(7)
    refused = 0
    for _ in range(150):
        damaged = bytearray(raw.buffer)
        message = rng.randrange(len(raw))
        for _ in range(rng.choice([1, 1, 3])):
            damaged[rng.randrange(int(raw.offsets[message]), int(raw.ends[message]))] = rng.choice([0, 1, 255, 66, 116])
        try:
            source.decoder().feed(Raw(damaged, raw.offsets, raw.ends))
        except SourceError:
            refused += 1
    assert refused > 20


@pytest.fixture(scope="module")
def bodies(server: Any) -> list[bytes]:
    """The messages of a real stream: every kind of them, over two tables."""
    with emptied(server) as database:
        database.execute(MIXED + "; CREATE TABLE t (id int PRIMARY KEY, big text)")
        database.execute("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
        source = Source(database)
        database.execute(f"INSERT INTO mixed SELECT n, {VALUES} FROM generate_series(1, 4) n")
        database.execute(f"INSERT INTO t VALUES (1, {LONG}), (2, NULL); UPDATE t SET id = id + 5; DELETE FROM t")
        database.execute("UPDATE mixed SET part = 'q', h = NULL; DELETE FROM mixed WHERE id = 1; TRUNCATE t, mixed")
        database.execute("SELECT pg_logical_emit_message(true, 'claimhouse.ddl', 'x')")
        raw = Raw.join(source.raws())
    return [bytes(raw.buffer[a:b]) for a, b in zip(raw.offsets.tolist(), raw.ends.tolist(), strict=True)]


@pytest.mark.case("T15")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_no_stream_of_messages_is_more_than_an_error_of_ours(bodies: list[bytes], data: st.DataObject) -> None:
    """Messages cut short, run together, turned about, repeated, left out, or made up."""
    stream = list(bodies)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream) - 1))
        body = stream[place]
        cut = data.draw(st.integers(0, len(body)))
        match data.draw(st.sampled_from(["short", "damage", "insert", "repeat", "drop", "swap", "made up"])):
            case "short":
                stream[place] = body[:cut] or body[:1]
            case "damage":
                stream[place] = (
                    body[:1] + (body[:cut] + data.draw(st.binary(min_size=1, max_size=4)) + body[cut + 4 :])[1:]
                )
            case "insert":
                stream[place] = body[: cut or 1] + data.draw(st.binary(max_size=9)) + body[cut or 1 :]
            case "repeat":
                stream.insert(data.draw(st.integers(0, len(stream))), body)
            case "drop" if len(stream) > 1:
                del stream[place]
            case "swap":
                other = data.draw(st.integers(0, len(stream) - 1))
                stream[place], stream[other] = stream[other], body
            case _:
                kind = data.draw(st.sampled_from(b"BCRIUDTMOYXZ"))
                stream.insert(place, bytes([kind]) + data.draw(st.binary(max_size=60)))
    ends = np.cumsum([len(b) for b in stream], dtype=np.int64)
    raw = Raw(b"".join(stream), ends - np.array([len(b) for b in stream], np.int64), ends)
    decoder = Decoder(
        lambda relation, lsn: table_of(relation), Xids(), spill_bytes=data.draw(st.sampled_from([64, 1 << 20]))
    )
    middle = data.draw(st.integers(0, len(raw)))
    with suppress(ClaimhouseError):
        for part in (raw.part(0, middle), raw.part(middle, len(raw))):
            for decoded in decoder.feed(part):
                for changes in decoded.changes:
                    changes.batch.validate(full=True)


def test_a_key_change_in_a_narrow_table_leaves_wider_ones_whole(postgres: Any) -> None:
    postgres.execute(MIXED + "; CREATE TABLE t (id int PRIMARY KEY)")
    source = Source(postgres)
    postgres.execute(f"INSERT INTO mixed SELECT n, {VALUES} FROM generate_series(1, 9) n")
    postgres.execute("INSERT INTO t VALUES (1); UPDATE t SET id = 2; UPDATE mixed SET part = 'q' WHERE id = 3")
    (decoded,) = source.decode()
    changes = {c.table.name: [c] for c in decoded.changes}
    assert replay(changes["mixed"]) == texts(postgres, "mixed", ["id", "part"])
    assert replay(changes["t"]) == {("2",): {"id": "2"}}


def test_a_relation_message_is_read_as_the_protocol_says() -> None:
    body = b"R\0\0\x40\x01public\0t\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0n\0\0\0\x06\xa4\0\x0c\0\x06"
    relation = parse_relation(body)
    assert (relation.oid, relation.schema, relation.name, relation.identity) == (16385, "public", "t", "d")
    assert [(c.flags, c.name, c.type_oid, c.typmod) for c in relation.columns] == [
        (1, "id", 20, -1),
        (0, "n", 1700, 786438),
    ]
    assert parse_relation(body.replace(b"public", b"")).schema == "pg_catalog"


def test_nothing_fed_is_nothing_decoded() -> None:
    empty = Raw(b"", np.empty(0, np.int64), np.empty(0, np.int64), wal_end=77)

    decoder = Decoder(lambda relation, lsn: None, Xids())
    assert decoder.feed(empty) == [] and decoder.idle_position(empty) == 77


@pytest.mark.case("N6")
def test_a_table_that_is_wanted_later_is_asked_for_although_it_was_announced_before(postgres: Any) -> None:
    """A publication of all tables brings a new one's rows before it is captured, and announces it that once."""
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY)")
    wanted: list[bool] = []
    source = Source(postgres, resolve=lambda relation, lsn: table_of(relation) if wanted else None)
    for n in range(2):
        postgres.execute(f"INSERT INTO t VALUES ({n})")
    raw = Raw.join(source.raws())
    assert [raw.buffer[o] for o in raw.offsets].count(ord("R")) == 1
    end_of_first = [raw.buffer[o] for o in raw.offsets].index(ord("C")) + 1
    decoder = source.decoder()
    assert all_changes(decoder.feed(raw.part(0, end_of_first))) == []
    wanted.append(True)
    (changes,) = all_changes(decoder.feed(raw.part(end_of_first, len(raw))))
    assert [r["id"] for r in as_text(changes)] == ["1"]
