"""The recipe language: YAML text to a checked, frozen Recipe.

Everything wrong is found in one go. A key or a value that cannot be read is reported and stood in for, so that one
slip does not set off others. No file is opened here.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from .dtype_names import DTYPE_NAMES, closest_dtype, dtype_name
from .errors import Location, Problem, RecipeError
from .findings import Findings
from .input_parser import Inputs, parse_inputs
from .model_reference import parse_model
from .parameter_parser import parse_parameters
from .recipe import ModelRef, Recipe
from .recipe_checks import check_inputs
from .recipe_fields import RECIPE, Reading, describe, fields_of, shown, text_of
from .recipe_yaml import read_yaml
from .suggest import closest, did_you_mean, near_miss
from .tokenizer_parser import parse_tokenizer, parse_tokenizer_source
from .value_parser import whole_number_of
from .yaml_nodes import YamlEntry, YamlNode, YamlScalar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .methoddef import MethodDef
    from .recipe_yaml import YamlDocument

T = TypeVar("T")

_LARGEST_SEED = 2**63 - 1


def parse_recipe(
    text: str,
    file: str,
    methods: Mapping[str, MethodDef],
    *,
    strict: bool = False,
    lenient: bool = False,
) -> Recipe:
    """Read a recipe. ``file`` is the name that messages use; ``methods`` are those that exist, by name.

    What is only suspicious ends up in ``Recipe.warnings``; ``strict`` makes mistakes of it. ``lenient`` makes warnings
    of near misses. Raises RecipeError with every mistake, each with its place and, where there is one, the nearest
    valid name.
    """
    document = _only_document(text, file)
    findings = Findings(strict=strict, lenient=lenient)
    findings.add(document.problems)
    reading = Reading(findings, document.used_anchors, methods)
    fields = fields_of(document.root, RECIPE, reading)
    if fields is None:
        findings.finish()
        raise AssertionError("a document that is no mapping is a mistake")
    recipe = _recipe(text, file, fields, document.root.where, reading)
    return replace(recipe, warnings=findings.finish())


def _only_document(text: str, file: str) -> YamlDocument:
    documents = read_yaml(text, file)
    if not documents:
        raise RecipeError([Problem(Location(file, 1, 1), "the recipe is empty")])
    if len(documents) > 1:
        message = "a second YAML document: chains of merges are not available yet"
        raise RecipeError([Problem(documents[1].root.where, message, "run one recipe after the other")])
    return documents[0]


def _recipe(text: str, file: str, fields: dict[str, YamlEntry], start: Location, reading: Reading) -> Recipe:
    """The recipe without its warnings. Where a mistake was found, something stands in for what is missing."""
    method_name, method = _method(fields.get("merge_method"), start, reading)
    reading = replace(reading, method=method)
    inputs = parse_inputs(fields, start, reading)
    base = _base(fields.get("base_model"), inputs, reading)
    if "tokenizer" in fields and "tokenizer_source" in fields:
        later = max(fields["tokenizer"], fields["tokenizer_source"], key=lambda entry: entry.where)
        reading.error(later.where, "'tokenizer' and 'tokenizer_source' exclude each other", "keep one")
    recipe = Recipe(
        merge_method=method_name,
        text=text,
        file=file,
        where=MappingProxyType({"recipe": start} | {key: entry.where for key, entry in fields.items()}),
        base_model=base,
        models=inputs.models,
        slices=inputs.slices,
        modules=inputs.modules,
        parameters=parse_parameters(fields.get("parameters"), reading, of_one_model=False),
        dtype=_dtype(fields.get("dtype"), reading),
        out_dtype=_dtype(fields.get("out_dtype"), reading),
        seed=_seed(fields.get("seed"), reading),
        name=_name(fields.get("name"), reading),
        tokenizer=_parsed(fields.get("tokenizer"), parse_tokenizer, reading)
        or _parsed(fields.get("tokenizer_source"), parse_tokenizer_source, reading),
        chat_template=_parsed(fields.get("chat_template"), _chat_template, reading),
    )
    if method is not None:
        check_inputs(recipe, method, reading)
    return recipe


def _method(entry: YamlEntry | None, start: Location, reading: Reading) -> tuple[str, MethodDef | None]:
    """The method's name as given, and the method; of a near miss the one that was meant, to check the rest by."""
    known = ", ".join(reading.methods)
    if entry is None:
        reading.error(start, "'merge_method' is missing", f"the methods are {known}")
        return "", None
    name = text_of(entry.value, "merge_method", reading)
    if name is None or name in reading.methods:
        return (name, reading.methods[name]) if name is not None else ("", None)
    hint = did_you_mean(closest(name, reading.methods)) or f"the methods are {known}"
    reading.error(entry.value.where, f"unknown merge method {shown(name)}", hint)
    meant = near_miss(name, reading.methods)
    return name, reading.methods[meant] if meant is not None else None


def _base(entry: YamlEntry | None, inputs: Inputs, reading: Reading) -> ModelRef | None:
    """The base model of the recipe, or the one that its slices agree on."""
    base = parse_model(entry.value, "base_model", reading) if entry is not None else None
    for model, where in inputs.slice_bases:
        base = model if base is None else base
        if model != base:
            message = f"this slice has another base model than {base}: that is not available yet"
            reading.error(where, message, "give every slice the same")
    return base


def _dtype(entry: YamlEntry | None, reading: Reading) -> str | None:
    if entry is None:
        return None
    word = text_of(entry.value, entry.key, reading)
    if word is None:
        return None
    name = dtype_name(word)
    if name is None:
        hint = did_you_mean(closest_dtype(word)) or f"the dtypes are {', '.join(DTYPE_NAMES)}"
        reading.error(entry.value.where, f"unknown dtype {shown(word)}", hint)
    return name


def _seed(entry: YamlEntry | None, reading: Reading) -> int | None:
    if entry is None:
        return None
    seed = whole_number_of(entry.value)
    if seed is None or not 0 <= seed <= _LARGEST_SEED:
        message = f"seed must be a whole number from 0 to 2^63 - 1, not {describe(entry.value)}"
        reading.error(entry.value.where, message)
        return None
    return seed


def _name(entry: YamlEntry | None, reading: Reading) -> str | None:
    """A name may look like a number: nothing depends on it."""
    if entry is None:
        return None
    if isinstance(entry.value, YamlScalar):
        return entry.value.text
    return text_of(entry.value, "name", reading)


def _chat_template(node: YamlNode, reading: Reading) -> str | None:
    return text_of(node, "chat_template", reading)


def _parsed(entry: YamlEntry | None, parse: Callable[[YamlNode, Reading], T | None], reading: Reading) -> T | None:
    return parse(entry.value, reading) if entry is not None else None
