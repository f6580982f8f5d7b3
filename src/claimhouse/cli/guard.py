"""The one place where a failure becomes words and an exit code.

An expected failure (`ClaimhouseError`, a wrong option) is told in one line with the next step. An unexpected one is
told in one line too; its frames go to a file that only the user can read, with passwords and quoted values blanked,
because messages of libraries quote the data they choked on.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.main import get_command

from claimhouse.cli.talk import fail, say
from claimhouse.errors import ClaimhouseError

FINE, FINDINGS, ERROR = 0, 1, 2
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DETAIL = re.compile(r"^(DETAIL|CONTEXT|LINE \d+):.*$", re.MULTILINE)


def guarded(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; nothing escapes but SystemExit from shell completion."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' hints to programmers are not for users
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot spell is shown by its codes
            stream.reconfigure(errors="backslashreplace")
    try:
        _invoke(arguments)
        sys.stdout.flush()
        return FINE
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        return _usage(error)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        fail(*explain(error))
    return ERROR


def explain(error: BaseException) -> tuple[str, str | None]:
    """(message, hint) of a failure; an unexpected one is written to a file and its words are not repeated."""
    if isinstance(error, ClaimhouseError):
        return str(error), error.hint
    return f"unexpected {type(error).__name__}", f"the details are in {_written(error)}; please report them"


def _invoke(arguments: Sequence[str]) -> None:
    from claimhouse.cli.app import app

    command = get_command(app)
    if "_CLAIMHOUSE_COMPLETE" in os.environ:
        command.main(list(arguments), prog_name="claimhouse")
    with command.make_context("claimhouse", list(arguments)) as context:
        command.invoke(context)


def _usage(error: typer.TyperException) -> int:
    """A wrong option or argument; without any command the help itself is the answer."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return ERROR
    path = context.command_path if context is not None else "claimhouse"
    message = error.format_message()
    fail(message[:1].lower() + message[1:], f"{path} --help")
    return ERROR


def _written(error: BaseException) -> Path:
    """The file that now holds what is known of the failure."""
    name = f"error-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    text = _frames(error)
    state = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    for folder in (Path(state) / "claimhouse", Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            return path
    return Path(os.devnull)


def _frames(error: BaseException) -> str:
    from claimhouse.dsn import mask

    lines = ["claimhouse failed in a way that nobody expected", ""]
    chain: BaseException | None = error
    while chain is not None:
        lines += [line.rstrip("\n") for line in traceback.format_tb(chain.__traceback__)]
        message = _QUOTED.sub("'…'", _DETAIL.sub("", mask(str(chain))))
        lines += [f"{type(chain).__module__}.{type(chain).__qualname__}: {message.strip()}", ""]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\n".join(lines)
