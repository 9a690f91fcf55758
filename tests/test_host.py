"""Memory of the machine: what a container allows, and what this process holds."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from plait.engine import host

if TYPE_CHECKING:
    from pathlib import Path

V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def group(folder: Path, names: tuple[str, str, str], limit: str, usage: str, cache: int) -> tuple[str, str, str, str]:
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\nslab 7\n")
    return (str(folder), *names)


@pytest.mark.parametrize("names", [V1, V2], ids=["v1", "v2"])
def test_a_container_allows_its_limit_less_what_is_in_use(tmp_path: Path, names: tuple[str, str, str]) -> None:
    found = group(tmp_path, names, "1000", "300", 0)
    assert host.container_room_bytes((found,)) == 700


def test_cache_that_gives_way_is_not_in_use(tmp_path: Path) -> None:
    assert host.container_room_bytes((group(tmp_path, V2, "1000", "900", 600),)) == 700


def test_more_in_use_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    assert host.container_room_bytes((group(tmp_path, V2, "1000", "1200", 0),)) == 0


@pytest.mark.parametrize("limit", ["max", str(1 << 62)])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    assert host.container_room_bytes((group(tmp_path, V2, limit, "300", 0),)) is None


def test_no_control_group_is_none(tmp_path: Path) -> None:
    assert host.container_room_bytes(((str(tmp_path), *V2),)) is None


GROWING = """
from plait.engine import host

before, size_bytes = host.resident_bytes(), 64 << 20
held = bytearray(size_bytes)
held[::4096] = b"x" * len(held[::4096])
assert host.resident_bytes() - before > size_bytes * 0.9
assert host.peak_resident_bytes() >= host.resident_bytes() - (1 << 20)
"""


def test_a_process_grows_by_what_it_touches() -> None:
    # In a process of its own: this one has freed memory that it may use again, or give back meanwhile.
    subprocess.run([sys.executable, "-c", GROWING], check=True)


def test_free_memory_and_cores_are_there() -> None:
    assert host.free_memory_bytes() > 0
    assert host.usable_cores() >= 1
