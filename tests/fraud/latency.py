"""Commit to hit at the demo's rate: a book lived forward, captured, and its rules followed by a process of their own.

    python -m tests.fraud.latency --seconds 30 --rate 50 --scale 1

Prints JSON: the first evaluation over every claim, then per evaluation of what changed its seconds, its CPU seconds and
its lag, from the oldest commit that it took in to its hits' being durable. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def main() -> None:
    asked = argparse.ArgumentParser()
    for name, default in (("seconds", 30.0), ("rate", 50.0), ("scale", 1.0)):
        asked.add_argument(f"--{name}", type=float, default=default)
    asked.add_argument("--follow")
    options = asked.parse_args()
    if options.follow:
        _follow(options.follow)
    else:
        print(json.dumps(_measure(options.seconds, options.rate, options.scale), indent=1))


def _follow(location: str) -> None:
    """The process that is measured: a line of JSON per evaluation."""
    from claimhouse.fraud import Step, follow
    from claimhouse.lake.lake import open_lake

    stop, spent = threading.Event(), time.process_time()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(step: Step) -> None:
        nonlocal spent
        now = time.process_time()
        row = {"whole": step.whole, "events": step.events, "held": step.held, "seconds": step.seconds, "lag": step.lag}
        print(json.dumps({**row, "cpu": now - spent}), flush=True)
        spent = now

    follow(open_lake(location), "demo", stop, on_step=tell)


def _measure(seconds: float, rate: float, scale: float) -> dict[str, Any]:
    from claimhouse.claims import Simulator
    from claimhouse.cli.demo import prepared
    from claimhouse.lake.lake import create
    from claimhouse.pipeline import Capture, CaptureOptions
    from claimhouse.postgres.embedded import Embedded

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server, drain = Embedded(folder / "postgres"), threading.Event()
        server.start()
        try:
            dsn = prepared(server.dsn, scale, folder)
            lake = create(folder / "lake")
            options = CaptureOptions("main", dsn, lake.location)
            capture = threading.Thread(target=lambda: Capture(options).run(drain))
            capture.start()
            told = folder / "steps.ndjson"
            command = [sys.executable, "-m", "tests.fraud.latency", "--follow", lake.location]
            with told.open("w") as out:
                follower = subprocess.Popen(command, stdout=out)
            while not told.read_text() and follower.poll() is None:
                time.sleep(0.2)
            Simulator(dsn, rate, change_after=None).run(seconds)
            time.sleep(1.5)
            follower.terminate()
            follower.wait(30)
            drain.set()
            capture.join()
            return _told([json.loads(line) for line in told.read_text().splitlines()], rate, scale)
        finally:
            drain.set()
            server.stop()


def _told(steps: list[dict[str, Any]], rate: float, scale: float) -> dict[str, Any]:
    whole, small = [s for s in steps if s["whole"]], [s for s in steps if not s["whole"]]

    def spread(values: list[float]) -> dict[str, float]:
        ordered = sorted(values)
        return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 3) for p in (50, 95, 99, 100)}

    return {
        "rate": rate,
        "scale": scale,
        "load": round(os.getloadavg()[0], 1),
        "whole": [{k: round(s[k], 2) for k in ("seconds", "cpu", "held")} for s in whole],
        "evaluations": len(small),
        "events": sum(s["events"] for s in small),
        "seconds": spread([s["seconds"] for s in small]),
        "cpu": spread([s["cpu"] for s in small]),
        "lag": spread([s["lag"] for s in small]),
        "lag_with_events": spread([s["lag"] for s in small if s["events"]] or [0.0]),
    }


if __name__ == "__main__":
    main()
