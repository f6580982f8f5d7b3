"""What Metabase shows: the figures of the marts as questions on Trino's views, and the dashboards that hold them.

`CARDS` and `DASHBOARDS` are the whole list. A question's SQL is the figure's own, rendered for Trino over the views of
one source; valuation and line are its variables, and without them it is valued as of today, over all lines. Questions
about indicators read what the rules' process keeps in the lake (`indicators.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlglot import exp

from claimhouse.distributed import indicators
from claimhouse.distributed.views import schema_name
from claimhouse.marts import compose, find, load
from claimhouse.marts.compose import parameters_of
from claimhouse.marts.figure import PARAMETERS
from claimhouse.query.names import LOG

COLUMNS = 24  # of a dashboard's grid
# a variable in the SQL, and what stands for it while it has no value (Trino wants two arguments of COALESCE)
_OPTIONAL = {
    "valuation": "COALESCE([[CAST({{valuation}} AS DATE), ]]CURRENT_DATE, CURRENT_DATE)",
    "line": "COALESCE([[{{line}}, ]]CAST(NULL AS VARCHAR), CAST(NULL AS VARCHAR))",
}
_FRESHNESS = """
SELECT t.name AS "table", COUNT(*) AS row_count, MAX(t.committed_at) AS newest_commit,
  date_diff('second', MAX(t.committed_at), current_timestamp) AS seconds_ago
FROM ({tables}) AS t GROUP BY 1 ORDER BY 1"""
_NEWEST = """
SELECT c.claim_number, c.line, c.cause, c.loss_place, c.loss_state, c.loss_date, c.status, c.reported_at
FROM {claim} AS c
WHERE {line} IS NULL OR c.line = {line}
ORDER BY c.reported_at DESC LIMIT 200"""
_BY_DAY = """
SELECT CAST(c.reported_at AS DATE) AS day, COUNT(*) AS claims
FROM {claim} AS c
WHERE {line} IS NULL OR c.line = {line}
GROUP BY 1 ORDER BY 1"""


@dataclass(frozen=True)
class Card:
    """One question. `key` tells it for ever, its name may change; `figure` or `sql` is what it asks."""

    key: str
    name: str
    display: str = "table"
    figure: str | None = None
    sql: str | None = None
    shows: dict[str, Any] = field(default_factory=dict)  # Metabase's visualization settings


@dataclass(frozen=True)
class Place:
    """Where a card stands on its dashboard's grid."""

    card: str
    row: int
    col: int
    wide: int
    high: int


@dataclass(frozen=True)
class Board:
    """One dashboard; `filters` are the variables that its cards share."""

    key: str
    name: str
    says: str
    places: tuple[Place, ...]
    filters: tuple[str, ...] = ("valuation", "line")


def _axes(across: str, *up: str, stack: bool = False) -> dict[str, Any]:
    settings: dict[str, Any] = {"graph.dimensions": [across], "graph.metrics": list(up)}
    return settings | {"stackable.stack_type": "stacked"} if stack else settings


CARDS = (
    Card("newest_claims", "Newest claims", sql=_NEWEST),
    Card("claims_by_day", "Claims reported by day", "bar", sql=_BY_DAY, shows=_axes("day", "claims")),
    Card("claims_by_status", "Claims by status", "bar", "claims_by_status", shows=_axes("status", "claims")),
    Card("backlog", "Open claims by age and adjuster", figure="backlog"),
    Card("cycle_times", "Cycle times", figure="cycle_times"),
    Card("closing", "Closing ratio, closed without payment, reopen rate", figure="closing"),
    Card("totals", "Paid, outstanding, incurred", figure="totals"),
    Card("frequency_severity", "Frequency and severity by accident year", figure="frequency_severity"),
    Card("loss_ratio", "Loss ratio by accident year", "line", "loss_ratio", shows=_axes("accident_year", "loss_ratio")),
    Card("large_losses", "Large losses", figure="large_losses"),
    Card("triangle_paid", "Paid loss triangle", figure="triangle_paid"),
    Card(
        "fraud_bands",
        "Open claims with indicators, by band",
        "bar",
        sql=indicators.BANDS,
        shows=_axes("band", "claims"),
    ),
    Card("fraud_rules", "Indicators that hold, by rule", sql=indicators.RULES),
    Card("fraud_queue", "Claims with indicators, highest score first", sql=indicators.QUEUE),
    Card(
        "fraud_decisions",
        "Dispositions per week",
        "bar",
        sql=indicators.DECISIONS,
        shows=_axes("week", "decisions", stack=True) | {"graph.dimensions": ["week", "decision"]},
    ),
    Card("freshness", "How fresh each table is", sql=_FRESHNESS),
)
DASHBOARDS = (
    Board(
        "incoming", "Incoming claims", "What is reported, and in which state it is.",
        (
            Place("claims_by_day", 0, 0, 14, 6), Place("claims_by_status", 0, 14, 10, 6),
            Place("newest_claims", 6, 0, 24, 9),
        ),
    ),
    Board(
        "processing", "Processing", "How long claims take, and what waits.",
        (Place("backlog", 0, 0, 12, 8), Place("cycle_times", 0, 12, 12, 8), Place("closing", 8, 0, 24, 8)),
    ),
    Board(
        "money", "Reserves and payments", "Paid, outstanding and incurred; loss ratios; large losses; the triangle.",
        (
            Place("totals", 0, 0, 24, 5), Place("loss_ratio", 5, 0, 12, 7), Place("frequency_severity", 5, 12, 12, 7),
            Place("large_losses", 12, 0, 24, 8), Place("triangle_paid", 20, 0, 24, 8),
        ),
    ),
    Board(
        "fraud", "Fraud queue",
        "Claims with indicators consistent with fraud, for a person to look at; no indicator decides anything.",
        (
            Place("fraud_bands", 0, 0, 10, 7), Place("fraud_decisions", 0, 10, 14, 7),
            Place("fraud_queue", 7, 0, 24, 10), Place("fraud_rules", 17, 0, 24, 8),
        ), (),
    ),
    Board(
        "pipeline", "Pipeline health", "How old the newest commit of each table is.",
        (Place("freshness", 0, 0, 24, 12),), (),
    ),
)  # fmt: skip


def sql_of(card: Card, source: str, catalog: str, schema: str = "public") -> str:
    """A card's SQL for Trino, with Metabase's variables in it."""
    if card.figure is None:
        spot = _spot(source, catalog, schema)
        model = load("demo")
        tables = sorted({t for name in model.inputs for t in model.tables(name) if not t.endswith(LOG)})
        each = (
            f"SELECT '{name}' AS name, _committed_at AS committed_at FROM {spot(exp.table_(name)).sql('trino')}"
            for name in tables
        )
        text = (card.sql or "").strip()
        claim = spot(exp.table_("claim")).sql("trino")
        kept = indicators.parts(source, catalog)
        return text.format(tables=" UNION ALL ".join(each), claim=claim, line=_OPTIONAL["line"], **kept)
    return _figure_sql(card.figure, source, catalog, schema)


@cache
def _figure_sql(name: str, source: str, catalog: str, schema: str) -> str:
    figure = find(name)
    query = compose.compose(figure, load("demo"), tables=_spot(source, catalog, schema))
    values = {name: _given(name) for name in parameters_of(figure)}
    text = compose.render(query, "trino", values=values, pretty=True).sql
    return re.sub(r"'\{\{([a-z_]+)\}\}'", lambda found: _OPTIONAL[found[1]], text)


def variables_of(sql: str) -> list[str]:
    """The variables in a card's SQL, in order of their names."""
    return sorted(set(re.findall(r"\{\{([a-z_]+)\}\}", sql)))


def without_values(sql: str) -> str:
    """The SQL as Metabase runs it while no variable has a value."""
    return re.sub(r"\[\[.*?\]\]", "", sql)


def cards_of(boards: Iterable[Board] = DASHBOARDS) -> list[str]:
    return [place.card for board in boards for place in board.places]


def _given(name: str) -> Any:
    return f"{{{{{name}}}}}" if name in _OPTIONAL else PARAMETERS[name].default


def _spot(source: str, catalog: str, schema: str) -> Any:
    def spot(table: exp.Table) -> exp.Table:
        """Trino's name of a table of the model; of `claim__log` that of its change log."""
        part = "log" if table.name.endswith(LOG) else ""
        return exp.table_(table.name.removesuffix(LOG), schema_name(source, schema, part), catalog)

    return spot
