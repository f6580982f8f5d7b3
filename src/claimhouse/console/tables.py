"""Any lake, table by table: what there is, a table's rows, a row's history."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from claimhouse.change import lsn_text
from claimhouse.console.claimfile import timeline, told
from claimhouse.console.page import ROWS, Ask, Page, texts
from claimhouse.console.pulse import Pulse
from claimhouse.console.reader import Reading
from claimhouse.errors import ClaimhouseError
from claimhouse.lake import deadletters
from claimhouse.lake.flushes import TableRecord
from claimhouse.query.history import history
from claimhouse.query.names import TableName
from claimhouse.quoting import quote, quote_text
from claimhouse.table import decode_name, encode_name

PAGE = 100
COUNTED = 200  # tables whose rows the list counts


def tables_page(reading: Reading, ask: Ask, pulse: Pulse) -> Page:
    """Every table with its state, rows, versions, size and lag."""
    session = reading.session
    visible = session.tables()
    counts = _counts(reading, visible[:COUNTED])
    rows = [_table_row(reading, name, counts.get(name), pulse) for name in session.names.tables]
    shown = [{k: v for k, v in r.items() if k != "path"} for r in rows]
    data = {"tables": rows, "empty_sources": session.empty}
    return Page("tables.html", "Tables", data, pa.Table.from_pylist(shown) if shown else None)


def _counts(reading: Reading, tables: list[TableName]) -> dict[TableName, int]:
    if not tables:
        return {}
    places = [reading.place(t) for t in tables]
    reading.prepare(places)
    text = " UNION ALL ".join(f"SELECT {i} AS i, count(*) AS n FROM {place}" for i, place in enumerate(places))
    return {tables[r["i"]]: r["n"] for r in reading.rows(text)}  # type: ignore[index,misc]


def _table_row(reading: Reading, name: TableName, rows: int | None, pulse: Pulse) -> dict[str, Any]:
    session = reading.session
    snapshot, state = session.snapshots[name.source], session.states[name]
    record = snapshot.record.table(state.folder) if snapshot.record else TableRecord()
    found = deadletters.letters(session.lake, name.source)
    letters = deadletters.still_open(found, state, session.positions[name.source].lsn)
    known = pulse.sources.get(name.source)
    touched = [c.mark for c in snapshot.cuts if c.mark.rows(state.folder)]
    exact = [c.exact_from for c in state.copies if c.exact_from is not None]
    return {
        "source": name.source,
        "table": state.label,
        "path": f"/tables/{name.source}/{encode_name(name.schema)}/{encode_name(name.name)}",
        "status": "not exact" if letters else state.status,
        "error": state.error or (f"{len(letters)} changes could not be kept" if letters else None),
        "rows": rows,
        "copied_rows": state.copies[-1].rows if state.copies else 0,
        "rows_in_tail": sum(m.rows(state.folder) for m in touched),
        "shape": state.table.version,
        "columns": len(state.table.columns),
        "log_rows": record.rows,
        "log_version": record.changes,
        "current_version": record.current,
        "exact_from": lsn_text(exact[0]) if exact else None,
        "behind_seconds": round(time.time() - known.written_at, 1) if known and state.status == "live" else None,
    }


def table_page(reading: Reading, ask: Ask) -> Page:
    """A table's rows, page by page, with a filter on one column."""
    name = _name(reading, ask)
    columns = reading.session.columns(name)
    state = reading.session.states[name]
    shape = state.shape_at(reading.session.positions[name.source].lsn)
    column, text = ask.text("column"), ask.text("q")
    where = "true"
    if text:
        wanted = [column] if column in columns else columns
        where = (
            " OR ".join(f"contains(lower(CAST({quote(c)} AS VARCHAR)), {quote_text(text.lower())})" for c in wanted)
            or "false"
        )
    keys = [c.name for c in shape.key] if shape.identity == "key" else []
    order = ", ".join(quote(k) + " DESC" for k in keys) or "ALL"
    size = PAGE if ask.face == "html" else ask.number("limit", ROWS if ask.face == "csv" else 1000, 1, ROWS)
    page = ask.number("page", 1, 1, 1_000_000)
    place = reading.place(name)
    reading.prepare([place])
    total = reading.rows(f"SELECT count(*) AS n FROM {place} WHERE {where}")[0]["n"]
    found = reading.sql(f"SELECT * FROM {place} WHERE {where} ORDER BY {order} LIMIT {size} OFFSET {(page - 1) * size}")
    assert isinstance(total, int)
    data = {
        "table": state.label,
        "source": name.source,
        "key": keys,
        "error": state.error,
        "status": state.status,
        "column": column,
        "q": text,
        "columns": [{"name": c.name, "type": c.type, "key": bool(c.key)} for c in shape.columns],
        "total": total,
        "page": page,
        "pages": max(1, -(-total // size)),
        "first": min(total, (page - 1) * size + 1),
        "last": min(total, (page - 1) * size + found.num_rows),
        "cells": texts(found) if ask.face == "html" else [],
        "warnings": list(reading.session.warnings),
    }
    return Page("table.html", state.label, data, found, hidden=("cells",))


def row_page(reading: Reading, ask: Ask) -> Page:
    """Every version of one row, newest first; the key stands in the query as `key.<column>`."""
    name = _name(reading, ask)
    key = {k.removeprefix("key."): v for k, v in ask.query.items() if k.startswith("key.")}
    found = history(reading.session, name, key)
    versions = [told(v, found[i - 1] if i else None) for i, v in enumerate(found)][::-1]
    state = reading.session.states[name]
    data = {
        "table": state.label,
        "source": name.source,
        "back": f"/tables/{name.source}/{encode_name(name.schema)}/{encode_name(name.name)}",
        "key": key,
        "versions": versions,
    }
    title = f"{state.label} {', '.join(key.values())}"
    return Page("row.html", title, data, timeline(versions), 200 if versions else 404)


class Absent(ClaimhouseError):
    """The address names nothing that is in the lake."""


def _name(reading: Reading, ask: Ask) -> TableName:
    parts = ask.parts
    try:
        name = TableName(parts["source"], decode_name(parts["schema"]), decode_name(parts["table"]))
    except ValueError:
        raise Absent("there is no such table in this lake", hint="see the list of tables") from None
    if name not in reading.session.states:
        raise Absent(f"there is no table {name.schema}.{name.name} in this lake", hint="see the list of tables")
    if hidden := reading.session.hidden(name):
        raise hidden
    return name
