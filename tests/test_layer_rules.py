"""What a config says of its layers by rule follows the layers, or the slices are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.engine.errors import InputError
from plait.loaders.config import output_config

LAYERS = 6
EXPERTS = {"num_experts": 4}


def restack(config: dict[str, Any], *sources: int, prefix: str = "model.layers") -> dict[str, Any]:
    counts = {"num_hidden_layers": LAYERS, "dtype": "x"}
    found = output_config({**counts, **config}, stack_layers={prefix: (LAYERS, sources)}, dtype_name="x")
    assert found["num_hidden_layers"] == len(sources)
    return {key: value for key, value in found.items() if key not in counts}


@pytest.mark.parametrize(
    ("config", "sources", "expected"),
    [
        ({"first_k_dense_replace": 2}, (0, 2, 3, 4, 5), {"first_k_dense_replace": 1}),
        ({"first_k_dense_replace": 2}, (0, 1, 0, 1, 2), {"first_k_dense_replace": 4}),
        ({"first_k_dense_replace": 2}, (2, 3), {"first_k_dense_replace": 0}),
        ({"num_dense_layers": 1}, (0, 0, 1), {"num_dense_layers": 2}),
        ({"moe_layer_start_index": 3}, (1, 2, 3, 4), {"moe_layer_start_index": 2}),
        ({"num_kv_shared_layers": 2}, (0, 1, 2, 3, 5), {"num_kv_shared_layers": 1}),
        ({"max_window_layers": 4, "use_sliding_window": True}, (0, 1, 4, 5), {"max_window_layers": 2}),
        ({"decoder_sparse_step": 2}, (0, 1, 4, 5), {"decoder_sparse_step": 2}),
        ({"decoder_sparse_step": 2}, (1, 3, 5), {"decoder_sparse_step": 1}),
        ({"decoder_sparse_step": 3}, (0, 2, 3, 5), {"decoder_sparse_step": 2}),
        ({"full_attention_interval": 3}, (0, 1, 2, 0, 1, 2), {"full_attention_interval": 3}),
        ({"global_attn_every_n_layers": 2}, (0, 3, 4, 5), {"global_attn_every_n_layers": 2}),
        ({"global_attn_every_n_layers": 3}, (0, 2, 3, 5), {"global_attn_every_n_layers": 2}),
        (
            {"attn_layer_period": 3, "attn_layer_offset": 1},
            (1, 2, 4, 5),
            {"attn_layer_period": 2, "attn_layer_offset": 0},
        ),
        (
            {"expert_layer_period": 2, "expert_layer_offset": 1},
            (0, 2, 4),
            {"expert_layer_period": 4, "expert_layer_offset": 3},
        ),
        ({"block_types": ["a", "a", "b"]}, (0, 1, 2, 3), {"block_types": ["a", "a", "b"]}),
        ({"block_types": ["a", "a", "b"]}, (0, 2, 2, 3), {"block_types": ["a", "b", "b", "a"]}),
    ],
)
def test_a_rule_follows_the_layers(config: dict[str, Any], sources: tuple[int, ...], expected: dict[str, Any]) -> None:
    assert restack({**EXPERTS, **config}, *sources) == {**EXPERTS, **config, **expected}


@pytest.mark.parametrize(
    ("config", "sources"),
    [
        ({"first_k_dense_replace": 2}, (0, 2, 1, 3)),
        ({"num_kv_shared_layers": 2}, (0, 5, 1)),
        ({"decoder_sparse_step": 2}, (0, 1, 1, 2, 3)),
        ({"attn_layer_period": 3, "attn_layer_offset": 1}, (0, 1, 1, 2, 3, 4)),
        ({"max_window_layers": 3, "use_sliding_window": True}, (0, 4, 1)),
    ],
)
def test_slices_that_no_rule_describes_are_refused(config: dict[str, Any], sources: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=next(iter(config))):
        restack({**EXPERTS, **config}, *sources)


@pytest.mark.parametrize(
    "config",
    [
        {"layer_types": list("ababab"), "sliding_window_pattern": 2},
        {"mlp_layer_types": list("dsdsds"), "decoder_sparse_step": 2, **EXPERTS},
        {"first_k_dense_replace": 2},
        {"max_window_layers": 3},
        {"decoder_sparse_step": 1, **EXPERTS},
        {"cross_attention_frequency": 0},
        {"time_step_rank": 4, "rescale_every": 6, "position_embedding_frequency": 3},
    ],
)
def test_a_rule_that_decides_nothing_stands_in_nobodys_way(config: dict[str, Any]) -> None:
    sources = (0, 5, 1, 1)
    expected = {k: [v[s] for s in sources] if isinstance(v, list) else v for k, v in config.items()}
    assert restack(config, *sources) == expected


def test_each_side_has_its_own_rule() -> None:
    sides = {"encoder_layers": LAYERS, "decoder_layers": LAYERS}
    steps = {"encoder_sparse_step": 2, "decoder_sparse_step": 3, **EXPERTS}
    config = {**sides, **steps, "dtype": "x"}
    found = output_config(config, stack_layers={"model.decoder.layers": (LAYERS, (0, 2, 3, 5))}, dtype_name="x")
    assert found == {**config, "decoder_layers": 4, "decoder_sparse_step": 2}


@given(
    period=st.integers(2, LAYERS),
    data=st.data(),
    sources=st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=9).map(tuple),
)
def test_whatever_is_written_makes_the_same_layers(period: int, data: st.DataObject, sources: tuple[int, ...]) -> None:
    offset = data.draw(st.integers(0, period - 1))
    config = {"attn_layer_period": period, "attn_layer_offset": offset}
    kinds = [source % period == offset for source in sources]
    try:
        found = restack(config, *sources)
    except InputError:
        # No other pair would have done either.
        pairs = [(p, o) for p in range(1, len(sources) + 2) for o in range(p)]
        assert all([place % p == o for place in range(len(sources))] != kinds for p, o in pairs)
        return
    length, start = found["attn_layer_period"], found["attn_layer_offset"]
    assert [place % length == start for place in range(len(sources))] == kinds
