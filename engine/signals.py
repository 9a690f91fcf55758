"""Signals that ask a run to end, while something is under way that has to be done or not done."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def held_back() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM do what they do only after the block, where they are handled in Python.

    They may raise anywhere in the main thread. A thread that was being started then is at work or never will be, and
    nothing tells which.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
        return
    held: list[tuple[int, FrameType | None]] = []
    handlers = {
        number: handler for number in (signal.SIGINT, signal.SIGTERM) if callable(handler := signal.getsignal(number))
    }
    with ExitStack() as restored:
        for number, handler in handlers.items():
            restored.callback(signal.signal, number, handler)
            signal.signal(number, lambda *arrived: held.append(arrived))
        yield
    for arrived in held:
        handlers[signal.Signals(arrived[0])](*arrived)
