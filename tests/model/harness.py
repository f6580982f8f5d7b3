"""One round of the model-based test: an application writes, capture is killed again and again, then all is compared.

Capture runs in a process of its own that is killed with SIGKILL at a random moment, or kills itself at a failpoint.
Processes come from a fork server that has everything imported, so a restart costs milliseconds.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg import sql
from tests.model.workload import Application, State, normal

from claimhouse import failpoint
from claimhouse.lake import delta
from claimhouse.lake.lake import TRANSACTIONS, open_lake
from claimhouse.lake.registry import TableState
from claimhouse.lake.relation import files_sql
from claimhouse.lake.snapshot import schema_of, take
from claimhouse.postgres import ddl_trigger
from claimhouse.query.moment import iso
from claimhouse.query.names import TableName
from claimhouse.query.session import Session

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["claimhouse.pipeline.capture", "tests.model.harness"])

KILLS = 4
LOSSES = 0.15  # of the kills, after which the slot is lost as well
BY_TIME = 6  # past moments of a round that are asked for by their time as well
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def capture_process(
    dsn: str,
    location: str,
    once: bool,
    failpoint_name: str,
    log: str,
    options: dict[str, Any],
    spill_bytes: int,
    repair: bool = False,
) -> None:
    """What the captured process runs: exit code 0 done, 3 a claimhouse error (told in the log)."""
    from claimhouse.errors import ClaimhouseError
    from claimhouse.pipeline import Capture, CaptureOptions

    os.environ.pop("CLAIMHOUSE_FAILPOINT", None)
    failpoint.arm(failpoint_name)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    asked = CaptureOptions(
        "main",
        dsn,
        location,
        options,
        freshness=0.005,
        flush_interval=0.15,
        once=once,
        spill_bytes=spill_bytes,
        repair=repair,
    )
    try:
        Capture(asked).run(stop)
    except ClaimhouseError as error:
        Path(log).write_text(f"{type(error).__name__}: {error}\n{error.hint or ''}")
        os._exit(3)
    except BaseException:
        import traceback

        Path(log).write_text(traceback.format_exc())
        os._exit(4)
    os._exit(0)


@dataclass(slots=True)
class Round:
    """`kills` and `compared` are counted, so that a test can insist that they happened. `lost`: slots dropped between
    two processes, while the application went on writing."""

    seed: int
    dsn: str
    folder: Path
    trigger: bool | None = None
    location: str = ""
    storage_options: dict[str, str] = field(default_factory=dict)
    steps: int = 120
    kills: int = 0
    lost: int = 0
    failpoints: list[str] = field(default_factory=list)
    compared: int = 0
    by_time: int = 0
    histories: int = 0
    left_out: int = 0

    def play(self) -> None:
        rng = random.Random(self.seed)
        location = self.location or str(self.folder / "lake")
        self.location = location
        app = Application(self.dsn, rng)
        app.start()
        try:
            if self.trigger is None:
                self.trigger = rng.random() < 0.5
            if self.trigger:
                with psycopg.connect(self.dsn, autocommit=True) as admin:
                    admin.execute(ddl_trigger.install_sql())
            spill = rng.choice([1 << 11, 1 << 14, 64 << 20])
            if rng.random() < 0.6:
                self._run_once(spill)  # else the kills fall into the first copies
            for _ in range(KILLS):
                armed = rng.choice(failpoint.NAMES) + f":{rng.randint(1, 4)}" if rng.random() < 0.6 else ""
                with self._process(False, armed, spill) as process:
                    self._drive(app, rng, process, self.steps // KILLS)
                if rng.random() < LOSSES:
                    self._lose_slot(app, rng)
            app.settle()
            self._run_once(spill)
            self._compare(app.states, rng)
            self._log_rows_are_there_once()
        finally:
            app.close()

    def _drive(self, app: Application, rng: random.Random, process: Any, steps: int) -> None:
        """Writes beside the running process, then sees it dead."""
        for _ in range(steps):
            app.step()
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.03)
            if not process.is_alive():
                break
        time.sleep(rng.random() * 0.4)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        if process.exitcode != -signal.SIGKILL:
            raise AssertionError(f"capture ended by itself ({process.exitcode}): {self._log()}")
        self.kills += 1

    def _lose_slot(self, app: Application, rng: random.Random) -> None:
        """Drops the slot where there is one already: what the application does now comes by no event."""
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
            deadline = time.monotonic() + 20
            while (found := admin.execute(slots).fetchone()) is not None:
                try:
                    admin.execute("SELECT pg_drop_replication_slot(%s)", found)
                    self.lost += 1
                except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):  # its reader died just now
                    assert time.monotonic() < deadline, "the slot stays in use"
                    time.sleep(0.02)
        for _ in range(rng.randint(0, 12)):
            app.step()

    @contextmanager
    def _process(self, once: bool, armed: str, spill: int) -> Iterator[Any]:
        if armed:
            self.failpoints.append(armed)
        process = _context.Process(
            target=capture_process,
            args=(
                self.dsn,
                self.location,
                once,
                armed,
                str(self.folder / "log"),
                self.storage_options,
                spill,
                self.lost > 0,
            ),
            daemon=True,
        )
        process.start()
        try:
            yield process
        finally:
            if process.is_alive():
                process.kill()
            process.join(20)

    def _run_once(self, spill: int) -> None:
        with self._process(True, "", spill) as process:
            process.join(240)
            if process.exitcode != 0:
                raise AssertionError(f"--once ended with {process.exitcode}: {self._log()}")

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else "(no log)"

    # --- comparing

    def _compare(self, states: list[State], rng: random.Random) -> None:
        lake = open_lake(self.location, self.storage_options)
        registry = take(lake, "main").registry
        with Session(lake) as session:
            self._compare_state(session, states[-1], "now")
            histories = {name: _History(session, name) for name in _keyed(session, states[-1])}
            times = _times(session)
        by_time = {s.lsn for s in rng.sample(states, min(BY_TIME, len(states)))}
        for place, state in enumerate(states):
            exact: dict[tuple[str, str], tuple[list[str], Any]] = {}
            begins = 0
            for table in registry.tables.values():
                name = (table.schema, table.name)
                if name not in state.tables:
                    continue
                copy = table.copy_at(state.lsn)
                blurred = any(a <= state.lsn < b for a, b in table.inexact)
                if copy is None or blurred:
                    self.left_out += 1
                else:
                    exact[name] = state.tables[name]
                    begins = max(begins, next(c.exact_at for c in table.copies if c.exact_from is not None))
                    if name in histories and histories[name].state.folder == table.folder:
                        self._compare_history(histories[name], state, state.tables[name])
            if not exact:
                continue
            asked = State(state.lsn, exact)
            with Session(lake, at=_lsn(state.lsn)) as session:
                self._compare_state(session, asked, f"at {_lsn(state.lsn)}")
            following = states[place + 1].lsn if place + 1 < len(states) else 0
            micros = _time_of(times, state.lsn, following) if state.lsn in by_time else None
            if micros is not None and micros >= begins and not _blurred(registry.tables.values(), times, micros, exact):
                with Session(lake, at=iso(micros)) as session:
                    self._compare_state(session, asked, f"at {iso(micros)}")
                self.by_time += 1
                for name in exact.keys() & histories.keys():
                    self._compare_history(histories[name], state, exact[name], micros)

    def _compare_history(self, held: _History, state: State, then: tuple[list[str], Any], micros: int = 0) -> None:
        """The versions that held at a state's position, or at a time, against what PostgreSQL held."""
        columns, rows = then
        places = held.places(columns, state.lsn)
        ours = normal([tuple(v[p] for _, p in places) for v in held.at(state.lsn, micros)])
        theirs = normal([tuple(r[p] for p, _ in places) for r in rows])
        if ours != theirs:
            raise AssertionError(
                f"seed {self.seed}: history of {held.state.label} at {iso(micros) if micros else _lsn(state.lsn)}: only"
                f" in the lake {[r for r in ours if r not in theirs][:3]}; only in PostgreSQL"
                f" {[r for r in theirs if r not in ours][:3]}"
            )
        self.histories += 1

    def _compare_state(self, session: Session, state: State, when: str) -> None:
        for (schema, name), (columns, rows) in state.tables.items():
            text = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, name)).as_string(None)
            table = session.sql(text).arrow()
            assert table.column_names == columns, (self.seed, when, schema, name, table.column_names, columns)
            held = normal(list(zip(*(c.to_pylist() for c in table.columns), strict=True)) if table.num_rows else [])
            if held != rows:
                extra = [r for r in held if r not in rows][:3]
                lacking = [r for r in rows if r not in held][:3]
                raise AssertionError(
                    f"seed {self.seed}: {schema}.{name} {when}: lake {len(held)} rows, PostgreSQL {len(rows)};"
                    f" only in the lake {extra}; only in PostgreSQL {lacking}"
                )
            self.compared += 1

    def _log_rows_are_there_once(self) -> None:
        """Every streamed row stands once in the log, and as often as its transaction counted."""
        lake = open_lake(self.location, self.storage_options)
        snapshot = take(lake, "main")
        for folder, state in snapshot.registry.tables.items():
            log = files_sql(
                [f.uri for f in snapshot.changes_files(folder)], schema_of(state), f"_cut <= {snapshot.flushed}"
            )
            with duckdb.connect() as db:
                db.register("tail", snapshot.tail(folder) or schema_of(state).empty_table())
                doubled = db.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM ({log} UNION ALL BY NAME FROM tail)"
                    " GROUP BY _incarnation, _end_lsn, _seq, _copy HAVING count(*) > 1)"
                ).fetchone()
            assert doubled == (0,), (self.seed, folder, doubled)


class _History:
    """A table's versions, read once."""

    def __init__(self, session: Session, name: tuple[str, str]) -> None:
        self.state: TableState = session.states[TableName("main", *name)]
        self.shape = self.state.shape_at(session.positions["main"].lsn)
        named = sql.Identifier(name[0], f"{name[1]}__history")
        table = session.sql(sql.SQL("SELECT * FROM {}").format(named).as_string(None)).arrow()
        self.columns = table.column_names
        self.rows = list(zip(*(c.to_pylist() for c in table.columns), strict=True)) if table.num_rows else []

    def at(self, lsn: int, micros: int) -> list[tuple[Any, ...]]:
        """The versions at a position, or at a time where one is given."""
        names = ("valid_from", "valid_to") if micros else ("_valid_from_lsn", "_valid_to_lsn")
        begun, ended = map(self.columns.index, names)
        moment: Any = _EPOCH + datetime.timedelta(microseconds=micros) if micros else lsn
        return [r for r in self.rows if r[begun] <= moment and (r[ended] is None or r[ended] > moment)]

    def places(self, columns: list[str], lsn: int) -> list[tuple[int, int]]:
        """(place then, place in the history) of each column that the table had then and has now."""
        now = {c.physical: place for place, c in enumerate(self.shape.columns)}
        then = {c.name: c.physical for c in self.state.shape_at(lsn).columns}
        return [(p, now[then[c]]) for p, c in enumerate(columns) if then[c] in now]


def _keyed(session: Session, state: State) -> list[tuple[str, str]]:
    """The tables that have histories now."""
    names = [(t.schema, t.name) for t in session.tables()]
    shapes = {n: session.states[TableName("main", *n)].table for n in names if n in state.tables}
    return [n for n, shape in shapes.items() if shape.identity == "key"]


def _times(session: Session) -> list[tuple[int, int]]:
    """(end LSN, the running maximum of commit times there, microseconds) of every transaction of a round."""
    snapshot = session.snapshots["main"]
    files = delta.files(session.lake, TRANSACTIONS, snapshot.record.transactions if snapshot.record else None)
    with duckdb.connect() as db:
        db.register("tail", snapshot.tail_transactions())
        db.execute("CREATE TABLE found AS SELECT end_lsn, epoch_us(committed_at) AS micros FROM tail")
        if files:
            listed = ", ".join(f"'{f.uri}'" for f in files)
            db.execute(
                f"INSERT INTO found SELECT end_lsn, epoch_us(committed_at) FROM read_parquet([{listed}])"
                f" WHERE cut <= {snapshot.flushed}"
            )
        return db.execute("SELECT end_lsn, max(micros) OVER (ORDER BY end_lsn) FROM found ORDER BY 1").fetchall()


def _time_of(times: list[tuple[int, int]], lsn: int, following: int) -> int | None:
    """The time that names the state at a position and no other (a DDL may be the next one), None if there is none."""
    before = [at for end, at in times if end <= lsn]
    after = [(end, at) for end, at in times if end > lsn]
    if not before or not after or following < after[0][0]:
        return None
    return before[-1] if before[-1] < after[0][1] else None


def _blurred(tables: Any, times: list[tuple[int, int]], micros: int, asked: Any) -> bool:
    """Whether a table is not known exactly where the lake looks for a time: just before the next commit."""
    until = next(end for end, at in times if at > micros) - 1
    states = [t for t in tables if (t.schema, t.name) in asked]
    return any(t.copy_at(until) is None or any(a <= until < b for a, b in t.inexact) for t in states)


def _lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
