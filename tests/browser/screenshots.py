"""Takes the pictures of the README: `make screenshots`.

A small claims book is lived forward and captured, its rules run, and Chromium shows the console at 1440 pixels: the
overview in light, the fraud queue in dark. The files go to docs/screenshots.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from claimhouse.claims import Simulator
from claimhouse.cli.demo import SOURCE, prepared
from claimhouse.console.app import Console
from claimhouse.console.server import listen
from claimhouse.console.slot import SlotWatch
from claimhouse.dsn import Dsn
from claimhouse.fraud import follow
from claimhouse.lake.lake import create
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.postgres.embedded import Embedded

OUT = Path(__file__).parents[2] / "docs" / "screenshots"
SHOTS = (("overview", "/overview", "light"), ("fraud", "/fraud?band=high", "dark"), ("figures", "/figures", "light"))
LIFE = 40.0  # seconds of changes before the first picture: the charts want something to show


def main() -> int:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        print("error: Chromium is needed: make test-browser installs it", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="claimhouse-") as folder, Embedded(Path(folder) / "postgres") as server:
        dsn = prepared(server.dsn, 0.5, Path(folder))
        lake, stop = create(Path(folder) / "lake"), threading.Event()
        capture = Capture(CaptureOptions(SOURCE, dsn, lake.location))
        simulator = Simulator(dsn, 30.0, labels=Path(folder) / "labels.csv", change_after=None)
        console = Console(lake, user="an examiner", slot=SlotWatch(Dsn(dsn)))
        served = listen(console)
        work = [
            threading.Thread(target=served.run, daemon=True),
            threading.Thread(target=capture.run, args=(stop,), daemon=True),
            threading.Thread(target=simulator.run, kwargs={"stop": stop}, daemon=True),
            threading.Thread(target=follow, args=(lake, "demo", stop), daemon=True),
        ]
        for thread in work:
            thread.start()
        time.sleep(LIFE)
        try:
            shoot(program, served.url)
        finally:
            stop.set()
            served.stop()
            for thread in work:
                thread.join(60)
    return 0


def shoot(program: str, address: str) -> None:
    """One picture a page, of its first screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, path, theme in SHOTS:
            how = {"viewport": {"width": 1440, "height": 900}, "color_scheme": theme, "device_scale_factor": 1}
            context = browser.new_context(**how)
            page = context.new_page()
            page.goto(address)
            page.goto(address.partition("/overview")[0] + path)
            page.wait_for_selector("html[data-ready]")
            settle(page)
            page.screenshot(path=OUT / f"{name}.png")
            print(f"docs/screenshots/{name}.png", flush=True)
            context.close()
        browser.close()


def settle(page: Page) -> None:
    """Until live parts have come in and nothing moves."""
    page.wait_for_load_state("load")
    page.wait_for_timeout(3000)


if __name__ == "__main__":
    sys.exit(main())
