"""A command does not load pandas for Arrow's sake, and chainladder still gets it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from claimhouse.pipeline import Capture, CaptureOptions

pytestmark = pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")


def test_a_query_answers_without_pandas(postgres: object, tmp_path: Path) -> None:
    postgres.execute("CREATE TABLE claim (id int PRIMARY KEY); INSERT INTO claim VALUES (7)")  # type: ignore[attr-defined]
    location = str(tmp_path / "lake")
    Capture(CaptureOptions("main", postgres.dsn, location, once=True)).run()  # type: ignore[attr-defined]
    command = [sys.executable, "-X", "importtime", "-m", "claimhouse", "query", "--lake", location, "FROM claim"]
    done = subprocess.run([*command, "--format", "csv"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["id", "7"]
    assert "pyarrow.lib" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.rpartition("|")[2].strip().startswith("pandas.")]


@pytest.mark.skipif(find_spec("chainladder") is None, reason="chainladder is not installed")
def test_chainladder_has_it() -> None:
    before = "from claimhouse.cli.lean import lean; lean(); import pyarrow as pa; pa.array([1]); import chainladder"
    text = f"{before}; print(pa.table({{'a': [1]}}).to_pandas().a.sum())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
