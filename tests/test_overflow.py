"""What becomes infinity on the way to the output: counted, told of, the same however a run went; and what stands in
for a look into every input: ops that keep NaN and infinity."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plait as api
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_support import save_model, tensors_of
from plain_ops import run_kernel
from plait.engine.errors import InputError, Interrupted
from plait.engine.finite import looked_into
from plait.engine.journal import read_journal
from plait.engine.opdef import Tile, load, never, ops
from plait.ops.elect import agree_sum, elect
from plait.ops.elementwise import cast, sub
from resume_support import JOURNAL, contents, interrupt, merge
from support import Merge, family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_support import Said

SHAPES = {"model.embed_tokens.weight": (97, 211), "model.norm.weight": (4099,), "lm_head.weight": (97, 211)}
CONFIG = {"model_type": "llama"}
LARGE = 60_000.0  # twice of it is above float16's 65 504
BAD = (math.nan, math.inf, -math.inf)


def write_models(
    folder: Path, dtypes: tuple[str, ...] = ("bfloat16", "bfloat16")
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Models a, b, … with numbers around float16's limit at some places; their values in float64."""
    random = np.random.default_rng(3)
    values = []
    for name, dtype in zip("abc", dtypes, strict=False):
        tensors = {}
        for tensor, shape in SHAPES.items():
            data = random.normal(0, 1, shape)
            if tensor != "model.norm.weight":
                data = np.where(random.random(shape) < 0.05, random.choice([-LARGE, LARGE], shape), data)
            tensors[tensor] = torch.from_numpy(data).to(getattr(torch, dtype))
        save_model(folder / name, tensors, CONFIG)
        values.append({tensor: data.double().numpy() for tensor, data in tensors.items()})
    return values


def write_recipe(folder: Path, *weights: float, dtype: str = "float16", method: str = "linear") -> None:
    """The sum of the models."""
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in zip("abc", weights, strict=False)]
    recipe = {"merge_method": method, "models": models, "parameters": {"normalize": False}, "dtype": dtype}
    (folder / "recipe.yml").write_text(yaml.safe_dump(recipe))


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "plait-manifest.json").read_text())
    return found


def too_large(values: list[dict[str, np.ndarray[Any, Any]]]) -> dict[str, int]:
    """By tensor, how many elements of the models' sum float16 has no number for."""
    sums = {tensor: sum(each[tensor] for each in values) for tensor in SHAPES}
    with np.errstate(over="ignore"):
        counts = {tensor: int(np.isinf(total.astype(np.float16)).sum()) for tensor, total in sums.items()}
    return {tensor: count for tensor, count in counts.items() if count}


# ------------------------------------------------------------------------------------------------ counted


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("float16", "float32")])
def test_every_element_is_counted_once_whatever_the_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes: tuple[str, ...]
) -> None:
    expected = too_large(write_models(tmp_path, dtypes))
    assert set(expected) == {"model.embed_tokens.weight", "lm_head.weight"}
    write_recipe(tmp_path, 1, 1)
    made = []
    for tile_elements, workers in ((1 << 19, 1), (4096, 1), (4096, 3), (8192, 2)):
        monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", tile_elements)
        result = api.plan(tmp_path / "recipe.yml", workers=workers).run(tmp_path / "out", overwrite=True)
        assert manifest(tmp_path / "out")["overflows"] == expected
        assert list(result.warnings) == [
            f"{name}: {count} elements are too large for float16 and became infinity"
            for name, count in expected.items()
        ]
        made.append(contents(tmp_path / "out"))
    assert all(each == made[0] for each in made)
    assert {name: int(data.isinf().sum()) for name, data in tensors_of(tmp_path / "out").items()} == {
        name: expected.get(name, 0) for name in SHAPES
    }


def test_nothing_is_said_where_everything_fits(tmp_path: Path) -> None:
    write_models(tmp_path)
    write_recipe(tmp_path, 0.5, 0.5)
    assert api.plan(tmp_path / "recipe.yml").run(tmp_path / "out").warnings == ()
    assert manifest(tmp_path / "out")["overflows"] == {}


def test_other_dtypes_overflow_too(tmp_path: Path) -> None:
    most = torch.finfo(torch.bfloat16).max
    tensors = {"lm_head.weight": torch.tensor([most, -most, most / 2, 1.0], dtype=torch.bfloat16)}
    for name in "ab":
        save_model(tmp_path / name, tensors, CONFIG)
    write_recipe(tmp_path, 1, 1, dtype="bfloat16")
    warnings = api.plan(tmp_path / "recipe.yml").run(tmp_path / "out").warnings
    assert warnings == ("lm_head.weight: 2 elements are too large for bfloat16 and became infinity",)


def test_a_type_is_changed_with_a_word_and_a_copy_without_a_look(tmp_path: Path) -> None:
    tensors = {"lm_head.weight": torch.tensor([1e5, 1.0, math.inf]), "model.norm.weight": torch.tensor([2e5])}
    save_model(tmp_path / "a", tensors, CONFIG)
    recipe = {"merge_method": "passthrough", "models": [{"model": "a"}], "dtype": "float16"}
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=r"a: lm_head.weight \[3\] holds infinity at \[2\]"):
        api.plan(tmp_path / "recipe.yml").run(tmp_path / "out")
    result = api.plan(tmp_path / "recipe.yml").run(tmp_path / "out", overwrite=True, allow_nonfinite=True)
    assert manifest(tmp_path / "out")["overflows"] == {"lm_head.weight": 1, "model.norm.weight": 1}
    assert "lm_head.weight: 1 element is too large for float16 and became infinity" in result.warnings
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe | {"dtype": "float32"}))
    assert api.plan(tmp_path / "recipe.yml").run(tmp_path / "copy").warnings == ()


def test_what_was_infinity_before_did_not_become_it(tmp_path: Path) -> None:
    values = write_models(tmp_path)
    expected = too_large(values)
    a, name = tensors_of(tmp_path / "a"), "lm_head.weight"
    summed = np.abs(values[0][name] + values[1][name])
    fits, overflows = np.argwhere(summed < 65_000)[:40], np.argwhere(summed > 70_000)[:9]
    for index, place in enumerate((*fits, *overflows)):
        a[name][tuple(place)] = BAD[index % 3]
    save_model(tmp_path / "a", a, CONFIG)
    write_recipe(tmp_path, 1, 1)
    result = api.plan(tmp_path / "recipe.yml").run(tmp_path / "out", allow_nonfinite=True)
    assert manifest(tmp_path / "out")["overflows"] == expected | {name: expected[name] - len(overflows)}
    assert "a: NaN or infinity let through in lm_head.weight" in result.warnings


def test_a_tensor_under_two_names_counts_under_both_and_many_are_one_line(
    tmp_path: Path, say: Callable[..., Said]
) -> None:
    layers = {f"model.layers.{index}.mlp.up_proj.weight": torch.full((2, 3), LARGE) for index in range(2)}
    save_model(tmp_path / "a", layers, CONFIG | {"num_hidden_layers": 2})
    part = {"sources": [{"model": "a", "layer_range": [0, 2], "parameters": {"scale": 2.0}}]}
    recipe = {"merge_method": "passthrough", "slices": [part, part], "dtype": "float16"}
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    told = say("run", "recipe.yml", "out", "--json", cwd=tmp_path)
    assert told.code == 0, told.err
    names = [f"model.layers.{index}.mlp.up_proj.weight" for index in range(4)]
    assert manifest(tmp_path / "out")["overflows"] == dict.fromkeys(names, 6)
    (said,) = told.report["warnings"]
    assert said == (
        f"{names[0]}, {names[2]}, {names[1]} and 1 more: 24 elements are too large for float16 and became infinity; "
        "plait-manifest.json has them by tensor"
    )
    assert "24 elements are too large" in told.err.replace("\n", " ")


# ------------------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("method", ["linear", "della"])
@pytest.mark.parametrize("number", [5, 12, 20])
def test_a_run_that_goes_on_counts_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    monkeypatch.setattr("plait.engine.recorder.BATCH_SECONDS", 0.002)
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 4096)
    write_models(tmp_path, ("bfloat16",) * 3)
    write_recipe(tmp_path, 1, 1, 1)
    if method == "della":
        models = [{"model": name, "parameters": {"weight": 1.0, "density": 0.7}} for name in "bc"]
        recipe = {"merge_method": "della", "base_model": "a", "models": models, "dtype": "float16"}
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    whole = merge(tmp_path, "whole", shard_size=30_000, workers=1)
    interrupt(tmp_path, number, shard_size=30_000, workers=2)
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 12_288)
    result = merge(tmp_path, resume=True, shard_size=30_000, workers=2)
    assert result.resumed
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert manifest(tmp_path / "out")["overflows"] == manifest(tmp_path / "whole")["overflows"] != {}
    assert result.warnings == whole.warnings


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_shard_that_is_whole_before_the_journal_says_so_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.engine.plan.FULL_SPEED_TILE_ELEMENTS", 4096)
    write_models(tmp_path)
    write_recipe(tmp_path, 1, 1)
    merge(tmp_path, "whole", shard_size=30_000)
    with monkeypatch.context() as patch:
        patch.setattr("plait.loaders.folder.OutputFolder.take_from", stop)
        with pytest.raises(Interrupted):
            merge(tmp_path, shard_size=30_000)
    # As after a kill right behind the last shard's rename: the journal's last batch is not there.
    journal = tmp_path / "out" / JOURNAL
    found = read_journal(journal)
    assert found is not None
    assert found[1][-1].overflows
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    merge(tmp_path, resume=True, shard_size=30_000)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert manifest(tmp_path / "out")["overflows"] == manifest(tmp_path / "whole")["overflows"]


# ------------------------------------------------------------------------------------------------ told by the output

CALLS: dict[str, tuple[int, dict[str, Any]]] = {
    "cast": (1, {}),
    "sub": (2, {}),
    "add": (4, {}),
    "scale": (1, {"factor": 1e-42}),
    "drop": (1, {"density": 0.5, "ordinal": 0}),
}


def test_every_op_that_may_say_so_is_tried() -> None:
    says_so = {name for name, each in ops().items() if each.keeps_nonfinite is not never}
    assert says_so == {*CALLS, "agree_sum"}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_op_that_says_so_keeps_nan_and_infinity(name: str, data: st.DataObject) -> None:
    count, attrs = CALLS[name]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    out = data.draw(st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]))
    elements = data.draw(st.integers(1, 70))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ins = [torch.from_numpy(random.normal(0, 1, elements)).to(dtype) for _ in range(count)]
    places = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, elements - 1)), min_size=1))
    for position, element in places:
        ins[position][element] = data.draw(st.sampled_from(BAD))
        if data.draw(st.booleans()):  # a NaN whose payload is in its last bits
            bits = ins[position].view(torch.int32 if dtype == torch.float32 else torch.int64)
            bits[element] |= 1
    given_attrs = attrs | ({"dtype": out} if name == "cast" else {})
    with np.errstate(invalid="ignore"):
        found = run_kernel(ops()[name], ins, out if name == "cast" else dtype, Tile(0, elements), given_attrs)
    assert not any(found[element].isfinite() for _, element in places)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 5).flatmap(
        lambda count: st.lists(
            st.tuples(*[st.sampled_from([*BAD, *BAD, 0.0, -0.0, 0.5, -2.0, "most", "least"])] * count), min_size=1
        )
    ),
)
def test_a_vote_keeps_nan_and_infinity(dtype: torch.dtype, elements: list[tuple[float | str, ...]]) -> None:
    extremes = {"most": torch.finfo(dtype).max, "least": torch.finfo(dtype).min}
    values = [[extremes.get(value, value) for value in element] for element in elements]  # type: ignore[call-overload]
    parts = list(torch.tensor(values, dtype=dtype).T.contiguous())
    sign = run_kernel(elect, parts, dtype, Tile(0, len(values)), {})
    found = run_kernel(agree_sum, [sign, *parts], dtype, Tile(0, len(values)), {})
    spoiled = ~torch.stack(parts).isfinite().all(0)
    assert not bool((found.isfinite() & spoiled).any())


def test_a_vote_of_others_may_hide_infinity() -> None:
    deltas = [cast(load(shape=(3,), dtype=torch.bfloat16, slot=slot), dtype=torch.float32) for slot in range(3)]
    base, *parts = deltas
    parts = [sub(part, base) for part in parts]
    assert agree_sum.keeps_nonfinite(agree_sum(elect(*parts), *parts))
    assert not agree_sum.keeps_nonfinite(agree_sum(elect(parts[0]), *parts))


@pytest.mark.parametrize(
    ("name", "looked"),
    [("linear", set()), ("task_arithmetic", set()), ("dare_linear", set()), ("dare_ties", set()), ("slerp", {0, 1})],
)
def test_the_output_tells_of_what_always_reaches_it(name: str, looked: set[int]) -> None:
    # slerp: a coefficient may be anything.
    models = family({"matrix": (120, 90)}, (torch.bfloat16,) * 4)
    entries = [(ref, {"weight": 0.5, "density": 0.5} if "dare" in name else {"weight": 0.5}) for ref in ("m0", "m1")]
    if name == "slerp":
        entries = [("base", {}), ("m0", {})]
    base = None if name == "linear" else "base"
    for program in Merge(name, models, entries, base, {"t": 0.5} if name == "slerp" else {}).plan().programs.values():
        loads = program.program.loads
        assert {loads.index(load) for load in looked_into(program.passes, 0)} == looked
