"""A capture in a process of its own, its cuts told through a pipe."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from claimhouse.pipeline import Capture, CaptureOptions, Summary

_context = multiprocessing.get_context("spawn")


def capture_once(dsn: str, location: str, **options: Any) -> Summary:
    """Captures in this process until caught up."""
    return Capture(CaptureOptions("main", dsn, location, once=True, **options)).run()


@contextmanager
def capturing(dsn: str, location: str, **options: Any) -> Iterator[Any]:
    """A capture beside us; yields the connection that its events `(kind, fields, seconds)` come through."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_capture, args=(dsn, location, options, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while ours.recv()[0] != "cut":
            pass
        yield ours
    finally:
        process.terminate()
        process.join(60)


def _capture(dsn: str, location: str, options: dict[str, Any], pipe: Any) -> None:
    import signal

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(kind: str, fields: dict[str, Any]) -> None:
        try:
            pipe.send((kind, fields, time.time()))
        except OSError:
            return

    Capture(CaptureOptions("main", dsn, location, **options), on_event=tell).run(stop)
