"""The output's config: what follows the layers follows them, in the right part of the model; the rest stays."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from plait.engine.errors import InputError
from plait.loaders.config import output_config
from plait.loaders.config_keys import is_extra_count, is_layer_count, layer_counts

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "model.layers"
VISION = "visual.blocks"


def restack(config: dict[str, Any], *sources: int, old: int = 4, prefix: str = TEXT) -> dict[str, Any]:
    """The config after a stack's layers became ``sources``; its dtype is not looked at."""
    before = copy.deepcopy(config)
    found = output_config({**config, "dtype": "x"}, stack_layers={prefix: (old, sources)}, dtype_name="x")
    assert config == before
    return {key: value for key, value in found.items() if key != "dtype"}


def test_a_config_whose_layers_stay_changes_its_dtype_only() -> None:
    config = {"b": 1, "num_hidden_layers": 4, "torch_dtype": "float32", "layer_types": ["a", "b", "a", "b"], "a": {}}
    found = output_config(config, stack_layers={TEXT: (4, (0, 1, 2, 3))}, dtype_name="bfloat16")
    assert found == {**config, "torch_dtype": "bfloat16"}
    assert list(found) == list(config)


def test_the_donors_config_is_not_touched() -> None:
    config = {"num_hidden_layers": 2, "dtype": "float32", "layer_types": [["a"], ["b"]]}
    before = copy.deepcopy(config)
    found = output_config(config, stack_layers={TEXT: (2, (1, 0))}, dtype_name="float16")
    found["layer_types"][0].append("c")  # type: ignore[index]
    assert config == before


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"])
def test_layer_counts_under_any_name(key: str) -> None:
    assert restack({key: 4, "num_attention_heads": 4}, 0, 1, 1) == {key: 3, "num_attention_heads": 4}


def test_all_names_of_one_count_change_together() -> None:
    assert restack({"num_layers": 4, "num_hidden_layers": 4}, 0, 1) == {"num_layers": 2, "num_hidden_layers": 2}


def test_a_count_of_something_else_stays() -> None:
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_mem_blocks": 4, "num_nextn_predict_layers": 4}
    assert restack(config, 0, 1) == {**config, "num_hidden_layers": 2}


def test_layers_that_the_config_does_not_count_cannot_be_dropped() -> None:
    config = {"num_hidden_layers": 5, "text_config": {"num_layers": 6}}
    assert restack(config, 0, 1, 2, 3) == config
    with pytest.raises(
        InputError, match=r"4 layers are stored, and .* \(num_hidden_layers 5, text_config.num_layers 6\)"
    ):
        restack(config, 0, 1)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("layer_types", ["full", "sliding", "full", "chunked"], ["chunked", "full", "full"]),
        ("layers_block_type", ["attention", "mamba", "mamba", "mamba"], ["mamba", "attention", "attention"]),
        ("num_key_value_heads", [1, 2, 3, 4], [4, 1, 1]),
        ("no_rope_layers", [1, 1, 1, 0], [0, 1, 1]),
        ("block_configs", [{"a": 0}, {"a": 1}, {"a": 2}, {"a": 3}], [{"a": 3}, {"a": 0}, {"a": 0}]),
        ("hybrid_override_pattern", "M-*E", "EMM"),
        ("mlp_only_layers", [0], [1, 2]),
        ("mlp_only_layers", [1, 2], []),
        ("mlp_only_layers", [], []),
        ("full_attn_idxs", [0, 3], [0, 1, 2]),
        ("cross_attention_layers", [0, 1, 2, 3], [0, 1, 2]),
        ("moe_layers_enum", "1,3", "0"),
        ("per_layer_config", {"0": {"a": 1}, "2": {"a": 2}}, {"1": {"a": 1}, "2": {"a": 1}}),
        ("moe_layer_end_index", 3, 2),
        ("max_window_layers", 4, 3),
        ("max_window_layers", 2, 2),
        # Counted from 1, as the number 4 shows.
        ("attn_config", {"kda_layers": [1, 2, 3], "full_layers": [4]}, {"kda_layers": [2, 3], "full_layers": [1]}),
    ],
)
def test_what_is_said_layer_by_layer_follows_the_layers(key: str, value: object, expected: object) -> None:
    assert restack({"num_hidden_layers": 4, key: value}, 3, 0, 0) == {"num_hidden_layers": 3, key: expected}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", ["A", "B", "C", "D"]),
        ("eos_token_id", [0, 1, 2, 3]),
        ("suppress_tokens", [0, 3]),
        ("time_step_limit", [0.0, 1.0, 2.0, 3.0]),
        ("rope_scaling", {"short_factor": [1.0, 1.1, 1.2, 1.3], "mrope_section": [16, 24, 24, 16]}),
        ("id2label", {"0": "a", "1": "b"}),
        ("quantization_config", {"modules_to_not_convert": ["a", "b", "c", "d"]}),
        ("vision_config", {"depth": 4, "fullatt_block_indexes": [0, 3], "window": [1, 2, 3, 4]}),
        ("pruned_heads", {}),
        ("layer_norm_eps", 4),
        ("hidden_act", "silu"),
        ("layers_seen", [0, 9]),
        ("skip_layers", [-1]),
    ],
)
def test_what_is_not_about_layers_stays(key: str, value: object) -> None:
    assert restack({"num_hidden_layers": 4, key: value}, 3, 0, 0) == {"num_hidden_layers": 3, key: value}


VLM = {
    "text_config": {"num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"], "max_window_layers": 4},
    "vision_config": {"depth": 4, "fullatt_block_indexes": [1, 3], "num_heads": 4},
    "vision_feature_layer": -2,
}


def test_the_text_stack_of_a_vision_model() -> None:
    expected = {**VLM, "text_config": {"num_hidden_layers": 2, "layer_types": ["d", "a"], "max_window_layers": 2}}
    for prefix in ("model.language_model.layers", "language_model.model.layers", TEXT):
        assert restack(VLM, 3, 0, prefix=prefix) == expected


def test_the_vision_stack_of_a_vision_model() -> None:
    vision = {"depth": 3, "fullatt_block_indexes": [0, 2], "num_heads": 4}
    assert restack(VLM, 3, 0, 1, prefix=VISION) == {**VLM, "vision_config": vision}


def test_text_keys_at_the_top_and_nested_change_together() -> None:
    config = {"num_hidden_layers": 4, "text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 4}}
    expected = {"num_hidden_layers": 2, "text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 4}}
    assert restack(config, 0, 1) == expected


def test_a_vision_model_alone_has_its_count_at_the_top() -> None:
    assert restack({"num_hidden_layers": 4}, 0, 1, prefix="vit.encoder.layer") == {"num_hidden_layers": 2}


def test_a_count_that_was_left_at_its_default_is_written() -> None:
    config = {"text_config": {"model_type": "llama"}, "vision_config": {"num_hidden_layers": 4}}
    text = {"model_type": "llama", "num_hidden_layers": 2}
    assert restack(config, 0, 1, prefix="language_model.model.layers") == {**config, "text_config": text}
    assert restack({"model_type": "gpt2"}, 0, 1, prefix="h") == {"model_type": "gpt2", "num_hidden_layers": 2}


ENCODER_DECODER = {"encoder_layers": 4, "decoder_layers": 4, "num_hidden_layers": 4}
T5 = {"num_layers": 4, "num_decoder_layers": 4}


@pytest.mark.parametrize(
    ("config", "prefix", "expected"),
    [
        (ENCODER_DECODER, "model.encoder.layers", {"encoder_layers": 2, "decoder_layers": 4, "num_hidden_layers": 2}),
        (ENCODER_DECODER, "model.decoder.layers", {"encoder_layers": 4, "decoder_layers": 2, "num_hidden_layers": 4}),
        (T5, "encoder.block", {"num_layers": 2, "num_decoder_layers": 4}),
        (T5, "decoder.block", {"num_layers": 4, "num_decoder_layers": 2}),
        ({"num_hidden_layers": 4}, "model.decoder.layers", {"num_hidden_layers": 2}),
        ({"num_hidden_layers": 4}, "bert.encoder.layer", {"num_hidden_layers": 2}),
        ({"audio_config": {"encoder_layers": 4}}, "audio_tower.layers", {"audio_config": {"encoder_layers": 2}}),
        (
            {"num_layers": 4, "num_single_layers": 4},
            "single_transformer_blocks",
            {"num_layers": 4, "num_single_layers": 2},
        ),
        ({"num_layers": 4, "num_single_layers": 4}, "transformer_blocks", {"num_layers": 2, "num_single_layers": 4}),
    ],
)
def test_two_stacks_in_one_config(config: dict[str, Any], prefix: str, expected: dict[str, Any]) -> None:
    assert restack(config, 3, 0, prefix=prefix) == expected


def test_lists_of_two_stacks_in_one_config() -> None:
    config = {**ENCODER_DECODER, "dtype": "x", "attention_window": [1, 2, 3, 4], "encoder_kinds": [1, 2, 3, 4]}
    stacks = {"model.encoder.layers": (4, (3, 0)), "model.decoder.layers": (4, (1, 1, 2))}
    both = output_config(config, stack_layers=stacks, dtype_name="x")
    assert both == {
        "encoder_layers": 2,
        "decoder_layers": 3,
        "num_hidden_layers": 2,
        "dtype": "x",
        "attention_window": [4, 1],
        "encoder_kinds": [4, 1],
    }
    alone = restack(config, 1, 1, 2, prefix="model.decoder.layers")
    assert alone["encoder_kinds"] == [1, 2, 3, 4]


def test_a_talkers_layers_are_not_the_thinkers() -> None:
    config = {f"{part}_config": {"text_config": {"num_hidden_layers": 4}} for part in ("thinker", "talker")}
    expected = {**config, "thinker_config": {"text_config": {"num_hidden_layers": 2}}}
    assert restack(config, 0, 1, prefix="thinker.model.layers") == expected


def test_several_stacks_change_at_once() -> None:
    stacks = {"model.layers": (4, (0, 1)), "visual.blocks": (4, (3,)), "mtp.layers": (1, (0,))}
    found = output_config({**VLM, "dtype": "x"}, stack_layers=stacks, dtype_name="x")
    assert found["text_config"] == {"num_hidden_layers": 2, "layer_types": ["a", "b"], "max_window_layers": 2}
    assert found["vision_config"] == {"depth": 1, "fullatt_block_indexes": [0], "num_heads": 4}
    # The second stack's new count is the first one's old count: nothing is counted twice.
    swapped = output_config(T5, stack_layers={"encoder.block": (4, (0, 1)), "decoder.block": (4, (0,))}, dtype_name="x")
    assert (swapped["num_layers"], swapped["num_decoder_layers"]) == (2, 1)


def test_layers_that_predict_further_tokens_are_counted_apart() -> None:
    config = {"num_hidden_layers": 3, "num_nextn_predict_layers": 1, "layer_types": ["a", "b", "c"]}
    assert restack(config, 0, 0, 2, 3) == {**config, "layer_types": ["a", "a", "c"]}
    expected = {"num_hidden_layers": 2, "num_nextn_predict_layers": 1, "layer_types": ["a", "c"]}
    assert restack(config, 0, 2, 3) == expected
    assert restack(config, 0, 2) == {**expected, "num_nextn_predict_layers": 0}
    # Where they are not in the stack, their count is not about it.
    assert restack(config, 0, 2, old=3) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
        ({"torch_dtype": None, "a": 1}, {"torch_dtype": "bfloat16", "a": 1}),
        ({"torch_dtype": "float32", "dtype": "float32"}, {"torch_dtype": "bfloat16", "dtype": "bfloat16"}),
        ({"a": 1}, {"a": 1, "torch_dtype": "bfloat16"}),
        ({"transformers_version": "4.40.1"}, {"transformers_version": "4.40.1", "torch_dtype": "bfloat16"}),
        ({"transformers_version": "4.56.0"}, {"transformers_version": "4.56.0", "dtype": "bfloat16"}),
        ({"transformers_version": "5.0.0.dev0"}, {"transformers_version": "5.0.0.dev0", "dtype": "bfloat16"}),
        (
            {"text_config": {"dtype": "float32"}, "vision_config": {"dtype": None}},
            {"text_config": {"dtype": "bfloat16"}, "vision_config": {"dtype": None}, "dtype": "bfloat16"},
        ),
        (
            {"dtype": "float32", "quantization_config": {"dtype": "int8"}},
            {"dtype": "bfloat16", "quantization_config": {"dtype": "int8"}},
        ),
        ({}, {}),
    ],
)
def test_the_dtype_goes_where_the_config_has_it(config: dict[str, Any], expected: dict[str, Any]) -> None:
    found = output_config(config, stack_layers={}, dtype_name="bfloat16")
    assert list(found.items()) == list(expected.items())


def test_vocabulary_and_ties_are_written_where_they_are_said() -> None:
    config = {
        "dtype": "x",
        "text_config": {"vocab_size": 10, "tie_word_embeddings": False},
        "vision_config": {"vocab_size": 10},
    }
    found = output_config(config, stack_layers={}, dtype_name="x", vocabulary_rows=12, tie_word_embeddings=True)
    assert found["text_config"] == {"vocab_size": 12, "tie_word_embeddings": True}
    assert found["vision_config"] == {"vocab_size": 10}
    assert set(found) == set(config)
    config = {"dtype": "x"}
    found = output_config(config, stack_layers={}, dtype_name="x", vocabulary_rows=12, tie_word_embeddings=False)
    assert found == {"dtype": "x", "vocab_size": 12, "tie_word_embeddings": False}


def test_which_keys_count_layers() -> None:
    counts = "num_hidden_layers n_layer n_layers num_layers nlayers depth encoder_layers numLayers"
    others = "max_window_layers num_dense_layers first_k_dense_replace layer_norm_eps num_experts encoder"
    assert [key for key in counts.split() if not is_layer_count(key)] == []
    assert [key for key in [*others.split(), "", "_", "n"] if is_layer_count(key)] == []
    assert is_extra_count("num_nextn_predict_layers")
    assert is_extra_count("mtp_num_hidden_layers")
    assert not is_layer_count("num_nextn_predict_layers")
    found = layer_counts({"num_layers": 0, "n_layer": True, "vision_config": {"depth": 3, "mtp_layers": 2}})
    assert [(count.path, count.count, count.extra, count.part) for count in found] == [
        (("vision_config",), 3, 2, "vision")
    ]


LINEAR, SLIDING, FULL = "linear_attention", "sliding_attention", "full_attention"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 3},
    "gemma3_text": {"num_hidden_layers": 3, "layer_types": [SLIDING, FULL, SLIDING]},
    "qwen2_moe": {"num_hidden_layers": 3, "mlp_only_layers": [0], "num_experts": 2, "decoder_sparse_step": 1},
    "gpt2": {"n_layer": 3},
    "mamba": {"num_hidden_layers": 3},
    "qwen3_next": {"num_hidden_layers": 3, "num_experts": 2, "layer_types": [LINEAR, LINEAR, FULL]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_builds_the_layers_that_the_config_promises(family: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.logging.set_verbosity_error()

    def layers(config: Any) -> list[dict[str, Any]]:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        stack = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=lambda m: len(str(m)))
        return [{name: tensor.shape for name, tensor in layer.state_dict().items()} for layer in stack]

    try:
        donor = AutoConfig.for_model(family, **FAMILIES[family])
    except ValueError:
        pytest.skip(f"this transformers has no {family}")
    before = layers(donor)
    sources = (2, 0, 1, 2)
    config = output_config(json.loads(donor.to_json_string()), stack_layers={TEXT: (3, sources)}, dtype_name="bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = AutoConfig.from_pretrained(tmp_path)
    assert layers(read) == [before[source] for source in sources]
    assert str(getattr(read, "dtype", None) or read.torch_dtype) == "torch.bfloat16"
