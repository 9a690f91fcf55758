"""The card as the Hub reads it, and as a reader sees it: whatever names and recipes hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait import ops as _registered
from plait.engine.methoddef import methods
from plait.engine.recipe_parser import parse_recipe
from plait.loaders.card import CardFacts, code, render_card
from plait.loaders.card_inputs import Inherited
from plait.loaders.card_models import CardModel, card_models, hub_ids, shared_values

assert _registered

RECIPE = """\
merge_method: dare_ties
base_model: org/base@main
models:
  - {model: org/base@main}
  - {model: org/one+org/adapter, parameters: {weight: 0.6, density: 0.5}}
  - {model: ./two, parameters: {weight: [0.1, 0.9], density: [{filter: mlp, value: 1.0}, {value: 0.5}]}}
  - {model: models/three, parameters: {weight: 0.25, density: [0.5]}}
parameters: {normalize: true, lambda: 0.7, rescale: [{filter: mlp, value: l1}]}
"""


def facts(**changed: Any) -> CardFacts:
    recipe = parse_recipe(RECIPE, "recipe.yml", methods())
    known: dict[str, Any] = {
        "name": None,
        "method": "dare_ties",
        "method_summary": "Drop and elect",
        "paper": "Yu et al. 2023, arXiv:2311.03099",
        "models": card_models(recipe),
        "hub_ids": hub_ids(recipe.references()),
        "inherited": Inherited(),
        "architecture": "LlamaForCausalLM",
        "parameters": shared_values(recipe.parameters),
        "tokenizer": None,
        "chat_template": None,
        "recipe_text": RECIPE,
        "seed": 7,
        "dtype": "bfloat16",
        "layers": 32,
        "tensors": 291,
        "elements": 8_030_261_248,
        "size_bytes": 16_060_522_496,
        "version": "1.2.3",
    }
    return CardFacts(**(known | changed))


def hub(text: str) -> ModelCard:
    """The card as the Hub's own classes read it; what they write back says the same."""
    card = ModelCard(text)
    assert isinstance(card.data, ModelCardData)
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    return card


# ------------------------------------------------------------------------------------------------ front matter


def test_the_hub_reads_what_it_needs() -> None:
    inherited = Inherited("other", "own", "https://example.org/own", "image-text-to-text", None, ("en", "no"), ("a/b",))
    assert hub(render_card(facts(inherited=inherited))).data.to_dict() == {
        "base_model": ["org/base", "org/one", "org/adapter"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["merge", "plait"],
        "license": "other",
        "license_name": "own",
        "license_link": "https://example.org/own",
        "language": ["en", "no"],
        "datasets": ["a/b"],
    }


def test_what_nobody_says_is_left_out() -> None:
    found = hub(render_card(facts(hub_ids=(), architecture="OwnModel"))).data.to_dict()
    assert found == {"library_name": "transformers", "tags": ["merge", "plait"]}
    assert hub(render_card(facts())).data.pipeline_tag == "text-generation"


@pytest.mark.parametrize(
    ("reference", "is_id"),
    [
        ("meta-llama/Meta-Llama-3-8B", True),
        ("org/v1.5_x", True),
        *((text, False) for text in ("./a", "../a/b", "/a/b", "a", "a/b/c", "C:/a", "~/a", "models/a", "Output/x")),
        *(
            (text, False)
            for text in ("org/a--b", "org/..", "org/a.git", ".hid/a", "org/a-", "ö/a", "a/b]", "a /b", "a\n/b")
        ),
    ],
)
def test_only_what_can_be_a_hub_id_is_one(reference: str, is_id: bool) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id
    from plait.engine.recipe import ModelRef

    assert hub_ids([ModelRef(reference)]) == ((reference,) if is_id else ())
    if is_id:
        validate_repo_id(reference)
    elif reference not in ("a", "~/a", "models/a", "Output/x", "ö/a"):  # forms of ids that are folders far more often
        with pytest.raises(HFValidationError):
            validate_repo_id(reference)


# ------------------------------------------------------------------------------------------------ text


def test_the_table_has_what_models_are_given() -> None:
    text = hub(render_card(facts())).text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table == [
        "| model | role | `weight` | `density` |",
        "| --- | --- | --- | --- |",
        "| `org/base@main` | base |  |  |",
        "| `org/one+org/adapter` | merged | 0.6 | 0.5 |",
        "| `./two` | merged | by layer | by filter |",
        "| `models/three` | merged | 0.25 | 0.5 |",
    ]
    assert "- Parameters of the whole merge: `normalize` true, `lambda` 0.7, `rescale` by filter\n" in text
    assert "[arXiv:2311.03099](https://arxiv.org/abs/2311.03099)" in text
    assert "- Output: 32 layers, 291 tensors, 8.03B parameters, 15.0 GiB in bfloat16\n" in text
    assert "\n```sh\nplait run plait.yml OUT --seed 7\n```\n" in text


def test_slices_say_which_layers() -> None:
    text = """\
        merge_method: passthrough
        slices:
          - sources: [{model: a, layer_range: [0, 8]}]
          - sources: [{model: b, layer_range: [4, 12], parameters: {scale: 0.5}}]
          - sources: [{model: a, layer_range: [8, 16], parameters: {scale: 0}}]
        """
    a, b = card_models(parse_recipe(text, "recipe.yml", methods()))
    assert a == CardModel("a", "merged", "0–7, 8–15", {"scale": "0 in part"})
    assert b == CardModel("b", "merged", "4–11", {"scale": "0.5"})


def test_tokenizer_and_template_are_said_where_the_recipe_does() -> None:
    text = render_card(facts(tokenizer="union", chat_template="chatml"))
    assert "- Tokenizer: `union`\n- Chat template: `chatml`\n" in text
    assert "- Chat template: as in the recipe\n" in render_card(facts(chat_template="{{ x }}\n{% y %}"))
    assert "Tokenizer" not in render_card(facts())


@pytest.mark.parametrize(("elements", "said"), [(7, "7 p"), (250_432, "250 432 p"), (124 * 10**6, "124.00M p")])
def test_few_weights_are_counted_too(elements: int, said: str) -> None:
    assert f", {said}arameters," in render_card(facts(elements=elements))


# ------------------------------------------------------------------------------------------------ hostile


@pytest.mark.parametrize(
    "recipe", ["a", "```\n# out\n", "x: '````'\n---\nlicense: mit\n---\n", "~~~\n", "`" * 500, "a\r\n```\rb", "\n\n"]
)
def test_nothing_in_a_recipe_ends_its_block(recipe: str) -> None:
    text = render_card(facts(recipe_text=recipe))
    fence, inside = _block_after(text, "yaml")
    assert inside.rstrip("\n") == recipe.rstrip("\n")
    assert fence not in recipe
    assert hub(text).data.to_dict() == hub(render_card(facts())).data.to_dict()


def _block_after(text: str, language: str) -> tuple[str, str]:
    """The fence and the content of a block, as CommonMark reads it."""
    opened = re.search(rf"^(`{{3,}}){language}\n", text, re.MULTILINE)
    assert opened is not None
    closed = re.compile(rf"^`{{{len(opened[1])},}} *$", re.MULTILINE).search(text, opened.end())
    assert closed is not None
    return opened[1], text[opened.end() : closed.start()]


_NAMES = st.text(max_size=30) | st.sampled_from(
    ["---\nlicense: mit\n---", "a|b", "`", "``x", "<img src=x onerror=y>", "# x", "](http://x)", "\u2028a", "\x1b[31m"]
)


@settings(suppress_health_check=list(HealthCheck))
@given(_NAMES, _NAMES, _NAMES)
def test_names_stay_in_their_places(name: str, reference: str, value: str) -> None:
    model = CardModel(reference, "merged", "", {"weight": value})
    text = render_card(facts(name=name, models=[model], chat_template=value, tokenizer=reference))
    assert hub(text).data.to_dict() == hub(render_card(facts())).data.to_dict()
    lines, expected = text.split("\n"), render_card(facts(models=[model], tokenizer="x", chat_template="x")).split("\n")
    assert len(lines) == len(expected)
    assert all(line.isprintable() for line in lines)
    (row,) = [line for line in lines if line.startswith("| `")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    heading = next(line for line in lines if line.startswith("# "))
    assert not re.search(r"(?<!\\)[<>\[\]`*]", heading)


@given(st.text(max_size=20))
def test_a_code_span_holds_its_text(text: str) -> None:
    span = code(text)
    quotes = re.match("`+", span)
    assert quotes is not None
    inside = span[len(quotes[0]) : -len(quotes[0])]
    assert span.endswith(quotes[0])
    assert quotes[0] not in re.findall("`+", inside)
    assert "\n" not in span
