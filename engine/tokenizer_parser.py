"""``tokenizer:`` and ``tokenizer_source:``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .model_reference import UNREADABLE, parse_model, split_reference
from .recipe import TokenizerBlock, TokenRow
from .recipe_fields import TOKEN, TOKEN_SOURCE, TOKENIZER, Reading, describe, fields_of, shown, text_of, unrepeated
from .suggest import closest, did_you_mean
from .value_parser import whole_number_of
from .yaml_nodes import YamlMap, YamlNode, YamlScalar

if TYPE_CHECKING:
    from .recipe import ModelRef

_TOKEN_KINDS = ("zero", "model_token")
_LARGEST_ID = 2**31 - 1


def parse_tokenizer_source(node: YamlNode, reading: Reading) -> TokenizerBlock | None:
    """``union``, ``base``, a model, or ``model:`` and a model; as a block that says only this."""
    source = _source(node, reading)
    return TokenizerBlock(source) if source is not None else None


def parse_tokenizer(node: YamlNode, reading: Reading) -> TokenizerBlock | None:
    """The block; None, and a mistake reported, where it is none."""
    if isinstance(node, YamlScalar):
        hint = "a word goes into 'tokenizer_source:'"
        reading.error(node.where, f"the tokenizer must be a mapping, not {describe(node)}", hint)
        return None
    fields = fields_of(node, TOKENIZER, reading)
    if fields is None:
        return None
    source = _source(fields["source"].value, reading) if "source" in fields else "union"
    multiple = None
    if "pad_to_multiple_of" in fields:
        value = fields["pad_to_multiple_of"].value
        multiple = whole_number_of(value)
        if multiple is None or not 1 <= multiple <= _LARGEST_ID:
            reading.error(value.where, f"pad_to_multiple_of must be a whole number above 0, not {describe(value)}")
    rows: dict[str, TokenRow] = {}
    if "tokens" in fields:
        tokens = fields["tokens"].value
        if isinstance(tokens, YamlMap):
            rows = {entry.key: _row(entry.value, reading) for entry in unrepeated(tokens, lambda _: True, reading)}
        else:
            reading.error(tokens.where, f"tokens must be a mapping, not {describe(tokens)}")
    return TokenizerBlock(source or "union", rows, multiple)


def _source(node: YamlNode, reading: Reading) -> ModelRef | Literal["union", "base"] | None:
    if isinstance(node, YamlMap):
        model = parse_model(node, "tokenizer_source", reading)
        return None if model == UNREADABLE else model
    text = text_of(node, "tokenizer_source", reading)
    if text is None:
        return None
    if text in ("union", "base"):
        return "union" if text == "union" else "base"
    model_or_none, fault, hint = split_reference(text.removeprefix("model:"))
    if model_or_none is None:
        reading.error(node.where, f"tokenizer_source {shown(text)} {fault}", hint)
    return model_or_none


def _row(node: YamlNode, reading: Reading) -> TokenRow:
    fields = fields_of(node, TOKEN, reading)
    if fields is None:
        return TokenRow()
    forced = False
    if "force" in fields:
        value = fields["force"].value
        if isinstance(value, YamlScalar) and isinstance(value.value, bool):
            forced = value.value
        else:
            reading.error(value.where, f"force must be true or false, not {describe(value)}")
    if "source" not in fields:
        return TokenRow(force=forced)
    source = fields["source"].value
    kind = (
        next((entry for entry in source.entries if entry.key == "kind"), None) if isinstance(source, YamlMap) else None
    )
    if kind is None:
        return TokenRow(parse_model(source, "the source of a token", reading), force=forced)
    inner = fields_of(source, TOKEN_SOURCE, reading)
    word = text_of(kind.value, "kind", reading)
    if inner is None or word is None:
        return TokenRow(force=forced)
    if word not in _TOKEN_KINDS:
        hint = did_you_mean(closest(word, _TOKEN_KINDS))
        reading.error(kind.value.where, f"kind must be zero or model_token, not {shown(word)}", hint)
    if word != "model_token":
        return TokenRow(zero=True, force=forced)
    model, token, token_id = UNREADABLE, None, None
    if "model" in inner:
        model = parse_model(inner["model"].value, "model", reading)
    else:
        reading.error(source.where, "a model_token needs a 'model'")
    if ("token" in inner) == ("token_id" in inner):
        reading.error(source.where, "a model_token needs either 'token' or 'token_id'")
    elif "token" in inner:
        token = text_of(inner["token"].value, "token", reading)
    else:
        value = inner["token_id"].value
        token_id = whole_number_of(value)
        if token_id is None or not 0 <= token_id <= _LARGEST_ID:
            reading.error(value.where, f"token_id must be a whole number, not {describe(value)}")
    return TokenRow(model, token, token_id, force=forced)
