"""`claimhouse run`: several sources side by side, signals, and what is told; captures here are stand-ins."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from claimhouse.cli.guard import guarded
from claimhouse.errors import SlotBusy
from claimhouse.pipeline import CaptureOptions, Summary


class Stand:
    """A capture that runs until stopped, or fails at once."""

    made: dict[str, Stand]

    def __init__(self, options: CaptureOptions, on_event: Any) -> None:
        self.options = options
        self.on_event = on_event
        self.saw_stop = False
        Stand.made[options.source] = self

    def run(self, stop: threading.Event) -> Summary:
        if self.options.source == "broken":
            raise SlotBusy("the slot is active for pid 4711", hint="stop that process")
        if self.options.source == "faulty":
            raise ValueError("secret-row-value")
        self.on_event("copy", {"table": "public.claim", "rows": 3})
        if not self.options.once:
            self.saw_stop = stop.wait(20)
        return Summary(self.options.source, transactions=2, rows=5, cuts=1, slot="claimhouse_x", held_bytes=0)


@pytest.fixture(autouse=True)
def stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Stand]:
    Stand.made = {}
    monkeypatch.setattr("claimhouse.pipeline.Capture", Stand)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Stand.made


def settings(*names: str) -> None:
    Path("claimhouse.toml").write_text("".join(f'[source.{n}]\ndsn = "host=/nowhere"\n' for n in names))


def stop_soon(number: int, after: int = 1) -> None:
    """Sends us the signal once that many captures run."""

    def send() -> None:
        while len(Stand.made) < after:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.case("R10")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(number: int, stands: dict[str, Stand], capsys: pytest.CaptureFixture[str]) -> None:
    stop_soon(number)
    before = signal.getsignal(number)
    assert guarded(["run", "--source", "host=/nowhere"]) == 0
    assert stands["main"].saw_stop
    assert signal.getsignal(number) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert "claimhouse detach" in err


def test_one_failing_source_leaves_the_others_live_and_exits_2(
    stands: dict[str, Stand], capsys: pytest.CaptureFixture[str]
) -> None:
    settings("broken", "claims", "billing")
    stop_soon(signal.SIGTERM, after=3)
    assert guarded(["run"]) == 2
    assert stands["claims"].saw_stop
    assert stands["billing"].saw_stop
    err = capsys.readouterr().err
    assert "error: source broken: the slot is active for pid 4711 (the other sources go on)\nhint: stop that" in err


def test_an_unexpected_failure_of_a_source_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    settings("faulty")
    assert guarded(["run"]) == 2
    out, err = capsys.readouterr()
    assert "error: unexpected ValueError" in err
    assert "secret-row-value" not in out + err
    assert "Traceback" not in err


def test_json_events_are_lines_on_stdout_that_end_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert guarded(["run", "--source", "host=/nowhere", "--once", "--json", "--name", "eu"]) == 0
    out, err = capsys.readouterr()
    copy, summary = (json.loads(line) for line in out.splitlines())
    assert copy == {"event": "copy", "source": "eu", "table": "public.claim", "rows": 3}
    assert (summary["event"], summary["source"], summary["rows"]) == ("summary", "eu", 5)
    assert err == ""


def test_options_beat_settings_and_times_follow_the_lake(stands: dict[str, Stand]) -> None:
    Path("claimhouse.toml").write_text(
        '[lake]\nlocation = "s3://b/x"\n[source.claims]\ndsn = "service=c"\ntables = ["a"]\nfreshness = "2s"\n'
    )
    assert guarded(["run", "--once", "--tables", "b.*", "--tables", "c", "--slot", "mine"]) == 0
    options = stands["claims"].options
    assert (options.tables, options.slot, options.freshness, options.flush_interval) == (
        ["b.*", "c"],
        "mine",
        2.0,
        30.0,
    )
    assert guarded(["run", "--once", "--lake", "here", "--freshness", "7ms"]) == 0
    options = stands["claims"].options
    assert (options.location, options.freshness, options.flush_interval) == ("here", 0.007, 2.0)
