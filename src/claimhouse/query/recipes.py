"""Ready snippets by which other engines read a table so that it fits together with every other one.

All of them pin the Delta versions of one flush record (`reading`): two tables read by the same record's snippets are at
the same source transaction. The newest changes, in the tail, are for `claimhouse query` and the Python handle. Where
the plain overlay does not do, DuckDB runs the query that claimhouse itself runs, Polars takes its result, and for the
others the snippet says to wait for the next fold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from claimhouse.change import lsn_text, old_name
from claimhouse.errors import UsageError
from claimhouse.lake.lake import Lake
from claimhouse.query.names import Path
from claimhouse.query.reading import Reading, overlay, reading, whole
from claimhouse.query.session import Session
from claimhouse.quoting import quote, quote_text
from claimhouse.table import encode_name


def recipes(lake: Lake, table: str | Path, engine: str | None = None) -> dict[str, str]:
    """Snippets by engine (`ENGINES`), for a table named as in `Session.path`. Raises UsageError, QueryError."""
    wanted = list(ENGINES) if engine is None else [engine]
    if unknown := [e for e in wanted if e not in ENGINES]:
        raise UsageError(f"no recipe for {unknown[0]}", hint="one of: " + ", ".join(ENGINES))
    with Session(lake) as session:
        name = session.names.find(session.path(table))
        assert name is not None
        read = reading(session, name)
    return {e: f"{_comment(e, read)}\n{_snippet(e, read)}\n" for e in wanted}


def _snippet(engine: str, read: Reading) -> str:
    if read.folded or engine in ("polars", "duckdb"):
        return ENGINES[engine](read)
    sign = _sign(engine)
    return f"{sign} it is not folded yet: use the recipe for DuckDB or Polars, or print this again after a fold"


def _sign(engine: str) -> str:
    return "--" if engine == "trino" else "#"


def _comment(engine: str, read: Reading) -> str:
    sign, record = _sign(engine), read.record
    at = f"flush {record.flush} of source {read.name.source} (cut {record.cut}, {lsn_text(record.end_lsn)})"
    label = read.state.label.replace("\n", " ")
    return f"{sign} table {label} as of {at}; tables read by the recipes of one flush fit together"


def _wait(read: Reading, sign: str) -> list[str]:
    if not read.why_not:
        return []
    return [
        f"{sign} this shows the table after cut {read.versions.current_cut}, not {read.record.cut}, as {read.why_not};",
        f"{sign} it fits the others again after its next fold. The recipes for DuckDB and Polars have no such gap.",
    ]


def _text(sql: str) -> str:
    """SQL as a Python literal that stays readable where it can."""
    return repr(sql) if '"""' in sql or sql.endswith('"') else f'r"""\n{sql}\n"""'


def _delta_options(read: Reading) -> str:
    return f", storage_options={read.options!r}" if read.options else ""


def _duckdb(read: Reading) -> str:
    lines = ["import duckdb", "", "con = duckdb.connect()", "con.execute(\"SET TimeZone = 'UTC'\")"]
    if read.options:
        config = {k: v for k, v in read.options.items() if k != "AWS_ALLOW_HTTP"}
        http = read.options.get("AWS_ALLOW_HTTP") == "true"
        files = f"FsspecStore('s3', config={config!r}, client_options={{'allow_http': {http}}})"
        lines.insert(1, "from obstore.fsspec import FsspecStore  # credentials come from AWS_* in the environment")
        lines.append(f"con.register_filesystem({files})")
    if read.why_not:
        return "\n".join([*lines, f"{read.view} = con.sql({_text(whole(read))})"])
    lines.insert(1, "from deltalake import DeltaTable")
    tables = [("current", read.current, read.versions.current), ("log", read.changes, read.versions.changes)]
    for name, location, version in tables[: 2 if read.behind else 1]:
        files = f"DeltaTable({location!r}, version={version}{_delta_options(read)}).file_uris()"
        lines.append(f'con.execute("SET VARIABLE {name} = ?", [{files}])')
    query = overlay(read, "read_parquet(getvariable('current'))", "read_parquet(getvariable('log'))")
    return "\n".join([*lines, f"{read.view} = con.sql({_text(query)})"])


def _polars(read: Reading) -> str:
    if read.why_not:
        return f"{_duckdb(read)}\n{read.view} = {read.view}.pl()  # by DuckDB, as {read.why_not}"
    names = ", ".join(f"pl.col({c.physical!r}).alias({c.name!r})" for c in read.shape.columns)
    current = f"pl.scan_delta({read.current!r}, version={read.versions.current}{_delta_options(read)})"
    if not read.behind:
        return f"import polars as pl\n\n{read.view} = {current}.select({names})"
    olds = ", ".join(f"pl.coalesce({old_name(k)!r}, {k!r}).alias({k!r})" for k in read.keys)
    moved = ", ".join(f"pl.col({old_name(k)!r}).is_not_null()" for k in read.keys)
    log = f"pl.scan_delta({read.changes!r}, version={read.versions.changes}{_delta_options(read)})"
    return textwrap.dedent(
        f"""\
        import polars as pl

        current = {current}
        log = {log}.filter(
            pl.col("_cut").is_between({read.versions.current_cut + 1}, {read.record.cut}), pl.col("_op") != "r"
        )
        key, order = {read.keys!r}, ["_incarnation", "_end_lsn", "_seq"]
        events = pl.concat([
            log.select(*key, *order, place=pl.lit(1), live=pl.col("_op") != "d"),
            log.filter(pl.col("_op") == "u", pl.any_horizontal({moved})).select(
                {olds}, *order, place=pl.lit(0), live=pl.lit(False)
            ),
        ])
        newest = events.sort(*order, "place").unique(key, keep="last", maintain_order=True)
        changed = log.join(newest.filter("live"), on=[*key, *order], how="semi")
        kept = current.join(newest, on=key, how="anti")
        {read.view} = pl.concat([kept, changed], how="diagonal").select({names})"""
    )


def _spark(read: Reading) -> str:
    def quoted(name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    views = [("current", read.current, read.versions.current), ("log", read.changes, read.versions.changes)]
    lines = []
    for kind, location, version in views[: 2 if read.behind and not read.why_not else 1]:
        path = location.replace("s3://", "s3a://", 1)
        loaded = f'spark.read.format("delta").option("versionAsOf", {version}).load({path!r})'
        lines.append(f'{loaded}.createOrReplaceTempView("{read.view}_{kind}")')
    query = overlay(read, f"{read.view}_current", f"{read.view}_log", quoted)
    return "\n".join([*_wait(read, "#"), *lines, f"{read.view} = spark.sql({_text(query)})"])


def _trino(read: Reading) -> str:
    calls, places = [], {}
    versions = {"current": (read.current, read.versions.current), "changes": (read.changes, read.versions.changes)}
    for kind, (location, version) in versions.items():
        schema = encode_name(f"{read.name.source}_{kind}")
        calls.append(f"--   CALL delta.system.register_table('{schema}', '{read.view}', {quote_text(location)});")
        places[kind] = f"delta.{schema}.{quote(read.view)} FOR VERSION AS OF {version}"
    query = overlay(read, places["current"], places["changes"])
    return "\n".join(["-- once, where the catalog does not have them:", *calls, *_wait(read, "--"), query + ";"])


def _dbt(read: Reading) -> str:
    sources = []
    versions = {"current": (read.current, read.versions.current), "log": (read.changes, read.versions.changes)}
    for kind, (location, version) in versions.items():
        place = f"{{plugin: delta, delta_table_path: {location!r}, as_of_version: {version}}}"
        sources += [f"#   - name: {read.view}_{kind}", f"#     config: {place}"]
    placed = {kind: "{{ source('claimhouse', '" + f"{read.view}_{kind}" + "') }}" for kind in versions}
    return "\n".join(
        [
            "# profiles.yml of dbt-duckdb:  plugins: [{module: delta}]",
            "# models/sources.yml:",
            "# sources:",
            "# - name: claimhouse",
            "#   tables:",
            *sources,
            *_wait(read, "#"),
            f"# models/{read.view}.sql:",
            overlay(read, placed["current"], placed["log"]),
        ]
    )


ENGINES: dict[str, Callable[[Reading], str]] = {
    "polars": _polars,
    "duckdb": _duckdb,
    "spark": _spark,
    "trino": _trino,
    "dbt": _dbt,
}
