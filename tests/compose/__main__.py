"""`python -m tests.compose [pytest's words]`: fills the caches, then runs the tests in namespaces of their own.

Network, mounts and processes are the run's own: dockerd's bridges, firewall rules and forwarding never touch this
machine, the public file's ports are free whatever runs here, and when the run ends, however it ends, nothing of it is
left. Exit status 2 and a reason where this machine cannot do that.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.compose import caches
from tests.compose.engine import FOLDER, Refused

APART = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` has its turn
    began = time.monotonic()
    try:
        caches.fill(lambda word: print(f"compose: {word}", flush=True))
        if subprocess.call([*APART, "true"]):
            raise Refused("this machine does not let us have namespaces", hint="run it outside of a container")
    except Refused as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    print(f"compose: caches are ready after {time.monotonic() - began:.0f} s", flush=True)
    folder = Path("/var/tmp") / f"claimhouse-compose-{os.getpid()}"
    folder.mkdir(mode=0o711)
    tests = [sys.executable, "-m", "pytest", "tests/compose", "-m", "compose", "-x", "--durations=10", *words]
    try:
        return subprocess.call(
            ["setpriv", "--pdeathsig", "KILL", *APART, "docker-init", "--", *tests],
            env={**os.environ, FOLDER: str(folder)},
        )
    finally:
        shutil.rmtree(folder)
        for left in Path("/sys/fs/cgroup").glob(f"**/{folder.name}"):
            inner = sorted((p for p in left.rglob("*") if p.is_dir()), reverse=True)  # of a run that was interrupted
            for one in (*inner, left):
                with suppress(OSError):
                    one.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
