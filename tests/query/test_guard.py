"""The block list: what a read-only session refuses, and what it must not refuse."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from claimhouse.errors import QueryError
from claimhouse.query import guard

REFUSED = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('x.parquet')",
    "SELECT * FROM parquet_metadata('x.parquet')",
    "SELECT * FROM read_json('http://127.0.0.1/x')",
    "SELECT * FROM glob('/**')",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "ATTACH '/tmp/x.db' AS x",
    "DETACH memory",
    "EXPORT DATABASE '/tmp/x'",
    "IMPORT DATABASE '/tmp/x'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET threads",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('threads', '1', false)",
    "PRAGMA version",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_settings",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_secrets",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM query('DROP VIEW claim')",
    "SELECT * FROM query_table('claim')",
    "SELECT * FROM enable_logging()",
    "SELECT getenv('HOME')",
    "SELECT sleep_ms(100000)",
    "SELECT pg_sleep(100)",
    "SELECT current_setting('secret_directory')",
    "SELECT write_log('x')",
    "DROP VIEW claim",
    "CREATE TABLE x AS SELECT 1",
    "CREATE VIEW claim AS SELECT 1",
    "INSERT INTO claim VALUES (1)",
    "UPDATE claim SET id = 1",
    "DELETE FROM claim",
    "TRUNCATE claim",
    "ALTER TABLE claim RENAME TO x",
    "MERGE INTO claim USING claim c ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
    "WITH x AS (INSERT INTO claim VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM claim RETURNING *) SELECT * FROM x",
    "SELECT 1; DROP VIEW claim",
    "SELECT 1; SELECT 2",
    "",
    ";",
    "BEGIN",
    "COMMIT",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "USE memory",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CREATE SECRET s (TYPE s3)",
    "EXPLAIN DELETE FROM claim",
    "EXPLAIN ANALYZE INSERT INTO claim VALUES (1)",
    "EXPLAIN SELECT * FROM read_csv('/etc/passwd')",
    "/* SELECT */ DROP VIEW claim",
    "SELECT (SELECT max(content) FROM read_text('/etc/passwd'))",
    "SELECT * FROM claim WHERE id IN (SELECT length(content) FROM READ_TEXT('/etc/passwd'))",
    "PIVOT claim ON id USING count(*)",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT * FROM main.duckdb_settings()",
    "SELECT FROM WHERE",
]

ALLOWED = [
    "SELECT 1",
    "select * from claim;",
    "FROM claim",
    "FROM claim SELECT id WHERE id > 1",
    "VALUES (1), (2)",
    "TABLE claim",
    "WITH q AS (SELECT 1 AS a) SELECT * FROM q JOIN claim ON a = id",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "DESCRIBE claim",
    "SUMMARIZE claim",
    "SHOW TABLES",
    "EXPLAIN SELECT * FROM claim",
    "EXPLAIN ANALYZE SELECT * FROM claim",
    "-- why\nEXPLAIN /* it */ SELECT 1",
    "SELECT * FROM range(3), generate_series(1, 2)",
    "SELECT unnest([1, 2])",
    "FROM claim PIVOT (count(*) FOR id IN (1, 2))",
    "SELECT * FROM information_schema.tables",
    "SELECT 'DROP VIEW claim; --'",
    'SELECT "a;b" FROM (SELECT 1 AS "a;b")',
    "SELECT row_number() OVER (ORDER BY id), id FROM claim QUALIFY 1 = 1",
    "SELECT id FROM claim UNION ALL SELECT id FROM claim ORDER BY ALL LIMIT 3",
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    found = guard.connect()
    found.execute("CREATE VIEW claim AS SELECT 7 AS id")
    guard.lock(found, [])
    return found


@pytest.mark.parametrize("text", REFUSED)
def test_whatever_does_not_read_the_lake_is_refused(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        guard.read(connection, text)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("text", ALLOWED)
def test_reading_is_allowed(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    statement = guard.read(connection, text)
    assert connection.sql(statement.sql).columns


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/claimhouse-guard.csv'",
        "ATTACH '/tmp/claimhouse-guard.db'",
        "INSTALL httpfs",
        "SET lock_configuration = false",
        "SET allowed_paths = ['/etc/passwd']",
        "SET enable_external_access = true",
        "SELECT * FROM planted",
    ],
)
def test_the_engine_refuses_even_what_the_parser_would_let_through(
    connection: duckdb.DuckDBPyConnection, text: str
) -> None:
    planted = {"a": [1]}  # a variable of the program is no table
    assert planted
    with pytest.raises(duckdb.Error):
        connection.execute(text).fetchall()


def test_a_locked_connection_opens_only_the_files_it_was_given(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        duckdb.sql("SELECT 1 AS a").write_parquet(str(tmp_path / f"{name}.parquet"))
    connection = guard.connect()
    guard.lock(connection, [str(tmp_path / "mine.parquet")])
    assert connection.execute(f"FROM read_parquet('{tmp_path}/mine.parquet')").fetchall() == [(1,)]
    with pytest.raises(duckdb.PermissionException):
        connection.execute(f"FROM read_parquet('{tmp_path}/other.parquet')").fetchall()


def test_the_names_of_a_query_are_found_wherever_they_stand(connection: duckdb.DuckDBPyConnection) -> None:
    text = r'''WITH q AS (SELECT * FROM a) SELECT (SELECT max(x) FROM "S.1"."T ""q""") FROM q
              JOIN b USING (y) WHERE z IN (SELECT z FROM src.public.d) ORDER BY (SELECT 1 FROM e)'''
    statement = guard.read(connection, text)
    assert statement.paths == {("a",), ("b",), ("S.1", 'T "q"'), ("src", "public", "d"), ("e",)}
    assert not statement.catalog
    assert guard.read(connection, "EXPLAIN SELECT * FROM f").paths == {("f",)}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("WITH claim AS (SELECT * FROM claim) SELECT * FROM Claim", {("claim",)}),
        ("WITH claim AS (SELECT 1) SELECT * FROM claim", set()),
        ("SELECT (SELECT 1 FROM claim), (WITH claim AS (SELECT 1) SELECT * FROM claim)", {("claim",)}),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", {("b",)}),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b WHERE 1 IN (SELECT * FROM a)", set()),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r", set()),
        ("WITH claim AS (SELECT 1) SELECT * FROM public.claim", {("public", "claim")}),
    ],
)
def test_a_name_of_with_hides_a_table_only_where_it_has_that_meaning(
    connection: duckdb.DuckDBPyConnection, text: str, paths: set[tuple[str, ...]]
) -> None:
    assert guard.read(connection, text).paths == paths


@pytest.mark.parametrize("text", ["SHOW TABLES", "SHOW ALL TABLES", "FROM information_schema.columns", "DESCRIBE"])
def test_asking_for_the_list_of_tables_is_noticed(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    assert guard.read(connection, text).catalog


def test_an_error_names_the_place_and_never_a_value_of_a_row(connection: duckdb.DuckDBPyConnection) -> None:
    text = "SELECT name::INTEGER FROM (SELECT 'Smi' || 'thers' AS name)"
    with pytest.raises(duckdb.Error) as caught:
        connection.execute(text).fetchall()
    error = guard.query_error(caught.value, text)
    assert "Smithers" in str(caught.value)
    assert "Smithers" not in f"{error} {error.hint}"
    assert "could not convert" in str(error)
    with pytest.raises(QueryError, match=r"syntax error.*at line 1"):
        guard.read(connection, "SELECT 1 +")
