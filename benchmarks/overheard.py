"""What transformers says while it loads or saves: it logs its warnings, and Python does not raise those."""

from __future__ import annotations

import importlib
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collects what transformers logs as a warning, and what Python warns of."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    logger = logging.getLogger("transformers")
    handlers, logger.handlers = logger.handlers, [Ear(logging.WARNING)]
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    progress = importlib.import_module("transformers.utils.logging")
    progress.disable_progress_bar()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    said += [str(warning.message) for warning in caught]
