"""Small folders with tokenizers and chat templates, and what transformers makes of them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from plait.engine.errors import Location
from plait.loaders.side_files import SideFiles, side_files
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WHERE = Location("recipe.yml", 7, 1)
CONFIG = {"model_type": "llama", "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = ("<unk>", "<s>", "</s>")
CHATML = ("<|im_start|>", "<|im_end|>")


def write_tokenizer(
    folder: Path, extra: Sequence[str] = (), *, chat: object = None, words: Sequence[str] = ("a", "b", "user")
) -> Path:
    """A folder with a tokenizer: ``<unk> <s> </s>``, words, and the extra tokens after them; ``chat`` in its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(WordLevel({text: number for number, text in enumerate((*PLAIN, *words))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (*PLAIN, *extra)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", config | ({"chat_template": chat} if chat is not None else {}))
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def put(side: SideFiles, out: Path) -> Path:
    """Write what stands beside the weights into a folder."""
    for name, source in side.copies.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    for name, text in side.texts.items():
        assert name not in side.copies
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    write_json(out / "config.json", dict(side.config))
    return out


def beside(models: Mapping[str, Path], choice: str | None, **given: Any) -> SideFiles:
    """Side files over models whose config is CONFIG."""
    return side_files(models, given.pop("config", CONFIG), chat_template=choice, where=WHERE, **given)


def rendered(folder: Path, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
    """The text that transformers makes of a conversation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
    assert isinstance(text, str)
    return text
