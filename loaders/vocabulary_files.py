"""Vocabularies as older folders have them, as a tokenizer.json: vocab.json with merges.txt, and vocab.txt.

The files say what the tokens are and not how text is cut up before; that is the class's own. It is known here for
GPT-2 (bytes, BPE) and BERT (words, WordPiece), as transformers has them; any other class is refused by name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import read_json, read_start
from .sentencepiece_file import needs_conversion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_LIMIT_BYTES = 50_000_000
_CONFIG_LIMIT_BYTES = 10_000_000

_BPE_FILE, _MERGES_FILE, _WORDS_FILE = "vocab.json", "merges.txt", "vocab.txt"
_END = "<|endoftext|>"
_GPT2 = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""The special tokens that a class has where nothing says otherwise, in the order in which they are added."""


def vocabulary_document(
    folder: Path, settings: Mapping[str, object], named: Mapping[str, str]
) -> tuple[Path, dict[str, object]] | None:
    """A tokenizer.json for a folder's vocabulary files, and which file it is of; None if there is none.

    ``settings`` are its tokenizer_config.json, ``named`` the special tokens that its files name. Raises InputError.
    """
    kind = _class_of(folder, settings)
    for name, wanted, make in ((_BPE_FILE, "GPT2", _byte_level), (_WORDS_FILE, "Bert", _word_piece)):
        path = folder / name
        if not os.path.lexists(path):
            continue
        if kind != wanted:
            called = (
                f"how a {kind}Tokenizer cuts text is not known" if kind else "nothing says which tokenizer it is of"
            )
            raise InputError(needs_conversion(path, called))
        return path, make(path, settings, named)
    return None


def _class_of(folder: Path, settings: Mapping[str, object]) -> str:
    """The tokenizer's class without its ending: as the settings say, else as the model's type suggests."""
    name = settings.get("tokenizer_class")
    if isinstance(name, str):
        return name.removesuffix("Fast").removesuffix("Tokenizer")
    config = folder / "config.json"
    model_type = read_json(config, _CONFIG_LIMIT_BYTES).get("model_type") if os.path.lexists(config) else None
    return {"gpt2": "GPT2", "bert": "Bert"}.get(model_type, "") if isinstance(model_type, str) else ""


def _byte_level(path: Path, settings: Mapping[str, object], named: Mapping[str, str]) -> dict[str, object]:
    vocabulary = read_json(path, _LIMIT_BYTES)
    merges_path = path.with_name(_MERGES_FILE)
    if not os.path.lexists(merges_path):
        raise InputError(f"{merges_path}: is missing; without it {path.name} does not say how tokens are made")
    merges = [line.split(" ") for line in _lines(merges_path) if line and not line.startswith("#version")]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": settings.get("add_prefix_space") is True,
        "trim_offsets": True,
        "use_regex": True,
    }
    model = {"type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
    special = _GPT2 | dict(named)
    template = None
    if settings.get("add_bos_token") is True:
        template = _template([special["bos_token"], ("A", 0)], [("B", 1)], vocabulary)
    return _document(
        model | {"vocab": vocabulary, "merges": merges},
        special.values(),
        pre_tokenizer=level,
        post_processor=template,
        decoder=level | {"add_prefix_space": True},
    )


def _word_piece(path: Path, settings: Mapping[str, object], named: Mapping[str, str]) -> dict[str, object]:
    vocabulary: dict[str, object] = {token: number for number, token in enumerate(_lines(path))}
    special = _BERT | dict(named)
    first, last = special["cls_token"], special["sep_token"]
    lower = settings.get("do_lower_case") is not False
    accents = settings.get("strip_accents")
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars") is not False,
        "strip_accents": accents if isinstance(accents, bool) else None,
        "lowercase": lower,
    }
    model = {"type": "WordPiece", "unk_token": special["unk_token"], "continuing_subword_prefix": "##"}
    return _document(
        model | {"max_input_chars_per_word": 100, "vocab": vocabulary},
        special.values(),
        normalizer=normalizer,
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=_template([first, ("A", 0), last], [("B", 1), (last, 1)], vocabulary),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


def _template(
    single: list[str | tuple[str, int]], more: list[str | tuple[str, int]], ids: Mapping[str, object]
) -> dict[str, object]:
    """What is put around one text, and what follows for a second; tokens by name, texts as (name, number)."""

    def step(part: str | tuple[str, int]) -> dict[str, object]:
        name, number = (part, 0) if isinstance(part, str) else part
        return {"Sequence" if name in ("A", "B") else "SpecialToken": {"id": name, "type_id": number}}

    used = [name for part in (*single, *more) if (name := part if isinstance(part, str) else part[0]) not in ("A", "B")]
    return {
        "type": "TemplateProcessing",
        "single": [step(part) for part in single],
        "pair": [step(part) for part in (*single, *more)],
        "special_tokens": {token: {"id": token, "ids": [ids.get(token, 0)], "tokens": [token]} for token in used},
    }


def _document(model: dict[str, object], special: Iterable[str], **parts: object) -> dict[str, object]:
    vocabulary = model["vocab"]
    assert isinstance(vocabulary, dict)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokens = dict.fromkeys(special)
    new = iter(range(len(vocabulary), len(vocabulary) + len(tokens)))
    added = [
        {"id": vocabulary[token] if token in vocabulary else next(new), "content": token} | flags for token in tokens
    ]
    steps = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None} | parts
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **steps, "model": model}


def _lines(path: Path) -> list[str]:
    data = read_start(path, _LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InputError(f"{path}: larger than {_LIMIT_BYTES // 1_000_000} MB")
    try:
        lines = data.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return lines[:-1] if not lines[-1] else lines
