"""Layers and parameters over depth: the bars of a page are those of the recipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.engine.recipe import interpolate
from plait.views import dry_run
from plait.views.bars import BLOCKS, bars
from plait.views.kinds import kind_by_program, kinds_of
from plait.views.layer_map import spans, tracks
from plait.views.layers import runs
from plait.views.parameters import settings_of
from view_support import DARE, LAYERS, SCALED, page, passthrough

SLERP = """
    merge_method: slerp
    base_model: BASE
    models: [{model: FT1}]
    parameters:
      t: TEE
    dtype: bfloat16
"""
FILTERS = "[{filter: self_attn, value: [0, 1]}, {filter: mlp, value: [1, 0]}, {value: 0.5}]"


def layer_lines(text: str, width: int | None = None) -> dict[str, tuple[str, str]]:
    """What stands below ``layers``: by label the bar and the words."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(("layers ", "model.layers ")))
    at = lines[start].index("0")
    stop = lines[start].index("model's layers")
    found = {}
    for line in lines[start + 1 : lines.index("", start)]:
        picture = line[at:stop] if line[at : at + 1] in {*BLOCKS, " "} else ""
        found[line[:at].strip()] = (picture.rstrip(), line[at + len(picture) :].strip())
    return found


def layers_of(merge):
    return [layer for run in runs(merge, kind_by_program(kinds_of(merge.plan.graph.islands))) for layer in run.layers]


def columns(layers: list[int | None], high: int = LAYERS - 1) -> str:
    """The bars of some layers, as wide as a page without a width has them: 64 columns for so many layers."""
    return bars(layers, 0, high, 64).rstrip()


# ----------------------------------------------------------------------------------------------- where layers come from


def test_every_model_of_a_merge_has_a_slope(planned) -> None:
    found = layer_lines(page(planned(DARE)))
    for mark, words in (("A", "base"), ("B", "weight 0.5  density 0.6"), ("C", "weight 0.4  density 0.55")):
        assert found[mark] == (columns(list(range(LAYERS))), f"0–{LAYERS - 1}  {words}")


def test_slices_of_models_stand_one_after_the_other(planned) -> None:
    found = layer_lines(page(planned(passthrough(("FT1", 0, 8), ("FT2", 4, 12)))))
    assert found["A"] == (columns([*range(8)] + [None] * 8), "0–7")
    assert found["B"] == (columns([None] * 8 + [*range(4, 12)]), "4–11")


def test_an_expansion_is_a_slope_and_a_step(planned) -> None:
    text = page(planned(passthrough(("BASE", 0, LAYERS), *[("BASE", LAYERS - 1, LAYERS, SCALED)] * 5)))
    found = layer_lines(text)
    assert found["A"] == (columns([*range(LAYERS)] + [LAYERS - 1] * 5), "0–11, 11 (5 times)")
    assert found["scale o_proj"][1] == found["scale down_proj"][1] == "0 in 12–16"
    assert found["scale rest"] == (bars([None] * LAYERS + [1.0] * 5, 0, 1, 64), "1 in 12–16")


def test_a_layer_that_comes_again_is_paler(planned) -> None:
    merge = planned(passthrough(("BASE", 0, LAYERS), ("BASE", LAYERS - 1, LAYERS)))
    line = next(line for line in dry_run.page(merge, None, free_disk_bytes=1) if line.plain.startswith("  A  "))
    pale = {at for span in line.spans if "dim" in str(span.style) for at in range(span.start, span.end)}
    bar = [at for at, letter in enumerate(line.plain) if letter in BLOCKS]
    assert pale == set(bar[-len(bar) // (LAYERS + 1) :])


def test_many_layers_share_columns_and_none_is_wider_than_the_screen(planned) -> None:
    text = page(planned(passthrough(*[("BASE", 0, LAYERS)] * 10)), 80)
    assert "model's layers, 3 a column" in text
    assert max(map(len, text.splitlines())) <= 80


@given(st.lists(st.none() | st.integers(0, 40), max_size=60))
def test_words_for_layers_count_all_of_them(layers: list[int | None]) -> None:
    said = spans(layers)
    given_layers = [layer for layer in layers if layer is not None]
    if " of " in said or " again" in said:
        different = len(set(given_layers))
        assert said.startswith(f"{different} of ") or different == max(given_layers) - min(given_layers) + 1
        low, high = min(given_layers), max(given_layers)
        assert (f"{low}–{high}" if high > low else f"{low}, ") in said
        assert said.endswith(f", {len(given_layers) - different} again") == (len(given_layers) > different)
        return
    counted = 0
    for part in said.split(", ") if said else []:
        numbers, _, times = part.partition(" (")
        first, _, last = numbers.partition("–")
        counted += (int(last or first) - int(first) + 1) * int(times.split()[0] if times else 1)
    assert counted == len(given_layers)


def test_layers_that_go_on_are_a_range() -> None:
    assert spans([0, 1, 2, 3]) == "0–3"
    assert spans([None, 4, 5, None, 7]) == "4–5, 7"
    assert spans([0, 1, 1, 1]) == "0–1, 1 (2 times)"
    assert spans([0, 3, 0, 3, 0]) == "2 of 0–3, 3 again"
    assert spans([0, 1, 1, 2, 2, 3, 3, 4]) == "0–4, 3 again"
    assert spans([4, None, 9, None, 14, None, 19]) == "4 of 4–19"
    assert spans([7, None] * 4) == "7, 3 again"


def test_a_model_that_is_there_twice_has_two_lines(planned) -> None:
    text = page(
        planned("""
        merge_method: linear
        slices:
          - sources:
              - {model: FT1, layer_range: [0, 6], parameters: {weight: 0.3}}
              - {model: FT1, layer_range: [6, 12], parameters: {weight: 0.7}}
        """)
    )
    lines = [line for line in text.splitlines() if line.startswith("  A  ") and "weight" in line]
    assert [line.split("  ")[-2:] for line in lines] == [["0–5", "weight 0.3"], ["6–11", "weight 0.7"]]


# --------------------------------------------------------------------------------------------- parameters over depth


@pytest.mark.parametrize("gradient", [[0.1, 0.9], [0.0, 0.5, 0.3, 0.7, 1.0], [0.9, 0.2]])
def test_a_gradient_is_a_bar_a_layer(planned, gradient) -> None:
    found = layer_lines(page(planned(DARE.replace("weight: 0.5", f"weight: {gradient}"))))
    values = [interpolate(tuple(gradient), layer / (LAYERS - 1)) for layer in range(LAYERS)]
    drawn, words = found["weight"]
    assert drawn == bars(values, 0, max(*values, 0.4), 64)  # the other model's weight is on the same scale
    assert words.startswith(f"{gradient[0]:g} to {gradient[-1]:g}")
    first = 0 if gradient[0] else 1  # with a weight of zero a layer is not read
    assert found["B"][1] == f"{first}–{LAYERS - 1}  density 0.6"


def test_filters_have_a_line_each_and_a_constant_is_a_number(planned) -> None:
    found = layer_lines(page(planned(SLERP.replace("TEE", FILTERS))))
    ramp = [layer / (LAYERS - 1) for layer in range(LAYERS)]
    assert found["t self_attn"] == (bars(ramp, 0, 1, 64), "0 to 1")
    assert found["t mlp"] == (bars(ramp[::-1], 0, 1, 64), "1 to 0")
    assert found["t rest"] == ("", "0.5")
    found = layer_lines(page(planned(SLERP.replace("TEE", FILTERS.replace("0.5", "0.25")))))
    assert found["t rest"] == ("", "0.25")


def test_filters_that_come_to_the_same_are_one_number(planned) -> None:
    text = page(planned(SLERP.replace("TEE", "[{filter: mlp, value: 0.5}, {value: 0.5}]")))
    assert "t 0.5" in text
    assert "t mlp" not in text


def test_a_gradient_starts_anew_in_each_slice(planned) -> None:
    source = "{{model: {}, layer_range: [{}, {}], parameters: {{weight: {}}}}}"
    slices = [
        "  - sources: [" + ", ".join(source.format(model, lo, hi, weight) for model, weight in pairs) + "]"
        for lo, hi, pairs in (
            (0, 6, (("FT1", "[0.2, 0.8]"), ("FT2", 1))),
            (6, 12, (("FT2", 1), ("FT1", "[0.2, 0.8]"))),
        )
    ]
    found = layer_lines(page(planned("\n".join(["merge_method: linear", "slices:", *slices]))))
    once = [0.2 + 0.6 * layer / 5 for layer in range(6)]
    assert found["weight"][0] == bars(once * 2, 0, 1, 64)
    assert found["B"][1] == f"0–{LAYERS - 1}  weight 1"


def test_what_is_shown_is_what_the_compiler_looks_up(planned) -> None:
    merge = planned(DARE.replace("weight: 0.5", f"weight: {FILTERS}"))
    settings = settings_of(merge, layers_of(merge))
    known = {
        (course.model, course.name, course.filter, layer): value
        for course in settings.courses
        for layer, value in course.values.items()
    }
    seen = 0
    for tensor in merge.compiled.mapping.tensors:
        island = merge.plan.island_of(tensor.name)
        layer = int(tensor.name.split(".")[2]) if tensor.name.startswith("model.layers.") else None
        chosen = next((name for name in ("self_attn", "mlp") if name in tensor.name), "rest")
        weight = known[str(tensor.sources[0].model), "weight", chosen, layer]
        factors = [node.attr("factor") for node in island.program.nodes if node.op.name == "scale"]
        if weight:
            assert factors[0] == pytest.approx(float(weight) / 0.6)
            seen += 1
    assert seen > 9 * (LAYERS - 2)


def test_a_recipe_without_parameters_has_none(planned) -> None:
    merge = planned(passthrough(("BASE", 0, 4)))
    assert layer_lines(page(merge)) == {"A": (columns([0, 1, 2, 3]), "0–3")}
    assert settings_of(merge, layers_of(merge)).courses == ()


def test_tracks_are_those_of_what_is_read(planned) -> None:
    """A weight of zero reads nothing: the model has no bar there."""
    merge = planned("""
        merge_method: linear
        models:
          - {model: FT1, parameters: {weight: 1}}
          - {model: FT2, parameters: {weight: [{filter: norm, value: 0}, {filter: self_attn, value: 0}, {value: 0}]}}
    """)
    assert [track.layers for track in tracks([each for each in layers_of(merge) if each.stack])] == [
        tuple(range(LAYERS))
    ]
    assert "outside of the layers" in page(merge)
