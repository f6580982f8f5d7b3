"""A random application: tables, transactions and DDL from a seed, and what PostgreSQL held after each commit.

Several sessions keep transactions open beside each other; commits happen one at a time, so after each the whole
database has one state, which is read and kept with the position that it belongs to.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from claimhouse.postgres.server import connect, current_lsn

Rows = list[tuple[Any, ...]]

NAMES = [
    ("public", "claim"),
    ("public", "Odd Name"),
    ("sales", 'quo"te.d'),
    ("public", "_op"),
    ("public", "ünï,{code}"),
]
TYPES = [
    "int",
    "bigint",
    "text",
    "numeric(12,2)",
    "boolean",
    "date",
    "timestamptz",
    "float8",
    "bytea",
    "int[]",
    "text[]",
]


@dataclass(slots=True)
class State:
    """One committed state: position, and per table its columns and rows (rows sorted)."""

    lsn: int
    tables: dict[tuple[str, str], tuple[list[str], Rows]]


@dataclass(slots=True)
class ModelTable:
    schema: str
    name: str
    columns: list[tuple[str, str]]
    key: list[str]
    identity: str  # key, full, none

    @property
    def sql(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


@dataclass
class Application:
    """The writing side of one round. `states` grows by one with each commit that changed something."""

    dsn: str
    random: random.Random
    tables: list[ModelTable] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    commits: int = 0
    added: int = 0

    def start(self) -> None:
        self.reader = psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)
        self.lsn_reader = connect(self.dsn)
        self.sessions = [psycopg.connect(self.dsn, prepare_threshold=None) for _ in range(3)]
        for session in self.sessions:
            session.execute("SET lock_timeout = '300ms'")
            session.commit()
        self.ddl = psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)
        self.ddl.execute("CREATE SCHEMA IF NOT EXISTS sales")
        for _ in range(self.random.randint(2, 4)):
            self.create_table()
        for table in self.tables:
            with self.sessions[0].transaction():
                self._insert(self.sessions[0], table, self.random.randint(0, 60))
        self.keep()

    def close(self) -> None:
        for conn in (*self.sessions, self.reader, self.lsn_reader, self.ddl):
            conn.close()

    # --- tables

    def create_table(self) -> None:
        free = [n for n in NAMES if n not in {(t.schema, t.name) for t in self.tables}]
        if not free:
            return
        schema, name = self.random.choice(free)
        identity = self.random.choices(["key", "full", "none"], [8, 1, 1])[0]
        key = ["id"] if self.random.random() < 0.7 else ["id", "part"]
        columns = [("id", self.random.choice(["int", "bigint", "text"])), ("part", "int"), ("big", "text")]
        columns += [
            (f"c{i}" if self.random.random() < 0.8 else f"C {i}", self.random.choice(TYPES))
            for i in range(self.random.randint(1, 5))
        ]
        body = [sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(t)) for c, t in columns]
        if self.random.random() < 0.2 and self.ddl.info.server_version >= 180000:
            body.append(sql.SQL("twice bigint GENERATED ALWAYS AS (part::bigint * 2) STORED"))
        if identity == "key":
            body.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))))
        table = ModelTable(schema, name, columns, key, identity)
        with self.ddl.transaction():
            self.ddl.execute(sql.SQL("CREATE TABLE {} ({})").format(table.sql, sql.SQL(", ").join(body)))
            # Values of a few hundred bytes leave the row, and updates of other columns leave them unchanged.
            self.ddl.execute(sql.SQL("ALTER TABLE {} ALTER big SET STORAGE EXTERNAL").format(table.sql))
            self.ddl.execute(sql.SQL("ALTER TABLE {} SET (toast_tuple_target = 128)").format(table.sql))
            if identity == "full" or (identity == "key" and self.random.random() < 0.2):
                self.ddl.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table.sql))
        self.tables.append(table)

    def alter(self) -> None:
        """A DDL: most often a new column, sometimes one that goes, gets another name or another type."""
        table = self.random.choice(self.tables)
        plain = [(c, t) for c, t in table.columns if c not in (*table.key, "big", "id", "part")]
        act = self.random.choices(["add", "drop", "rename", "retype", "table", "meddle"], [6, 2, 2, 1, 2, 1])[0]
        if act == "table":
            self._tables_come_and_go(table)
            return
        if act == "meddle":
            self._unpublish(table)
            return
        if act == "add" or not plain or table.identity != "key":
            self._add_column(table)
            return
        column, kind = self.random.choice(plain)
        name = sql.Identifier(column)
        columns = list(table.columns)
        place = columns.index((column, kind))
        if act == "drop":
            change = sql.SQL("DROP COLUMN {}").format(name)
            del columns[place]
        elif act == "rename":
            fresh = f"renamed{self.commits}"
            change = sql.SQL("RENAME COLUMN {} TO {}").format(name, sql.Identifier(fresh))
            columns[place] = (fresh, kind)
        else:
            change = sql.SQL("ALTER COLUMN {} TYPE text USING {}::text || '!'").format(name, name)
            columns[place] = (column, "text")
        if self._ddl(table, change):
            table.columns = columns
            self.keep()

    def _add_column(self, table: ModelTable) -> None:
        if len(table.columns) > 12:
            return
        self.added += 1
        name, kind = f"added{self.added}", self.random.choice(TYPES)
        default = sql.SQL("")
        if self.random.random() < 0.5:
            value = self._value(kind)
            if value is not None:
                default = sql.SQL(" DEFAULT {}").format(sql.Literal(value))
        if kind == "float8" and self.random.random() < 0.5:  # old rows get values that no event tells
            default = sql.SQL(" DEFAULT random()")
        change = sql.SQL("ADD COLUMN {} {}{}").format(sql.Identifier(name), sql.SQL(kind), default)
        if self._ddl(table, change):
            table.columns.append((name, kind))
            self.keep()

    def _tables_come_and_go(self, table: ModelTable) -> None:
        """A new table, one that is written anew, or one that is dropped, after which its name is free for another."""
        chance = self.random.random()
        try:
            self.ddl.execute("SET lock_timeout = '200ms'")
            if chance < 0.3 and len(self.tables) > 1:
                self.ddl.execute(sql.SQL("DROP TABLE {}").format(table.sql))
                self.tables.remove(table)
            elif chance < 0.5:
                self.ddl.execute(sql.SQL("VACUUM FULL {}").format(table.sql))
            else:
                before = len(self.tables)
                self.create_table()
                if len(self.tables) > before:
                    with self.ddl.transaction():
                        self._insert(self.ddl, self.tables[-1], self.random.randint(0, 20))
        except psycopg.errors.LockNotAvailable:
            return
        self.keep()

    def _unpublish(self, table: ModelTable) -> None:
        """Somebody takes a table out of the publication that we read."""
        for (name,) in self.ddl.execute(
            "SELECT pubname FROM pg_publication_tables WHERE pubname LIKE 'claimhouse%%' AND (schemaname, tablename)"
            " = (%s, %s)",
            [table.schema, table.name],
        ).fetchall():
            try:
                self.ddl.execute("SET lock_timeout = '200ms'")
                self.ddl.execute(sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(sql.Identifier(name), table.sql))
            except psycopg.errors.LockNotAvailable:
                return

    def _ddl(self, table: ModelTable, change: sql.Composable) -> bool:
        try:
            self.ddl.execute("SET lock_timeout = '200ms'")
            self.ddl.execute(sql.SQL("ALTER TABLE {} {}").format(table.sql, change))
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    # --- transactions

    def step(self, *, ddl: float = 0.02) -> None:
        """One random act: most often work in some session, sometimes its commit, sometimes a DDL."""
        if self.random.random() < ddl:
            self.alter()
            return
        session = self.random.choice(self.sessions)
        if session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE and self.random.random() < 0.5:
            if self.random.random() < 0.15:
                session.rollback()
            else:
                session.commit()
                self.commits += 1
                self.keep()
            return
        try:
            self._work(session)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            session.rollback()

    def settle(self) -> None:
        """Commits whatever is open."""
        for session in self.sessions:
            session.commit()
            self.keep()

    def _work(self, session: psycopg.Connection) -> None:
        chance = self.random.random
        self.truncated = False
        for _ in range(self.random.randint(1, 4)):
            table = self.random.choice(self.tables)
            if chance() < 0.15:
                session.execute("SAVEPOINT s")
                self._change(session, table)
                session.execute("ROLLBACK TO s" if chance() < 0.5 else "RELEASE s")
            else:
                self._change(session, table)
        if self.truncated:  # its lock would keep the reader waiting for us
            session.commit()
            self.commits += 1
            self.keep()

    def _change(self, session: psycopg.Connection, table: ModelTable) -> None:
        act = self.random.choices(["insert", "update", "rekey", "delete", "truncate", "big"], [8, 8, 2, 3, 0.3, 0.5])[0]
        if table.identity == "none" and act in ("update", "rekey", "delete"):
            act = "insert"  # append-only: an UPDATE there is outside what can be captured
        some = sql.SQL("ctid = ANY(ARRAY(SELECT ctid FROM {} ORDER BY md5(ctid::text || {}) LIMIT {}))").format(
            table.sql, sql.Literal(str(self.random.random())), sql.Literal(self.random.randint(1, 4))
        )
        if act == "insert":
            self._insert(session, table, self.random.randint(1, 8))
        elif act == "big":
            self._insert(session, table, 300)
        elif act == "update":
            plain = [(c, t) for c, t in table.columns if c not in table.key]
            chosen = self.random.sample(plain, self.random.randint(1, min(2, len(plain))))
            sets = sql.SQL(", ").join(
                sql.SQL("{} = {}::{}").format(sql.Identifier(c), sql.Literal(self._value(t, c)), sql.SQL(t))
                for c, t in chosen
            )
            session.execute(sql.SQL("UPDATE {} SET {} WHERE {}").format(table.sql, sets, some))
        elif act == "rekey":
            kind = dict(table.columns)["id"]
            shift = sql.SQL("id || 'x'") if kind == "text" else sql.SQL("id + 1000003")
            if self.random.random() < 0.3 and kind != "text":
                shift = sql.SQL("-id")
            session.execute(sql.SQL("UPDATE {} SET id = {} WHERE {}").format(table.sql, shift, some))
        elif act == "delete":
            session.execute(sql.SQL("DELETE FROM {} WHERE {}").format(table.sql, some))
        else:
            session.execute(sql.SQL("TRUNCATE {}").format(table.sql))
            self.truncated = True

    def _insert(self, session: psycopg.Connection, table: ModelTable, rows: int) -> None:
        if not rows:
            return
        names = sql.SQL(", ").join(sql.Identifier(c) for c, _ in table.columns)
        places = sql.SQL(", ").join(sql.SQL("%s::{}").format(sql.SQL(t)) for _, t in table.columns)
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table.sql, names, places)
        if table.identity == "key":
            statement += sql.SQL(" ON CONFLICT DO NOTHING")
        with session.cursor() as cursor:
            cursor.executemany(statement, [self._row(table) for _ in range(rows)])

    def _row(self, table: ModelTable) -> list[Any]:
        return [
            self._id(t) if c == "id" else self.random.randint(0, 3) if c == "part" else self._value(t, c)
            for c, t in table.columns
        ]

    def _id(self, kind: str) -> Any:
        number = self.random.randint(1, 400)
        return f"k{number}" if kind == "text" else number

    def _value(self, kind: str, column: str = "") -> Any:
        rng = self.random
        if rng.random() < 0.1 and column != "id":
            return None
        if column == "big":
            return rng.choice(["short", "", "x" * 400 + str(rng.random()), "é" * 3000])
        match kind:
            case "int":
                return rng.randint(-(2**31), 2**31 - 1)
            case "bigint":
                return rng.randint(-(2**63), 2**63 - 1)
            case "numeric(12,2)":
                return Decimal(rng.randint(-(10**11), 10**11)) / 100
            case "boolean":
                return rng.random() < 0.5
            case "date":
                return datetime.date(1900, 1, 1) + datetime.timedelta(days=rng.randint(0, 80000))
            case "timestamptz":
                return datetime.datetime(1990, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
                    microseconds=rng.randint(0, 10**15)
                )
            case "float8":
                return rng.choice([rng.gauss(0, 1e6), 0.1, float("inf"), 1e-300, -0.0])
            case "bytea":
                return rng.randbytes(rng.randint(0, 40))
            case "int[]":
                return [rng.choice([None, rng.randint(-5, 5)]) for _ in range(rng.randint(0, 4))]
            case "text[]":
                return [rng.choice([None, "", "a,b", '"', "\\", "NULL", "é{}"]) for _ in range(rng.randint(0, 3))]
        return rng.choice(["", "plain", "tab\tnew\nline", "\\N", 'quote"d', "é€😀", "a,b", "'", " lead", "NULL"])

    # --- what PostgreSQL holds

    def keep(self) -> None:
        tables: dict[tuple[str, str], tuple[list[str], Rows]] = {}
        with self.reader.transaction():
            self.reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for table in self.tables:
                cursor = self.reader.execute(sql.SQL("SELECT * FROM {}").format(table.sql))
                names = [d.name for d in cursor.description or []]
                tables[table.schema, table.name] = (names, normal(cursor.fetchall()))
        self.states.append(State(current_lsn(self.lsn_reader), tables))


def normal(rows: list[tuple[Any, ...]]) -> Rows:
    """Rows in an order of their own, values comparable: NaN by its name, -0.0 told from 0.0."""
    return sorted((tuple(_plain(v) for v in row) for row in rows), key=repr)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    if isinstance(value, memoryview):
        return bytes(value)
    return value
