"""What a run needs and every run shares, in the user's cache folder: each made once, by its ordinary client.

<cache>/stack/…                      the engines, as the native launcher keeps them
<cache>/compose/docker-compose-…     Compose, built by Go from stack/tools
<cache>/compose/debian-<key>/        `base.tar` by debootstrap, and `parts/`: the shell and C library in it
<cache>/compose/jupyterlab-…         JupyterLab, by pip
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.compose.engine import ROOT, Refused

from claimhouse.distributed import artifacts
from claimhouse.errors import ClaimhouseError

SUITE = "bookworm"
INCLUDE = ("python3", "python3-pip", "ca-certificates", "busybox-static")
PROGRAMS = {"dockerd": "docker.io", "docker": "docker.io", "docker-init": "docker.io", "iptables": "iptables"}
PROGRAMS |= {"debootstrap": "debootstrap", "ip": "iproute2", "unshare": "util-linux", "setpriv": "util-linux"}
# What an image needs to run any program at all; the first two are its shells.
PARTS = ("bin/busybox", "bin/bash", "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libtinfo.so.6")
PARTS += tuple(f"lib/x86_64-linux-gnu/lib{n}" for n in ("c.so.6", "m.so.6", "dl.so.2", "pthread.so.0", "rt.so.1"))
PARTS += tuple(f"lib/x86_64-linux-gnu/lib{n}" for n in ("z.so.1", "gcc_s.so.1", "stdc++.so.6", "resolv.so.2"))
LOCALE = "usr/lib/locale/C.utf8"
Say = Callable[[str], None]


def fill(say: Say) -> None:
    """Bring everything that is not there. Raises Refused."""
    if os.geteuid() != 0:
        raise Refused("a Docker Engine of one's own needs root", hint="sudo make test-compose")
    if sys.version_info[:2] != (3, 11):
        raise Refused("the image has Python 3.11, this is another", hint="make PYTHON=/path/to/python3.11")
    _programs(say)
    try:
        artifacts.java(17)
        artifacts.fetch(say=say)
    except ClaimhouseError as error:
        raise Refused(str(error), hint=error.hint or "make stack tells more") from error
    _once(compose(), _build_compose, say)
    _once(debian(), _debootstrap, say)
    _once(jupyter(), _install_jupyter, say)


def folder() -> Path:
    return artifacts.cache_folder() / "compose"


def compose() -> Path:
    """The Compose program, of the version that stack/tools/go.mod asks for."""
    found = re.search(r"github.com/docker/compose/v2 (v\S+)", (ROOT / "stack" / "tools" / "go.mod").read_text())
    assert found is not None
    return folder() / f"docker-compose-{found[1]}"


def debian() -> Path:
    key = hashlib.sha256(repr((SUITE, INCLUDE, PARTS, LOCALE, 1)).encode()).hexdigest()[:12]
    return folder() / f"debian-{key}"


def jupyter() -> Path:
    """JupyterLab of the version that the image's Dockerfile installs."""
    found = re.search(r"jupyterlab==(\S+)", (ROOT / "stack" / "Dockerfile").read_text())
    assert found is not None
    return folder() / f"jupyterlab-{found[1]}"


def _programs(say: Say) -> None:
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Refused(f"{', '.join(missing)} is not installed", hint="install it, then again")
    say(f"apt-get install {' '.join(missing)}")
    _run(["apt-get", "update", "-qq"])
    # policy-rc.d: the package would start a daemon of its own.
    policy = Path("/usr/sbin/policy-rc.d")
    own = not policy.exists()
    if own:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], quiet)
    finally:
        if own:
            policy.unlink()


def _once(target: Path, make: Callable[[Path], None], say: Say) -> None:
    """Make something beside its name, then give it the name: it is whole or not there."""
    if target.exists():
        return
    say(f"making {target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        make(made)
        made.rename(target)
    finally:
        if made.is_dir():
            shutil.rmtree(made)


def _build_compose(made: Path) -> None:
    if shutil.which("go") is None:
        raise Refused("go is not installed", hint="install Go 1.24 or newer")
    where = ["-C", str(ROOT / "stack" / "tools"), "-mod=readonly", "-o", str(made)]
    path = {"GOPATH": str(artifacts.cache_folder() / "go")}
    _run(["go", "build", *where, "github.com/docker/compose/v2/cmd"], path)


def _debootstrap(made: Path) -> None:
    root = made / "root"
    made.mkdir()
    apart = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]  # what it mounts must be gone before `root` goes
    _run([*apart, "debootstrap", "--variant=minbase", f"--include={','.join(INCLUDE)}", SUITE, str(root)])
    for part in PARTS:
        _copy(root, part, made / "parts")
    shutil.copytree(root / LOCALE, made / "parts" / LOCALE)
    leave = ("./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc", "./usr/share/man", "./usr/share/locale")
    leave += ("./proc", "./sys", "./dev", "./usr/lib/python3.11/EXTERNALLY-MANAGED")

    def kept(one: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if one.name.startswith(tuple(f"{w}/" for w in leave)) or one.name == leave[-1] else one

    with tarfile.open(made / "base.tar", "w") as tar:
        tar.add(root, ".", filter=kept)
    shutil.rmtree(root)


def _copy(root: Path, name: str, parts: Path) -> None:
    """One file of a root folder, its links followed as if that were `/`."""
    file = root / name
    while file.is_symlink():
        to = file.readlink()
        file = root / to.relative_to("/") if to.is_absolute() else file.parent / to
    (parts / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, parts / name)


def _install_jupyter(made: Path) -> None:
    wanted = jupyter().name.replace("-", "==")
    _run([sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", str(made), wanted])


def _run(command: Iterable[str], extra: dict[str, str] | None = None) -> None:
    words = list(command)
    done = subprocess.run(words, env={**os.environ, **(extra or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Refused(f"{' '.join(words[:3])} failed: {' | '.join(last)}", hint="look at the network, then again")
