"""Ctrl-C and SIGTERM: the first lets a run end in order, the second ends the process at once."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

INTERRUPTED = 130

LIVE_LINES = 5
"""A live view takes back as many lines as it has drawn, at most these; what is said meanwhile stays above them."""


@contextmanager
def in_order() -> Iterator[None]:
    """Have the first signal raise KeyboardInterrupt and the next one leave without another word."""
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            with suppress(OSError):
                os.write(2, b"\nerror: stopped at once\n")
            os._exit(INTERRUPTED)
        if sys.stderr.isatty():
            os.write(2, b"\nfinishing what is under way; again to stop at once\n" + b"\n" * LIVE_LINES)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    # What is ignored stays so, as under nohup.
    watched = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_to_go_on(arguments: Sequence[str]) -> str:
    """The command line that goes on with the interrupted run of these arguments."""
    more = [] if "--resume" in arguments else ["--resume"]
    return shlex.join(["plait", *arguments, *more])
