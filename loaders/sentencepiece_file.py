"""SentencePiece models (tokenizer.model) as a tokenizer.json: pieces, the merges that scores stand for, the steps.

The file is a protocol buffer, sentencepiece_model.proto of the SentencePiece project; of its many fields a handful
matter here, and they are read without its library. Ids are the pieces' places, as in Llama, Mistral and Gemma.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import read_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODEL_FILE = "tokenizer.model"

_LIMIT_BYTES = 50_000_000
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_UNIGRAM, _BPE = 1, 2
_SPACE = "▁"

_CLASSES = ("", "Llama", "CodeLlama", "Gemma", "Mistral", "PreTrained", "Tokenizers", "InternLM", "Baichuan", "Yi")
"""Tokenizers whose ids are the pieces' places, by the start of their class's name; others shift them."""


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class _Pieces:
    """A SentencePiece model, as far as it matters."""

    pieces: tuple[_Piece, ...]
    kind: int
    has_bytes: bool
    charsmap: bytes
    adds_prefix: bool
    removes_spaces: bool


def sentencepiece_document(path: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """A tokenizer.json for a SentencePiece model; ``settings`` are its tokenizer_config.json. Raises InputError."""
    word = settings.get("tokenizer_class", "")
    name = word if isinstance(word, str) else "?"
    if name.removesuffix("Fast").removesuffix("Tokenizer") not in _CLASSES:
        raise InputError(needs_conversion(path, f"ids of a {name} are not those of its pieces"))
    data = read_start(path, _LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InputError(f"{path}: larger than {_LIMIT_BYTES // 1_000_000} MB")
    try:
        found = _parse(data)
        if not found.pieces:
            raise ValueError("no pieces")
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(needs_conversion(path, "it is no SentencePiece model")) from error
    if found.kind not in (_UNIGRAM, _BPE):
        raise InputError(needs_conversion(path, "it holds neither a BPE nor a Unigram model"))
    return _document(found, settings)


def needs_conversion(path: Path, what: str) -> str:
    """What a user does about a tokenizer in a form that is not read."""
    return (
        f"{path}: {what}, and there is no tokenizer.json beside it; transformers makes one: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


def _parse(data: bytes) -> _Pieces:
    pieces, kind, has_bytes = [], _UNIGRAM, False
    charsmap, adds_prefix, removes_spaces = b"", True, True
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text, score, piece_kind = "", 0.0, _NORMAL
            for inner, part in _fields(value):
                if inner == 1 and isinstance(part, bytes):
                    text = part.decode()
                elif inner == 2 and isinstance(part, bytes):
                    (score,) = struct.unpack("<f", part)
                elif inner == 3 and isinstance(part, int):
                    piece_kind = part
            pieces.append(_Piece(text, score, piece_kind))
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
            kind, has_bytes = _number(trainer.get(3), _UNIGRAM), bool(_number(trainer.get(35), 0))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
            rules = normalizer.get(2)
            charsmap = rules if isinstance(rules, bytes) else b""
            adds_prefix = bool(_number(normalizer.get(3), 1))
            removes_spaces = bool(_number(normalizer.get(4), 1))
    return _Pieces(tuple(pieces), kind, has_bytes, charsmap, adds_prefix, removes_spaces)


def _number(value: bytes | int | None, default: int) -> int:
    return value if isinstance(value, int) else default


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message: number and value. Raises ValueError or IndexError where it is none."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, place = _varint(data, place)
        if size is None or place + size > len(data) or number == 0:
            raise ValueError("no protocol buffer")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number without an end")


def _document(found: _Pieces, settings: Mapping[str, object]) -> dict[str, object]:
    ids = {piece.text: index for index, piece in enumerate(found.pieces)}
    unknown = next((piece.text for piece in found.pieces if piece.kind == _UNKNOWN), None)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": ids[piece.text], "content": piece.text, **flags, "special": piece.kind != _USER_DEFINED}
        for piece in found.pieces
        if piece.kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    rules: list[object] = []
    if found.charsmap:
        rules.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(found.charsmap).decode()})
    if found.removes_spaces:
        rules += [{"type": "Strip", "strip_left": True, "strip_right": True}, _replace({"Regex": " {2,}"}, " ")]
    if found.adds_prefix:
        rules.append({"type": "Prepend", "prepend": _SPACE})
    rules.append(_replace({"String": " "}, _SPACE))
    steps: list[object] = [_replace({"String": _SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if found.adds_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    if found.kind == _BPE:
        model: dict[str, object] = {"type": "BPE", "unk_token": unknown, "fuse_unk": True}
        model |= {"byte_fallback": found.has_bytes, "ignore_merges": False, "vocab": ids, "merges": _merges(found, ids)}
    else:
        model = {"type": "Unigram", "unk_id": ids[unknown] if unknown is not None else None}
        model |= {"vocab": [[piece.text, piece.score] for piece in found.pieces], "byte_fallback": found.has_bytes}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": rules},
        "pre_tokenizer": None,
        "post_processor": _template(ids, settings),
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": model,
    }


def _replace(pattern: Mapping[str, str], content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _merges(found: _Pieces, ids: Mapping[str, int]) -> list[list[str]]:
    """Every pair of pieces that makes a piece, the best score first; scores are all that the file has."""
    usable = {piece.text for piece in found.pieces if piece.kind == _NORMAL}
    merges: list[tuple[float, int, int, int, str, str]] = []
    for piece in found.pieces:
        text = piece.text
        if piece.kind != _NORMAL:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in usable and right in usable:
                merges.append((-piece.score, -cut, ids[left], ids[right], left, right))
    merges.sort()
    return [[left, right] for *_, left, right in merges]


def _template(ids: Mapping[str, int], settings: Mapping[str, object]) -> dict[str, object] | None:
    """What is put around a text: the first token as a rule, the last one where the settings ask for it."""
    first = "<s>" if "<s>" in ids else "<bos>"
    last = "</s>" if "</s>" in ids else "<eos>"
    around = [first in ids and settings.get("add_bos_token", True) is True]
    around.append(last in ids and settings.get("add_eos_token", False) is True)
    if not any(around):
        return None

    def text(name: str, number: int) -> list[object]:
        special = [{"SpecialToken": {"id": token, "type_id": number}} for token in (first, last)]
        return [*special[: around[0]], {"Sequence": {"id": name, "type_id": number}}, *special[1 : 1 + around[1]]]

    used = [token for token, wanted in zip((first, last), around, strict=True) if wanted]
    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": [*text("A", 0), *text("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in used},
    }
