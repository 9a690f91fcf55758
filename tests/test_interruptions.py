"""Interruptions: when they come, what a command says then, and that nobody is left at work."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
import typer
from plait.engine.errors import Interrupted
from plait.engine.signals import held_back
from plait.entry import leave_with_code
from plait.interrupts import in_order
from resume_support import contents, merge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C is ignored where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (KeyboardInterrupt(), ["error: interrupted; nothing was written"]),
        (Interrupted(0.25), ["error: interrupted; the output is not complete", "25% is done and kept"]),
    ],
)
def test_an_interruption_says_what_is_left(
    raised: BaseException, says: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @app.command()
    def run() -> None:
        raise raised

    monkeypatch.setattr("sys.argv", ["plait", "run"])
    with pytest.raises(SystemExit) as left:
        leave_with_code(app)
    assert left.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(says)
    assert all(part in line for part, line in zip(says, lines, strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_held_back_does_what_it_does_afterwards(number: signal.Signals) -> None:
    reached = []
    with in_order():
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), held_back():
            reached.append(signal.raise_signal(number))
        assert signal.getsignal(number) is before
    assert reached == [None]


@pytest.mark.parametrize("name", ["plait-journal", "plait-0", "plait-1"])
def test_a_signal_while_threads_are_started_ends_the_run_in_order(
    name: str, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, told = threading.Thread.start, []

    def start_interrupted(thread: threading.Thread) -> None:
        if thread.name == name and not told:
            told.append(name)
            signal.raise_signal(signal.SIGINT)
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", start_interrupted)
        with in_order(), pytest.raises((KeyboardInterrupt, Interrupted)):
            merge(inputs, "out", workers=2)
    assert told == [name]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("plait-")] == []
    merge(inputs, "out", workers=2, resume=True)
    merge(inputs, "whole", workers=2)
    assert contents(inputs / "out") == contents(inputs / "whole")
