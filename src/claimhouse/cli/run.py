"""`claimhouse run`: capture sources into the lake until stopped, or once.

Each source has a thread of its own: one that fails is named and counts in the exit code, the others stay live. SIGTERM
and Ctrl-C drain: what was read is cut, confirmed and flushed, and the exit code is 0.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import byte_count, columns, emit_line, fail, say, warn

if TYPE_CHECKING:
    from claimhouse.pipeline import Capture, Summary
    from claimhouse.settings import Settings, Source

Tell = Callable[[str, dict[str, Any]], None]


def run(
    source: SourceOption = None,
    lake: LakeOption = None,
    tables: Annotated[
        list[str] | None,
        typer.Option("--tables", metavar="PATTERN", help="Tables to capture: claim, sales.*, !audit.*. Repeatable."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Copy what is new, catch up, flush and exit.")] = False,
    freshness: Annotated[
        str | None, typer.Option("--freshness", metavar="TIME", help="The longest a commit may wait, as 25ms or 1s.")
    ] = None,
    flush: Annotated[
        str | None, typer.Option("--flush", metavar="TIME", help="How often cuts move into the Delta tables.")
    ] = None,
    publication: Annotated[
        str | None, typer.Option("--publication", metavar="NAME", help="Publication to use.")
    ] = None,
    slot: Annotated[str | None, typer.Option("--slot", metavar="NAME", help="Replication slot to use.")] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Capture every committed change of the source into the lake, until stopped.

    Without --source, all sources of the settings are captured side by side. Ctrl-C or SIGTERM drains and exits 0.
    With --once a table that had to be stopped is a finding: exit 1.

    \b
    Examples:
      claimhouse run --source postgresql://app@localhost/claims --lake ./lake
      claimhouse run --source service=claims --lake ./lake --tables claim --tables 'billing.*' --once
      claimhouse run --config claimhouse.toml --freshness 100ms --json
    """
    from claimhouse.settings import choose

    settings = settings_for(config, lake)
    given = {"tables": tables or None, "freshness": freshness, "flush": flush, "publication": publication, "slot": slot}
    chosen = {n: _with(s, n, given) for n, s in choose(settings, source, name).items()}
    tell = _json_events if as_json else _talk(len(chosen) > 1)
    captures = {n: capture_of(settings, n, s, once=once, tell=tell) for n, s in chosen.items()}
    if not as_json:
        say(f"capturing {', '.join(captures)} into {settings.lake.location}" + ("" if once else "; Ctrl-C stops"))
    with stopping() as stop:
        outcome = Outcome(captures)
        outcome.start(stop)
        outcome.wait()
    _report(outcome, settings, as_json=as_json, once=once)
    if outcome.failures:
        raise typer.Exit(2)
    if once and any(summary.errored for summary in outcome.summaries.values()):
        raise typer.Exit(1)


def capture_of(settings: Settings, name: str, source: Source, *, once: bool, tell: Tell) -> Capture:
    """The capture of one source as the settings have it."""
    from claimhouse.pipeline import Capture, CaptureOptions

    freshness, flush = settings.timing(source)
    options = CaptureOptions(
        source=name,
        dsn=source.dsn.reveal(),
        location=settings.lake.location,
        storage_options=settings.storage_options(),
        tables=source.tables,
        publication=source.publication,
        slot=source.slot,
        freshness=freshness,
        flush_interval=flush,
        once=once,
    )
    return Capture(options, lambda kind, fields: tell(kind, {"source": name, **fields}))


class Outcome:
    """Captures side by side, and what became of each: a summary or a failure."""

    def __init__(self, captures: Mapping[str, Capture]) -> None:
        self.captures = captures
        self.summaries: dict[str, Summary] = {}
        self.failures: dict[str, Exception] = {}
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        for name, capture in self.captures.items():
            thread = threading.Thread(target=self._one, args=(name, capture, stop), name=f"capture-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Returns when every capture has ended; signals are served meanwhile."""
        while any(thread.is_alive() for thread in self._threads):
            for thread in self._threads:
                thread.join(0.2)

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _one(self, name: str, capture: Capture, stop: threading.Event) -> None:
        try:
            self.summaries[name] = capture.run(stop)
        except Exception as error:
            self.failures[name] = error
            self._say(name, error)

    def _say(self, name: str, error: Exception) -> None:
        from claimhouse.cli.guard import explain

        others = " (the other sources go on)" if len(self.captures) > 1 else ""
        message, hint = explain(error)
        fail(f"source {name}: {message}{others}" if len(self.captures) > 1 else message, hint)


@contextlib.contextmanager
def stopping(
    words: str = "stopping: draining what was read (again to stop at once)",
) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal ends the process at once, which the lake survives."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say(words)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with(source: Source, name: str, given: Mapping[str, object]) -> Source:
    from claimhouse.settings import changed

    return changed(source, name, {key: value for key, value in given.items() if value is not None})


def _json_events(kind: str, fields: dict[str, Any]) -> None:
    emit_line({"event": kind, **fields})


def _talk(several: bool) -> Tell:
    """Events in words, for a person; cuts are not told, copies at most once a second."""
    last: dict[str, float] = {}

    def tell(kind: str, fields: dict[str, Any]) -> None:
        prefix = f"{fields['source']}: " if several else ""
        if kind == "copy":
            now = time.monotonic()
            if now - last.setdefault(fields["source"], now) < 1:
                return
            last[fields["source"]] = now
        if words := in_words(kind, fields):
            (warn if kind in ("refused", "errored", "reconnect") else say)(prefix + words)

    return tell


def in_words(kind: str, fields: Mapping[str, Any]) -> str:
    """An event as a sentence; empty for what is not worth one."""
    table = fields.get("table", "")
    match kind:
        case "cut":
            return ""
        case "copy":
            of = f", page {fields['blocks']:,} of {fields['total']:,}" if fields.get("total") else ""
            return f"copying {table}: {fields['rows']:,} rows{of}"
        case "copied":
            return f"copied {table}: {fields['rows']:,} rows"
        case "compare":
            return f"comparing {table}: {fields['rows']:,} rows, page {fields['blocks']:,} of {fields['total']:,}"
        case "compared":
            return f"compared {table}: {fields['rows']:,} rows corrected"
        case "refused":
            return f"{table} is not captured: {fields['reason']}"
        case "reconnect":
            return f"{fields['reason']}; trying again in {fields['seconds']:.1f} s"
        case "wait":
            return str(fields["text"])
    return " ".join([kind, *(f"{k}={v}" for k, v in fields.items() if k != "source")])


def _report(outcome: Outcome, settings: Settings, *, as_json: bool, once: bool) -> None:
    if as_json:
        for name, summary in outcome.summaries.items():
            emit_line({"event": "summary", **asdict(summary), "source": name})
        return
    if outcome.summaries:
        rows = [
            (n, s.transactions, s.rows, s.copied_rows, s.cuts, s.flushes, f"{s.seconds:.1f} s")
            for n, s in outcome.summaries.items()
        ]
        say(columns(["source", "transactions", "changes", "copied rows", "cuts", "flushes", "time"], rows))
    for name, summary in outcome.summaries.items():
        for table, why in summary.errored.items():
            warn(f"{name}: {table} is errored: {why}")
        if summary.slot and summary.held_bytes is not None:
            say(
                f"slot {summary.slot} keeps {byte_count(summary.held_bytes)} of WAL on the server until the next run;"
                " if there is to be none: claimhouse detach"
            )
    if outcome.summaries:
        say(f'next: claimhouse query --lake {_quoted(settings.lake.location)} "SELECT …"')


def _quoted(path: str | Path) -> str:
    import shlex

    return shlex.quote(str(path))
