"""Random masks: what is kept, as often as asked, independent of everything, and a function of nothing but the index."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.ops import counter_rng
from support import Merge, digests, family

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bits = NDArray[np.bool_]

FIVE_STANDARD_ERRORS = 5.0

DENSITIES = (0.001, 0.07, 0.25, 1 / 3, 0.5, 0.53, 2 / 3, 0.9, 0.999)


def kept(lo: int, hi: int, density: float, key: int) -> Bits:
    """A mask in working memory that is neither clean nor a byte larger than asked for."""
    scratch = np.full(counter_rng.scratch_bytes(hi - lo), 0xFF, dtype=np.uint8)
    bits: Bits = counter_rng.kept(lo, hi, density, key, scratch).copy()
    return bits


def mask_of(density: float, elements: int, *, seed: int = 0, name: str = "weight", ordinal: int = 0) -> Bits:
    """The mask of a whole tensor."""
    return kept(0, elements, density, counter_rng.stream_key(seed, name, ordinal))


def correlation_in_errors(a: Bits, b: Bits, density: float) -> float:
    """The correlation of two masks in standard errors of what chance gives."""
    product = float(np.mean((a - density) * (b - density)))
    return product / (density * (1 - density)) * math.sqrt(len(a))


keys = st.integers(0, 2**64 - 1)
densities = st.one_of(
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.sampled_from([*DENSITIES, 0.5 / 65536, 1 / 65536, 1 - 2**-20, 1 - 2**-53, 5e-324]),
)


# ------------------------------------------------------------------------------------------------ which bits


def test_words_are_those_of_splitmix64() -> None:
    # The first five outputs for the seed 1234567, as in other implementations of the generator.
    published = (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    )
    assert tuple(reference.splitmix64(1234567 + n * reference.GOLDEN) for n in range(1, 6)) == published
    lanes = [(word >> (16 * lane)) & 0xFFFF for word in published for lane in range(4)]
    for threshold in sorted(lanes)[:: len(lanes) // 5]:
        # Word 0 belongs to the seed itself: the published ones are words 1 to 5.
        found = kept(4, 24, threshold / 65536, 1234567)
        assert found.tolist() == [lane < threshold for lane in lanes]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-5, 2**70), name=st.text(max_size=20), ordinal=st.integers(0, 9), density=densities)
def test_bits_are_those_of_the_definition(seed: int, name: str, ordinal: int, density: float) -> None:
    key = reference.stream_key(seed, name, ordinal)
    assert counter_rng.stream_key(seed, name, ordinal) == key
    assert np.array_equal(kept(0, 999, density, key), reference.mask(999, density, key))


@pytest.mark.parametrize("density", [*DENSITIES, 0.5 / 65536, 1.25 / 65536, 1 - 2**-20])
def test_equal_lanes_are_settled_as_defined(density: float) -> None:
    # Enough elements for a few lanes that equal the threshold, which the second hash settles.
    key = reference.stream_key(3, "weight", 1)
    found = kept(0, 1 << 19, density, key)
    assert np.array_equal(found, reference.mask(1 << 19, density, key))


@settings(max_examples=60, deadline=None)
@given(density=densities, key=keys, index=st.integers(0, 2**50), elements=st.integers(1, 40))
def test_bits_far_out_are_those_of_the_definition(density: float, key: int, index: int, elements: int) -> None:
    expected = [reference.is_kept(index + offset, density, key) for offset in range(elements)]
    assert kept(index, index + elements, density, key).tolist() == expected


def test_a_merge_uses_the_mask_of_its_tensor_and_ordinal() -> None:
    # A step of 1 everywhere shows the mask itself.
    shape = (97, 103)
    models = {"base": {"a": torch.zeros(shape), "b": torch.zeros(shape)}}
    models |= {f"m{i}": {"a": torch.full(shape, 2.0**i), "b": torch.full(shape, 2.0**i)} for i in range(3)}
    entries = [(f"m{i}", {"weight": 1.0, "density": 0.4}) for i in range(3)]
    merged = Merge("dare_linear", models, entries, "base", {"rescale": False}, seed=5).run(tile_elements=4096)
    for name in ("a", "b"):
        bits = merged[name].numpy().astype(np.int64).reshape(-1)
        for ordinal in range(3):
            expected = reference.mask(bits.size, 0.4, reference.stream_key(5, name, ordinal))
            assert np.array_equal(bits >> ordinal & 1, expected)


# ------------------------------------------------------------------------------------------------ parts and wholes


@settings(max_examples=150, deadline=None)
@given(data=st.data(), density=densities, key=keys)
def test_a_part_of_the_tensor_has_its_part_of_the_mask(data: st.DataObject, density: float, key: int) -> None:
    lo = data.draw(st.integers(0, 400))
    hi = data.draw(st.integers(lo, 400))
    assert np.array_equal(kept(lo, hi, density, key), kept(0, 400, density, key)[lo:hi])


@pytest.mark.parametrize("density", [0.53, 0.5 / 65536, 1 - 2**-20])
def test_parts_of_a_large_tensor_make_up_its_mask(density: float) -> None:
    key, elements = counter_rng.stream_key(0, "weight", 0), (1 << 18) + 3
    cuts = [0, 1, 4099, 65536, 65539, 131074, elements]
    parts = [kept(lo, hi, density, key) for lo, hi in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), kept(0, elements, density, key))


# ------------------------------------------------------------------------------------------------ how many


@pytest.mark.parametrize("density", DENSITIES)
def test_the_kept_share_is_the_density(density: float) -> None:
    elements = 1 << 20
    error = math.sqrt(density * (1 - density) / elements)
    for ordinal in range(4):
        share = mask_of(density, elements, ordinal=ordinal).mean()
        assert abs(share - density) < FIVE_STANDARD_ERRORS * error


@pytest.mark.parametrize("lanes", [0.5, 0.25, 1.5, 65535.5])
def test_a_part_of_a_lane_counts(lanes: float) -> None:
    # 16 bits alone would keep none, none, 1 and 65535 in 65536.
    density, elements = lanes / 65536, 1 << 22
    count = sum(int(mask_of(density, elements, ordinal=ordinal).sum()) for ordinal in range(4))
    expected, error = 4 * elements * density, math.sqrt(4 * elements * density * (1 - density))
    assert abs(count - expected) < FIVE_STANDARD_ERRORS * error
    assert abs(4 * elements * math.floor(lanes) / 65536 - expected) > FIVE_STANDARD_ERRORS * error


@settings(max_examples=60, deadline=None)
@given(key=keys, pair=st.tuples(densities, densities))
def test_more_density_keeps_the_same_elements_and_more(key: int, pair: tuple[float, float]) -> None:
    less, more = sorted(pair)
    assert not (kept(0, 999, less, key) & ~kept(0, 999, more, key)).any()


# ------------------------------------------------------------------------------------------------ independence


@pytest.mark.parametrize("density", [0.07, 0.5, 0.53])
def test_models_tensors_and_seeds_are_independent(density: float) -> None:
    elements = 1 << 18
    masks = [mask_of(density, elements, ordinal=ordinal) for ordinal in range(4)]
    masks += [mask_of(density, elements, name=name) for name in ("weighs", "layers.0.weight", "layers.1.weight", "")]
    masks += [mask_of(density, elements, seed=seed) for seed in (1, 2, 2**32, -1)]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert abs(correlation_in_errors(one, other, density)) < FIVE_STANDARD_ERRORS


LAGS = (*range(1, 9), 63, 64, 128, 4096, 65536)


@pytest.mark.parametrize("density", [0.07, 0.5, 0.9])
@pytest.mark.parametrize("lag", LAGS)
def test_neighbours_are_independent(density: float, lag: int) -> None:
    mask = mask_of(density, (1 << 20) + lag)
    pairs = mask[:-lag], mask[lag:]
    assert abs(correlation_in_errors(*pairs, density)) < FIVE_STANDARD_ERRORS
    for lane in range(counter_rng.LANES):
        # Each place in a word by itself: inside the word, and across its end.
        one, other = (side[lane :: counter_rng.LANES] for side in pairs)
        assert abs(correlation_in_errors(one, other, density)) < FIVE_STANDARD_ERRORS


def test_four_lanes_of_a_word_are_as_independent_as_four_words() -> None:
    # All four kept: a correlation of three or four lanes that pairs do not show.
    words = mask_of(0.5, 1 << 20).reshape(-1, counter_rng.LANES)
    patterns = np.bincount(words @ np.array([1, 2, 4, 8]), minlength=16)
    error = math.sqrt(len(words) / 16 * 15 / 16)
    assert (np.abs(patterns - len(words) / 16) < FIVE_STANDARD_ERRORS * error).all()


@settings(max_examples=200, deadline=None)
@given(
    one=st.tuples(st.integers(), st.text(), st.integers(0)), other=st.tuples(st.integers(), st.text(), st.integers(0))
)
def test_no_two_inputs_share_a_key(one: tuple[int, str, int], other: tuple[int, str, int]) -> None:
    assert (counter_rng.stream_key(*one) == counter_rng.stream_key(*other)) == (one == other)


def test_names_cannot_imitate_seeds_or_ordinals() -> None:
    parts = [(1, "a", 0), (1, "a\0000", 0), (1, "a", 11), (11, "a", 1), (1, "1\0a", 0), (1, "", 0), (1, "\0", 0)]
    assert len({counter_rng.stream_key(*part) for part in parts}) == len(parts)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_another_seed_gives_another_merge(name: str) -> None:
    models = family({"weight": (61, 83)}, [torch.float32] * 3)
    entries = [(ref, {"weight": 0.7, "density": 0.5}) for ref in ("m0", "m1")]
    found = [digests(Merge(name, models, entries, "base", seed=seed).run())["weight"] for seed in (0, 1, 2, 0)]
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_where_a_model_lies_does_not_matter() -> None:
    models = family({"weight": (61, 83)}, [torch.float32] * 2)
    elsewhere = {"other/base": models["base"], "other/m0": models["m0"]}
    own = {"weight": 0.7, "density": 0.5}
    here = Merge("dare_linear", models, [("m0", own)], "base").run()
    there = Merge("dare_linear", elsewhere, [("other/m0", own)], "other/base").run()
    assert digests(here) == digests(there)
