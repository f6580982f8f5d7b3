"""One lake, three engines: every figure and every rule gives on Spark and on Trino what it gives on DuckDB.

The lake is written by the embedded runtime, on the stack's S3: a small demo book, and transactions of its simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from sqlglot import exp
from tests.stack.book import SOURCE, Book, Run

from claimhouse.distributed.native import Stack
from claimhouse.distributed.views import schema_name
from claimhouse.fraud import compose as rules
from claimhouse.fraud import graph
from claimhouse.fraud import model as fraud_models
from claimhouse.fraud.rule import part, shipped
from claimhouse.marts import Model, available, compose, find, lint
from claimhouse.marts import load as load_model
from claimhouse.marts.figure import bound, columns_of
from claimhouse.marts.inputs import InputColumn
from claimhouse.marts.runner import figures
from claimhouse.query.names import LOG
from claimhouse.query.session import Session

pytestmark = pytest.mark.stack

DAY = date(2025, 6, 30)
ASKED = {
    "valuation": DAY,
    "prior": "2024-12-31",
    "threshold": "9000",
    "origin_months": "12",
    "development_months": "12",
}
LINK = "l.claim_id, l.kind, l.value, l.party, l.home"
OVER_VIEWS = ("claims_by_status",)  # the rest over copies: of many views Trino plans for seconds


@dataclass
class Engines:
    """Each runs SQL that names the book's tables as the models do."""

    session: Session
    spark: Run
    trino_views: Run
    trino: Run  # over copies of the views

    def log(self, dialect: str) -> Callable[[exp.Table], exp.Table]:
        """An engine's name for a table of a model; of `claim__log` that of its change log."""

        def named(table: exp.Table) -> exp.Table:
            if dialect == "trino" and table.name.endswith(LOG):
                return exp.table_(table.name.removesuffix(LOG), schema_name(SOURCE, "public", "log"))
            return exp.table_(table.name)

        return named


@pytest.fixture(scope="module")
def engines(book: Book, stack: Stack) -> Iterator[Engines]:
    from claimhouse.distributed.job import spark_session

    spark = spark_session(stack.topology, stack.secrets, stack.folder / "notebook")
    try:
        with Session(book.lake) as session:
            yield Engines(session, _in_spark(spark, session, book.read), book.over_views, book.copied())
    finally:
        spark.stop()


def _in_spark(spark: Any, session: Session, tables: set[str]) -> Run:
    """The rows of the lake in Spark's memory. (That its views of the lake have the same rows is another test's.)"""
    spark.conf.set("spark.sql.shuffle.partitions", "1")
    # Over a few thousand rows a query costs its planning, and code that would be compiled to run once.
    spark.conf.set("spark.sql.codegen.wholeStage", "false")
    spark.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    for name in sorted(tables):
        spark.createDataFrame(session.sql(f"SELECT * FROM {name}").arrow()).createOrReplaceTempView(name)
    return lambda sql: [tuple(r) for r in spark.sql(sql).collect()]


def plain(value: Any, column: InputColumn) -> Any:
    """A value as all engines can be compared by: times to the second, doubles to ten digits."""
    if value is None or column.kind in ("text", "flag"):
        return value
    if column.kind == "money":
        return Decimal(str(value)).normalize() + 0
    if column.kind in ("amount", "ratio", "days"):
        return float(f"{float(value):.10g}")
    if column.kind == "count":
        return int(value)
    if isinstance(value, (datetime, date)):
        value = value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)[:19]


def rows_of(rows: list[tuple[Any, ...]], columns: tuple[InputColumn, ...]) -> list[tuple[Any, ...]]:
    return [tuple(plain(v, c) for v, c in zip(row, columns, strict=True)) for row in rows]


def differences(name: str, ours: list[tuple[Any, ...]], engines: Mapping[str, Callable[[], Any]]) -> list[str]:
    """What is not the same, in words. The engines are asked beside each other."""

    def compared(engine: str) -> str | None:
        try:
            theirs = engines[engine]()
        except Exception as error:
            return f"{name} on {engine}: {str(error)[:400]}"
        if theirs != ours:
            first = next((p for p in zip(ours, theirs, strict=False) if p[0] != p[1]), "one is longer")
            return f"{name} on {engine}: {len(ours)} and {len(theirs)} rows; {first}"
        return None

    with ThreadPoolExecutor(len(engines)) as pool:
        return [wrong for wrong in pool.map(compared, engines) if wrong]


def test_every_figure_is_the_same_on_three_engines(engines: Engines) -> None:
    model = load_model("demo")
    claim = engines.session.sql("SELECT min(claim_number) FROM claim JOIN reserve_txn USING (claim_id)").arrow()
    asked = {**ASKED, "claim": claim.column(0)[0].as_py()}
    wrong: list[str] = []
    names = [a.name for a in available(model, engines.session) if a.on]
    assert len(names) >= 18
    filled = 0
    for name in names:
        figure, columns = find(name), compose_columns(name)
        values = bound(
            compose.parameters_of(figure),
            {k: v for k, v in asked.items() if k in compose.parameters_of(figure)},
            DAY,
        )
        ours = figures(engines.session, model, name, values)
        filled += bool(ours.num_rows)

        def on(dialect: str, run: Run, name: str = name, values: Any = values) -> Callable[[], Any]:
            query = compose.compose(find(name), model, tables=engines.log(dialect))
            text = compose.render(query, dialect, values=values).sql
            return lambda: rows_of(run(text), compose_columns(name))

        ours_rows = rows_of([tuple(r.values()) for r in ours.to_pylist()], columns)
        trino = engines.trino_views if name in OVER_VIEWS else engines.trino
        wrong += differences(name, ours_rows, {"spark": on("spark", engines.spark), "trino": on("trino", trino)})
    assert not wrong, "\n".join(wrong)
    assert filled >= 15, "the book is too small to compare by"


def compose_columns(name: str) -> tuple[InputColumn, ...]:
    return columns_of(find(name))


def test_every_rule_finds_the_same_on_three_engines(engines: Engines) -> None:
    model = fraud_models.load()
    wrong: list[str] = []
    hits = 0
    # The widest input, read up to nine times by a rule: made once on the engines that would work it out each time.
    links = compose.render(model.inputs["link_input"], "duckdb").sql
    wide = {e: compose.render(model.inputs["link_input"], e).sql for e in ("spark", "trino")}
    engines.spark(f"CREATE TEMPORARY VIEW wide_links AS {wide['spark']}")
    engines.spark("CACHE TABLE wide_links")
    engines.trino(f"CREATE TABLE wide_links AS {wide['trino']}")
    once = {**model.inputs, "link_input": lint.read("link_input", f"SELECT {LINK} FROM wide_links AS l")}
    made = replace(model, inputs=once)
    ours = sorted(map(repr, _duck(engines, f"SELECT {LINK} FROM ({links}) AS l")))
    for engine, run in (("spark", engines.spark), ("trino", engines.trino)):
        assert sorted(map(repr, run(f"SELECT {LINK} FROM wide_links AS l"))) == ours, engine
    for name, rule in shipped().items():
        head = (InputColumn("claim_id", "key", ""), InputColumn("score", "ratio", ""))
        columns = (*head, *rule.columns)
        joined = _components(engines, model, name) if "component" in rule.reach else rules.NO_COMPONENTS

        def on(engine: str, run: Run, rule: Any = rule, joined: str = joined, columns: Any = columns) -> Any:
            text = rules.render(rule, engine, model if engine == "duckdb" else made, components=joined)
            return sorted(rows_of(run(text), columns), key=repr)

        ours = on("duckdb", lambda sql: _duck(engines, sql))
        hits += len(ours)
        ask = {e: lambda e=e, r=r, on=on: on(e, r) for e, r in (("spark", engines.spark), ("trino", engines.trino))}
        wrong += differences(name, ours, ask)
    assert not wrong, "\n".join(wrong)
    assert hits >= 5, "the book is too small to compare by"


def _duck(engines: Engines, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in engines.session.sql(sql).arrow().to_pylist()]


def _components(engines: Engines, model: Model, name: str) -> str:
    """`component_input` of a rule as SQL: what hangs together, which no SQL of the subset finds."""
    rule = shipped()[name]
    edges = engines.session.sql(
        rules.render(replace(part("edges"), parameters=rule.parameters), "duckdb", model)
    ).arrow()
    joined: pa.Table = graph.components(edges["claim_id"], edges["other_id"])
    rows = [f"SELECT {r['claim_id']} AS claim_id, {r['component']} AS component" for r in joined.to_pylist()]
    return " UNION ALL ".join(rows) or rules.NO_COMPONENTS
