"""Every method against its definition in float64: what a merge may differ by, per dtype, and not more."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
import reference_declared
import reference_fusion
import reference_overlap
import reference_ranks
import reference_spectrum
import reference_spheres
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plait.engine.errors import InputError, RecipeError
from plait.engine.methoddef import methods
from support import Merge, digests, family, merges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from support import Settings

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64

SHAPES = {
    "scalar": (),
    "single": (1,),
    "vector": (131,),
    "row": (1, 129),
    "matrix": (97, 103),  # three tiles of 4096
    "cube": (3, 5, 11),
    "empty": (0, 5),
}

DTYPES: dict[str, tuple[Sequence[torch.dtype], Settings]] = {
    # Of the base and of the models in turn, and what the recipe says.
    "bf16": ([BF16, BF16], {}),
    "f16": ([F16, F16], {}),
    "f32": ([F32, F32], {}),
}
MIXED: dict[str, tuple[Sequence[torch.dtype], Settings]] = {
    "bf16 to f32": ([BF16, BF16], {"dtype": "float32"}),
    "bf16 to f16": ([BF16, BF16], {"dtype": "float32", "out_dtype": "float16"}),
    "f32 to bf16": ([F32, F32], {"dtype": "bfloat16"}),
    "f16 among bf16": ([BF16, F16, BF16], {}),
    "f32 among bf16": ([BF16, F32, BF16, F16], {}),
    "bf16 on f32": ([F32, BF16, F16, F32], {}),
    "f64 to f16": ([F64, F32, BF16], {"dtype": "float16"}),
}

_WEIGHTS = (0.5, 0.3, 0.7, -0.4, 1.25, 0.15, 0.9, 0.6)
_DENSITIES = (0.53, 0.9, 0.3, 1.0, 0.07, 2 / 3, 0.5, 0.999)


def _weights(*weights: float) -> list[dict[str, Any]]:
    return [{"weight": weight} for weight in weights]


def _sparse(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"weight": weight, "density": density} for weight, density in pairs]


def _cases() -> Iterator[tuple[str, Settings, list[dict[str, Any]]]]:
    """Method, settings of the merge, settings of each model."""
    for count in range(1, 9):
        for name in ("linear", "task_arithmetic"):
            yield name, {}, _weights(*_WEIGHTS[:count])
        for name in ("dare_linear", "dare_ties", "ties", "breadcrumbs", "breadcrumbs_ties"):
            yield name, {}, _sparse(*zip(_WEIGHTS[:count], _DENSITIES, strict=False))
    yield "linear", {"normalize": False}, _weights(0.3, 0.3, -1.5)
    yield "linear", {"normalize": True}, _weights(2.0, 0.0, -0.5)
    yield "linear", {"normalize": False}, _weights(0.0, 0.0)
    yield "linear", {"normalize": False}, _weights(0.0, 0.4)
    for family_settings in ({"lambda": 0.7}, {"normalize": True}, {"normalize": True, "lambda": -0.4}, {"lambda": 0}):
        yield "task_arithmetic", family_settings, _weights(0.6, -0.35, 0.0, 0.8)
    yield "task_arithmetic", {"normalize": True}, _weights(0.5, -0.5)  # nothing to divide by
    yield "task_arithmetic", {"normalize": True}, _weights(0.5, -0.499999999)  # as good as nothing
    yield "task_arithmetic", {"normalize": True}, _weights(0.5, -0.499999)  # little
    yield "task_arithmetic", {"int8_mask": True}, _weights(1.0)
    for name, rescale, normalize in itertools.product(
        ("dare_linear", "dare_ties"), (True, False, "l1", "density"), (True, False)
    ):
        wild = _sparse((0.6, 0.4), (-0.35, 0.8), (0.7, 0.15))
        yield name, {"rescale": rescale, "normalize": normalize, "lambda": 1.3}, wild
        edges = _sparse((0.6, 0.0), (0.4, 1.0), (0.5, 1.5), (0.0, 0.5), (0.3, 0.5), (0.2, -0.1))
        yield name, {"rescale": rescale, "normalize": normalize}, edges
    for name in ("dare_linear", "dare_ties"):
        yield name, {"normalize": True}, _sparse((0.5, 0.8), (-0.5, 0.8))
        yield name, {"density": 0.4, "weight": 0.9}, [{}, {}]
        yield name, {}, _sparse((0.7, 0.0))
    for name, rescale in itertools.product(("ties", "breadcrumbs", "breadcrumbs_ties"), (True, False, "l1")):
        edges = _sparse((0.6, 0.0), (0.4, 1.0), (0.5, 1e-9), (0.3, 0.5), (0.2, -0.1))
        gamma = {} if name == "ties" else {"gamma": 0.1}
        yield name, {"rescale": rescale, "normalize": True, "lambda": 1.3, **gamma}, edges
    yield from reference_declared.CASES
    yield from reference_ranks.CASES
    yield from reference_spheres.CASES
    yield from reference_overlap.CASES
    yield from reference_fusion.CASES
    yield from reference_spectrum.CASES
    for scale in ({}, {"scale": 1}, {"scale": 2.5}, {"scale": -1 / 3}, {"scale": 0}):
        yield "passthrough", {}, [scale]


CASES = list(_cases())
SOME = [case for case in CASES if len(case[2]) == 3 and case[1].get("rescale", "l1") == "l1"]
SOME.append(("passthrough", {}, [{"scale": 2.5}]))
"""Enough cases to try mixed dtypes on."""


def _id(value: object) -> str:
    return str(value).replace("'", "") if not isinstance(value, list) else f"K{len(value)}"


def question(merge: Merge, name: str, compute: torch.dtype) -> reference.Question:
    """What the reference is asked about one tensor of a merge: a base among the models does not count."""
    shared = merge.parameters
    inputs = [(ref, {**shared, **own}) for ref, own in merge.entries if ref != merge.base]
    return reference.Question(
        tensor_name=name,
        base=merge.models[merge.base][name].double().numpy() if merge.base is not None else None,
        models=tuple(merge.models[ref][name].double().numpy() for ref, _ in inputs),
        settings=shared,
        of_models=tuple(own for _, own in inputs),
        seed=merge.seed,
        compute=compute,
    )


def compute_dtype(merge: Merge, name: str, out: torch.dtype) -> torch.dtype:
    """Arithmetic is float32 where everything is 16 bits wide, else float64."""
    refs = [ref for ref, _ in merge.entries] + ([merge.base] if merge.base is not None else [])
    wide = any(merge.models[ref][name].dtype.itemsize > 2 for ref in refs)
    return F64 if wide or out.itemsize > 2 else F32


def shortfalls(merge: Merge, merged: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """The tensors that miss a bar, and how."""
    found = {}
    for name, out in merged.items():
        compute = compute_dtype(merge, name, out.dtype)
        answer = reference.METHODS[merge.method](question(merge, name, compute))
        assert out.shape == answer.value.shape
        found[name] = reference.shortfalls(out, answer, compute)
    return {name: missed for name, missed in found.items() if missed}


def test_every_method_has_a_reference() -> None:
    assert set(reference.METHODS) == set(methods())
    assert {name for name, method in methods().items() if method.excludes_base} == reference.ON_TASK_VECTORS


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize(("name", "parameters", "of_models"), CASES, ids=_id)
def test_a_method_is_its_definition(
    name: str, parameters: Settings, of_models: list[dict[str, Any]], dtypes: str
) -> None:
    check(name, parameters, of_models, *DTYPES[dtypes])


@pytest.mark.parametrize("dtypes", MIXED)
@pytest.mark.parametrize(("name", "parameters", "of_models"), SOME, ids=_id)
def test_a_method_is_its_definition_between_dtypes(
    name: str, parameters: Settings, of_models: list[dict[str, Any]], dtypes: str
) -> None:
    check(name, parameters, of_models, *MIXED[dtypes])


@functools.cache
def models_of(dtypes: tuple[torch.dtype, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """A base and models over SHAPES."""
    return family(SHAPES, dtypes, seed=len(dtypes) - 1)


def check(
    name: str,
    parameters: Settings,
    of_models: list[dict[str, Any]],
    dtypes: Sequence[torch.dtype],
    recipe: Settings,
) -> None:
    """Merge tensors of every shape and compare each with the reference."""
    base_dtype, *stored = dtypes
    models = models_of((base_dtype, *itertools.islice(itertools.cycle(stored), len(of_models))))
    entries = [(f"m{index}", own) for index, own in enumerate(of_models)]
    base = "base" if methods()[name].base == "required" else None
    merge = Merge(name, models, entries, base, parameters, seed=11, **recipe)
    merged = merge.run(tile_elements=4096, workers=2)
    first = models["base" if base else "m0"]
    expected = getattr(torch, recipe.get("out_dtype") or recipe.get("dtype") or str(first["single"].dtype)[6:])
    assert {name: out.dtype for name, out in merged.items()} == dict.fromkeys(SHAPES, expected)
    assert shortfalls(merge, merged) == {}


@pytest.mark.parametrize("name", methods())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_settings_give_what_the_definition_gives(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([BF16, F16, F32]))
    models = family({"weight": (61, 83)}, [dtype] * data.draw(st.integers(4, 6)), seed=data.draw(st.integers(0, 99)))
    merge = data.draw(merges(methods()[name], models))
    try:
        merged = merge.run(tile_elements=4096)
    except (InputError, RecipeError):
        assume(False)
    assert shortfalls(merge, merged) == {}


def test_weights_that_cancel_cannot_be_normalised() -> None:
    models = family({"weight": (4, 4)}, [F32] * 3)
    message = r"recipe.yml:1:1: linear: the weights add up to 0, .* set normalize: false \(for weight\)$"
    with pytest.raises(RecipeError, match=message):
        Merge("linear", models, [("m0", {"weight": 0.5}), ("m1", {"weight": -0.5})]).run()


@pytest.mark.parametrize("name", ["della", "della_linear"])
@pytest.mark.parametrize(
    ("density", "epsilon", "most"), [(0.9, 0.15, "0.1"), (0.1, 0.1, "0.1"), (0.2, 0.3, "0.2"), (0.75, 0.25, "0.25")]
)
def test_a_probability_cannot_leave_its_range(name: str, density: float, epsilon: float, most: str) -> None:
    models = family({"some.weight": (4, 4)}, [F32] * 3)
    own = {"weight": 0.5, "density": 0.5}
    merge = Merge(name, models, [("m0", own), ("m1", {**own, "density": density, "epsilon": epsilon})], "base")
    message = f"density {density} ± epsilon {epsilon} does not lie between 0 and 1; .* below {most} "
    with pytest.raises(RecipeError, match=message):
        merge.run()


ANY_SETTINGS = {"weight": 0.8, "density": 0.4}


def _taken(name: str, values: Settings) -> dict[str, Any]:
    return {key: value for key, value in values.items() if methods()[name].param(key) is not None}


def _needed(name: str) -> dict[str, Any]:
    """What a method has to be told about all tensors."""
    return {param.name: 0.5 for param in methods()[name].params if param.required and param.scope == "tensor"}


def _two_models(name: str) -> list[str]:
    """Models for a method, two where it takes as many beside a base that is one of its inputs."""
    method = methods()[name]
    own = 0 if method.excludes_base or method.base != "required" else 1
    return ["m0", "m1"][: (method.max_inputs or 3) - own]


@pytest.mark.parametrize("name", sorted(reference.ON_TASK_VECTORS))
@pytest.mark.parametrize("order", ["base m0 m1", "m0 base m1", "m0 m1 base", "base m0 base m1"])
def test_a_base_among_the_models_counts_for_nothing(name: str, order: str) -> None:
    models = family({"weight": (61, 83)}, [BF16] * 3)
    own = _taken(name, ANY_SETTINGS)
    parameters = {**_taken(name, {"normalize": True}), **_needed(name)}
    plain = Merge(name, models, [("m0", own), ("m1", own)], "base", parameters)
    # The base needs no weight, and where it has one it does not matter.
    listed = [(ref, own if ref != "base" else {}) for ref in order.split()]
    weighted = [(ref, own) for ref in order.split()]
    for entries in (listed, weighted):
        merge = Merge(name, models, entries, "base", parameters)
        assert digests(merge.run()) == digests(plain.run())


def test_in_an_average_the_base_is_a_model_like_the_others() -> None:
    models = family({"weight": (61, 83)}, [F32] * 3)
    merge = Merge("linear", models, [("base", {"weight": 0.7}), ("m0", {"weight": 0.4})])
    assert shortfalls(merge, merge.run()) == {}


@pytest.mark.parametrize("name", [name for name, method in methods().items() if method.max_inputs is None])
def test_the_same_model_twice_is_two_inputs(name: str) -> None:
    # Under one mask the two would be one model with the sum of the weights.
    models = family({"weight": (61, 83)}, [F32] * 3)
    base = "base" if methods()[name].base == "required" else None
    first, second = (_taken(name, {**ANY_SETTINGS, "weight": weight}) for weight in (0.3, 0.6))
    merge = Merge(name, models, [("m0", first), ("m1", first), ("m0", second)], base, _needed(name))
    assert shortfalls(merge, merge.run()) == {}


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_a_vote_that_cancels_is_positive(dtype: torch.dtype, flip: float) -> None:
    # 0.3·2 against 0.2·3: the products differ by rounding noise alone, whichever has the minus.
    models = {
        "base": {"weight": torch.zeros(64, dtype=dtype)},
        "two": {"weight": torch.full((64,), flip * 2.0, dtype=dtype)},
        "three": {"weight": torch.full((64,), flip * -3.0, dtype=dtype)},
    }
    merge = Merge("dare_ties", models, [("two", {"weight": 0.3}), ("three", {"weight": 0.2})], "base")
    expected = reference.rounded(np.float64(0.6), dtype)
    torch.testing.assert_close(merge.run()["weight"].double(), torch.full((64,), float(expected), dtype=F64))


@pytest.mark.parametrize("name", methods())
def test_what_does_not_move_stays_to_the_last_bit(name: str) -> None:
    models = family({"weight": (61, 83)}, [F16, F16])
    models["m0"] = {"weight": models["base"]["weight"].clone()}
    models["m1"] = models["m0"]
    own = _taken(name, {**ANY_SETTINGS, "weight": 0.5})
    base = "base" if methods()[name].base == "required" else None
    merge = Merge(name, models, [(ref, own) for ref in _two_models(name)], base, _needed(name))
    assert digests(merge.run()) == digests(models["base"])


COUNTS = {"steps": torch.arange(-5, 7, dtype=torch.int64), "flags": torch.tensor([True, False, True])}


@pytest.mark.parametrize("name", methods())
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_integers_and_flags_come_from_the_base_or_the_first_model(name: str, dtype: str | None) -> None:
    models: dict[str, dict[str, torch.Tensor]] = {
        f"m{index}": {**COUNTS, "steps": COUNTS["steps"] + index} for index in (0, 1)
    }
    models["base"] = {"steps": COUNTS["steps"] - 100, "flags": ~COUNTS["flags"]}
    base = "base" if methods()[name].base == "required" else None
    entries = [(ref, _taken(name, ANY_SETTINGS)) for ref in _two_models(name)]
    merged = Merge(name, models, entries, base, _needed(name), dtype=dtype).run()
    assert digests(merged) == digests(models[base or "m0"])
    assert {name: out.dtype for name, out in merged.items()} == {"steps": torch.int64, "flags": torch.bool}
