"""`python -m tests.fetch`: brings what the suites with foreign engines need into the user's cache folder.

Each suite does that by itself as well; this is for a machine that has something else to do while downloads run.
"""

from __future__ import annotations

import sys
import time

from tests.compose import caches
from tests.compose.engine import Refused
from tests.versions.servers import SERVERS, Unavailable, programs


def main() -> int:
    began, missing = time.monotonic(), 0

    def say(word: str) -> None:
        print(f"fetch: {time.monotonic() - began:.0f} s, {word}", flush=True)

    try:
        for server in SERVERS:
            programs(server)
        say(f"{len(SERVERS)} PostgreSQLs are there")
    except Unavailable as error:
        say(f"not to be had: {error}")
        missing += 1
    try:
        caches.fill(say)
    except Refused as error:
        say(f"not to be had: {error}; {error.hint}")
        missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
