"""Books for rules: the demo book's tables in DuckDB, without PostgreSQL; empty ones for hand-made cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa

from claimhouse.change import old_name
from claimhouse.fraud.engine import Engine
from claimhouse.fraud.evaluate import Hit, Scorer
from claimhouse.fraud.model import load
from claimhouse.fraud.rule import RuleSet, load_rules
from claimhouse.marts import mirror
from claimhouse.marts.model import columns

MODEL = load("demo")
KEYS = {
    "policy_version": ("policy_id", "version"),
    "payment_line": ("payment_id", "line_no"),
    "insured_asset": ("asset_id",),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "claim": {
        "policy_id": 1, "asset_id": None, "line": "motor", "cause": "collision", "loss_date": "2024-03-05",
        "reported_at": "2024-03-06 12:00+00", "catastrophe_code": None, "adjuster_id": 1,
    },
    "policy": {"inception": "2020-01-01", "ended_on": None},
    "party": {"address_id": 1, "phone": None},
    "adjuster": {"authority_limit": 5000},
    "provider": {"kind": "body_shop"},
    "exposure": {"coverage_id": 1, "claimant_id": 1, "kind": "collision"},
    "invoice": {"invoiced_on": "2024-04-01", "status": "paid", "amount": 1000},
    "payment": {"paid_at": "2024-05-01 10:00+00"},
    "payment_line": {"line_no": 1, "cost_type": "indemnity"},
    "insured_asset": {"vin": None},
    "coverage": {"policy_id": 1, "version": 1, "kind": "collision", "limit_amount": 10_000},
    "policy_version": {"reason": "new"},
}  # fmt: skip


def key_of(table: str) -> tuple[str, ...]:
    return KEYS.get(table, (f"{table}_id",))


def connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def fill(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    """The tables that the model reads, with their keys and the columns that it names."""
    for name, needed in columns(MODEL).items():
        listed = [c for c in tables[name].column_names if c in needed or c in key_of(name)]
        connection.register("_table", tables[name].select(listed))
        connection.execute(f"CREATE TABLE {name} AS FROM _table")
        connection.unregister("_table")


@dataclass
class Case:
    """An empty book to put rows into by hand."""

    tables: Mapping[str, pa.Table]
    connection: duckdb.DuckDBPyConnection = field(default_factory=connect)

    def __post_init__(self) -> None:
        fill(self.connection, {name: table.slice(0, 0) for name, table in self.tables.items()})

    def add(self, table: str, *rows: dict[str, Any]) -> Case:
        for row in rows:
            whole = {**DEFAULTS.get(table, {}), **row}
            if table == "claim":
                whole.setdefault("claim_number", f"C-{whole['claim_id']:03d}")
            names = ", ".join(whole)
            marks = ", ".join("?" for _ in whole)
            self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(whole.values()))
        return self

    def hits(self, rule: str, rules: RuleSet | None = None) -> dict[str, Hit]:
        """claim number -> hit of a rule over all claims."""
        rules = rules or load_rules()
        scorer = Scorer(self.connection, MODEL, replace(rules, rules={rule: rules.rules[rule]}))
        return {hit.number: hit for hit in scorer.run(scorer.rules[rule])}


def change(engine: Engine, rows: Mapping[str, list[tuple[str, dict[str, Any]]]]) -> list[Any]:
    """Take rows (table -> [(op, row)]) into an engine's book as a cut would."""
    connection = engine.scorer.connection
    settled = {
        t: mirror.settle(connection, t, key_of(t), log_of(connection, t, listed), sure=True)
        for t, listed in rows.items()
    }

    def apply() -> None:
        for table, one in settled.items():
            mirror.apply(connection, table, one)

    return engine.change(settled, apply)


def log_of(connection: duckdb.DuckDBPyConnection, table: str, listed: list[tuple[str, dict[str, Any]]]) -> pa.Table:
    """Rows as the log has them; a row may carry `_old_<key>`."""
    schema = connection.sql(f"FROM {table} LIMIT 0").to_arrow_table().schema
    olds = [pa.field(old_name(k), schema.field(k).type) for k in key_of(table)]
    whole = pa.schema([pa.field("_op", pa.string()), *schema, *olds])
    return pa.Table.from_pylist([{"_op": op, **row} for op, row in listed], whole)


def full(engine: Engine) -> dict[str, dict[str, Hit]]:
    """What holds, scored anew."""
    return {name: {h.claim: h for h in engine.scorer.run(rule)} for name, rule in engine.rules.items()}
