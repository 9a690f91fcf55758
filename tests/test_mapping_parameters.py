"""Which value of a parameter reaches which tensor: scopes, filters, gradients; and the base among the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from merge_support import compiled, decoder_shapes, down, factors, model
from plait.engine.errors import InputError, RecipeError

if TYPE_CHECKING:
    from plait.engine.compile import Compiled

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


def o_proj(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.o_proj.weight"


def average(weights: str, layers: int = 4, *, top: str = "") -> Compiled:
    """A sum of two models; ``weights`` is the parameter of the first one, the second one's is 0.5."""
    text = f"""
        merge_method: linear
        models:
          - model: a
            parameters: {{weight: {weights}}}
          - model: b
            parameters: {{weight: 0.5}}
        parameters: {{normalize: false{top}}}
        """
    return compiled(text, model("a", decoder_shapes(layers)), model("b", decoder_shapes(layers)))


# ------------------------------------------------------------------------------------------------ scopes

SCOPES = """
    merge_method: linear
    slices:
      - sources:
          - {{model: a, layer_range: [0, 4]{source}}}
          - {{model: b, layer_range: [0, 4], parameters: {{weight: 0.75}}}}
        {slice}
    parameters: {{normalize: false{top}}}
    """
OF_SOURCE, OF_SLICE, OF_TOP = ", parameters: {weight: 0.1}", "parameters: {weight: 0.2}", ", weight: 0.3"


@pytest.mark.parametrize(
    ("source", "part", "top", "expected"),
    [
        (OF_SOURCE, OF_SLICE, OF_TOP, 0.1),
        ("", OF_SLICE, OF_TOP, 0.2),
        ("", "", OF_TOP, 0.3),
        (OF_SOURCE, "", OF_TOP, 0.1),
        # Filters that miss give no value: the scope further out is asked.
        (", parameters: {weight: [{filter: o_proj, value: 0.1}]}", OF_SLICE, OF_TOP, 0.2),
    ],
)
def test_the_innermost_scope_that_has_a_value_counts(source: str, part: str, top: str, expected: float) -> None:
    text = SCOPES.format(source=source, slice=part, top=top)
    found = compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    assert factors(found, down(2)) == {"a": expected, "b": 0.75}


MODULES = """
    merge_method: linear
    modules:
      text_decoder:
        models:
          - {{model: a{entry}}}
          - {{model: b, parameters: {{weight: 0.75}}}}
        {module}
    parameters: {{normalize: false{top}}}
    """


@pytest.mark.parametrize(
    ("entry", "module", "top", "expected"),
    [(OF_SOURCE, OF_SLICE, OF_TOP, 0.1), ("", OF_SLICE, OF_TOP, 0.2), ("", "", OF_TOP, 0.3)],
)
def test_a_modules_parameters_stand_between_entry_and_top(entry: str, module: str, top: str, expected: float) -> None:
    text = MODULES.format(entry=entry, module=module, top=top)
    found = compiled(text, model("a", decoder_shapes(4)), model("b", decoder_shapes(4)))
    assert factors(found, down(2))["a"] == expected


def test_each_slice_has_its_own_parameters_and_the_ends_follow_first_and_last() -> None:
    text = """
        merge_method: linear
        slices:
          - sources: [{model: a, layer_range: [0, 2]}]
            parameters: {weight: 0.25}
          - sources: [{model: a, layer_range: [2, 4]}]
            parameters: {weight: 0.5}
        parameters: {normalize: false}
        """
    found = compiled(text, model("a", decoder_shapes(4)))
    names = [EMBEDDING, down(1), down(2), NORM, HEAD]
    assert [factors(found, name)["a"] for name in names] == [0.25, 0.25, 0.5, 0.5, 0.5]


def test_a_tensors_parameter_is_not_looked_for_with_a_model() -> None:
    text = """
        merge_method: linear
        models:
          - {model: a, parameters: {weight: 0.5, normalize: false}}
          - {model: b, parameters: {weight: 1.5}}
        """
    found = compiled(text, model("a", decoder_shapes(2)), model("b", decoder_shapes(2)))
    assert factors(found, down(0)) == {"a": 0.25, "b": 0.75}


# ------------------------------------------------------------------------------------------------ filters


def test_the_first_filter_that_matches_counts() -> None:
    found = average("[{filter: down_proj, value: 0.1}, {filter: layers.1, value: 0.2}, {value: 0.3}]")
    names = [down(1), o_proj(1), o_proj(2), EMBEDDING]
    assert [factors(found, name)["a"] for name in names] == [0.1, 0.2, 0.3, 0.3]


def test_a_star_matches_everything() -> None:
    found = average("[{filter: '*', value: 0.1}, {value: 0.3}]")
    assert factors(found, NORM)["a"] == 0.1


def test_a_models_filter_sees_the_name_of_its_own_tensor() -> None:
    text = """
        merge_method: passthrough
        slices:
          - sources: [{model: a, layer_range: [0, 4]}]
          - sources:
              - model: a
                layer_range: [2, 4]
                parameters: {scale: [{filter: layers.3., value: 0.25}, {value: 0.5}]}
        """
    found = compiled(text, model("a", decoder_shapes(4)))
    # Layers 4 and 5 of the output are 2 and 3 of the input.
    assert [factors(found, down(layer))["a"] for layer in (3, 4, 5)] == [1.0, 0.5, 0.25]


def test_a_required_value_that_filters_leave_out_is_an_error_with_the_tensor() -> None:
    with pytest.raises(InputError, match=r"a: no 'weight' for model\.embed_tokens\.weight"):
        average("[{filter: down_proj, value: 0.1}, {filter: o_proj, value: 0.1}]")


def test_tensors_of_other_values_have_other_programs_and_of_equal_values_one() -> None:
    found = average("[{filter: layers.1, value: 0.1}, {value: 0.3}]")
    programs = {
        down(layer): island.program
        for island in found.graph.islands
        for layer in range(4)
        if island.name == down(layer)
    }
    assert programs[down(0)] is programs[down(2)] is programs[down(3)]
    assert programs[down(1)] is not programs[down(0)]


# ------------------------------------------------------------------------------------------------ gradients


def test_a_gradient_runs_over_the_layers() -> None:
    found = average("[0.2, 0.4, 0.8]", layers=5)
    taken = [factors(found, down(layer))["a"] for layer in range(5)]
    assert taken == pytest.approx([0.2, 0.3, 0.4, 0.6, 0.8])


def test_what_is_outside_the_layers_has_the_first_number() -> None:
    found = average("[0.2, 0.4, 0.8]")
    assert [factors(found, name)["a"] for name in (EMBEDDING, NORM, HEAD)] == [0.2, 0.2, 0.2]


def test_a_gradient_starts_anew_in_every_slice() -> None:
    text = """
        merge_method: linear
        slices:
          - sources: [{model: a, layer_range: [0, 3]}]
          - sources: [{model: a, layer_range: [2, 4]}]
          - sources: [{model: a, layer_range: [3, 4]}]
        parameters: {normalize: false, weight: [0.2, 0.6]}
        """
    found = compiled(text, model("a", decoder_shapes(4)))
    taken = [factors(found, down(layer))["a"] for layer in range(6)]
    # One layer alone has the last number.
    assert taken == pytest.approx([0.2, 0.4, 0.6, 0.2, 0.6, 0.6])


def test_a_gradient_may_stand_under_a_filter() -> None:
    found = average("[{filter: down_proj, value: [0.2, 0.8]}, {value: 0.3}]", layers=3)
    assert [factors(found, down(layer))["a"] for layer in range(3)] == pytest.approx([0.2, 0.5, 0.8])
    assert factors(found, o_proj(1))["a"] == 0.3


# ------------------------------------------------------------------------------------------------ the base

ARITHMETIC = """
    merge_method: task_arithmetic
    base_model: base
    models:
      - {model: base}
      - {model: a, parameters: {weight: 0.4}}
      - {model: a, parameters: {weight: 0.3}}
      - {model: base, parameters: {weight: 5.0}}
    """


def test_a_base_among_the_models_counts_as_the_base_only() -> None:
    found = compiled(ARITHMETIC, model("base", decoder_shapes(2)), model("a", decoder_shapes(2)))
    (island,) = [island for island in found.graph.islands if island.name == down(0)]
    assert sorted(leaf.model for leaf in island.leaves) == ["a", "base"]
    scales = sorted(float(str(node.attr("factor"))) for node in island.program.nodes if node.op.name == "scale")
    assert scales == [0.3, 0.4]
    assert found.notes == ("base is the base and listed among the models: it counts as the base only",)


def test_a_base_that_a_method_does_not_use_is_not_read() -> None:
    text = "{merge_method: linear, base_model: base, models: [{model: a, parameters: {weight: 1}}]}"
    found = compiled(text, model("base", decoder_shapes(2)), model("a", decoder_shapes(2)))
    assert {leaf.model for island in found.graph.islands for leaf in island.leaves} == {"a"}


def test_slices_name_the_base_too() -> None:
    text = """
        merge_method: task_arithmetic
        base_model: base
        slices:
          - sources: [{model: a, layer_range: [0, 2], parameters: {weight: 1}}]
        """
    with pytest.raises(RecipeError, match=r"recipe\.yml:5:\d+: .*base.*among the sources"):
        compiled(text, model("base", decoder_shapes(2)), model("a", decoder_shapes(2)))


def test_a_weight_of_zero_reads_nothing_of_its_model() -> None:
    found = average("[{filter: layers.0, value: 0}, {value: 0.5}]")
    (island,) = [island for island in found.graph.islands if island.name == down(0)]
    assert [leaf.model for leaf in island.leaves] == ["b"]
