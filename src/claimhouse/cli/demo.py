"""`claimhouse demo`: the whole of it on a machine that has nothing.

A PostgreSQL of our own, the claims book, the simulator that lives it forward, the capture, the rules and the live page;
then `verify`, what came of it, and what to try next. All state lies in one folder: a second run goes on where the first
stopped.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from claimhouse.cli.beside import Beside, page_missing
from claimhouse.cli.options import JsonOption
from claimhouse.cli.talk import columns, emit, fail, say
from claimhouse.errors import ClaimhouseError

if TYPE_CHECKING:
    from claimhouse.fraud.queue import QueueSummary
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
    """Live a claims database, capture it, show it on a live page, and prove that the lake equals it.

    The page's address is printed; the rules look for indicators meanwhile. The server comes from
    a wheel, and as root it runs under an unprivileged account. Exits 1 if verify finds a
    difference.

    \b
    Examples:
      claimhouse demo
      claimhouse demo --duration 30s
      claimhouse demo --duration 1m --rate 500 --plain
    """
    from psycopg.conninfo import make_conninfo

    from claimhouse.postgres.embedded import Embedded
    from claimhouse.settings import seconds

    limit = seconds("--duration", duration) if duration is not None else None
    server = Embedded(folder / "postgres")
    say(f"starting PostgreSQL in {server.folder}")
    server.start()
    try:
        with Shown(folder, make_conninfo(server.dsn, dbname=DATABASE)) as shown:
            life = Life(prepared(server.dsn, scale, folder), folder, rate, limit, shown)
            life.live(plain=plain or None)
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


class Shown:
    """Page and rules beside the demo, from before the book is loaded until all is over. `page`: the page's address."""

    def __init__(self, folder: Path, dsn: str) -> None:
        # Only what is said here counts for them: no settings of the folder that the demo was started in.
        settings = folder / "claimhouse.toml"
        settings.write_text(f"[source.{SOURCE}]\ndsn = {json.dumps(dsn)}\n")
        given = ["--lake", str(folder / "lake"), "--config", str(settings)]
        self.page: str | None = None
        self._page = Beside("the page", ["console", *given, "--source", SOURCE], folder / "console.log")
        self._rules = Beside("the rules", ["fraud", "run", *given], folder / "fraud.log", nice=5)
        self.location = given[1]

    def __enter__(self) -> Shown:
        from claimhouse.lake.lake import create

        create(self.location)  # so that they find it before the first cut
        try:
            self._rules.start()
            if missing := page_missing():
                say(f"there is no live page: it needs {missing} (pip install 'claimhouse[console]')")
            else:
                self._page.start(self._printed)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._page, self._rules):
            one.stop()

    def failures(self) -> list[Exception]:
        """Those that ended by themselves."""
        found: list[Exception] = []
        for one in (self._page, self._rules):
            try:
                one.check()
            except ClaimhouseError as error:
                found.append(error)
        return found

    def _printed(self, address: str) -> None:
        """The page's address, short enough for a line of a terminal: its root leads to the overview."""
        self.page = urlunsplit(urlsplit(address)._replace(path="/"))


class Life:
    """One run of the demo: capture, simulator and what watches them, each in a thread of its own.

    `live` returns when the time is over or a signal came, the lake was compared and the capture has drained.
    """

    def __init__(self, dsn: str, folder: Path, rate: float, limit: float | None, shown: Shown) -> None:
        # What takes its time to import does so before the clock runs.
        import claimhouse.pipeline
        import claimhouse.query.session
        import claimhouse.verify  # noqa: F401
        from claimhouse.claims import Simulator
        from claimhouse.cli.watch import Watch

        change = 10.0 if limit is None else min(10.0, limit / 2)
        self.dsn, self.location, self.limit, self.shown = dsn, shown.location, limit, shown
        self.simulator = Simulator(dsn, rate, labels=folder / "labels.csv", change_after=change)
        self.watch = Watch(self.location, SOURCE, limit, simulator=self.simulator)
        self.summary: Summary | None = None
        self.report: Report | None = None
        self.hits: QueueSummary | None = None
        self.failures: list[Exception] = []

    def live(self, *, plain: bool | None) -> None:
        from claimhouse.cli.guard import explain
        from claimhouse.cli.panel import show
        from claimhouse.cli.run import stopping

        drain, over = threading.Event(), threading.Event()
        with stopping("ending: comparing and draining (again to stop at once)") as ended:
            capture = self._thread(self._capture, drain, fails=ended)
            watcher = self._thread(self.watch.gather, over, fails=over)
            story = self._thread(self._story, ended, drain, fails=ended)
            look = lambda: replace(self.watch.look(), page=self.shown.page)  # noqa: E731
            show(look, lambda: story.is_alive() or capture.is_alive(), plain=plain)
            over.set()
            for thread in (story, capture, watcher):
                thread.join()
            self.failures += self.shown.failures()
            self._count_hits()
        for error in self.failures:
            fail(*explain(error))

    def _thread(self, work: Callable[..., None], *arguments: Any, fails: threading.Event) -> threading.Thread:
        """A part of it at work; its failure is kept, and ends the others."""

        def guarded() -> None:
            try:
                work(*arguments)
            except Exception as error:
                self.failures.append(error)
                fails.set()

        thread = threading.Thread(target=guarded, name=work.__name__, daemon=True)
        thread.start()
        return thread

    def _capture(self, drain: threading.Event) -> None:
        from claimhouse.pipeline import Capture, CaptureOptions

        options = CaptureOptions(SOURCE, self.dsn, self.location)
        self.summary = Capture(options, self.watch.on_event).run(drain)

    def _story(self, ended: threading.Event, drain: threading.Event) -> None:
        """Live, compare, drain."""
        try:
            self.simulator.run(self.limit, stop=ended)
            if not self.failures:
                self._verify()
        finally:
            drain.set()

    def _verify(self) -> None:
        from claimhouse.cli.verify import verdict
        from claimhouse.verify import VerifyOptions, verify

        self._await_copies()
        self.watch.report = "comparing every row of the lake with PostgreSQL, while both are live"

        def progress(table: str, rows: int) -> None:
            self.watch.report = f"comparing {table}: {rows:,} rows"

        self.report = verify(VerifyOptions(SOURCE, self.dsn, self.location), progress)
        self.watch.report, self.watch.equal = verdict(self.report), not self.report.differing

    def _count_hits(self) -> None:
        from claimhouse.fraud.queue import summary
        from claimhouse.lake.lake import open_lake

        if not self.failures:
            self.hits = summary(open_lake(self.location))

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

        counts = self.simulator.counts
        return {
            "simulated": {"transactions": counts.transactions, "kinds": dict(counts.kinds)},
            "captured": asdict(self.summary) if self.summary else None,
            "lag_ms": {"p50": self.watch.lag(0.5), "p99": self.watch.lag(0.99)},
            "verify": as_data(self.report) if self.report else None,
            "indicators": asdict(self.hits) if self.hits else None,
            "page": self.shown.page,
            "lake": self.location,
        }

    def tell(self) -> None:
        """What was captured, what verify found, and what to try next."""
        from claimhouse.cli.panel import millis
        from claimhouse.cli.verify import verdict

        counts, watch = self.simulator.counts, self.watch
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts.kinds.most_common(6))
        rows = [("simulated", f"{counts.transactions:,} transactions: {kinds}, …")]
        if self.summary:
            copied = f"{self.summary.copied_rows:,} rows copied, " if self.summary.copied_rows else ""
            seen = f"{self.summary.transactions:,} transactions, {watch.changes:,} changes, {self.summary.cuts:,} cuts"
            rows.append(("captured", copied + seen))
        if watch.lags:
            lag = f"median {millis(watch.lag(0.5))}, p99 {millis(watch.lag(0.99))}, max {millis(watch.lag(1.0))}"
            rows.append(("commit to query", lag))
        if self.hits:
            held = (
                f"{sum(self.hits.rules.values()):,} hits of {len(self.hits.rules)} rules on {self.hits.claims:,} claims"
            )
            rows.append(("indicators", f"{held}, {self.hits.bands['high']:,} of them with a high score"))
        if self.report:
            rows.append(("verify", verdict(self.report)))
        print(columns(["", ""], rows).lstrip())
        for difference in self.report.differences if self.report else []:
            print(f"{difference.table}: {difference.kind} {' '.join(difference.columns)}")
        program, lake = _program(), shlex.quote(self.location)
        say("\nthe lake stays, the server is stopped; go on with the same command, or try:")
        say(f"  {program} console --lake {lake}")
        say(f'  {program} query --lake {lake} "SELECT status, count(*) FROM claim GROUP BY ALL"')
        say(f"  {program} status --lake {lake} --offline")
        say(f"  {program} connect --lake {lake} payment --engine polars")


def _program() -> str:
    """How this program can be called again from here."""
    called = sys.argv[0]
    found = shutil.which("claimhouse")
    return (
        called
        if "/" in called and called.endswith("claimhouse") and found != str(Path(called).absolute())
        else "claimhouse"
    )
