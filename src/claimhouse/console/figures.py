"""Figures for people: totals, the triangle as a heat map with link ratios, ageing, large losses, loss ratios, rows.

Every number comes from `claimhouse.marts`; here it is only laid out. Money is valued as of the newest day that the book
knows at the session's moment, unless `valuation` says otherwise: a book whose clock stands still is not aged by ours.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

import pyarrow as pa

from claimhouse import marts
from claimhouse.console.book import LATEST
from claimhouse.console.page import Ask, Page, texts
from claimhouse.console.reader import Reading
from claimhouse.console.standing import Standing
from claimhouse.console.tables import Absent
from claimhouse.errors import ClaimhouseError, UsageError
from claimhouse.marts import compose
from claimhouse.marts.figure import Figure, columns_of
from claimhouse.marts.model import Model, shipped
from claimhouse.quoting import quote_text

MEASURES = {"paid": "Paid", "incurred": "Incurred", "counts": "Reported claims"}
_CHOSEN = {"paid": "paid", "incurred": "incurred", "counts": "reported"}
BANDS = ("0-7", "8-30", "31-60", ">60")
Row = dict[str, Any]


@dataclass
class Figures:
    """Asks figures for pages; `model` None: the shipped one that fits the lake. Keeps the last answers per moment.

    `standing` answers what it can of the present.
    """

    model: Model | None = None
    standing: Standing | None = None
    keep: int = 64
    _answers: OrderedDict[tuple[Any, ...], pa.Table] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fitting(self, reading: Reading) -> Model | None:
        """The model in use; None where the lake holds no tables that one fits."""
        if self.model is not None:
            return self.model
        names = reading.session.names
        found = [(sum(_there(names, m, i) for i in m.inputs), m) for m in _shipped()]
        best = max(found, key=lambda pair: pair[0])
        return best[1] if best[0] else None

    def ask(self, reading: Reading, model: Model, name: str, params: Mapping[str, Any]) -> pa.Table:
        """A figure's rows. Raises UsageError, ModelError, QueryError."""
        known = compose.parameters_of(marts.find(name))
        given = {k: v for k, v in params.items() if k in known and v not in (None, "")}
        key = (model.file, name, tuple(sorted((k, str(v)) for k, v in given.items())), _moment(reading))
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        found = self.standing.ask(reading, model, name, given) if self.standing else None
        if found is None:
            found = marts.figures(reading.session, model, name, given)
        with self._lock:
            self._answers[key] = found
            while len(self._answers) > self.keep:
                self._answers.popitem(last=False)
        return found


@cache
def _shipped() -> tuple[Model, ...]:
    return tuple(map(marts.load, shipped()))


def _there(names: Any, model: Model, name: str) -> bool:
    try:
        return all(names.relation(tuple(t.replace('"', "").split("."))) for t in model.tables(name))
    except ClaimhouseError:
        return False


def _moment(reading: Reading) -> tuple[Any, ...]:
    session = reading.session
    return tuple((s, session.positions[s].incarnation, session.positions[s].lsn) for s in sorted(session.snapshots))


def _valuation(reading: Reading, model: Model, figures: Figures, ask: Ask) -> date:
    """The day that money is valued at: the one asked for, else the newest that the book knows and that can be."""
    if text := ask.text("valuation"):
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise UsageError(f"{text!r} is no day", hint="write it as 2026-03-31") from None
    claims = compose.render(model.inputs["claim_input"], "duckdb").sql
    newest = reading.rows(f"SELECT max(reported_on) AS day FROM ({claims}) WHERE reported_on <= {LATEST}")[0]["day"]
    valuation = newest if isinstance(newest, date) else date.today()
    if figures.standing is not None and reading.at is None:
        figures.standing.want(model, valuation)
    return valuation


def _prepare(reading: Reading, model: Model, *names: str) -> None:
    needed = {i for name in names for i in compose.needs(marts.find(name))} & set(model.inputs)
    there = [i for i in needed if _there(reading.session.names, model, i)]
    reading.prepare(sorted({t for i in there for t in model.tables(i)}))


def figures_page(reading: Reading, figures: Figures, ask: Ask) -> Page:
    """Totals, one triangle, ageing, the largest losses, loss ratios."""
    model = figures.fitting(reading)
    if model is None or "claim_input" not in model.inputs:
        return Page("nofigures.html", "Figures", {"why": "no model fits the tables of this lake"})
    measure = ask.text("measure", "paid")
    measure = measure if measure in MEASURES else "paid"
    _prepare(reading, model, "totals", "large_losses", "backlog", "loss_ratio", "triangle_counts")
    valuation = _valuation(reading, model, figures, ask)
    params = {"valuation": valuation, "line": ask.text("line") or None}
    totals = _or_off(figures, reading, model, "totals", params)
    cells = _or_off(figures, reading, model, f"triangle_{measure}", params)
    triangles = layout(cells["table"], _CHOSEN[measure]) if cells["table"] is not None else []
    data = {
        "model": model.name,
        "valuation": valuation,
        "line": ask.text("line"),
        "measure": measure,
        "measures": MEASURES,
        "lines": _lines(reading, model),
        "totals": _summed(totals["table"]),
        "by_line": _listed(totals["table"]),
        "triangles": triangles,
        "triangle_off": cells["off"],
        "left_out": marts.left_out(reading.session, model, valuation, params["line"]) if triangles else 0,
        "ageing": ageing(_or_off(figures, reading, model, "backlog", params)["table"]),
        "large": _large(figures, reading, model, {**params, "threshold": _threshold(ask)}),
        "threshold": _threshold(ask),
        "ratios": _listed(_or_off(figures, reading, model, "loss_ratio", params)["table"]),
    }
    return Page("figures.html", "Figures", data, cells["table"])


def _threshold(ask: Ask) -> str:
    text = ask.text("threshold", "50000").replace(",", "")
    return text if text.replace(".", "", 1).isdigit() else "50000"


def _or_off(figures: Figures, reading: Reading, model: Model, name: str, params: Mapping[str, Any]) -> Row:
    """A figure's table, or why it is off."""
    try:
        return {"table": figures.ask(reading, model, name, params), "off": None}
    except UsageError as error:
        return {"table": None, "off": str(error)}


def _listed(table: pa.Table | None) -> list[Row]:
    return table.to_pylist() if table is not None else []


def _lines(reading: Reading, model: Model) -> list[str]:
    claims = compose.render(model.inputs["claim_input"], "duckdb").sql
    return [str(r["line"]) for r in reading.rows(f"SELECT DISTINCT line FROM ({claims}) ORDER BY line LIMIT 50")]


def _summed(table: pa.Table | None) -> list[Row]:
    """Totals over all lines, per currency, the largest first."""
    sums: dict[str, Row] = {}
    for row in _listed(table):
        into = sums.setdefault(row["currency"], {"currency": row["currency"]})
        for name in ("claims", "paid", "outstanding", "incurred", "salvage", "subrogation", "net_incurred"):
            into[name] = into.get(name, 0) + row[name]
    return sorted(sums.values(), key=lambda r: -r["incurred"])


def _large(figures: Figures, reading: Reading, model: Model, params: Mapping[str, Any]) -> Row:
    table = _or_off(figures, reading, model, "large_losses", params)["table"]
    return {"count": table.num_rows if table is not None else 0, "rows": _listed(table)[:10]}


def layout(table: pa.Table, measure: str) -> list[Row]:
    """Triangles as grids, one per currency: ages across, origins down, link ratios and their averages below.

    Heat is 0 to 9: of a value by its share of the largest in its column, of a link ratio 0 to 8 around 4, its column's
    volume-weighted average.
    """
    grids: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        if row["measure"] == measure:
            grids.setdefault(row["currency"] or "", []).append(row)
    return [_grid(currency, rows) for currency, rows in grids.items()]


def _grid(currency: str, cells: list[Row]) -> Row:
    ages = sorted({c["age"] for c in cells})
    by_place = {(c["origin"], c["age"]): c for c in cells}
    origins = sorted({c["origin"] for c in cells})
    top = {a: max([float(c["value"]) for c in cells if c["age"] == a] or [0.0]) for a in ages}
    rows = []
    for origin in origins:
        row = [by_place.get((origin, a)) for a in ages]
        rows.append({"origin": origin, "cells": [_cell(c, top[a]) for c, a in zip(row, ages, strict=True)]})
    averages = _averages(by_place, origins, ages)
    for row in rows:
        for cell, average in zip(row["cells"], averages["weighted"], strict=True):
            if cell is not None:
                cell["link_heat"] = _link_heat(cell["link"], average)
    return {"currency": currency, "ages": ages, "rows": rows, "averages": averages, "step": ages[0] if ages else 12}


def _cell(cell: Row | None, top: float) -> Row | None:
    if cell is None:
        return None
    share = float(cell["value"]) / top if top > 0 else 0.0
    return {
        "value": cell["value"],
        "link": cell["link_ratio"],
        "complete": cell["complete"],
        "age": cell["age"],
        "heat": max(0, min(9, round(share * 9))),
        "link_heat": 4,
    }


def _averages(cells: Mapping[tuple[date, int], Row], origins: list[date], ages: list[int]) -> dict[str, list[Any]]:
    """Per age: the volume-weighted link ratio of all origins, and the mean of the newest three. Whole ages only."""
    weighted: list[float | None] = []
    recent: list[float | None] = []
    for age, following in zip(ages, [*ages[1:], None], strict=True):
        pairs = [
            (float(here["value"]), float(then["value"]))
            for o in origins
            if following is not None
            and (here := cells.get((o, age))) is not None
            and (then := cells.get((o, following))) is not None
            and then["complete"]
        ]
        base = sum(a for a, _ in pairs)
        weighted.append(sum(b for _, b in pairs) / base if base else None)
        links = [b / a for a, b in pairs if a][-3:]
        recent.append(sum(links) / len(links) if links else None)
    return {"weighted": weighted, "recent": recent}


def _link_heat(link: float | None, average: float | None) -> int:
    if link is None or not average:
        return 4
    return max(0, min(8, 4 + round((link / average - 1) * 20)))


def ageing(table: pa.Table | None) -> Row:
    """Open claims by band, in all and by adjuster."""
    rows = _listed(table)
    by_adjuster: dict[str, dict[str, int]] = {}
    oldest: dict[str, int] = {}
    for row in rows:
        name = row["adjuster"] or "nobody"
        by_adjuster.setdefault(name, dict.fromkeys(BANDS, 0))[row["band"]] = row["claims"]
        oldest[name] = max(oldest.get(name, 0), row["oldest_days"])
    totals = {band: sum(a[band] for a in by_adjuster.values()) for band in BANDS}
    people = [{"name": n, "bands": b, "all": sum(b.values()), "oldest": oldest[n]} for n, b in by_adjuster.items()]
    people.sort(key=lambda p: (-p["bands"][">60"], -p["all"]))
    return {"bands": BANDS, "totals": totals, "all": sum(totals.values()), "people": people}


def figure_page(reading: Reading, figures: Figures, ask: Ask) -> Page:
    """One figure as a table, with its definition and source; the parameters stand in the query."""
    try:
        figure = marts.find(ask.parts["name"])
    except UsageError as error:
        raise Absent(str(error), hint="/figures/all lists them") from None
    model = figures.fitting(reading)
    if model is None:
        return Page("nofigures.html", "Figures", {"why": "no model fits the tables of this lake"})
    known = compose.parameters_of(figure)
    params: dict[str, Any] = {n: ask.text(n) for n in known if ask.text(n)}
    if "valuation" in known and "claim_input" in model.inputs:
        params["valuation"] = _valuation(reading, model, figures, ask)
    missing = [n for n in known if n in ("claim", "prior") and n not in params]
    table = None if missing else figures.ask(reading, model, figure.name, params)
    data = {
        "figure": _told(figure),
        "model": model.name,
        "params": {n: str(params.get(n, "")) for n in known},
        "choices": {n: marts.PARAMETERS[n] for n in known},
        "missing": missing,
        "head": [{"name": c.name, "kind": c.kind, "meaning": c.meaning} for c in columns_of(figure)],
        "cells": texts(table.slice(0, 500)) if table is not None and ask.face == "html" else [],
        "count": table.num_rows if table is not None else 0,
    }
    return Page("figure.html", figure.title, data, table, hidden=("cells", "choices"))


def _told(figure: Figure) -> Row:
    return {n: getattr(figure, n) for n in ("name", "title", "definition", "source", "rows")}


def list_page(reading: Reading, figures: Figures, ask: Ask) -> Page:
    """Every figure, on or off."""
    model = figures.fitting(reading)
    names = reading.session.names
    rows = []
    for name in marts.figure_names():
        figure = marts.find(name)
        needed = compose.needs(figure)
        off = [i for i in needed if model is None or i not in model.inputs or not _there(names, model, i)]
        rows.append({"name": name, "title": figure.title, "definition": figure.definition, "missing": ", ".join(off)})
    data = {"model": model.name if model else None, "figures": rows}
    return Page("figurelist.html", "All figures", data, pa.Table.from_pylist(rows), hidden=("figures",))


_MOVES = {
    "paid": "SELECT claim_id, currency, CAST(paid_at AS DATE) AS moved_on, amount FROM payment_input",
    "incurred": "SELECT claim_id, currency, CAST(paid_at AS DATE) AS moved_on, amount FROM payment_input UNION ALL "
    "SELECT claim_id, currency, CAST(booked_at AS DATE), amount FROM reserve_input",
    "counts": "SELECT claim_id, '' AS currency, reported_on AS moved_on, 1 AS amount FROM claim_input",
}


def cell_page(reading: Reading, figures: Figures, ask: Ask) -> Page:
    """The claims behind one cell of a triangle, the largest first."""
    model = figures.fitting(reading)
    measure = ask.text("measure", "paid")
    if model is None or measure not in _MOVES:
        raise Absent("there is no such triangle")
    valuation = _valuation(reading, model, figures, ask)
    try:
        origin = date.fromisoformat(ask.text("origin"))
    except ValueError:
        raise UsageError("a cell has an origin, as in origin=2024-01-01") from None
    age, months = ask.number("age", 12, 1, 1200), ask.number("months", 12, 1, 12)
    line = ask.text("line")
    inputs = [n for n in ("claim_input", "payment_input", "reserve_input") if n in model.inputs]
    ctes = ", ".join(f"{n} AS ({compose.render(model.inputs[n], 'duckdb').sql})" for n in inputs)
    first = origin.year * 12 + origin.month - 1
    sql = f"""
WITH {ctes}, moves AS ({_MOVES[measure]})
SELECT c.claim_number, c.line, c.cause, c.status, c.loss_date, c.reported_on, c.closed_on, m.currency,
  sum(m.amount) AS value
FROM moves m JOIN claim_input c ON c.claim_id = m.claim_id
WHERE year(c.loss_date) * 12 + month(c.loss_date) - 1 BETWEEN {first} AND {first + months - 1}
  AND m.moved_on <= DATE '{valuation}' AND year(m.moved_on) * 12 + month(m.moved_on) - 1 < {first + age}
  AND m.currency = {quote_text(ask.text("currency"))} {f"AND c.line = {quote_text(line)}" if line else ""}
GROUP BY ALL HAVING value <> 0 ORDER BY value DESC, c.claim_number LIMIT 10000"""
    _prepare(reading, model, f"triangle_{measure}")
    table = reading.sql(sql)
    data = {
        "measure": MEASURES[measure],
        "origin": origin,
        "age": age,
        "currency": ask.text("currency"),
        "line": line,
        "valuation": valuation,
        "total": sum(table["value"].to_pylist()),
        "count": table.num_rows,
        "claims": table.slice(0, 500).to_pylist() if ask.face == "html" else [],
    }
    return Page("cell.html", f"{MEASURES[measure]} {origin.year} at {age} months", data, table, hidden=("claims",))
