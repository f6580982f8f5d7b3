"""`python -m bench [--smoke] [case …]`: runs the cases on an embedded server, writes build/bench.json."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.figure import Figure, progress, tell
from claimhouse.postgres.embedded import Embedded


def main() -> None:
    from bench.cases import CASES  # a process that measures imports this module: it takes what it needs itself

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="default: all")
    parser.add_argument("--smoke", action="store_true", help="small sizes, under a minute: shows that they run")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    asked = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="claimhouse-bench-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        server = Embedded(root / "postgres")
        with server:
            for name in asked.cases or CASES:
                folder = root / name
                folder.mkdir()
                began = time.monotonic()
                progress(f"{name} …")
                figures += CASES[name](server, folder, 0.02 if asked.smoke else 1.0)
                print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        server.remove()
    tell(figures, asked.out)


if __name__ == "__main__":
    main()
