"""From an error to an exit code: what a process says at its end, and what it leaves with."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from typing import NoReturn

import typer

from .engine.errors import Interrupted, PlaitError
from .interrupts import INTERRUPTED, command_to_go_on

DEFECT = 1

_COLLECT_AFTER = 50_000
"""New objects after which garbage is looked for. What is imported and planned is a million that stay: looking through
them every 700, as is usual, takes a third of a second."""


def leave_with_code(app: typer.Typer) -> None:
    """Carry out the process's arguments; every error is a line or more, and an exit code."""
    gc.set_threshold(_COLLECT_AFTER)
    arguments = sys.argv[1:]
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        # Not app(): that makes exit codes of its own of Ctrl-C and closed pipes, other ones from release to release.
        command = typer.main.get_command(app)
        with command.make_context("plait", arguments) as context:
            command.invoke(context)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except PlaitError as error:
        _fail(error, str(error), error.exit_code, trace=verbose)
    except (KeyboardInterrupt, typer.Abort) as error:
        what = str(error) or ("the output is not complete" if isinstance(error, Interrupted) else "nothing was written")
        _fail(error, f"interrupted; {what}", INTERRUPTED, trace=verbose)
    except BrokenPipeError:
        # Whoever read our output has gone; so do we, without another word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is not None:  # the command line itself: typer's usage errors
            getattr(error, "show", lambda: None)()
            sys.exit(getattr(error, "exit_code", 2))
        _fail(error, f"this is a defect of plait: {type(error).__name__}: {error}", DEFECT, trace=True)


def _fail(error: BaseException, message: str, code: int, *, trace: bool) -> NoReturn:
    if trace:
        traceback.print_exception(error)
    lines = message.splitlines() or [type(error).__name__]
    kept_share = getattr(error, "kept_share", None)
    if kept_share is not None and sys.argv[1:2] == ["run"]:
        lines.append(f"{int(100 * kept_share)}% is done and kept; go on with: {command_to_go_on(sys.argv[1:])}")
    for line in lines:  # what is indented can be copied as it is
        sys.stderr.write(f"{line}\n" if line.startswith("  ") else f"error: {line}\n")
    sys.exit(code)
