"""The pictures of the docs: the same bytes every time, and nothing is fetched to show them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "pictures.py"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform == "win32", reason="stand-ins are files with holes")
def test_pictures_are_the_same_every_time(pictures, tmp_path) -> None:
    for folder in ("a", "b"):
        pictures.draw(tmp_path / folder)
    drawn = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in drawn] == [path.name for path in sorted((SCRIPT.parent / "pictures").iterdir())]
    for path in drawn:
        data = path.read_bytes()
        assert data == (tmp_path / "b" / path.name).read_bytes()
        assert b"http" not in data.replace(b"http://www.w3.org/2000/svg", b"")
        assert str(tmp_path).encode() not in data
        assert "plait run" in words_of(path)
    assert "model.layers.0–31" in words_of(tmp_path / "a" / "dry-run-dare-ties.svg")
    assert "41%" in words_of(tmp_path / "a" / "progress.svg")
    assert "291 tensors into merged" in words_of(tmp_path / "a" / "result.svg")


def words_of(path: Path) -> str:
    return "".join(ElementTree.fromstring(path.read_bytes()).itertext()).replace("\u00a0", " ")
