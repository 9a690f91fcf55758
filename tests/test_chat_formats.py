"""The named chat formats, as transformers renders them, beside conversations written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chat_support import beside, put, rendered, write_tokenizer
from plait.loaders.chat_formats import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Sure?"},
]

WITH_SYSTEM = {
    "alpaca": (
        "Be brief.\n\n### Instruction:\n2+2?\n\n### Response:\n4</s>\n\n### Instruction:\nSure?\n\n### Response:\n"
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "exaone": (
        "[|system|]Be brief.[|endofturn|]\n[|user|]2+2?\n[|assistant|]4[|endofturn|]\n[|user|]Sure?\n[|assistant|]"
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s> [INST] Be brief.\n\n2+2? [/INST] 4</s> [INST] Sure? [/INST]",
}
WITHOUT = {
    "alpaca": "### Instruction:\n2+2?\n\n### Response:\n4</s>\n\n### Instruction:\nSure?\n\n",
    "chatml": (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
    ),
    "exaone": "[|system|][|endofturn|]\n[|user|]2+2?\n[|assistant|]4[|endofturn|]\n[|user|]Sure?\n",
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
    ),
    "mistral": "<s> [INST] 2+2? [/INST] 4</s> [INST] Sure? [/INST]",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each format the folder of an output that has it."""
    folder = tmp_path_factory.mktemp("formats")
    donor = write_tokenizer(folder / "base")
    return {name: put(beside({"base": donor}, name), folder / name) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_conversation_is_written_as_the_format_has_it(outputs: dict[str, Path], name: str) -> None:
    assert rendered(outputs[name], [SYSTEM, *TALK]) == WITH_SYSTEM[name]
    assert rendered(outputs[name], TALK, answer=False) == WITHOUT[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_conversation_of_one_message(outputs: dict[str, Path], name: str) -> None:
    text = rendered(outputs[name], TALK[:1])
    assert WITHOUT[name].startswith(text[: text.index("2+2?") + 4])


def test_a_format_of_two_takes_no_third_and_no_turn_twice(outputs: dict[str, Path]) -> None:
    from jinja2 import TemplateError

    for talk in ([TALK[0], TALK[0]], [TALK[1]], [TALK[0], SYSTEM], [SYSTEM, SYSTEM]):
        with pytest.raises(TemplateError, match="takes turns"):
            rendered(outputs["mistral"], talk)


def test_a_tokenizer_without_a_begin_of_text_is_none_the_worse(tmp_path: Path) -> None:
    donor = write_tokenizer(tmp_path / "base")
    config = donor / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"bos_token": "<s>", ', ""))
    for name in ("llama3", "mistral"):
        out = put(beside({"base": donor}, name), tmp_path / name)
        assert rendered(out, TALK, answer=False) == WITHOUT[name].removeprefix("<s>")
