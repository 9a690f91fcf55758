"""Models that cannot be merged with each other: one line says what they are, not only which tensor is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from merge_support import compiled, decoder_shapes, model
from plait.engine.errors import InputError

if TYPE_CHECKING:
    from plait.engine.model import Model

AVERAGE = """
    merge_method: linear
    models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
    """
DOWN = "model.layers.2.mlp.down_proj.weight"
GPTQ = {"quantization_config": {"quant_method": "gptq"}}


def refusal(a: Model, b: Model) -> list[str]:
    with pytest.raises(InputError) as caught:
        compiled(AVERAGE, a, b)
    return str(caught.value).splitlines()


def shapes(**changed: Any) -> dict[str, tuple[int, ...]]:
    return decoder_shapes(4) | changed


def test_arithmetic_on_float8_names_model_and_tensor() -> None:
    held = model("b", shapes(), dtypes={DOWN: torch.float8_e4m3fn})
    (line,) = refusal(model("a", shapes()), held)
    assert line.startswith(f"b: {DOWN} is stored as float8_e4m3fn, and quantised weights can only be passed through")


def test_what_is_stacked_only_may_be_float8() -> None:
    text = "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n"
    found = compiled(text, model("a", shapes(), dtypes={DOWN.replace("2", "1"): torch.float8_e4m3fn}))
    specs = {name: island.spec.dtype for island in found.graph.islands for name in island.outputs}
    assert specs[DOWN.replace("2", "1")] is torch.float8_e4m3fn


def test_packed_integers_of_two_models_are_not_copied_from_the_first_one() -> None:
    packed = {"model.layers.2.mlp.down_proj.qweight": (4, 8)}
    a, b = (
        model(name, shapes(**packed), dtypes=dict.fromkeys(packed, torch.int32), config=GPTQ) for name in ("a", "b")
    )
    (line,) = refusal(a, b)
    assert line.startswith("a: model.layers.2.mlp.down_proj.qweight is stored as int32 (quantised: gptq), and")


def test_integers_that_are_no_weights_are_copied_still() -> None:
    table = {"model.layers.2.positions": (4,)}
    a, b = (model(name, shapes(**table), dtypes=dict.fromkeys(table, torch.int64)) for name in ("a", "b"))
    assert [stored.name for stored in compiled(AVERAGE, a, b).graph.unused] == list(table)


@pytest.mark.parametrize("quantised_one", ["a", "b"])
def test_a_quantised_model_beside_another_one_is_called_that(quantised_one: str) -> None:
    packed = {name.replace("proj.weight", "proj.qweight"): shape for name, shape in shapes().items()}
    a, b = (
        model(name, packed if name == quantised_one else shapes(), config=GPTQ if name == quantised_one else {})
        for name in ("a", "b")
    )
    first, *rest = refusal(a, b)
    other = "b" if quantised_one == "a" else "a"
    assert first.startswith(f"{quantised_one} is quantised (gptq), and {other} is not:")
    assert len(rest) == 2
    assert rest[0].startswith("b has no tensor model.layers.0.")


def test_models_of_two_architectures_are_called_that() -> None:
    other = {name.replace("model.layers", "transformer.h"): shape for name, shape in shapes().items()}
    a = model("a", shapes(), config={"architectures": ["LlamaForCausalLM"]})
    b = model("b", other | {"transformer.h.0.extra": (3,)}, config={"architectures": ["GPT2LMHeadModel"]})
    c = model("b", {name: shape for name, shape in other.items() if "down" not in name}, config=b.config)
    assert refusal(a, c)[0].startswith("b is a GPT2LMHeadModel, a a LlamaForCausalLM: ")
    same = model("b", {name: shape for name, shape in shapes().items() if "down" not in name}, config=a.config)
    assert refusal(a, same)[0] == "b has no tensor model.layers.0.mlp.down_proj.weight"


def test_shapes_that_differ_say_what_can_be_merged() -> None:
    (line,) = refusal(model("a", shapes()), model("b", shapes(**{DOWN: (8, 17)})))
    assert line == f"{DOWN} is [8, 16] in a and [8, 17] in b; only tensors of one shape can be merged"
