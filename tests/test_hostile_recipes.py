"""Recipes that an enemy wrote, from a file or through a pipe. What is not YAML at all is in test_recipe_yaml.py."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import plait
import pytest
from hostile_support import World, no_hang, one_line, short
from plait.engine.errors import InputError, PlaitError, RecipeError, UsageError
from plait.engine.recipe_yaml import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def mistake(world: World, text: str | bytes) -> PlaitError:
    """What is wrong with a recipe."""
    (world.folder / "recipe.yml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = world.surroundings()
    with no_hang(), pytest.raises(PlaitError) as caught:
        plait.plan(world.folder / "recipe.yml")
    assert world.surroundings() == before
    return caught.value


def test_ten_megabytes_and_more(world: World) -> None:
    error = mistake(world, "\n" * 10_000_001)
    assert isinstance(error, RecipeError)
    one_line(error, "recipe.yml:1:1: the recipe is larger than 2 MB")
    # Cut inside a letter, and with a byte order mark.
    one_line(mistake(world, b"\xef\xbb\xbf" + "é".encode() * MAX_TEXT_BYTES), "larger than 2 MB")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero here")  # noqa: PTH110
def test_a_recipe_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_hang(), pytest.raises(RecipeError, match="larger than 2 MB"):
        plait.plan("/dev/zero")
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(zeros))
        with no_hang(), pytest.raises(RecipeError, match="larger than 2 MB"):
            plait.plan("-")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_recipe_through_a_pipe_is_a_recipe(world: World) -> None:
    # As a shell makes them: plait run <(generate) OUT
    text = (world.folder / "copy.yml").read_text()
    os.mkfifo(world.folder / "pipe.yml")
    writer = threading.Thread(target=(world.folder / "pipe.yml").write_text, args=(text,))
    writer.start()
    with no_hang():
        assert plait.plan(world.folder / "pipe.yml").recipe.text == text
    writer.join()


LARGE = {
    # What comes before, what is repeated, with or without a number in it, and what comes after.
    "a comment": ("#", "x", ""),
    "comments": ("", "# x\n", ""),
    "a word": ("a: ", "b", ""),
    "keys": ("", "key{}: 1\n", ""),
    "near misses": ("", "dtyp{}: 1\n", ""),
    "a list": ("models: [", "a, ", "]"),
    "spaces": ("a:", " ", "b"),
    "blank lines": ("", "\n", ""),
    "quotes": ("a: '", "''", "'"),
    "escapes": ('a: "', "\\u0041", '"'),
    "anchors": ("", "k{0}: &a{0} 1\n", ""),
    "aliases": ("a: &a 1\nb: [", "*a, ", "]"),
    "merge keys": ("a: &a {k: 1, l: 2, m: 3, n: 4}\nb: {<<: [", "*a, ", "]}"),
    "models": ("merge_method: linear\nmodels:\n", "  - {{model: a, parameters: {{weight: 1}}}}\n", ""),
    "missing models": ("merge_method: linear\nmodels:\n", "  - model: m{}\n", ""),
    "documents": ("", "---\n", ""),
    "directives": ("", "%A b\n", ""),
    "flow in flow": ("a: ", "{{b: ", ""),
    "brackets": ("a: ", "[", ""),
    "indentation": ("a: ", "- ", ""),
}


def large(case: str, size_bytes: int) -> str:
    """A recipe of about this size."""
    before, middle, after = LARGE[case]
    count = (size_bytes - len(before) - len(after)) // len(middle.format("1234567"))
    if "{" not in middle.replace("{{", ""):
        return before + middle.format() * count + after
    return before + "".join(middle.format(number) for number in range(count)) + after


def check_large(world: World, text: str, most_seconds: float) -> None:
    assert len(text) <= MAX_TEXT_BYTES
    started = time.process_time()
    error = mistake(world, text)
    assert time.process_time() - started < most_seconds
    lines = str(error).split("\n")
    assert len(lines) <= 101
    assert all(line.isprintable() and len(line) < 5000 for line in lines)


@pytest.mark.parametrize("case", LARGE)
def test_pages_of_anything_take_no_time(world: World, case: str) -> None:
    check_large(world, large(case, 50_000), 3)


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_the_longest_recipes_of_anything_take_seconds(world: World, case: str) -> None:
    check_large(world, large(case, MAX_TEXT_BYTES - 1000), 12)


@pytest.mark.parametrize("text", [b"a: \xff\n", b"\xff\xfe", b"a: \xed\xa0\x80\n", "merge_method".encode("utf-16")])
def test_bytes_that_are_no_text(world: World, text: bytes) -> None:
    error = mistake(world, text)
    assert isinstance(error, UsageError)
    one_line(error, "recipe.yml: the recipe is not UTF-8 text")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a\0b",
            "x/a\0b/c",
            "\x1b[2J",
            "two\nlines",
            "\ud800",
            "\udcff",
            "a" * 300,
            "a" * 100_000,
            "a/" * 5000,
            "~x/y",
        ),
        *("..", "/", "/dev/zero", "/dev/null", "victim/model.safetensors", "~", " ", "\u202e"),
    ],
    ids=short,
)
def test_a_model_that_is_called_anything(world: World, name: str) -> None:
    error = mistake(world, f"merge_method: passthrough\nmodels:\n  - model: {{path: {json.dumps(name)}}}\n")
    assert isinstance(error, (InputError, RecipeError))
    one_line(error)


@pytest.mark.parametrize("path", ["a" * 300, "a" * 100_000, "~nobody_at_all/x", "\0", "\udcff", "/dev/null"], ids=short)
def test_a_map_that_leads_anywhere(world: World, path: str) -> None:
    with pytest.raises(InputError) as caught:
        plait.plan(world.folder / "copy.yml", maps={"victim": path})
    one_line(caught.value, "victim")
