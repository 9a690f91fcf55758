"""The output folder: what is in it, that it is whole or not a model, and that nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plait
import pytest
import yaml
from checkpoints import write_family
from merge_support import file_bytes, tensors_of, write_recipe
from plait.engine.errors import InputError, OutputError, UsageError
from plait.loaders.folder import folder_beside
from safetensors import safe_open

if TYPE_CHECKING:
    from plait.engine.progress import Progress
    from plait.merge import MergeResult

SIDE_FILES = {
    "generation_config.json": '{"do_sample": true}\n',
    "tokenizer.json": '{"version": "1.0"}',
    "tokenizer_config.json": "{}",
    "special_tokens_map.json": "{}",
    "chat_template.jinja": "{{ messages }}\n",
    "tokenizer.model": "\x00sentencepiece",
    "modeling_own.py": "# remote code\n",
}
NOT_TAKEN = {"README.md": "# of the donor\n", "training_args.bin": "x", "optimizer.pt": "x", "notes.txt": "mine"}


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A base with side files and two fine-tunes, beside a recipe that merges them."""
    base, *_ = write_family(tmp_path / "family", "tiny", finetunes=2, shard_bytes=150_000)
    for name, text in (SIDE_FILES | NOT_TAKEN).items():
        (base / name).write_text(text)
    write_recipe(
        tmp_path / "recipe.yml",
        """\
        # a comment that stays
        merge_method: dare_ties   # é
        base_model: family/base
        models:
          - {model: family/ft1, parameters: {weight: 0.6, density: 0.5}}
          - {model: family/ft2, parameters: {weight: 0.3, density: 0.5}}
        dtype: bfloat16
        seed: 7
        """,
    )
    return tmp_path


def merge(
    folder: Path, out: str = "out", *, overwrite: bool = False, progress: Any = None, **given: Any
) -> MergeResult:
    return plait.plan(folder / "recipe.yml", **given).run(folder / out, overwrite=overwrite, progress=progress)


# ------------------------------------------------------------------------------------------------ shards


def test_one_shard_is_called_model_and_has_no_index(family: Path) -> None:
    merge(family)
    assert [path.name for path in (family / "out").glob("*.safetensors*")] == ["model.safetensors"]
    with safe_open(family / "out" / "model.safetensors", "pt") as shard:
        assert shard.metadata() == {"format": "pt"}


@pytest.mark.parametrize("limit", [70_000, 100_000, 300_000])
def test_shards_are_within_their_size_and_the_index_says_where_tensors_are(family: Path, limit: int) -> None:
    result = merge(family, shard_size=limit)
    out = family / "out"
    files = sorted(out.glob("*.safetensors"))
    count = len(files)
    assert count > 1
    assert [file.name for file in files] == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    index = json.loads((out / "model.safetensors.index.json").read_text())
    expected = tensors_of(family / "family" / "base")
    assert set(index["weight_map"]) == set(expected)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    for file in files:
        with safe_open(file, "pt") as shard:
            held = set(shard.keys())
            assert held == {name for name, place in index["weight_map"].items() if place == file.name}
            # A single tensor may be larger than a shard; a second one beside it may not.
            assert file.stat().st_size <= limit or len(held) == 1
    assert [shard["bytes"] for shard in result.shards] == [file.stat().st_size for file in files]
    assert result.bytes_written == sum(file.stat().st_size for file in files)


def test_shards_are_filled_and_hold_the_same_values_as_one(family: Path) -> None:
    merge(family, "one")
    result = merge(family, "many", shard_size=100_000)
    one, many = tensors_of(family / "one"), tensors_of(family / "many")
    assert one.keys() == many.keys()
    assert all(one[name].equal(many[name]) for name in one)
    total = sum(tensor.nbytes for tensor in one.values())
    assert len(result.shards) <= 2 * total / 100_000 + 1


# ------------------------------------------------------------------------------------------------ other files


def test_the_donors_files_come_along_and_its_own_stay(family: Path) -> None:
    merge(family)
    found = file_bytes(family / "out")
    assert {name: found[name] for name in SIDE_FILES} == {name: text.encode() for name, text in SIDE_FILES.items()}
    assert not set(found) & (set(NOT_TAKEN) - {"README.md"})
    assert set(found) == {
        *SIDE_FILES,
        "README.md",
        "config.json",
        "model.safetensors",
        "plait-manifest.json",
        "plait.yml",
    }


def test_the_recipe_is_kept_to_the_byte(family: Path) -> None:
    merge(family)
    assert (family / "out" / "plait.yml").read_bytes() == (family / "recipe.yml").read_bytes()


def test_the_manifest_says_what_went_in_and_what_came_out(family: Path) -> None:
    result = merge(family, shard_size=300_000)
    manifest = json.loads((family / "out" / "plait-manifest.json").read_text())
    assert manifest["version"] == plait.__version__
    assert manifest["seed"] == 7
    digest = hashlib.sha256((family / "recipe.yml").read_bytes()).hexdigest()
    assert manifest["recipe_sha256"] == result.recipe_sha256 == digest
    assert [entry["reference"] for entry in manifest["inputs"]] == ["family/base", "family/ft1", "family/ft2"]
    assert all(entry["bytes"] > 0 and entry["revision"] is None for entry in manifest["inputs"])
    base = family / "family" / "base"
    for file in manifest["inputs"][0]["files"]:
        assert file["bytes"] == (base / file["name"]).stat().st_size
        assert file["header_sha256"] == header_sha256(base / file["name"])
    for shard in manifest["shards"]:
        assert shard["bytes"] == (family / "out" / shard["name"]).stat().st_size
        assert shard["header_sha256"] == header_sha256(family / "out" / shard["name"])
    assert manifest["predicted_peak_bytes"] == result.predicted_peak_bytes
    assert manifest["measured_peak_bytes"] > 0
    assert manifest["seconds"] > 0


def header_sha256(file: Path) -> str:
    """The digest of a safetensors header, with or without its length prefix and padding as the manifest has it."""
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[:end]).hexdigest()


def test_the_card_renders(family: Path) -> None:
    merge(family)
    text = (family / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["library_name"] == "transformers"
    assert {"merge", "plait"} <= set(facts["tags"])
    assert (family / "recipe.yml").read_text().rstrip("\n") in body
    assert "dare_ties" in body
    assert "--seed 7" in body


def test_nothing_unfinished_is_left(family: Path) -> None:
    merge(family, shard_size=100_000)
    assert [path for path in family.rglob("*") if path.suffix in (".partial", ".tmp") or ".plait-" in path.name] == []


# ------------------------------------------------------------------------------------------------ refusals


def test_a_folder_that_holds_something_is_refused_and_left_alone(family: Path) -> None:
    (family / "out").mkdir()
    (family / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out is not empty; .*--overwrite"):
        merge(family)
    assert file_bytes(family / "out") == {"notes.txt": b"mine"}


def test_an_empty_folder_is_filled(family: Path) -> None:
    (family / "out").mkdir()
    merge(family)
    assert (family / "out" / "config.json").exists()


def test_the_working_directory_is_filled_like_any_other_folder(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge(family)
    here = family / "new" / "below"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    result = plait.plan(family / "recipe.yml").run(".")
    assert result.output == "."
    assert file_bytes(here)["model.safetensors"] == file_bytes(family / "out")["model.safetensors"]
    with pytest.raises(UsageError, match="is the working directory, or around it, and cannot be replaced from inside"):
        plait.plan(family / "recipe.yml").run("..", overwrite=True)
    assert [path.name for path in (family / "new").iterdir()] == ["below"]


def test_nothing_stands_beside_a_whole_file_system(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a whole file system; name a folder in it"):
        folder_beside(Path(tmp_path.anchor))


def test_a_file_is_not_a_folder(family: Path) -> None:
    (family / "out").write_text("mine")
    with pytest.raises(UsageError, match="out is a file"):
        merge(family)


@pytest.mark.parametrize("out", ["family/base", "family/base/merged", "family", "family/ft1/../ft2"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_inputs_are_never_written_to(family: Path, out: str, overwrite: bool) -> None:
    before = {path: path.stat().st_mtime_ns for path in (family / "family").rglob("*")}
    with pytest.raises(UsageError, match="overlaps with the input"):
        merge(family, out, overwrite=overwrite)
    assert {path: path.stat().st_mtime_ns for path in (family / "family").rglob("*")} == before


def test_an_input_behind_a_link_is_recognised(family: Path) -> None:
    (family / "linked").symlink_to(family / "family" / "ft1")
    with pytest.raises(UsageError, match="overlaps"):
        merge(family, "linked", overwrite=True)


def test_a_full_disk_is_noticed_before_anything_is_written(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.statvfs_result([0] * 10) and FULL)
    with pytest.raises(OutputError, match=r"needs .* of disk, and 1\.00 KiB are free"):
        merge(family)
    assert not list((family / "out").glob("*"))


class FULL:
    free = 1024


# ------------------------------------------------------------------------------------------------ replacing


def test_overwrite_replaces_the_model_and_keeps_what_is_somebodys_own(family: Path) -> None:
    merge(family, shard_size=100_000)
    out = family / "out"
    (out / "notes.txt").write_text("mine")
    (out / "runs").mkdir()
    (out / "runs" / "log.json").write_text("{}")
    (out / "scores.json").write_text("{}")
    (out / "tokenizer.json").write_text("of an older donor")
    (out / "leftover.safetensors").write_bytes(b"old")
    merge(family, overwrite=True, seed=8)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"notes.txt", "runs/log.json", "scores.json", "model.safetensors"} <= found
    assert (out / "tokenizer.json").read_text() == SIDE_FILES["tokenizer.json"]
    # Shards of the old model beside the new one would be read by some tools.
    assert not [name for name in found if name.startswith("model-") or name == "leftover.safetensors"]
    assert "model.safetensors.index.json" not in found
    assert json.loads((out / "plait-manifest.json").read_text())["seed"] == 8
    assert sorted(path.name for path in family.iterdir()) == ["family", "out", "recipe.yml"]


def test_a_leftover_of_an_interrupted_replacement_is_no_obstacle(family: Path) -> None:
    merge(family)
    expected = file_bytes(family / "out")["model.safetensors"]
    (family / "out.plait-new").mkdir()
    (family / "out.plait-new" / "model-00001-of-00009.safetensors.partial").write_bytes(b"half")
    merge(family, overwrite=True)
    assert file_bytes(family / "out")["model.safetensors"] == expected
    assert not list((family / "out").glob("*.partial"))


def test_nor_is_a_leftover_of_one_that_was_clearing_up(family: Path) -> None:
    merge(family)
    (family / "out.plait-old").mkdir()
    (family / "out.plait-old" / "model.safetensors").write_bytes(b"old")
    merge(family, overwrite=True, seed=8)
    assert sorted(path.name for path in family.iterdir()) == ["family", "out", "recipe.yml"]


def shrink_last_shard(folder: Path) -> None:
    last = max(folder.glob("*.safetensors"))
    os.truncate(last, last.stat().st_size - 10)


def test_a_failing_replacement_leaves_the_old_model_as_it_was(family: Path) -> None:
    merge(family)
    before = file_bytes(family / "out")
    planned = plait.plan(family / "recipe.yml", seed=8)
    shrink_last_shard(family / "family" / "ft2")
    with pytest.raises(InputError, match=r"ft2.*changed"):
        planned.run(family / "out", overwrite=True)
    assert file_bytes(family / "out") == before


def test_an_input_that_shrinks_is_an_error_and_the_output_is_no_model(family: Path) -> None:
    planned = plait.plan(family / "recipe.yml", shard_size=100_000)
    shrink_last_shard(family / "family" / "ft2")
    with pytest.raises(InputError, match=r"ft2.*changed"):
        planned.run(family / "out")
    assert not (family / "out" / "config.json").exists()
    assert not (family / "out" / "model.safetensors.index.json").exists()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("plait")] == []


def test_an_interrupted_run_leaves_no_model_either(family: Path) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(family, progress=interrupt)
    assert not (family / "out" / "config.json").exists()
    # It says whose it is, and is not silently taken for a free folder.
    assert (family / "out" / "plait.yml").exists()
    with pytest.raises(UsageError, match="not empty"):
        merge(family)
    merge(family, overwrite=True)
    assert (family / "out" / "config.json").exists()
    assert not list((family / "out").glob("*.partial"))
