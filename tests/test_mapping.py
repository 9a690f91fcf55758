"""From slices and layers to names: which input tensors make which output tensor."""

from __future__ import annotations

import pytest
import torch
from merge_support import compiled, decoder_shapes, model
from plait.engine.compile import Compiled, names_by_model
from plait.engine.errors import InputError, RecipeError

LAYER = "model.layers.{}.mlp.down_proj.weight"
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"

TWO_HALVES = """
    merge_method: passthrough
    slices:
      - sources: [{model: a, layer_range: [0, 3]}]
      - sources: [{model: b, layer_range: [1, 4]}]
    """
AVERAGE = """
    merge_method: linear
    models:
      - {model: a, parameters: {weight: 0.25}}
      - {model: b, parameters: {weight: 0.75}}
    """


def sources(found: Compiled) -> dict[str, list[str]]:
    """Output name → the inputs it is made from, as model:name, in the order they are read."""
    return {
        output: [f"{leaf.model}:{leaf.name}" for leaf in island.leaves]
        for island in found.graph.islands
        for output in island.outputs
    }


def output_names(found: Compiled) -> list[str]:
    return [tensor.name for tensor in found.mapping.tensors]


# ------------------------------------------------------------------------------------------------ slices


def test_layers_are_numbered_anew_through_the_slices() -> None:
    found = compiled(TWO_HALVES, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    made = sources(found)
    taken = [made[LAYER.format(layer)] for layer in range(6)]
    assert taken == [
        [f"{ref}:{LAYER.format(layer)}"] for ref, layer in [("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]
    ]
    assert LAYER.format(6) not in made
    assert found.mapping.stacks["model.layers"].source_layers == (0, 1, 2, 1, 2, 3)
    assert found.mapping.stacks["model.layers"].donor_layers == 4


def test_what_leads_comes_from_the_first_slice_and_what_trails_from_the_last() -> None:
    made = sources(compiled(TWO_HALVES, model("a", decoder_shapes(4)), model("b", decoder_shapes(4))))
    assert made[EMBEDDING] == [f"a:{EMBEDDING}"]
    assert made[NORM] == [f"b:{NORM}"]
    assert made[HEAD] == [f"b:{HEAD}"]


def test_tensors_come_out_in_the_models_order() -> None:
    found = compiled(TWO_HALVES, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    assert output_names(found) == list(decoder_shapes(6))


def test_layers_may_meet_other_layers() -> None:
    text = """
        merge_method: linear
        slices:
          - sources:
              - {model: a, layer_range: [0, 2], parameters: {weight: 0.5}}
              - {model: b, layer_range: [2, 4], parameters: {weight: 0.5}}
        """
    made = sources(compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(4))))
    assert made[LAYER.format(1)] == [f"a:{LAYER.format(1)}", f"b:{LAYER.format(3)}"]
    assert made[NORM] == [f"a:{NORM}", f"b:{NORM}"]


def test_a_slice_without_a_range_is_the_whole_stack() -> None:
    text = (
        "{merge_method: passthrough, slices: [{sources: [{model: a}]}, {sources: [{model: a, layer_range: [3, 4]}]}]}"
    )
    found = compiled(text, model("a", decoder_shapes(4)))
    assert found.mapping.stacks["model.layers"].source_layers == (0, 1, 2, 3, 3)


def test_a_layer_that_is_repeated_is_one_island() -> None:
    text = (
        "{merge_method: passthrough, slices: [{sources: [{model: a}]}, {sources: [{model: a, layer_range: [3, 4]}]}]}"
    )
    found = compiled(text, model("a", decoder_shapes(4)))
    (last,) = [island for island in found.graph.islands if island.name == LAYER.format(3)]
    assert last.outputs == (LAYER.format(3), LAYER.format(4))
    # Twice the same random drop would be wrong: every name has a mask of its own.
    text = """
        merge_method: dare_linear
        base_model: a
        slices:
          - sources: [{model: a}, {model: b}]
          - sources: [{model: a, layer_range: [3, 4]}, {model: b, layer_range: [3, 4]}]
        parameters: {weight: 1, density: 0.5}
        """
    found = compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    assert all(len(island.outputs) == 1 for island in found.graph.islands)


def test_a_range_beyond_the_last_layer_is_a_mistake_of_the_recipe() -> None:
    text = """
        merge_method: passthrough
        slices:
          - sources: [{model: a, layer_range: [0, 2]}]
          - sources: [{model: a, layer_range: [2, 5]}]
        """
    with pytest.raises(RecipeError) as caught:
        compiled(text, model("a", decoder_shapes(4)))
    (problem,) = caught.value.problems
    assert problem.where.line == 5
    assert str(problem).endswith("layer_range [2, 5], but a has 4 layers; its last layer is 3; write [2, 4]")


@pytest.mark.parametrize(
    ("ranges", "place"),
    [((", layer_range: [0, 2]", ", layer_range: [0, 3]"), "6:"), (("", ", layer_range: [0, 3]"), "4:")],
)
def test_sources_of_a_slice_take_equally_many_layers(ranges: tuple[str, str], place: str) -> None:
    text = f"""
        merge_method: linear
        slices:
          - sources:
              - {{model: a{ranges[0]}, parameters: {{weight: 1}}}}
              - {{model: b{ranges[1]}, parameters: {{weight: 1}}}}
        """
    with pytest.raises(RecipeError, match=rf"recipe\.yml:{place}\d+: .*layers"):
        compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))


def test_a_model_without_layers_has_none_to_take() -> None:
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (4, 4), "out.weight": (4, 4)}
    with pytest.raises(RecipeError, match="no stack of layers"):
        compiled(
            "{merge_method: passthrough, slices: [{sources: [{model: a, layer_range: [0, 1]}]}]}", model("a", shapes)
        )
    whole = compiled("{merge_method: passthrough, models: [{model: a}]}", model("a", shapes))
    assert output_names(whole) == ["embed.weight", "out.weight"]


# ------------------------------------------------------------------------------------------------ models


def test_models_merge_tensor_by_tensor() -> None:
    made = sources(compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", decoder_shapes(4))))
    assert made == {name: [f"a:{name}", f"b:{name}"] for name in decoder_shapes(4)}


def test_models_of_other_depth_are_refused_with_a_way_out() -> None:
    with pytest.raises(InputError, match="a has 4, b has 5; write slices:"):
        compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", decoder_shapes(5)))


def test_the_bases_depth_counts_where_the_base_is_used() -> None:
    text = """
        merge_method: task_arithmetic
        base_model: b
        models: [{model: a, parameters: {weight: 1}}]
        """
    with pytest.raises(InputError, match="differ in layers"):
        compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(5)))


def test_missing_tensors_are_named_with_their_model() -> None:
    lacking = {name: shape for name, shape in decoder_shapes(4).items() if not name.endswith("3.mlp.down_proj.weight")}
    with pytest.raises(InputError) as caught:
        compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", lacking))
    assert str(caught.value) == f"b has no tensor {LAYER.format(3)}"


def test_many_missing_tensors_are_named_in_one_go_and_then_counted() -> None:
    lacking = {name: shape for name, shape in decoder_shapes(12).items() if "down_proj" not in name}
    with pytest.raises(InputError) as caught:
        compiled(AVERAGE, model("a", decoder_shapes(12)), model("b", lacking))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"b has no tensor {LAYER.format(0)}"
    assert lines[-1] == "… and 4 tensors more"


def test_shapes_that_differ_are_named_with_both_models() -> None:
    wide = decoder_shapes(4) | {LAYER.format(2): (8, 17)}
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.down_proj\.weight is \[8, 16\] in a and \[8, 17\] in b"):
        compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", wide))


def test_vocabularies_that_differ_are_called_that() -> None:
    more = decoder_shapes(4) | {EMBEDDING: (20, 8), HEAD: (20, 8)}
    with pytest.raises(InputError, match=r"vocabularies differ: rows of model.embed_tokens.weight: a 16, b 20"):
        compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", more))


# ------------------------------------------------------------------------------------------------ odd models


def test_layers_of_one_stack_may_differ() -> None:
    shapes = decoder_shapes(4)
    for layer in (1, 2):
        del shapes[LAYER.format(layer)]
        for expert in range(2):
            shapes[f"model.layers.{layer}.mlp.experts.{expert}.weight"] = (8, 8)
    made = sources(compiled(AVERAGE, model("a", shapes), model("b", shapes)))
    assert set(made) == set(shapes)
    assert made["model.layers.2.mlp.experts.1.weight"] == [
        f"{ref}:model.layers.2.mlp.experts.1.weight" for ref in ("a", "b")
    ]


TIED = {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}


def test_a_tied_head_stays_tied() -> None:
    tied = decoder_shapes(4, head=False)
    found = compiled(AVERAGE, model("a", tied, config=TIED), model("b", tied, config=TIED))
    assert HEAD not in sources(found)
    assert not found.mapping.untied


def test_a_head_that_is_stored_although_it_is_tied_does_not_untie() -> None:
    twice = model("b", decoder_shapes(4), config=TIED)
    found = compiled(AVERAGE, model("a", decoder_shapes(4, head=False), config=TIED), twice)
    assert HEAD not in sources(found)
    assert not found.mapping.untied
    assert [stored.name for stored in found.graph.unused] == [HEAD]


def test_a_tied_model_meets_one_with_a_head_of_its_own() -> None:
    tied = model("b", decoder_shapes(4, head=False), config=TIED)
    found = compiled(AVERAGE, model("a", decoder_shapes(4)), tied)
    assert sources(found)[HEAD] == [f"a:{HEAD}", f"b:{EMBEDDING}"]
    assert not found.mapping.untied


def test_the_donors_tie_gives_way_to_another_models_head() -> None:
    tied = model("a", decoder_shapes(4, head=False), config=TIED)
    found = compiled(AVERAGE, tied, model("b", decoder_shapes(4)))
    assert sources(found)[HEAD] == [f"a:{EMBEDDING}", f"b:{HEAD}"]
    assert output_names(found)[-2:] == [NORM, HEAD]
    assert found.mapping.untied


def test_a_tied_head_on_top_of_another_models_embedding_is_written_out() -> None:
    tied = model("b", decoder_shapes(4, head=False), config=TIED)
    found = compiled(TWO_HALVES, model("a", decoder_shapes(4)), tied)
    assert sources(found)[HEAD] == [f"b:{EMBEDDING}"]
    assert not found.mapping.untied
    both = compiled(TWO_HALVES, model("a", decoder_shapes(4, head=False), config=TIED), tied)
    assert sources(both)[HEAD] == [f"b:{EMBEDDING}"]
    assert sources(both)[EMBEDDING] == [f"a:{EMBEDDING}"]
    assert both.mapping.untied


def test_a_tied_model_that_is_expanded_stays_tied() -> None:
    text = """
        merge_method: passthrough
        slices:
          - sources: [{model: a}]
          - sources: [{model: a, layer_range: [3, 4], parameters: {scale: [{filter: o_proj, value: 0}, {value: 1}]}}]
        """
    found = compiled(text, model("a", decoder_shapes(4, head=False), config=TIED))
    assert HEAD not in sources(found)
    assert not found.mapping.untied


def test_integers_come_from_the_first_model_as_they_are() -> None:
    shapes = decoder_shapes(2) | {"model.steps": (3,)}
    counts = {"model.steps": torch.int64}
    found = compiled(AVERAGE, model("a", shapes, dtypes=counts), model("b", shapes, dtypes=counts))
    (island,) = [island for island in found.graph.islands if island.name == "model.steps"]
    assert island.program.is_copy
    assert [leaf.model for leaf in island.leaves] == ["a"]
    assert island.spec.dtype == torch.int64


def test_tensors_that_no_output_uses_are_reported() -> None:
    extra = decoder_shapes(4) | {"vision.proj.weight": (3, 3)}
    found = compiled(AVERAGE, model("a", decoder_shapes(4)), model("b", extra))
    unused = names_by_model(found.graph.unused, [model("a", {}), model("b", {})])
    assert unused == {"b": ["vision.proj.weight"]}


def test_layers_that_no_slice_takes_are_reported_too() -> None:
    found = compiled(TWO_HALVES, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    unused = {f"{stored.model}:{stored.name}" for stored in found.graph.unused}
    assert f"a:{LAYER.format(3)}" in unused
    assert f"b:{LAYER.format(0)}" in unused
    assert f"b:{EMBEDDING}" in unused
    assert f"a:{LAYER.format(2)}" not in unused


# ------------------------------------------------------------------------------------------------ dtypes


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", torch.float16),
        ("dtype: bfloat16", torch.bfloat16),
        ("out_dtype: float32", torch.float32),
        ("dtype: float32, out_dtype: bfloat16", torch.bfloat16),
    ],
)
def test_the_output_has_the_dtype_that_the_recipe_names_else_the_stored_one(keys: str, expected: torch.dtype) -> None:
    text = f"{{merge_method: passthrough, models: [{{model: a}}], {keys}}}".replace(", }", "}")
    found = compiled(text, model("a", decoder_shapes(2), dtype=torch.float16))
    assert {island.spec.dtype for island in found.graph.islands} == {expected}
    assert all(island.program.is_copy == (expected == torch.float16) for island in found.graph.islands)


def test_a_donor_other_than_the_first_gives_its_dtype() -> None:
    text = "{merge_method: task_arithmetic, base_model: b, models: [{model: a, parameters: {weight: 1}}]}"
    halves = model("a", decoder_shapes(2), dtype=torch.float16)
    found = compiled(text, halves, model("b", decoder_shapes(2), dtype=torch.bfloat16))
    assert {island.spec.dtype for island in found.graph.islands} == {torch.bfloat16}
