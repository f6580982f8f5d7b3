"""A server of our own survives what happens to it, and keeps its password to itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from claimhouse.errors import SourceError
from claimhouse.postgres import embedded
from claimhouse.postgres.embedded import Embedded


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server of these tests' own, whose plug is pulled. Each test starts it if it is down."""
    server = Embedded(tmp_path_factory.mktemp("embedded") / "own server", fast=True)
    yield server
    server.remove()


def ask(server: Embedded, query: str) -> object:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        row = conn.execute(query).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None


def test_a_killed_server_comes_back_with_what_was_committed(own):
    own.start()
    pid = own.pid
    with psycopg.connect(own.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE t AS SELECT 7 AS a")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    own.start()
    assert own.pid != pid and ask(own, "SELECT a FROM t") == 7


def test_a_pid_that_another_process_has_now_does_not_stop_the_start(own):
    own.start()
    own.stop()
    stranger = subprocess.Popen(["sleep", "60"], **own._identity())
    text = f"{stranger.pid}\n{own.data.resolve()}\n1\n1\n\nlocalhost\n1 1\nready\n"
    own._write_as_owner(own.data / "postmaster.pid", text)
    try:
        own.start(wait=20)
        assert ask(own, "SELECT 1") == 1 and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_running_server_is_used_as_it_is_and_left_running(own):
    own.start()
    with Embedded(own.folder) as second:
        assert (second.pid, second.dsn) == (own.pid, own.dsn)
    assert own.pid is not None and ask(own, "SELECT 1") == 1


def test_the_port_is_kept_unless_another_took_it(own):
    own.start()
    first = own.dsn
    own.stop()
    assert own.start().dsn == first
    own.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int((own.folder / "port").read_text())))
        other.listen()
        assert own.start().dsn != first
    assert ask(own, "SELECT 1") == 1


def test_nobody_gets_in_without_the_password_and_nothing_shows_it(own):
    own.start()
    secret = (own.folder / "passfile").read_text().strip().rpartition(":")[2]
    assert (own.folder / "passfile").stat().st_mode & 0o077 == 0
    assert (own.folder / "server.log").stat().st_mode & 0o077 == 0
    assert secret not in own.dsn
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(own.dsn, passfile="/dev/null", password="")
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "postgres" in listing and secret not in listing
    assert not any("trust" in line for line in _rules(own))
    for settings in own.data.resolve().glob("*.conf"):
        assert secret not in settings.read_text()


def _rules(server: Embedded) -> list[str]:
    lines = (server.data / "pg_hba.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_it_listens_on_this_machine_alone(own):
    own.start()
    assert ask(own, "SHOW listen_addresses") == "127.0.0.1" and ask(own, "SHOW unix_socket_directories") == ""


def test_settings_hold_from_the_next_start_on(own):
    own.stop()
    with Embedded(own.folder, settings={"wal_sender_timeout": "7s"}) as again:
        assert ask(again, "SHOW wal_sender_timeout") == "7s" and ask(again, "SHOW wal_level") == "logical"
        assert ask(again, "SHOW fsync") == "on"  # for `fast` was not asked for


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by PostgreSQL")
def test_as_root_an_unprivileged_account_runs_it_even_below_a_closed_folder(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Embedded(closed / "server", fast=True)
    try:
        server.start()
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == server.account.pw_uid != 0
        place = server.data.resolve()
        assert not place.is_relative_to(closed) and place.stat().st_mode & 0o077 == 0
        server.stop()
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        server.remove()
    assert not place.parent.exists() and not server.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="as anyone else no place but the asked one is used")
def test_a_place_that_someone_else_prepared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_REACHABLE", tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Embedded(closed / "server", programs=Path("/nowhere"))
    server._elsewhere.mkdir()
    server._elsewhere.chmod(0o777)
    with pytest.raises(embedded.SettingsError, match="someone else"):
        server.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="as anyone else the programs run where they are")
def test_programs_that_the_account_cannot_reach_are_copied_once(tmp_path, monkeypatch):
    closed = tmp_path / "closed" / "some"
    shutil.copytree(Embedded(tmp_path / "any").programs, closed / "bin", symlinks=True)
    closed.parent.chmod(0o700)
    open_to_all = Path(tempfile.mkdtemp(dir="/var/tmp"))
    open_to_all.chmod(0o755)
    monkeypatch.setattr(embedded, "_REACHABLE", open_to_all)
    first = Embedded(tmp_path / "one", programs=closed / "bin").programs
    assert first == Embedded(tmp_path / "two", programs=closed / "bin").programs
    assert first.is_relative_to(open_to_all) and (first / "initdb").exists() and len(list(open_to_all.iterdir())) == 1
    shutil.rmtree(open_to_all)


def test_programs_that_cannot_run_are_an_error_of_ours(tmp_path):
    server = Embedded(tmp_path / "server", programs=tmp_path)
    with pytest.raises(SourceError, match="cannot be run here"):
        server.start()
    server.remove()
    assert not server._elsewhere.exists() and not server.folder.exists()


def test_a_program_that_fails_is_told_by_its_own_reason_not_by_what_it_tidied_up_after(tmp_path):
    install = Path(tempfile.mkdtemp(dir="/var/tmp"))
    install.chmod(0o755)
    programs = install / "bin"
    programs.mkdir()
    (programs / "initdb").write_text(
        "#!/bin/sh\necho 'initdb: error: no room' >&2; echo 'initdb: removing it' >&2; exit 1\n"
    )
    (programs / "initdb").chmod(0o755)
    server = Embedded(tmp_path / "server", programs=programs)
    try:
        with pytest.raises(SourceError, match="no room"):
            server.start()
    finally:
        server.remove()
        shutil.rmtree(install)


def test_a_server_that_does_not_come_up_says_where_to_look(own):
    own.stop()
    broken = Embedded(own.folder, settings={"shared_buffers": "rubbish"})
    began = time.monotonic()
    with pytest.raises(SourceError) as refused:
        broken.start(wait=1)
    assert "server.log" in str(refused.value.hint) and time.monotonic() - began < 15
