"""Data files as an SQL relation of fixed columns, read by DuckDB's own Parquet reader.

A file older than a column lacks it, and then the column is NULL; a typed relation without rows leads the union, so
that a column no file has is there as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from claimhouse.lake.defaults import sql_type
from claimhouse.lake.lake import Lake
from claimhouse.quoting import quote, quote_text


def empty_sql(schema: pa.Schema) -> str:
    """A SELECT without rows that has the schema's columns."""
    columns = ", ".join(f"CAST(NULL AS {sql_type(f.type)}) AS {quote(f.name)}" for f in schema)
    return f"SELECT {columns} WHERE false"


def files_sql(uris: Sequence[str], schema: pa.Schema, where: str = "true") -> str:
    """A SELECT of the schema's columns from Parquet files, or without rows."""
    names = ", ".join(quote(name) for name in schema.names)
    if not uris:
        return empty_sql(schema)
    files = ", ".join(quote_text(uri) for uri in uris)
    read = f"SELECT * FROM read_parquet([{files}], union_by_name = true) WHERE {where}"
    return f"SELECT {names} FROM ({empty_sql(schema)} UNION ALL BY NAME {read})"


def engine(lake: Lake, folder: str, *, memory: str = "1GB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that reads the lake's files, with bounded memory; it spills into `folder`."""
    conn = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        },
    )
    conn.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    lake.store.attach(conn)
    return conn
