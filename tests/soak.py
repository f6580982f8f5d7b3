"""Plays rounds of the model-based test for as long as asked, in batches, and tells how many there were.

    python tests/soak.py --minutes 8          python tests/soak.py --rounds 500 --seed 4711

Each batch starts at a seed of its own and prints it; a seed that fails ends the run with exit 1 and stands in the
output, ready for CLAIMHOUSE_MODEL_SEED. The closing line counts all rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

BATCH = 10
ROOT = Path(__file__).parent.parent


def batch(seed: int, rounds: int) -> tuple[int, bool]:
    """(rounds that passed, whether all did)."""
    environment = {**os.environ, "CLAIMHOUSE_MODEL_SEED": str(seed), "CLAIMHOUSE_MODEL_ROUNDS": str(rounds)}
    command = [sys.executable, "-m", "pytest", "-n", "auto", "-m", "model", "tests/model"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    found = re.search(r"(\d+) passed", done.stdout)
    if done.returncode:
        print(done.stdout, flush=True)
    return int(found[1]) if found else 0, done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="ends near this: no batch starts of which half would come later"
    )
    parser.add_argument("--rounds", type=int, help="play this many, however long it takes")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1, 10**9), help="of the first round"
    )
    asked = parser.parse_args()
    began, played, seed, fine, last = time.monotonic(), 0, asked.seed, True, 0.0

    def time_left() -> bool:
        return time.monotonic() - began + last / 2 < asked.minutes * 60

    while fine and (played < asked.rounds if asked.rounds else time_left()):
        begun = time.monotonic()
        size = min(BATCH, asked.rounds - played) if asked.rounds else BATCH
        passed, fine = batch(seed, size)
        played, last = played + passed, time.monotonic() - begun
        print(f"seeds {seed} to {seed + size - 1}: {passed} passed, {time.monotonic() - began:.0f} s", flush=True)
        seed += size
        if fine and not passed:
            print("no round was played: is tests/model there?", file=sys.stderr)
            return 1
    print(f"{played} passed, {0 if fine else 1} failed")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
