"""`claimhouse demo`: the whole of it on a machine that has nothing.

A PostgreSQL of our own, the claims book, the simulator that lives it forward, the capture and what shows it; then
`verify`, what came of it, and what to try next. All state lies in one folder: a second run goes on where the first
stopped.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import JsonOption
from claimhouse.cli.talk import columns, emit, fail, say

if TYPE_CHECKING:
    from claimhouse.claims import Counts
    from claimhouse.pipeline import Summary
    from claimhouse.verify import Report

DATABASE = "claims"
SOURCE = "main"


def demo(
    duration: Annotated[
        str | None, typer.Option("--duration", metavar="TIME", help="How long to live. [default: until Ctrl-C]")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="N", help="Transactions a second.")] = 50.0,
    folder: Annotated[Path, typer.Option("--folder", metavar="PATH", help="Where server and lake are kept.")] = Path(
        ".demo"
    ),
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Size of the book; 1 is 6,000 claims.")] = 1.0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines instead of a panel, as where there is no terminal.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Live a claims database, capture it, and prove that the lake equals it.

    The server comes from a wheel, and as root it runs under an unprivileged account. Exits 1
    if verify finds a difference.

    \b
    Examples:
      claimhouse demo
      claimhouse demo --duration 30s
      claimhouse demo --duration 1m --rate 500 --plain
    """
    from claimhouse.postgres.embedded import Embedded
    from claimhouse.settings import seconds

    limit = seconds("--duration", duration) if duration is not None else None
    server = Embedded(folder / "postgres")
    say(f"starting PostgreSQL in {server.folder}")
    server.start()
    try:
        dsn = prepared(server.dsn, scale, folder)
        life = Life(dsn, str(folder / "lake"), rate, folder / "labels.csv", panel=not plain and sys.stderr.isatty())
        life.live(limit)
    finally:
        server.stop()
    if as_json:
        emit(life.as_data())
    else:
        life.tell()
    if life.failures:
        raise typer.Exit(2)
    if life.report is None or life.report.differing:
        raise typer.Exit(1)


def prepared(dsn: str, scale: float, folder: Path) -> str:
    """The DSN of the demo's database, with the book in it and DDL told in the stream."""
    from psycopg.conninfo import make_conninfo

    from claimhouse.claims import load
    from claimhouse.postgres import ddl_trigger
    from claimhouse.postgres.server import connect

    with connect(dsn) as conn:
        if conn.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            conn.execute(f"CREATE DATABASE {DATABASE}".encode())
    dsn = make_conninfo(dsn, dbname=DATABASE)
    loaded = load(dsn, scale=scale, labels_to=folder)
    what = "found" if loaded.already else "loaded"
    say(f"{what} the claims book: {loaded.total:,} rows in {len(loaded.rows)} tables, {loaded.seconds:.1f} s")
    with connect(dsn) as conn:
        if not ddl_trigger.installed(conn):
            conn.execute(ddl_trigger.install_sql().encode())
    return dsn


@dataclass
class Live:
    """What the panel shows: counts so far, and the lags of the newest cuts in seconds from commit to queryable."""

    began: float = field(default_factory=time.monotonic)
    cuts: int = 0
    transactions: int = 0
    rows: int = 0
    copied: dict[str, int] = field(default_factory=dict)
    lags: deque[float] = field(default_factory=lambda: deque(maxlen=2000))

    def on_event(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "cut":
            self.cuts += 1
            self.transactions += fields["transactions"]
            self.rows += fields["rows"]
            if fields["transactions"] and fields["committed_at"]:
                self.lags.append(time.time() - fields["committed_at"] / 1e6)
        elif kind in ("copy", "copied"):
            self.copied[fields["table"]] = fields["rows"]

    def lag(self, share: float) -> float | None:
        """The lag that this share of the newest cuts stayed below, in milliseconds."""
        ordered = sorted(self.lags)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else None

    def line(self) -> str:
        """The state in one line."""
        lag = f", lag {self.lag(0.5):.0f} ms (p99 {self.lag(0.99):.0f})" if self.lags else ""
        copied = f"{sum(self.copied.values()):,} rows copied, " if self.copied else ""
        return f"{copied}{self.transactions:,} transactions, {self.rows:,} changes in {self.cuts:,} cuts{lag}"


class Life:
    """One run of the demo: simulator and capture in threads of their own until the time is over or a signal comes."""

    def __init__(self, dsn: str, location: str, rate: float, labels: Path, *, panel: bool) -> None:
        self.dsn, self.location, self.rate, self.labels, self.panel = dsn, location, rate, labels, panel
        self.state = Live()
        self.simulated: Counts | None = None
        self.summary: Summary | None = None
        self.report: Report | None = None
        self.failures: list[Exception] = []
        self.tables: list[tuple[str, int | None]] = []

    def live(self, limit: float | None) -> None:
        """Live for `limit` seconds, or until SIGINT or SIGTERM; then compare, drain and stop."""
        from claimhouse.cli.run import stopping

        drain = threading.Event()
        with stopping("stopping: comparing and draining (again to stop at once)") as ended:
            capture = threading.Thread(target=self._guarded, args=(self._capture, drain, ended), name="capture")
            simulator = threading.Thread(target=self._guarded, args=(self._simulate, limit, ended), name="simulator")
            for thread in (capture, simulator):
                thread.daemon = True
                thread.start()
            self._show(simulator)
            simulator.join()
            if capture.is_alive() and not self.failures:
                self._guarded(self._verify)
            drain.set()
            capture.join()

    def _guarded(self, work: Any, *arguments: Any) -> None:
        """Runs a part; its failure is told, kept, and ends the others."""
        from claimhouse.cli.guard import explain

        try:
            work(*arguments)
        except Exception as error:
            self.failures.append(error)
            fail(*explain(error))
            for argument in arguments:
                if isinstance(argument, threading.Event):
                    argument.set()

    def _capture(self, drain: threading.Event, ended: threading.Event) -> None:
        from claimhouse.pipeline import Capture, CaptureOptions

        options = CaptureOptions(SOURCE, self.dsn, self.location)
        self.summary = Capture(options, self.state.on_event).run(drain)

    def _simulate(self, limit: float | None, ended: threading.Event) -> None:
        from claimhouse.claims import Simulator

        change = 10.0 if limit is None else min(10.0, limit / 2)
        simulator = Simulator(self.dsn, self.rate, labels=self.labels, change_after=change)
        self.simulated = simulator.run(limit, stop=ended)

    def _show(self, simulator: threading.Thread) -> None:
        """The panel, or a line every two seconds, while the simulator lives."""
        told = time.monotonic()
        while simulator.is_alive():
            simulator.join(0.1)
            if time.monotonic() - told >= 2:
                told = time.monotonic()
                say(self.state.line())

    def _verify(self) -> None:
        from claimhouse.verify import VerifyOptions, verify

        self._await_copies()
        say("comparing every row of the lake with PostgreSQL, while both are live")
        self.report = verify(VerifyOptions(SOURCE, self.dsn, self.location))

    def _await_copies(self, patience: float = 60.0) -> None:
        """Until every table's copy is complete: what is still being copied cannot be compared."""
        from claimhouse.lake.lake import open_lake
        from claimhouse.lake.snapshot import take
        from claimhouse.lake.tail import cut_numbers

        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not self.failures:
            lake = open_lake(self.location)
            if cut_numbers(lake, SOURCE):
                states = take(lake, SOURCE).registry.tables.values()
                if states and all(s.status != "copying" for s in states):
                    return
            time.sleep(0.1)

    def as_data(self) -> dict[str, Any]:
        """What came of it, for programs."""
        from claimhouse.cli.verify import as_data

        return {
            "simulated": {"transactions": self.simulated.transactions, "kinds": dict(self.simulated.kinds)}
            if self.simulated
            else None,
            "captured": asdict(self.summary) if self.summary else None,
            "lag_ms": {"p50": self.state.lag(0.5), "p99": self.state.lag(0.99)},
            "verify": as_data(self.report) if self.report else None,
            "lake": self.location,
        }

    def tell(self) -> None:
        """What was captured, what verify found, and what to try next."""
        from claimhouse.cli.verify import verdict

        rows: list[tuple[str, str]] = []
        if self.simulated:
            what = ", ".join(f"{n:,} {kind}" for kind, n in self.simulated.kinds.most_common(6))
            rows.append(("simulated", f"{self.simulated.transactions:,} transactions: {what}, …"))
        if self.summary:
            s = self.summary
            copied = f"{s.copied_rows:,} rows copied, " if s.copied_rows else ""
            changes = s.rows - s.copied_rows
            rows.append(("captured", f"{copied}{s.transactions:,} transactions, {changes:,} changes, {s.cuts:,} cuts"))
        if self.state.lags:
            rows.append(("commit to lake", f"median {self.state.lag(0.5):.0f} ms, p99 {self.state.lag(0.99):.0f} ms"))
        if self.report:
            rows.append(("verify", verdict(self.report)))
        print(columns(["", ""], rows).lstrip())
        for difference in self.report.differences if self.report else []:
            print(f"{difference.table}: {difference.kind} {' '.join(difference.columns)}")
        program, lake = _program(), shlex.quote(self.location)
        say("\nthe lake stays, the server is stopped; go on with the same command, or try:")
        say(f'  {program} query --lake {lake} "SELECT status, count(*) FROM claim GROUP BY ALL"')
        say(f"  {program} status --lake {lake} --offline")
        say(f"  {program} connect --lake {lake} claim")


def _program() -> str:
    """How this program can be called again from here."""
    called = sys.argv[0]
    found = shutil.which("claimhouse")
    return (
        called
        if "/" in called and called.endswith("claimhouse") and found != str(Path(called).absolute())
        else "claimhouse"
    )
