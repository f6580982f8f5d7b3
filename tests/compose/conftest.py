"""The Compose file under a Docker Engine of the run's own, with stand-ins for the public images: one for the session.

`up` is what a user gets from `docker compose up --wait` in a fresh clone: the file as it is, its own ports, no
settings. How long each part took is told at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.compose import caches, standins
from tests.compose.engine import FOLDER, Engine, Refused

took: dict[str, float] = {}
used: list[str] = []


@contextmanager
def phase(name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        took[name] = time.monotonic() - began


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """dockerd, with every image that the file names. Ends the run with 2 and the reason where it does not start."""
    if FOLDER not in os.environ:
        pytest.exit("these tests run in namespaces of their own: make test-compose", returncode=2)
    made = Engine(Path(os.environ[FOLDER]), caches.compose())
    try:
        with phase("engine"):
            made.start()
        with phase("images"):
            standins.load(made)
            standins.override(made)
        yield made
        used.append(f"containers used {made.seconds():.0f} s of CPU")
        used.extend(made.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines())
    except Refused as error:
        pytest.exit(f"{error}; {error.hint}", returncode=2)
    finally:
        with phase("stop"):
            made.stop()


@pytest.fixture(scope="session")
def up(engine: Engine) -> Engine:
    """Everything up and healthy, from nothing."""
    with phase("first up"):
        engine.compose("up", "--wait", "--wait-timeout", "400")
    return engine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, seconds in took.items():
        terminalreporter.write_line(f"compose: {name} took {seconds:.0f} s")
    for line in used:
        terminalreporter.write_line(f"compose: {line}")
