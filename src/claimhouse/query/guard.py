"""What a reader's SQL may do: read the lake's tables, and nothing else.

Three fences, each enough for most attacks. DuckDB's own parser turns the text into a tree, and every node of it must
be of a known, reading sort: one statement, query nodes only, table functions from a short list. The connection that
runs it may open only the files that its views name. And its configuration is locked. Errors come back as QueryError,
without a traceback and without values that the caller's own text did not hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from claimhouse.errors import QueryError
from claimhouse.quoting import quote_text

Path = tuple[str, ...]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The query nodes that only read. Newer DuckDB writes inside WITH (INSERT_QUERY_NODE and others).
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# The table functions that reach neither files nor network nor the engine's own state.
TABLE_FUNCTIONS = _words(
    "range generate_series generate_subscripts unnest repeat repeat_row json_each json_tree regexp_split_to_table "
    "duckdb_tables duckdb_columns duckdb_schemas duckdb_functions duckdb_types duckdb_keywords"
)
# Scalar functions that wait, keep state, or look at the machine.
FORBIDDEN_FUNCTIONS = _words(
    "getenv sleep_ms pg_sleep write_log nextval currval setval setseed set_config current_setting getvariable "
    "json_execute_serialized_sql"
)
# Where a query asks for the list of tables rather than for a table.
CATALOG_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
CATALOG_TABLES = frozenset({"duckdb_tables", "duckdb_columns", "duckdb_schemas", "duckdb_views", "sqlite_master"})

_EXPLAIN = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*explain\b(?:\s+analyze\b|\s*\([^)]*\))?", re.IGNORECASE | re.DOTALL)
_HINT = "one SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN; the lake is never written by a query"
_FILE = re.compile(r"[/\\:*?]|\.(parquet|csv|tsv|json|jsonl|ndjson|txt|db|duckdb|gz|zst)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """One allowed statement: the tables that its text names, as written; what WITH names is none.

    `catalog`: it asks for the list of tables; `selective`: it may want few rows (a WHERE or a LIMIT).
    """

    sql: str
    paths: frozenset[Path]
    catalog: bool
    selective: bool


def read(
    connection: duckdb.DuckDBPyConnection, text: str, *, ours: Callable[[Path], bool] = lambda path: False
) -> Statement:
    """The one reading statement in the text. Raises QueryError for anything else.

    `ours` tells which paths mean a table of the lake: it may have the name of one of the engine's own lists.
    """
    try:
        found = connection.extract_statements(text)
    except duckdb.Error as error:
        raise query_error(error, text) from None
    if len(found) != 1:
        raise QueryError(f"exactly one statement is allowed, not {len(found)}", hint=_HINT)
    kind, sql = found[0].type, found[0].query.strip().rstrip(";")
    if kind == duckdb.StatementType.EXPLAIN:
        explain = _EXPLAIN.match(sql)
        tree = _tree(connection, sql[explain.end() :] if explain else sql)
    elif kind == duckdb.StatementType.SELECT:
        tree = _tree(connection, sql)
    elif kind == duckdb.StatementType.MULTI:
        raise QueryError("a PIVOT must list its columns: PIVOT … ON column IN (…)", hint=_HINT)
    else:
        raise QueryError(f"{kind.name.lower()} is not allowed: the session is read-only", hint=_HINT)
    return _statement(sql, tree, ours)


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Mapping[str, Any]:
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if tree["error"] or len(tree["statements"]) != 1:
        raise QueryError("this statement is not allowed: the session is read-only", hint=_HINT)
    return tree["statements"][0]


def _nodes(tree: Any) -> Iterator[tuple[Mapping[str, Any], frozenset[str]]]:
    """Every node, and the names that WITH gives a meaning there.

    A WITH query sees those before it, and itself only in the recursive half: `WITH claim AS (SELECT … FROM claim)`
    reads the table.
    """
    stack: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while stack:
        node, known = stack.pop()
        if isinstance(node, dict):
            yield node, known
            for entry in (node.get("cte_map") or {}).get("map") or ():
                stack.append((entry["value"], known))
                known |= {entry["key"].lower()}
            itself = known | {str(node["cte_name"]).lower()} if node.get("cte_name") else known
            stack.extend((v, itself if k in ("right", "child") else known) for k, v in node.items() if k != "cte_map")
        elif isinstance(node, list):
            stack.extend((item, known) for item in node)


def _statement(sql: str, tree: Mapping[str, Any], ours: Callable[[Path], bool]) -> Statement:
    paths: set[Path] = set()
    catalog = selective = False
    for node, known in _nodes(tree):
        kind = node.get("type", "")
        selective |= kind == "LIMIT_MODIFIER" or node.get("where_clause") is not None
        if node.get("class") == "FUNCTION":
            _check_function(str(node["function_name"]).lower())
        if not isinstance(kind, str):
            continue
        if kind.endswith("_NODE") and kind not in QUERY_NODES:
            raise QueryError("a query may not write, not even inside WITH", hint=_HINT)
        if kind == "TABLE_FUNCTION":
            name = _check_table_function(node)
            catalog |= name in CATALOG_TABLES
        elif kind == "SHOW_REF":
            catalog |= node.get("query") is None
        elif kind == "BASE_TABLE":
            path: Path = tuple(node["qualified_name"]["path"])
            if not (len(path) == 1 and path[0].lower() in known):
                if not ours(path):
                    _check_table(path)
                    catalog |= is_catalog(path)
                paths.add(path)
    return Statement(sql, frozenset(paths), catalog, selective)


def _check_function(name: str) -> None:
    if name in FORBIDDEN_FUNCTIONS:
        raise QueryError(f"the function {name} is not allowed in a read-only session", hint=_HINT)


def _check_table_function(node: Mapping[str, Any]) -> str:
    function = node.get("function") or {}
    name = str(function.get("function_name", "")).lower()
    if name not in TABLE_FUNCTIONS:
        raise QueryError(
            f"the table function {name or 'here'} is not allowed in a read-only session",
            hint="name the lake's tables; SHOW TABLES lists them",
        )
    return name


def _check_table(path: Path) -> None:
    own = len(path) == 1 or path[-2].lower() in CATALOG_SCHEMAS
    if own and path[-1].lower() in {"duckdb_settings", "duckdb_secrets", "duckdb_views", "pg_settings"}:
        raise QueryError(f"{path[-1]} is not readable in this session", hint="SHOW TABLES lists what is")


def is_catalog(path: Path) -> bool:
    """Whether a path means the engine's own list of tables."""
    return path[-1].lower() in CATALOG_TABLES or any(p.lower() in CATALOG_SCHEMAS for p in path[:-1])


def looks_like_file(name: str) -> bool:
    """Whether an unknown table name was meant as a file or an address: then the message says that files are refused."""
    return bool(_FILE.search(name))


def connect(*, threads: int | None = None, memory: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection of its own engine: UTC, and nothing taken from variables of the caller's program."""
    settings: dict[str, Any] = {
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads:
        settings["threads"] = threads
    if memory:
        settings["memory_limit"] = memory
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET GLOBAL timezone = 'UTC'")
    return connection


def lock(connection: duckdb.DuckDBPyConnection, files: Iterable[str]) -> None:
    """From here on the connection opens these files only, and none of its settings moves."""
    listed = ", ".join(quote_text(f) for f in files)
    connection.execute(
        f"SET allowed_paths = [{listed}]; SET enable_external_access = false; SET lock_configuration = true"
    )


def query_error(error: Exception, text: str, names: Collection[str] = ()) -> QueryError:
    """DuckDB's error as ours: its first line, where in the text it is, and no value that the text does not hold.

    `names` of tables and columns may be told.
    """
    message, _, place = str(error).partition("\n\nLINE ")
    message = re.sub(r"^[A-Z][\w ]* Error: ", "", message)
    first, _, rest = message.partition("\n")
    first = without_values(first, text, names).rstrip(".!")
    if place:
        line, _, excerpt = place.partition(": ")
        first += f", at line {line}: {without_values(excerpt.partition(chr(10))[0].strip(), text)}"
    hint = without_values(" ".join(rest.split()), text, names).replace("Candidate bindings:", "columns of like names:")
    if not first[1:2].isupper():
        first = first[:1].lower() + first[1:]
    return QueryError(first, hint=hint or None)


def without_values(message: str, text: str, names: Collection[str] = ()) -> str:
    """An engine's message without quoted values that neither the caller's own text nor the list of names holds."""

    def hide(found: re.Match[str]) -> str:
        return found[0] if found[2] in text or found[2] in names else f"{found[1]}…{found[1]}"

    message = re.sub(r"(['\"])(.+?)\1", hide, message)
    return re.sub(r"with value \S+", "with value …", message)
