"""`claimhouse demo` as a newcomer runs it, on a small book: once to its end, once more until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from claimhouse.cli.beside import Beside
from claimhouse.cli.watch import Watch
from claimhouse.errors import ClaimhouseError
from claimhouse.lake.lake import create
from claimhouse.postgres.embedded import Embedded


def demo(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "claimhouse", "demo", "--folder", str(folder), "--scale", "0.02", *more]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_demo_ends_by_itself_goes_on_later_and_ends_cleanly_at_ctrl_c(tmp_path: Path) -> None:
    first = demo(tmp_path, "--duration", "6s", "--rate", "20", "--json")
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
    assert told["indicators"] is not None
    assert "rules on" in (tmp_path / "fraud.log").read_text()
    assert Embedded(tmp_path / "postgres").pid is None

    second = demo(tmp_path)
    assert second.stderr is not None
    seen, page = "", ""
    while "changes" not in seen or not page:  # it lives
        line = second.stderr.readline()
        assert line, seen
        seen += line
        page = page or line.partition("the live page: ")[2].strip()
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        shown = browser.get(page)
    assert "Newest claims" in shown.text, shown.text
    children = beside(second.pid)
    assert len(children) == 2
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    assert "found the claims book" in seen
    assert "no difference" in out
    assert "Traceback" not in err
    assert "claimhouse query --lake" in err
    assert Embedded(tmp_path / "postgres").pid is None
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def beside(parent: int) -> list[int]:
    """The processes of this program that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found += [int(folder.name)] if "-m\0claimhouse\0" in (folder / "cmdline").read_text() else []
    return found


def test_what_ends_by_itself_beside_the_demo_is_told_with_its_last_words(tmp_path: Path) -> None:
    one = Beside("the page", ["console", "--lake", str(tmp_path / "none")], tmp_path / "log")
    one.start()
    assert one._process is not None
    one._process.wait(60)
    with pytest.raises(ClaimhouseError, match=r"the page ended by itself \(exit code 2\): .* is no lake"):
        one.check()
    one.stop()


def test_what_runs_beside_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    create(tmp_path / "lake")
    text = (
        "import sys, time; from pathlib import Path; from claimhouse.cli.beside import Beside\n"
        "one = Beside('the page', ['console', '--lake', sys.argv[1] + '/lake'], Path(sys.argv[1]) / 'log')\n"
        "one.start(lambda line: print(one.pid, flush=True)); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], text=True, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while (state := state_of(child)) not in ("", "Z"):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


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
