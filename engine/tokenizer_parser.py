"""The shape of ``tokenizer:`` and ``tokenizer_source:``. What they mean is for those who build tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model_reference import UNREADABLE, parse_model, split_reference
from .recipe_fields import TOKEN, TOKEN_SOURCE, TOKENIZER, Reading, describe, fields_of, shown, text_of, unrepeated
from .suggest import closest, did_you_mean
from .value_parser import whole_number_of
from .yaml_nodes import YamlMap, YamlNode, YamlScalar, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN_KINDS = ("zero", "model_token")


def parse_tokenizer_source(node: YamlNode, reading: Reading) -> str | None:
    """``union``, ``base``, a model, or ``model:`` and a model; as given."""
    if isinstance(node, YamlMap):
        model = parse_model(node, "tokenizer_source", reading)
        return None if model == UNREADABLE else str(model)
    text = text_of(node, "tokenizer_source", reading)
    if text is None:
        return None
    model_or_none, fault, hint = split_reference(text.removeprefix("model:"))
    if model_or_none is None:
        reading.error(node.where, f"tokenizer_source {shown(text)} {fault}", hint)
    return text


def parse_tokenizer(node: YamlNode, reading: Reading) -> Mapping[str, object] | None:
    """The block as plain data, once its shape is right."""
    if isinstance(node, YamlScalar):
        hint = "a word goes into 'tokenizer_source:'"
        reading.error(node.where, f"the tokenizer must be a mapping, not {describe(node)}", hint)
        return None
    fields = fields_of(node, TOKENIZER, reading)
    if fields is None:
        return None
    if "source" in fields:
        parse_tokenizer_source(fields["source"].value, reading)
    if "pad_to_multiple_of" in fields:
        value = fields["pad_to_multiple_of"].value
        multiple = whole_number_of(value)
        if multiple is None or multiple < 1:
            reading.error(value.where, f"pad_to_multiple_of must be a whole number above 0, not {describe(value)}")
    if "tokens" in fields:
        tokens = fields["tokens"].value
        if isinstance(tokens, YamlMap):
            for entry in unrepeated(tokens, lambda _: True, reading):
                _check_token(entry.value, reading)
        else:
            reading.error(tokens.where, f"tokens must be a mapping, not {describe(tokens)}")
    return {key: plain(entry.value) for key, entry in fields.items()}


def _check_token(node: YamlNode, reading: Reading) -> None:
    fields = fields_of(node, TOKEN, reading)
    if fields is None:
        return
    if "force" in fields:
        force = fields["force"].value
        if not (isinstance(force, YamlScalar) and isinstance(force.value, bool)):
            reading.error(force.where, f"force must be true or false, not {describe(force)}")
    if "source" not in fields:
        return
    source = fields["source"].value
    kind = (
        next((entry for entry in source.entries if entry.key == "kind"), None) if isinstance(source, YamlMap) else None
    )
    if kind is None:
        parse_model(source, "the source of a token", reading)
        return
    inner = fields_of(source, TOKEN_SOURCE, reading)
    word = text_of(kind.value, "kind", reading)
    if inner is None or word is None:
        return
    if word not in _TOKEN_KINDS:
        hint = did_you_mean(closest(word, _TOKEN_KINDS))
        reading.error(kind.value.where, f"kind must be zero or model_token, not {shown(word)}", hint)
    elif word == "model_token":
        if "model" in inner:
            parse_model(inner["model"].value, "model", reading)
        else:
            reading.error(source.where, "a model_token needs a 'model'")
        if ("token" in inner) == ("token_id" in inner):
            reading.error(source.where, "a model_token needs either 'token' or 'token_id'")
        elif "token" in inner:
            text_of(inner["token"].value, "token", reading)
        elif whole_number_of(inner["token_id"].value) is None:
            value = inner["token_id"].value
            reading.error(value.where, f"token_id must be a whole number, not {describe(value)}")
