"""What all tests share, and fixtures that several modules use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from resume_support import write_inputs

if TYPE_CHECKING:
    from pathlib import Path

# How long an example takes depends on who else is at work on the machine; that is no test's business.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the journal often, and cut tensors into several tiles."""
    monkeypatch.setattr("plait.engine.recorder.BATCH_SECONDS", 0.005)
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 4096)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Models and a recipe of which a run can be interrupted."""
    return write_inputs(tmp_path)
