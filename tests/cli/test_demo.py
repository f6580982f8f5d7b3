"""`claimhouse demo` as a newcomer runs it, on a small book: once to its end, once more until Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from claimhouse.cli.watch import Watch
from claimhouse.postgres.embedded import Embedded


def demo(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "claimhouse", "demo", "--folder", str(folder), "--scale", "0.02", *more]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_demo_ends_by_itself_goes_on_later_and_ends_cleanly_at_ctrl_c(tmp_path: Path) -> None:
    first = demo(tmp_path, "--duration", "3s", "--json")
    out, err = first.communicate(timeout=180)
    assert first.returncode == 0, err
    told = json.loads(out)
    assert told["verify"]["ok"] is True
    assert told["verify"]["rows"] > 5000
    assert len(told["verify"]["tables"]) == 21
    assert told["simulated"]["transactions"] > 50
    assert 0 < told["captured"]["transactions"] <= told["simulated"]["transactions"]  # the first ones came by the copy
    assert told["captured"]["copied_rows"] > 5000
    assert told["lag_ms"]["p50"] > 0
    assert "schema_change" in told["simulated"]["kinds"]
    assert Embedded(tmp_path / "postgres").pid is None

    second = demo(tmp_path)
    assert second.stderr is not None
    seen = ""
    while "changes" not in seen:  # it lives
        line = second.stderr.readline()
        assert line, seen
        seen += line
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    assert "found the claims book" in seen
    assert "no difference" in out
    assert "Traceback" not in err
    assert "claimhouse query --lake" in err
    assert Embedded(tmp_path / "postgres").pid is None


def test_a_demo_whose_server_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "postgres").write_text("in the way")
    failed = demo(tmp_path, "--duration", "1s")
    out, err = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (2, "")
    assert "error: " in err
    assert "Traceback" not in err


def test_lag_is_counted_per_share_of_transactions() -> None:
    watch = Watch("lake", "main")
    assert watch.lag(0.5) is None
    watch.lags.extend([0.010] * 98 + [0.500, 1.0])
    assert watch.lag(0.5) == pytest.approx(10)
    assert watch.lag(0.99) == pytest.approx(1000)
    assert watch.lag(0.5, newest=2) == pytest.approx(1000)


def test_a_table_s_rows_are_those_counted_and_those_that_later_cuts_added() -> None:
    watch = Watch("lake", "main")
    assert watch._rows("public/claim") is None
    watch._grown["public/claim"] = [(4, 1), (5, 2), (6, -1)]
    watch._counted["public/claim"] = 100, 4
    assert watch._rows("public/claim") == 101


def test_waiting_for_the_panel_does_not_hold_an_event() -> None:
    watch = Watch("lake", "main")
    began = time.monotonic()
    watch.on_event("cut", {"cut": 1, "rows": 3, "transactions": 2})
    watch.on_event("copied", {"table": "public.claim", "rows": 7})
    view = watch.look()
    assert (view.cuts, view.transactions, view.copied) == (1, 2, 7)
    assert "copied public.claim: 7 rows" in view.news
    assert time.monotonic() - began < 5
