"""What every command keeps: exit codes, stdout for data alone, no traceback, no secret, and a quick start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.query.book import Book
from typer.main import get_command

from claimhouse.cli import guard, talk
from claimhouse.cli.app import app
from claimhouse.errors import NotReady
from claimhouse.lake.lake import create

SECRET = "pl4nted-s3cret"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `python -m claimhouse` in an empty folder with an environment that has nothing of PostgreSQL's or ours."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "CLAIMHOUSE_"))}
        environment = {**keep, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), **variables}
        return subprocess.run(
            [sys.executable, "-m", "claimhouse", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            capture_output=True,
            timeout=60,
        )

    return call


def commands() -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    pending: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while pending:
        path, command = pending.pop()
        children = getattr(command, "commands", {})
        pending += [((*path, name), child) for name, child in children.items()]
        if not children:
            found.append((path, command))
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_help_of_every_command_has_examples_that_name_it(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.guarded([*path, "--help"]) == 0
    out, err = capsys.readouterr()
    examples = out.partition("Examples:\n")[2]
    assert f"claimhouse {' '.join(path)}" in examples
    assert err == ""


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_every_option_is_explained(path: tuple[str, ...], command: Any) -> None:
    assert [p.name for p in command.params if not p.help] == []


def test_examples_in_help_are_valid_command_lines() -> None:
    """Each example parses: its options exist, its values have the right type (nothing is run)."""
    import shlex

    root = get_command(app)
    for _, command in commands():
        for line in (command.help or "").partition("Examples:\n")[2].splitlines():
            words = shlex.split(line.strip(), comments=True)
            if "|" in words and words[0] != "claimhouse":
                words = words[words.index("|") + 1 :]
            if not words:
                continue
            words = words[: min([words.index(w) for w in ("|", ">") if w in words], default=len(words))]
            place, rest = root, words[1:]
            while getattr(place, "commands", None):
                place, rest = place.commands[rest[0]], rest[1:]  # type: ignore[attr-defined]
            with place.make_context("example", rest):
                pass


def test_the_command_line_starts_within_the_time_of_a_blink(run: Run) -> None:
    """Processor time, so that a busy machine does not decide."""
    import resource

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    run("--help")
    times = []
    for _ in range(3):
        before = used()
        assert run("--help").returncode == 0
        times.append(used() - before)
    assert min(times) < 0.4


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from claimhouse.cli.guard import guarded; guarded(['--help']);"
        "print([m for m in ('pyarrow','duckdb','psycopg','deltalake','rich','pydantic','numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("config", "show", "--nonsense"), ("run", "--freshness"), ("--nonsense",), ("config", "nonsense")],
)
def test_wrong_usage_exits_2_with_an_error_and_a_hint_on_stderr(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "\nhint: claimhouse" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_command_the_help_is_shown_as_an_error(run: Run) -> None:
    done = run()
    assert done.returncode == 2
    assert "Commands:" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--source", "claims"),
        ("run",),
        ("run", "--source", "host=/nowhere", "--freshness", "3"),
        ("run", "--source", "host=/nowhere", "--name", "A B"),
        ("run", "--source", "host=/nowhere", "--once", "--lake", "gs://x"),
        ("detach", "--source", "host=/nowhere", "--slot", "x"),
        ("verify", "--source", "host=/nowhere", "--wait", "soon"),
        ("query", "SELECT 1", "--format", "xml"),
        ("query", "SELECT 1", "--lake", "/dev/null/x"),
        ("status", "--lake", "s3://"),
        ("connect", "claim", "--config", "/dev/null/x"),
        ("demo", "--duration", "soon"),
        ("config", "show", "--config", "none.toml"),
    ],
    ids=" ".join,
)
def test_bad_input_exits_2_without_a_traceback(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-2 if "hint:" in done.stderr else -1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_an_expected_failure_is_told_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: object) -> None:
        raise NotReady("wal_level is replica", hint="ALTER SYSTEM SET wal_level = 'logical';")

    monkeypatch.setattr(guard, "_invoke", fails)
    assert guard.guarded([]) == 2
    assert capsys.readouterr() == ("", "error: wal_level is replica\nhint: ALTER SYSTEM SET wal_level = 'logical';\n")


def test_an_unexpected_failure_is_one_line_and_a_private_file_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "Erika Mustermann"

    def fails(arguments: object) -> None:
        try:
            raise ValueError(f"cannot parse 'row-value' of postgresql://app:{SECRET}@db/claims")
        except ValueError as error:
            raise RuntimeError(f"it broke\nDETAIL:  Key (name)=({value}) exists.") from error

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(guard, "_invoke", fails)
    assert guard.guarded([]) == 2
    out, err = capsys.readouterr()
    (log,) = (tmp_path / "claimhouse").iterdir()
    assert out == ""
    assert err.startswith("error: unexpected RuntimeError\nhint: the details are in ")
    assert str(log) in err
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert "in fails" in text
    assert "it broke" in text
    for hidden in (SECRET, value):
        assert hidden not in text + err


def test_where_no_log_can_be_written_the_failure_is_still_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    monkeypatch.setattr(guard, "_invoke", lambda arguments: 1 / 0)
    assert guard.guarded([]) == 2
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(("raised", "code"), [(typer.Exit(1), 1), (typer.Exit(0), 0), (KeyboardInterrupt(), 130)])
def test_findings_and_interrupts_have_their_own_codes(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int
) -> None:
    def stops(arguments: object) -> None:
        raise raised

    monkeypatch.setattr(guard, "_invoke", stops)
    assert guard.guarded([]) == code


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    script = f"{sys.executable} -m claimhouse config show --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, cwd=tmp_path)
    assert done.stdout.strip() == "0"
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_an_answer_goes_into_a_pipe_or_where_a_link_leads_and_replaces_neither(run: Run, tmp_path: Path) -> None:
    create(tmp_path / "lake")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    ask = ("query", "SELECT 7 AS n", "--lake", "lake", "--format", "csv", "--output")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run(*ask, "pipe").returncode == 0
        assert os.read(reader, 100) == b"n\r\n7\r\n"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert run(*ask, "link.csv").returncode == 0
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_bytes() == b"n\r\n7\r\n"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_name_that_the_terminal_cannot_spell_is_shown_by_its_codes(run: Run, tmp_path: Path) -> None:
    book = Book(tmp_path / "lake")
    book.table("日本", {"id": "int8"})
    book.cut()
    told = run("status", "--offline", "--lake", "lake", PYTHONIOENCODING="ascii")
    assert told.returncode == 0
    assert "\\u65e5\\u672c" in told.stdout


def test_init_writes_a_file_that_loads_back_and_holds_no_password(run: Run, tmp_path: Path) -> None:
    done = run("init", "--source", f"postgresql://app:{SECRET}@db/claims", "--name", "claims", "--lake", "s3://b/lake")
    assert (done.returncode, done.stdout) == (0, "")
    assert "next: claimhouse doctor" in done.stderr
    text = (tmp_path / "claimhouse.toml").read_text()
    assert SECRET not in text + done.stderr
    shown = json.loads(run("config", "show", "--json").stdout)
    assert {"name": "source.claims.dsn", "value": "postgresql://app@db/claims"} in shown
    assert {"name": "lake.location", "value": "s3://b/lake"} in shown


def test_every_line_of_the_file_that_init_writes_can_be_uncommented(run: Run, tmp_path: Path) -> None:
    from claimhouse.settings import FILE, load

    assert run("init").returncode == 0
    path = tmp_path / FILE
    lines = [line.removeprefix("# ") if " = " in line else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(line for line in lines if not line.endswith('= ""')))
    assert load(path, environment={}).query.format == "table"


def test_init_does_not_replace_a_file_unless_told_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "claimhouse.toml").write_text("# mine\n")
    refused = run("init")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "claimhouse.toml").read_text() == "# mine\n"
    assert run("init", "--force").returncode == 0


def test_config_show_tells_where_each_value_came_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "claimhouse.toml").write_text('[source.eu]\ndsn = "service=eu"\nfreshness = "40ms"\n')
    done = run("config", "show", "--origin", "--json", "--lake", "there", CLAIMHOUSE_QUERY_FORMAT="csv")
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)}
    assert rows["lake.location"] == ("there", "command line")
    assert rows["query.format"] == ("csv", "CLAIMHOUSE_QUERY_FORMAT")
    assert rows["source.eu.freshness"] == ("40ms", "claimhouse.toml")
    assert rows["source.eu.flush"] == ("", "default")


def test_a_planted_password_is_in_no_output(run: Run, tmp_path: Path) -> None:
    (tmp_path / "claimhouse.toml").write_text(f'[source.main]\ndsn = "host=/nowhere user=a password={SECRET}"\n')
    seen = [
        run("config", "show", "--origin"),
        run("config", "show", "--json"),
        run("doctor"),
        run("doctor", "--json", "--source", f"postgresql://a:{SECRET}@127.0.0.1:1/x"),
        run("run", "--once", "--source", f"postgresql://a:{SECRET}@[bad/x"),
        run("run", "--freshness", "3", CLAIMHOUSE_SOURCE_MAIN_DSN=f"password={SECRET}"),
        run("doctor", "--source", "main", PGPASSWORD=SECRET),
    ]
    assert [done.args for done in seen if SECRET in done.stdout + done.stderr] == []
    assert "holds a password" in seen[0].stderr
    for log in (tmp_path / "state").rglob("*.log"):
        assert SECRET not in log.read_text()


def test_colour_needs_a_terminal_and_no_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal: Any = Terminal()
    assert talk.paint("x", "red", terminal) == "\033[31mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert talk.paint("x", "red", terminal) == "x"


def test_a_name_cannot_drive_the_terminal() -> None:
    assert talk.columns(["table"], [["evil\x1b[2J\nname"]]) == "table\nevil\\x1b[2J name"


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    assert talk.columns(["a", "rows"], [["x", 5], ["yy", 12345]]) == "a     rows\nx        5\nyy  12,345"


def test_completion_scripts_are_printed(run: Run) -> None:
    done = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "complete" in done.stdout
