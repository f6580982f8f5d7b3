"""A capture in a process of its own, told about through a pipe: what the figures measure from outside."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.machine import pin
from claimhouse.pipeline import Capture, CaptureOptions, Summary

context = multiprocessing.get_context("spawn")
PATIENCE = 600.0  # seconds without a sign of a capture, after which a figure is given up


def capture_once(dsn: str, location: str, **options: Any) -> Summary:
    """Captures in this process until caught up."""
    return Capture(CaptureOptions("main", dsn, location, once=True, **options)).run()


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in a fresh process: its memory, caches and CPU time are its own."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(work, arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} failed in its process") from None
    finally:
        process.join(60)


def _tell(work: Callable[..., Any], arguments: tuple[Any, ...], pipe: Any) -> None:
    pipe.send(work(*arguments))


class Running:
    """A capture beside us. `cut` is its newest that we heard of, `position` where it ends."""

    def __init__(self, pid: int, pipe: Any) -> None:
        self.pid = pid
        self.position = 0
        self.cut = 0
        self._cuts: queue.Queue[dict[str, Any]] = queue.Queue()
        self._copied = 0
        self._heard = threading.Condition()
        threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()

    def _listen(self, pipe: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, fields = pipe.recv()
                with self._heard:
                    if kind == "cut":
                        self.position, self.cut = fields["end_lsn"], fields["cut"]
                        self._cuts.put(fields)
                    self._copied += kind == "copied"
                    self._heard.notify_all()

    def next_cut(self, rows: int) -> dict[str, Any]:
        """The next cut of at least so many rows; those before it are let go."""
        while True:
            fields = self._cuts.get(timeout=PATIENCE)
            if fields["rows"] >= rows:
                return fields

    def reach(self, lsn: int) -> None:
        """Returns once a durable cut holds everything up to `lsn`."""
        self._until(lambda: self.position >= lsn)

    def copied(self, tables: int) -> None:
        """Returns once so many tables have been copied."""
        self._until(lambda: self._copied >= tables)

    def settle(self, quiet: float = 1.0) -> None:
        """Returns once no cut has come for a while; they are let go."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._cuts.get(timeout=quiet)

    def _until(self, done: Callable[[], bool]) -> None:
        with self._heard:
            if not self._heard.wait_for(done, PATIENCE):
                raise RuntimeError(f"the capture did not come so far within {PATIENCE:.0f} s")


@contextmanager
def capturing(dsn: str, location: str, *, core: int | None = None, **options: Any) -> Iterator[Running]:
    """A capture beside us, on a core of its own if asked; ends it in order."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_capture, args=(dsn, location, core, options, theirs), daemon=True)
    process.start()
    theirs.close()
    running = Running(process.pid or 0, ours)
    try:
        running.next_cut(0)
        yield running
    finally:
        process.terminate()
        process.join(60)


def _capture(dsn: str, location: str, core: int | None, options: dict[str, Any], pipe: Any) -> None:
    import signal

    pin(core)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(kind: str, fields: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            pipe.send((kind, fields))

    Capture(CaptureOptions("main", dsn, location, **options), on_event=tell).run(stop)


def cut_at(dsn: str, location: str, end: int) -> float:
    """Captures in this process until a durable cut holds everything up to `end`; that moment (monotonic)."""
    reached: list[float] = []
    stop = threading.Event()

    def tell(kind: str, fields: dict[str, Any]) -> None:
        if kind == "cut" and fields["end_lsn"] >= end and not reached:
            reached.append(time.monotonic())
            stop.set()

    Capture(CaptureOptions("main", dsn, location, flush_interval=3600.0), on_event=tell).run(stop)
    return reached[0]
