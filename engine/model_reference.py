"""Model references: a path or ``org/name``, ``@revision``, ``+adapter``, as text or as mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipe import ModelRef
from .recipe_fields import MODEL_PATH, MODEL_REFERENCE, Reading, describe, fields_of, shown, text_of
from .yaml_nodes import YamlMap, YamlScalar

if TYPE_CHECKING:
    from .yaml_nodes import YamlEntry, YamlNode

# Stands for a reference that could not be read: the mistake is already reported, and the entry still counts.
UNREADABLE = ModelRef("")

_LITERAL_HINT = "a path with that character in it is written as a mapping: {path: …}"


def parse_model(node: YamlNode, what: str, reading: Reading) -> ModelRef:
    """The model that a node names; UNREADABLE, and a mistake reported, if it names none."""
    if isinstance(node, YamlMap):
        return _from_mapping(node, reading)
    if not isinstance(node, YamlScalar) or node.value is None:
        reading.error(node.where, f"{what} must name a model, not {describe(node)}")
        return UNREADABLE
    text = text_of(node, what, reading)
    if text is None:
        return UNREADABLE
    model, fault, hint = split_reference(text)
    if model is None:
        reading.error(node.where, f"{what} {shown(text)} {fault}", hint)
        return UNREADABLE
    return model


def split_reference(text: str) -> tuple[ModelRef | None, str, str]:
    """A reference as text, taken apart: the model, or None with what is wrong and a hint."""
    halves = text.split("+")
    if len(halves) > 2:
        return None, "has more than one '+'; only one adapter can be added", _LITERAL_HINT
    parts = [half.split("@") for half in halves]
    if any(len(part) > 2 for part in parts):
        return None, "has more than one '@'", _LITERAL_HINT
    if any(not word.strip() for part in parts for word in part):
        return None, "has an empty part", "write PATH, ORG/NAME, ORG/NAME@REVISION or MODEL+ADAPTER"
    models = [ModelRef(part[0], part[1] if len(part) == 2 else None) for part in parts]
    adapter = models[1] if len(models) == 2 else None
    return ModelRef(models[0].path, models[0].revision, adapter), "", ""


def _from_mapping(node: YamlMap, reading: Reading) -> ModelRef:
    """``{path, revision}`` or ``{model: …, lora: …}``, where each half is text or ``{path, revision}``."""
    fields = fields_of(node, MODEL_REFERENCE, reading)
    assert fields is not None, "it is a mapping"
    if "model" in fields and "path" in fields:
        reading.error(fields["path"].where, "a model reference has either 'model' or 'path', not both")
        return UNREADABLE
    if "model" in fields:
        model = _half(fields["model"].value, reading)
    elif "path" in fields:
        model = _literal(fields, node, reading)
    else:
        reading.error(node.where, "the model reference names no model", "give it 'model' or 'path'")
        return UNREADABLE
    if "lora" not in fields:
        return model
    adapter = _half(fields["lora"].value, reading)
    return UNREADABLE if UNREADABLE in (model, adapter) else ModelRef(model.path, model.revision, adapter)


def _half(node: YamlNode, reading: Reading) -> ModelRef:
    """The model or the adapter of a mapping."""
    if isinstance(node, YamlMap):
        fields = fields_of(node, MODEL_PATH, reading)
        assert fields is not None, "it is a mapping"
        return _literal(fields, node, reading)
    model = parse_model(node, "the model", reading)
    if model.adapter is not None:
        reading.error(node.where, "a model in a mapping takes its adapter from 'lora', not from '+'", _LITERAL_HINT)
        return UNREADABLE
    return model


def _literal(fields: dict[str, YamlEntry], node: YamlMap, reading: Reading) -> ModelRef:
    """``{path, revision}``, where ``+`` and ``@`` in the path mean themselves."""
    if "path" not in fields:
        reading.error(node.where, "the model reference names no model", "give it a 'path'")
        return UNREADABLE
    path = text_of(fields["path"].value, "path", reading)
    revision = text_of(fields["revision"].value, "revision", reading) if "revision" in fields else None
    if path is None or (revision is None and "revision" in fields):
        return UNREADABLE
    if not path.strip() or (revision is not None and not revision.strip()):
        reading.error(node.where, "the model reference has an empty part")
        return UNREADABLE
    return ModelRef(path, revision)
