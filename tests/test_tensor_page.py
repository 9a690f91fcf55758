"""Op graphs as trees, and the page of one tensor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from plait.engine.devices import pretended
from plait.loaders.checkpoint import open_model
from plait.views import dry_run
from view_support import DARE, LAYERS, SCALED, page, passthrough

if TYPE_CHECKING:
    from pathlib import Path

NAME = "model.layers.5.mlp.up_proj.weight"


def tensor_page(merge, name: str = NAME, width: int | None = None) -> str:
    return "\n".join(line.plain for line in dry_run.tensor_page(merge, name, width))


def part(text: str, title: str) -> list[list[str]]:
    """The lines of a table, below its titles, in words."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"  {title} "))
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return [line.split() for line in lines[start + 1 : end]]


def test_ops_are_shown_with_dtype_shape_and_bytes(planned) -> None:
    lines = page(planned(DARE), verbose=True).splitlines()
    write = next(line for line in lines if line.startswith("  write  ") and "bfloat16" in line)
    assert write.split()[1:] == ["bfloat16", "weight", "[512,", "64]", "64.0", "KiB"]
    drop = next(line for line in lines if "density=0.6 " in line)
    assert drop.split()[-8:] == ["float32", "delta", "element", "cpu", "[512,", "64]", "128", "KiB"]


def test_the_short_tree_leaves_out_casts_shapes_and_bytes_that_do_not_move(planned) -> None:
    text = page(planned(DARE))
    tree = text[text.index("ops [1]") :].splitlines()
    assert "[512, 64], 1 pass" in tree[0]
    assert [line.split()[0] for line in tree[2:4]] == ["write", "add"]
    assert not any("cast" in line for line in tree)
    assert all(("KiB" in line) == (" load " in line or "write" in line) for line in tree[2:] if line)


def test_an_op_with_several_users_is_drawn_once_and_named_where_it_is_taken(planned) -> None:
    tree = page(planned(DARE)).split("ops [1]")[1]
    assert tree.count("load A") == 1
    assert "#1 load A" in tree
    assert tree.count("sub(↓, #1)") == 2
    assert tree.count("agree_sum(↓, #2, #3)") == 1


def test_one_tensor_has_a_page_with_its_own_numbers(planned) -> None:
    text = tensor_page(planned(DARE.replace("weight: 0.5", "weight: [0.0, 1.1]")))
    assert "factor=0.8333" in text  # 5/11 of the way from 0 to 1.1, over the density
    assert ["B", "weight", "0.5"] in part(text, "parameter")
    assert ["C", "density", "0.55"] in part(text, "parameter")


def test_sources_are_named_with_file_and_offset(planned, view_family: Path) -> None:
    text = tensor_page(planned(DARE))
    for mark, folder in zip("ABC", ("base", "ft1", "ft2"), strict=True):
        stored = open_model(folder, view_family / folder).tensors[NAME]
        (line,) = (words for words in part(text, "read") if words[0] == mark)
        assert line[1] == NAME
        assert "".join(line[5:]) == f"model.safetensors{stored.offset_bytes}"


def test_where_a_tensor_goes_is_what_the_written_header_says(planned, tmp_path) -> None:
    merge = planned(passthrough(("BASE", 0, 4), ("BASE", 3, 4), ("BASE", 3, 4)))
    merge.run(tmp_path / "out")
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    lines = part(tensor_page(merge, "model.layers.3.mlp.up_proj.weight"), "written")
    found = {line[0]: int("".join(line[5:])) for line in lines[:3]}
    assert found == {
        f"model.layers.{layer}.mlp.up_proj.weight": 8
        + header_bytes
        + header[f"model.layers.{layer}.mlp.up_proj.weight"]["data_offsets"][0]
        for layer in (3, 4, 5)
    }
    assert " ".join(lines[3]) == "made once and written 3 times"


def test_passes_are_those_of_the_plan(planned) -> None:
    merge = planned(DARE + "    parameters: {rescale: l1}\n")
    program = merge.plan.programs[merge.plan.island_of(NAME).program]
    lines = part(tensor_page(merge), "pass")
    assert [line[0] for line in lines[: len(program.passes)]] == [str(n + 1) for n in range(len(program.passes))]
    assert len(program.passes) == 2
    assert "from one pass to the next" in " ".join(lines[-1])


def test_the_device_is_shown_where_passes_run_on_several(planned) -> None:
    recipe = DARE + "    parameters: {rescale: l1}\n"
    merge = planned(recipe, device=pretended())
    program = merge.plan.programs[merge.plan.island_of(NAME).program]
    places = ["pretended:0" if program.on_device(index) else "cpu" for index in range(len(program.passes))]
    assert "pretended:0" in places
    assert [line[2] for line in part(tensor_page(merge), "pass")[: len(places)]] == places
    ops = [
        line for line in page(merge).split("\nops ")[1].splitlines()[2:] if "load" not in line and "write" not in line
    ]
    assert all(" cpu " in line for line in ops if "abs_sum" in line)  # sums stay on the host
    assert all("pretended:0" in line for line in ops if "abs_sum" not in line)
    assert "device" not in page(planned(recipe, device="cpu")).split("\nops ")[1]


def test_what_is_filled_reads_nothing(planned) -> None:
    merge = planned(passthrough(("BASE", 0, LAYERS), ("BASE", LAYERS - 1, LAYERS, SCALED)))
    text = tensor_page(merge, f"model.layers.{LAYERS}.mlp.down_proj.weight")
    assert "nothing is read" in text
    assert "fill value=0" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_tensor_page_is_no_wider_than_the_terminal(planned, width) -> None:
    merge = planned(DARE)
    assert max(map(len, tensor_page(merge, width=width).splitlines())) <= width
