"""A Docker Engine of the test run's own, and the `docker compose` that a user types.

Everything that the engine keeps lies in one folder; it is started only inside namespaces of its own (tests/compose runs
itself there). Its default bridge is left out: Compose makes the only network.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

FOLDER = "CLAIMHOUSE_COMPOSE_FOLDER"  # set inside the run's own namespaces only
ROOT = Path(__file__).parents[2]


class Refused(Exception):
    """This machine cannot run the Compose file; `hint` says what would mend it."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Engine:
    """dockerd in `folder`, and calls of its client. Raises Refused where it does not start."""

    def __init__(self, folder: Path, compose: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder / 'socket'}"
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(compose)
        self.files = [ROOT / "compose.yaml"]
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DOCKER_HOST": self.socket,
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "0",
        }
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self, within: float = 60) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        log = self.folder / "dockerd.log"
        words = ["--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "-p", self.folder / "pid"]
        words += ["-H", self.socket, "--bridge", "none", "--default-ulimit", "nofile=20000:20000"]
        words += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.folder.name}"]
        with log.open("wb") as out:
            self._daemon = subprocess.Popen(["dockerd", *map(str, words)], stdout=out, stderr=out)
        deadline = time.monotonic() + within
        while self._daemon.poll() is None and time.monotonic() < deadline:
            if self._client("info").returncode == 0:
                return
            time.sleep(0.2)
        raise Refused(f"dockerd does not start: {_last(log)}", hint="it needs root, overlayfs, cgroups and iptables")

    def stop(self) -> None:
        """End containers and the daemon; what would be left, the namespace's end takes along."""
        if self._daemon is None or self._daemon.poll() is not None:
            return
        if running := self.docker("ps", "-q").split():
            self.docker("kill", *running)
        self._daemon.terminate()
        self._daemon.wait(60)

    def docker(self, *words: str) -> str:
        """What the client prints. Raises AssertionError with its complaint."""
        return _said(self._client(*words))

    def compose(self, *words: str, within: float = 600) -> str:
        """`docker compose WORDS` in the repository. Raises AssertionError with its complaint."""
        files = [w for f in self.files for w in ("-f", str(f))]
        done = self._client("compose", *files, *words, within=within)
        return _said(done, self.ill() if done.returncode and words[0] == "up" else "")

    def services(self) -> dict[str, dict[str, Any]]:
        """Every container of the project by its service's name, as `ps` has it."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {one["Service"]: one for one in map(json.loads, lines)}

    def seconds(self) -> float:
        """CPU seconds of all containers so far: how long a run would take on two idle cores is half of that or more."""
        first, second = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")
        if first.is_dir():
            return int((first / self.folder.name / "cpuacct.usage").read_text()) / 1e9
        return int((second / self.folder.name / "cpu.stat").read_text().split()[1]) / 1e6

    def ill(self) -> str:
        """What the containers that are not well last said, and their health checks."""
        told: list[str] = []
        for name in self.docker("ps", "--all", "--format", "{{.Names}}").split():
            state = json.loads(self.docker("inspect", "--format", "{{json .State}}", name))
            health = state.get("Health", {})
            if health.get("Status") == "healthy" or (not health and not state["ExitCode"]):
                continue
            checks = [(one["ExitCode"], one["Output"].strip()[-200:]) for one in health.get("Log") or ()][-2:]
            words = {k: state[k] for k in ("Status", "ExitCode", "OOMKilled")}
            logs = self._client("logs", "--tail", "40", name)
            told.append(f"{name}: {words}, checks {checks}\n{logs.stdout[-3000:]}{logs.stderr[-3000:]}")
        return "\n".join(told)

    def _client(self, *words: str, within: float = 600) -> subprocess.CompletedProcess[str]:
        command = ["docker", *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False, timeout=within
        )


def _said(done: subprocess.CompletedProcess[str], more: str = "") -> str:
    words = " ".join(done.args)
    assert done.returncode == 0, f"{words} → {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}\n{more}"
    return done.stdout


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    told = [line for line in lines if "level=error" in line or "level=fatal" in line or "failed" in line]
    return (told or lines or ["it says nothing"])[-1]
