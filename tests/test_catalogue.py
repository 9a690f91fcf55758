"""Models as transformers builds and saves them, merged in three ways and loaded by it again; see docs/architectures.md."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

import torch
from architecture_trial import MERGES, PASSED, Loaded, _compare, try_architecture
from architectures import BAR
from catalogue import entries

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = (
    # Decoders: plain, with experts, with two kinds of attention, with the head tied and without.
    *("LlamaForCausalLM", "Qwen3MoeForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"),
    "DeepseekV3ForCausalLM",
    # Recurrent layers, alone and beside attention; an attention that the layers share.
    *("MambaForCausalLM", "RecurrentGemmaForCausalLM", "Zamba2ForCausalLM"),
    # Eyes.
    *("LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
    # Encoders, and encoders with decoders; layers kept as lists of their parts.
    *("BertForMaskedLM", "XLMWithLMHeadModel", "T5ForConditionalGeneration", "LEDForConditionalGeneration"),
)


def outcome(name: str, scratch: Path) -> str | dict[str, str]:
    """Why an architecture does not count, else what became of each merge."""
    names = {entry.name for entry in entries()}
    if name not in names:
        pytest.skip(f"this transformers has no {name}")
    found = try_architecture(name, scratch)
    return found.unbuilt or found.control or found.results


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample(name: str, tmp_path: Path) -> None:
    assert outcome(name, tmp_path / "work") == dict.fromkeys(MERGES, PASSED)


@pytest.mark.skipif(sys.platform == "win32", reason="too slow there for what it adds")
@pytest.mark.slow
def test_all_of_them(tmp_path: Path) -> None:
    found = [try_architecture(entry.name, tmp_path / entry.name) for entry in entries()]
    counting = [each for each in found if each.counts]
    failed = {each.name: each.results for each in counting if not each.passed}
    assert len(counting) >= 280
    assert len(failed) <= (1 - BAR) * len(counting), failed


def test_a_wrong_weight_is_seen() -> None:
    weight = torch.ones(2, 2)
    right = Loaded({"a.weight": weight}, {}, {}, {}, ["said before"])
    wrong = Loaded({"a.weight": weight + 1e-3}, {}, {}, {}, ["said before"])
    assert _compare(right, right, lambda _: weight) == PASSED
    assert _compare(wrong, right, lambda _: weight) == "a.weight is not what the merge says"
    lost = Loaded({"a.weight": weight}, {}, {}, {}, ["said before", "missing_keys: b.weight"])
    assert _compare(lost, right, lambda _: weight) == "missing_keys: b.weight"
