"""Models as transformers builds and saves them, merged in three ways and loaded again; see docs/architectures.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

import torch
from architecture_trial import MERGES, PASSED, Loaded, _compare, try_architecture
from architectures import BAR
from catalogue import entries

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"

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


@pytest.mark.slow
def test_all_of_them(tmp_path: Path) -> None:
    """What the page says comes out right does, and nearly everything else that can be tried."""
    found = [try_architecture(entry.name, tmp_path / entry.name) for entry in entries()]
    counting = [each for each in found if each.counts]
    failed = {each.name: each.results for each in counting if not each.passed}
    promised = set(re.findall(r"^\| `(\w+)` \|[^|]*\| ✓ \| ✓ \| ✓ \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(promised) > 250
    assert {name: results for name, results in failed.items() if name in promised} == {}
    assert len(failed) <= (1 - BAR) * len(counting), failed


def test_a_wrong_weight_is_seen() -> None:
    weight = torch.ones(2, 2)
    right = Loaded({"a.weight": weight}, {}, {}, {}, ["said before"])
    wrong = Loaded({"a.weight": weight + 1e-3}, {}, {}, {}, ["said before"])
    assert _compare(right, right, lambda _: weight) == PASSED
    assert _compare(wrong, right, lambda _: weight) == "a.weight is not what the merge says"
    lost = Loaded({"a.weight": weight}, {}, {}, {}, ["said before", "missing_keys: b.weight"])
    assert _compare(lost, right, lambda _: weight) == "missing_keys: b.weight"
