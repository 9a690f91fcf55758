"""The inputs of a recipe: ``models:``, ``slices:`` and ``modules:``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .model_reference import UNREADABLE, parse_model
from .parameter_parser import parse_parameters
from .recipe import InputModel, ModelRef, Module, Slice, Source
from .recipe_fields import (
    MODEL,
    MODULE,
    SLICE,
    SOURCE,
    Reading,
    Shape,
    describe,
    fields_of,
    items_of,
    shown,
    unrepeated,
)
from .value_parser import whole_number_of
from .yaml_nodes import YamlEntry, YamlList, YamlMap, YamlNode, YamlScalar

if TYPE_CHECKING:
    from .errors import Location


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was read; ``slice_bases`` are the base models that slices name themselves."""

    models: tuple[InputModel, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: tuple[Module, ...] = ()
    slice_bases: tuple[tuple[ModelRef, Location], ...] = ()


def parse_inputs(fields: dict[str, YamlEntry], start: Location, reading: Reading) -> Inputs:
    """The inputs among the fields of a recipe, of which there must be exactly one kind."""
    _check_one(fields, ("models", "slices", "modules"), "the recipe", start, reading)
    bases: list[tuple[ModelRef, Location]] = []
    models = _models(fields.get("models"), reading)
    slices = _slices(fields.get("slices"), bases, reading)
    modules = _modules(fields.get("modules"), bases, reading)
    return Inputs(models, slices, modules, tuple(bases))


def _check_one(
    fields: dict[str, YamlEntry], keys: tuple[str, ...], what: str, start: Location, reading: Reading
) -> None:
    given = sorted((fields[key] for key in keys if key in fields), key=lambda entry: entry.where)
    listed = ", ".join(repr(key) for key in keys[:-1]) + f" or {keys[-1]!r}"
    if not given:
        reading.error(start, f"{what} has no inputs", f"give it {listed}")
    for entry in given[1:]:
        reading.error(entry.where, f"{entry.key!r} beside {given[0].key!r}: {what} has exactly one of them", "keep one")


def _models(entry: YamlEntry | None, reading: Reading) -> tuple[InputModel, ...]:
    if entry is None:
        return ()
    found = []
    for node in items_of(entry.value, "models", reading):
        model, fields = _model_of(node, MODEL, reading)
        parameters = parse_parameters(fields.get("parameters"), reading, of_one_model=True)
        found.append(InputModel(model, parameters, node.where))
    return tuple(found)


def _model_of(node: YamlNode, shape: Shape, reading: Reading) -> tuple[ModelRef, dict[str, YamlEntry]]:
    """The model of an entry, which may be its bare name, and the fields beside it."""
    if isinstance(node, YamlScalar) and node.value is not None:
        return parse_model(node, "model", reading), {}
    fields = fields_of(node, shape, reading)
    if fields is None:
        return UNREADABLE, {}
    if "model" not in fields:
        reading.error(node.where, f"{shape.title} has no 'model'")
        return UNREADABLE, fields
    return parse_model(fields["model"].value, "model", reading), fields


def _slices(entry: YamlEntry | None, bases: list[tuple[ModelRef, Location]], reading: Reading) -> tuple[Slice, ...]:
    if entry is None:
        return ()
    found = []
    for node in items_of(entry.value, "slices", reading):
        fields = fields_of(node, SLICE, reading)
        if fields is None:
            continue
        if "base_model" in fields:
            base = fields["base_model"]
            bases.append((parse_model(base.value, "base_model", reading), base.where))
        sources: tuple[Source, ...] = ()
        if "sources" in fields:
            sources = _sources(fields["sources"].value, reading)
        else:
            reading.error(node.where, "a slice has no 'sources'")
        parameters = parse_parameters(fields.get("parameters"), reading, of_one_model=False)
        found.append(Slice(sources, parameters, node.where))
    return tuple(found)


def _sources(node: YamlNode, reading: Reading) -> tuple[Source, ...]:
    found: list[Source] = []
    for item in items_of(node, "sources", reading):
        model, fields = _model_of(item, SOURCE, reading)
        layers = _layer_range(fields.get("layer_range"), reading)
        parameters = parse_parameters(fields.get("parameters"), reading, of_one_model=True)
        first = next((source.layer_range for source in found if source.layer_range is not None), None)
        if layers is not None and first is not None and layers[1] - layers[0] != first[1] - first[0]:
            message = f"this source has {_count(layers)}, the first of the slice {first[1] - first[0]}"
            hint = "the sources of a slice are merged layer by layer: give them equally many"
            reading.error(fields["layer_range"].value.where, message, hint)
        found.append(Source(model, layers, parameters, item.where))
    return tuple(found)


def _layer_range(entry: YamlEntry | None, reading: Reading) -> tuple[int, int] | None:
    if entry is None:
        return None
    node = entry.value
    if not isinstance(node, YamlList) or len(node.items) != 2:
        what = describe(node) if not isinstance(node, YamlList) else f"a list of {len(node.items)}"
        reading.error(node.where, f"layer_range must be [start, end], not {what}", "end is the first layer left out")
        return None
    ends = []
    for item in node.items:
        end = whole_number_of(item)
        if end is None or end < 0:
            reading.error(item.where, f"a layer must be a whole number from 0 up, not {describe(item)}")
        else:
            ends.append(end)
    if len(ends) < 2:
        return None
    if ends[1] <= ends[0]:
        reading.error(
            node.where, f"layer_range [{ends[0]}, {ends[1]}] has no layers", "write [start, end], start < end"
        )
        return None
    return ends[0], ends[1]


def _count(layers: tuple[int, int]) -> str:
    count = layers[1] - layers[0]
    return f"{count} layer" + ("s" if count != 1 else "")


def _modules(entry: YamlEntry | None, bases: list[tuple[ModelRef, Location]], reading: Reading) -> tuple[Module, ...]:
    if entry is None:
        return ()
    node = entry.value
    if not isinstance(node, YamlMap):
        reading.error(
            node.where, f"modules must be a mapping, not {describe(node)}", "write NAME: and below it its models"
        )
        return ()
    if not node.entries:
        reading.error(node.where, "modules is empty")
    found = []
    for item in unrepeated(node, lambda _: True, reading):
        fields = fields_of(item.value, MODULE, reading)
        if fields is None:
            continue
        _check_one(fields, ("models", "slices"), f"the module {shown(item.key)}", item.where, reading)
        found.append(
            Module(
                item.key,
                _models(fields.get("models"), reading),
                _slices(fields.get("slices"), bases, reading),
                parse_parameters(fields.get("parameters"), reading, of_one_model=False),
                item.where,
            )
        )
    return tuple(found)
