"""Links, pipes and names that an enemy made: nothing is waited for, written through, or shown as it is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import plait
import pytest
from hostile_support import VICTIM, World, entry, file_of, one_line, shard
from merge_support import plait as in_a_process
from merge_support import tensors_of
from plait.engine.errors import InputError, OutputError, PlaitError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


# ------------------------------------------------------------------------------------------------ links, pipes


def test_links_out_of_a_model_are_followed_and_their_targets_left_alone(world: World) -> None:
    # As in the Hub's cache, where every file of a model is a link to a blob elsewhere.
    blobs = world.folder / "blobs"
    blobs.mkdir()
    (world.victim / "tokenizer.json").write_text("{}")
    for number, path in enumerate(sorted(world.victim.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../blobs/{number}")
    assert not isinstance(world.merge(), PlaitError)
    assert not [path for path in world.out.iterdir() if path.is_symlink()]
    assert {name: each.tolist() for name, each in tensors_of(world.out).items()} == {
        name: each.tolist() for name, each in VICTIM.items()
    }


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", INDEX])
@pytest.mark.parametrize("kind", ["nowhere", "itself", "a folder", "a pipe", "zeros without end"])
def test_what_is_no_file_is_refused_and_not_waited_for(world: World, name: str, kind: str) -> None:
    if name == INDEX:
        shard(world, {})
    path = world.victim / name
    path.unlink()
    make_no_file(path, kind)
    if kind == "zeros without end" and not os.path.exists("/dev/zero"):  # noqa: PTH110
        pytest.skip("no /dev/zero here")
    world.refusal(str(path))


@pytest.mark.parametrize("kind", ["nowhere", "itself", "a folder", "a pipe", "zeros without end"])
def test_a_card_that_is_no_file_is_left(world: World, kind: str) -> None:
    make_no_file(world.victim / "README.md", kind)
    assert not isinstance(world.merge(), PlaitError)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["nowhere", "itself", "a pipe", "zeros without end"])
def test_a_tokenizer_that_is_no_file_is_not_left_out_in_silence(world: World, name: str, kind: str) -> None:
    make_no_file(world.victim / name, kind)
    world.refusal(str(world.victim / name))


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_a_folder_by_the_name_of_a_tokenizer_is_left(world: World, name: str) -> None:
    make_no_file(world.victim / name, "a folder")
    assert not isinstance(world.merge(), PlaitError)
    assert not (world.out / name).exists()


def make_no_file(path: Path, kind: str) -> None:
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes with names here")
        os.mkfifo(path)
    else:
        path.symlink_to({"nowhere": "absent", "itself": path.name, "zeros without end": "/dev/zero"}[kind])


def test_an_output_that_is_a_link_stays_one_and_its_folder_is_replaced(world: World) -> None:
    real = world.folder / "elsewhere" / "real"
    real.mkdir(parents=True)
    world.out.symlink_to(real)
    (real / "model.safetensors").write_bytes(b"old")
    (real / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        plait.plan(world.folder / "copy.yml").run(world.out)
    plait.plan(world.folder / "copy.yml").run(world.out, overwrite=True)
    assert world.out.is_symlink()
    assert (real / "notes.txt").read_text() == "mine"
    assert set(tensors_of(real)) == set(VICTIM)
    assert [path.name for path in real.parent.iterdir()] == ["real"]


def test_links_in_an_output_are_replaced_and_not_written_through(world: World) -> None:
    world.out.mkdir()
    outside = world.folder / "outside"
    outside.write_text("mine")
    for name in ("model.safetensors", "config.json", "README.md", "plait.yml", "plait.yml.tmp"):
        (world.out / name).symlink_to(outside)
    plait.plan(world.folder / "copy.yml").run(world.out, overwrite=True)
    assert outside.read_text() == "mine"
    assert not (world.out / "model.safetensors").is_symlink()


def test_an_output_that_no_folder_can_be_called(world: World) -> None:
    with pytest.raises(OutputError) as caught:
        plait.plan(world.folder / "copy.yml").run(world.folder / ("x" * 5000))
    one_line(caught.value)


def test_an_output_that_is_a_link_to_itself_is_refused(world: World) -> None:
    world.out.symlink_to("out")
    with pytest.raises(PlaitError):
        plait.plan(world.folder / "copy.yml").run(world.out)


# ------------------------------------------------------------------------------------------------ names in messages

TITLE = "\x1b]0;mine\x07"


def test_messages_show_what_names_hide(world: World) -> None:
    for name in (f"a{TITLE}b", "a\nerror: forged", "\u2028a", "a\u202eb"):
        folder = world.folder / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x")
        (world.folder / "named.yml").write_text(f"merge_method: passthrough\nmodels: [{json.dumps(name)}]\n")
        with pytest.raises(InputError) as caught:
            plait.plan(world.folder / "named.yml")
        one_line(caught.value, ascii(name)[1:-1])
    (folder / "sub\nfolder").mkdir()
    (folder / "sub\nfolder" / "x.safetensors").write_bytes(b"x")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        plait.plan(world.folder / "named.yml")
    one_line(caught.value, "sub\\nfolder")


def test_a_file_whose_name_is_not_unicode(world: World) -> None:
    name = os.fsdecode(b"weights\xff.safetensors")
    try:
        world.file.rename(world.victim / name)
    except OSError:
        pytest.skip("this file system has no such names")
    assert not isinstance(world.merge(), PlaitError)
    manifest = json.loads((world.out / "plait-manifest.json").read_text())
    assert manifest["inputs"][0]["files"][0]["name"] == name


def test_on_the_command_line_a_hostile_model_is_one_line_and_its_code(world: World) -> None:
    world.file.write_bytes(file_of({TITLE: entry()}, bytes(8)))
    before = world.surroundings()
    finished = in_a_process("run", "copy.yml", "out", cwd=world.folder)
    assert finished.returncode == 3
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    assert "victim/model.safetensors: tensor '\\x1b]0;mine\\x07': the name" in line
    assert line.isprintable()
    assert world.surroundings() == before
    assert not world.out.exists()
