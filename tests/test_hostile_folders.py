"""Model folders that an enemy wrote: indexes, configs, cards and tokenizer files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plait
import pytest
import yaml
from hostile_support import GOOD, World, one_line, shard, short
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from merge_support import file_bytes
from plait.engine.errors import PlaitError
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"
STACKED = """\
merge_method: passthrough
slices:
  - sources: [{model: victim, layer_range: [0, 2]}]
  - sources: [{model: victim, layer_range: [1, 3]}]
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


# ------------------------------------------------------------------------------------------------ indexes


@pytest.mark.parametrize(
    "name",
    [
        *("../good/model.safetensors", "../../x.safetensors", "/etc/passwd", "..", "", "sub/x.safetensors", "a\\b"),
        *("a\0b", "a\nb.safetensors", "\x1b[2J", 5, None, ["a"], {"a": "b"}, "a" * 100_000 + "/"),
    ],
    ids=short,
)
def test_an_index_leads_nowhere_else(world: World, name: Any) -> None:
    shard(world, {"steps": name})
    world.refusal(str(world.victim / INDEX), "'steps'", "is not the name of a file in this folder")


@pytest.mark.parametrize(
    "name",
    ["model-00003-of-00003.safetensors", "~", "a" * 1000, "\u202e", "\ud800", "config.json", INDEX, ".hidden"],
    ids=short,
)
def test_an_index_that_names_no_shard(world: World, name: str) -> None:
    (world.victim / ".hidden").write_bytes(world.proper)
    shard(world, {"steps": name})
    world.refusal(str(world.victim))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"weight_map": 5}', '{"weight_map": {"a": {}}}', '{"a":' * 10_000, "\ud800"],
    ids=short,
)
def test_an_index_that_is_none(world: World, text: str) -> None:
    shard(world, {})
    (world.victim / INDEX).write_bytes(text.encode("utf-8", "surrogatepass"))
    world.refusal(str(world.victim / INDEX))


# ------------------------------------------------------------------------------------------------ config.json


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "config.json:1:1: not JSON"),
        ("not JSON", "config.json:1:1: not JSON"),
        ("[1]", "config.json: not a JSON object"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "config.json: nested more than 100 levels deep"),
        ('{"a":' * 500 + "1" + "}" * 500, "config.json: nested more than 100 levels deep"),
        ('{"a":' + "[" * 900 + "]" * 900 + "}", "config.json: nested more than 100 levels deep"),
        ('{"a":' + "9" * 5000 + "}", "config.json: not JSON"),
        ('{"a": "' + "b" * 10_000_000 + '"}', "config.json: larger than 10 MB"),
        ('{"a": "\x1b"}', "config.json:1:8: not JSON"),
    ],
    ids=short,
)
def test_a_config_that_is_none(world: World, text: str, problem: str) -> None:
    (world.victim / "config.json").write_text(text)
    world.refusal(problem)


def test_a_config_as_deep_as_is_allowed_comes_out(world: World) -> None:
    text = '{"a":' * 99 + "{}" + "}" * 99
    (world.victim / "config.json").write_text(text)
    assert not isinstance(world.merge(), PlaitError)
    made = json.loads((world.out / "config.json").read_text())
    assert {"a": made["a"]} == json.loads(text)


def test_half_a_character_in_a_config_comes_out_as_it_was(world: World) -> None:
    (world.victim / "config.json").write_text('{"name": "\\ud800 \\udcff", "dtype": "float32"}')
    assert not isinstance(world.merge(), PlaitError)
    assert json.loads((world.out / "config.json").read_text())["name"] == "\ud800 \udcff"


HUGE = "9" * 4000
KEYS = st.sampled_from(
    [
        *("num_hidden_layers", "n_layer", "num_nextn_predict_layers", "vocab_size", "tie_word_embeddings", "dtype"),
        *("torch_dtype", "transformers_version", "architectures", "model_type", "text_config", "vision_config"),
        *("layer_types", "mlp_only_layers", "hybrid_override_pattern", "max_window_layers", "moe_layer_end_index"),
        *("layers_enum", "rope_scaling", "0", "01", "٣", HUGE, "", "a\nb", "\ud800"),
    ]
)
VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-2, 5), st.floats(), st.text(max_size=4)),
        st.sampled_from([3, 3, "0,1", "1,2," + HUGE, "4.57", HUGE + ".1", int(HUGE), [0, 1], ["a", "b", "c"], "abc"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model of three layers and a recipe that repeats one."""
    world = World(tmp_path_factory.mktemp("stacked"))
    save_file(
        {"embed_tokens.weight": GOOD["embed.weight"]}
        | {f"layers.{layer}.{part}.weight": GOOD["layers.0.w"].clone() for layer in range(3) for part in "ab"},
        world.file,
    )
    (world.folder / "stacked.yml").write_text(STACKED)
    return world


def any_config(world: World, config: dict[str, object]) -> None:
    """Whatever a config says, the tensors are merged, and what is not about layers is as it was."""
    (world.victim / "config.json").write_text(json.dumps(config))
    try:
        plan = plait.plan(world.folder / "stacked.yml")
    except PlaitError as error:
        # Layers that the names alone do not show: a config may say that there are none, but not which others.
        one_line(error, "victim")
        return
    made = plan.output_config()
    assert list(made)[: len(config)] == list(config)
    json.dumps(made)


@QUICK
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_configs_that_say_anything(stacked: World, config: dict[str, object]) -> None:
    any_config(stacked, config)


@pytest.mark.slow
@settings(QUICK, max_examples=3_000)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_configs_that_say_anything_for_long(stacked: World, config: dict[str, object]) -> None:
    any_config(stacked, config)


# ------------------------------------------------------------------------------------------------ cards, tokenizers

BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30))


@pytest.mark.parametrize(
    "front",
    [
        *(BOMB, "a: " + "[" * 10_000, "a: " + "9" * 5000, "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "a: &x *x"),
        *("a: " + "b" * 1_000_000, "license: !!python/name:os.system x", "? [a]\n: b", "\x07", "license: [mit]"),
    ],
    ids=short,
)
def test_a_card_is_read_as_carefully_as_a_recipe(world: World, front: str) -> None:
    for name in ("good", "victim"):
        (world.folder / name / "README.md").write_text(f"---\n{front}\n---\n# a model\n")
    assert not isinstance(world.merge("mean.yml"), PlaitError)
    made = yaml.safe_load((world.out / "README.md").read_text().split("---\n")[1])
    assert "license" not in made or front.startswith("license: !!python")


def test_a_recipe_cannot_end_its_place_in_the_card(world: World) -> None:
    (world.folder / "copy.yml").write_text("# ```\n# ````<script>\nmerge_method: passthrough\nmodels: [victim]\n")
    assert not isinstance(world.merge(), PlaitError)
    card = (world.out / "README.md").read_text()
    assert card.count("`````") == 2


TOKENIZER_FILES = {
    "tokenizer.json": b"{" * 10_000,
    "tokenizer_config.json": b"not JSON \xff\0",
    "special_tokens_map.json": b"[" + b"1," * 1000,
    "tokenizer.model": bytes(range(256)),
    "chat_template.jinja": b"{% for x in range(10**9) %}" + b"\x1b]0;title\x07",
    "generation_config.json": b"",
    "modeling_own.py": b"raise SystemExit(13)",
}


def test_tokenizer_files_that_lie_are_copied_and_believed_by_nobody(world: World) -> None:
    for name, data in TOKENIZER_FILES.items():
        (world.victim / name).write_bytes(data)
    (world.victim / "tokenizer").mkdir()
    (world.victim / "vocab.json").mkdir()
    assert not isinstance(world.merge(), PlaitError)
    made = file_bytes(world.out)
    assert {name: made[name] for name in TOKENIZER_FILES} == TOKENIZER_FILES
    assert not {"tokenizer", "vocab.json"} & set(made)
