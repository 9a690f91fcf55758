"""Plan a merge and run it: what the command line does, for programs.

>>> plan = plait.plan("recipe.yml", memory="2GiB")   # headers only
>>> print(plan.summary())
>>> result = plan.run("out/")
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import ops as _registered
from .engine import host
from .engine.compile import Compiled, compile_recipe, names_by_model
from .engine.devices import wanted
from .engine.errors import InputError, PlanError, RecipeError, UsageError
from .engine.mapping import donor_of
from .engine.methoddef import methods
from .engine.plan import make_plan, on_devices
from .engine.recipe_checks import unsupported
from .engine.recipe_parser import parse_recipe
from .engine.recipe_yaml import MAX_TEXT_BYTES
from .engine.schedule import Place
from .engine.suggest import near_miss
from .engine.units import MIB, format_bytes, format_names, parse_size
from .engine.unmatched import unmatched_filters
from .loaders.chat_template import check_choice
from .loaders.checkpoint import locate, open_model
from .loaders.rates_file import VARIABLE, read_rates
from .loaders.vocabulary import output_tokenizer
from .loaders.writer import plan_shards
from .merge import MergePlan, MergeResult
from .reports.verification import needed_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .engine.devices import Device
    from .engine.model import Model
    from .engine.recipe import ModelRef, Recipe
    from .loaders.shards import Shard

DEFAULT_SHARD_BYTES = 5 * 10**9

_MOST_BYTES = MAX_TEXT_BYTES + 8
"""Bytes of a recipe that are read: a byte order mark more than it may have."""

_MOST_FAILURES = 20
"""Models that one error names; whoever is told of these will try again."""

assert _registered  # importing ops is what makes the methods known


@dataclass(frozen=True)
class RecipeText:
    """A recipe that is read already: its text, what messages call it, and the folder its relative paths start from."""

    text: str
    name: str
    folder: str

    def as_tuple(self) -> tuple[str, str, str]:
        """Text, name and folder."""
        return self.text, self.name, self.folder


def read_recipe(recipe: str | Path | RecipeText, *, strict: bool = False, lenient: bool = False) -> tuple[Recipe, Path]:
    """Parse a recipe file, or standard input for ``-``; also the folder its relative paths start from.

    Raises RecipeError with every mistake, or UsageError if the file cannot be read.
    """
    given = recipe if isinstance(recipe, RecipeText) else recipe_text(recipe)
    parsed = parse_recipe(given.text, given.name, methods(), strict=strict, lenient=lenient)
    if parsed.chat_template is not None:
        check_choice(parsed.chat_template, parsed.where["chat_template"])
    refused = unsupported(parsed)
    if refused:
        raise RecipeError(refused)
    return parsed, Path(given.folder)


def recipe_text(recipe: str | Path) -> RecipeText:
    """Read a recipe file, or standard input for ``-``. Raises UsageError."""
    if str(recipe) == "-":
        data, name, folder = sys.stdin.buffer.read(_MOST_BYTES), "<stdin>", Path.cwd()
    else:
        path = Path(recipe)
        try:
            with path.open("rb") as file:  # a pipe will do, and one without an end is cut
                data = file.read(_MOST_BYTES)
            name, folder = str(recipe), path.resolve().parent
        except OSError as error:
            raise UsageError(f"{recipe}: the recipe cannot be read: {error.strerror}") from error
    try:
        # What is cut off is too long, whatever its last letter was.
        text = data.decode("utf-8-sig", "replace" if len(data) == _MOST_BYTES else "strict")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: the recipe is not UTF-8 text (byte {error.start})") from None
    return RecipeText(text, name, str(folder))


def plan(
    recipe: str | Path | RecipeText,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    device: str | Device = "auto",
    device_memory: str | int | None = None,
    seed: int | None = None,
    shard_size: str | int = DEFAULT_SHARD_BYTES,
    maps: Mapping[str, str] | None = None,
    verify: bool = False,
    strict: bool = False,
    lenient: bool = False,
    processes: int = 1,
    processes_here: int | None = None,
) -> MergePlan:
    """Plan a merge from a recipe file and the headers of its inputs.

    ``memory`` bounds the peak resident memory of this process, in bytes or as text (``2GiB``); with ``verify`` that of
    the verification after the merge, too. ``device`` is ``auto``, ``cpu``, a kind (``cuda``, ``mps``, ``xpu``) or one
    of a kind (``cuda:1``); ``device_memory`` bounds what is taken of each. With ``processes``, so many of them share
    the work; those on this machine, ``processes_here`` or all, share memory, workers and devices. Raises RecipeError,
    UsageError, InputError, or PlanError where the bound is too small.
    """
    options = {name: value for name, value in locals().items() if name != "recipe"}
    recipe = recipe if isinstance(recipe, RecipeText) else recipe_text(recipe)
    parsed, folder = read_recipe(recipe, strict=strict, lenient=lenient)
    if processes < 1:
        raise UsageError(f"{processes} processes: at least one is needed")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: at least one is needed")
    shard_limit_bytes = parse_size(shard_size) if isinstance(shard_size, str) else shard_size
    budget_bytes = parse_size(memory) if isinstance(memory, str) else memory
    device_bytes = parse_size(device_memory) if isinstance(device_memory, str) else device_memory
    devices = wanted(device, device_bytes, processes=processes_here or processes)
    rates = read_rates(os.environ.get(VARIABLE))
    with _no_collection():
        models = open_models(parsed, folder, maps or {})
        method = methods()[parsed.merge_method]
        tokenizer = output_tokenizer(parsed, models)
        compiled = compile_recipe(parsed, method, models, tokenizer.vocabulary)
        shards, places = _lay_out(compiled, shard_limit_bytes)
        here = max(min(processes_here or processes, len(shards)), 1)
        with _each_of(here, budget_bytes):
            made = make_plan(
                compiled.graph,
                places,
                workers=max((workers or host.usable_cores()) // here, 1),
                seed=seed if seed is not None else parsed.seed or 0,
                budget_bytes=budget_bytes // here if budget_bytes is not None else None,
                free_bytes=host.free_memory_bytes() // here,
                reserved_bytes=host.resident_bytes(),
                peak_so_far_bytes=host.peak_resident_bytes(),
                header_bytes=sum(len(shard.header) for shard in shards),
                afterwards_bytes=needed_bytes(sum(len(shard.offsets_bytes) for shard in shards)) if verify else 0,
            )
    made = on_devices(made, devices, asked=device != "auto")
    unmatched = unmatched_filters(parsed, _names(compiled))
    if unmatched and strict:
        raise RecipeError(unmatched)
    warnings = [str(problem) for problem in (*parsed.warnings, *unmatched)]
    warnings += (*compiled.notes, *tokenizer.notes)
    if device != "auto" and not made.placement.devices:
        warnings += made.placement.reasons
    donor = donor_of(parsed)
    if not models[donor].config and any(model.config for model in models.values()):
        lacking = "has no config.json, which the result takes from it: most programs cannot load a model without one"
        warnings.append(f"{donor}: {lacking}; copy one into its folder, or list a model that has one first")
    warnings += _unused(parsed, models, names_by_model(compiled.graph.unused, models.values()))
    if processes > len(shards):
        idle = processes - len(shards)
        warnings.append(
            f"{idle} of {processes} processes {'has' if idle == 1 else 'have'} nothing to do: each writes whole "
            f"shards, and the output has {len(shards)}; a smaller --shard-size makes more of them"
        )
    merge = MergePlan(
        parsed,
        method,
        models,
        tokenizer,
        compiled,
        shards,
        made,
        tuple(warnings),
        rates,
        recipe,
        options,
        processes,
        here,
    )
    # Slices that no config can describe, and files that cannot be read, are refused now.
    return replace(merge, warnings=(*warnings, *merge.side_files.notes))


def _unused(recipe: Recipe, models: Mapping[ModelRef, Model], unused: Mapping[str, list[str]]) -> Iterator[str]:
    """What to say of tensors that the output is not made of; ``unused`` has their names by model."""
    sizes = {model.reference: len(model.tensors) for model in models.values()}
    for reference, names in unused.items():
        if len(names) < sizes[reference]:
            yield f"{reference}: {len(names)} tensors are not used: {format_names(names)}"
        elif reference == str(recipe.base_model):
            yield f"{reference}: {recipe.merge_method} takes nothing of the base model but config and tokenizer"
        else:
            yield f"{reference}: nothing of this model is in the result: a weight, a scale or a density is 0"


def _names(compiled: Compiled) -> Iterator[str]:
    """Every name that a filter may match: of the tensors made, and of those they are made from."""
    for tensor in compiled.mapping.tensors:
        yield tensor.name
        yield from (source.stored.name for source in tensor.sources)


def _lay_out(compiled: Compiled, shard_limit_bytes: int) -> tuple[tuple[Shard, ...], dict[str, Place]]:
    """The output's shards, and where in them each tensor goes."""
    specs = {name: island.spec for island in compiled.graph.islands for name in island.outputs}
    names = [tensor.name for tensor in compiled.mapping.tensors]
    shards = plan_shards(((name, specs[name]) for name in names), shard_limit_bytes)
    places = {
        name: Place(index, offset) for index, shard in enumerate(shards) for name, offset in shard.offsets_bytes.items()
    }
    return shards, places


@contextmanager
def _each_of(processes: int, budget_bytes: int | None) -> Iterator[None]:
    """Have a PlanError of one of several processes speak of all of them."""
    try:
        yield
    except PlanError as error:
        if processes == 1:
            raise
        least_bytes = processes * error.minimum_bytes
        bound = f"--memory {format_bytes(budget_bytes)}" if budget_bytes is not None else "half of the free memory"
        raise PlanError(
            f"{bound} is too little for {processes} processes: the least that works is {least_bytes // MIB}MiB, "
            f"{error.minimum_bytes // MIB}MiB each; give more, or have fewer processes",
            least_bytes,
        ) from None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold off the garbage collector: a plan makes a million small objects and keeps them all."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def open_models(recipe: Recipe, folder: Path, maps: Mapping[str, str]) -> dict[ModelRef, Model]:
    """The headers of every model a recipe names. Raises InputError with every model that cannot be opened."""
    found: dict[ModelRef, Model] = {}
    failures: list[str] = []
    lenders = recipe.tokenizer_references()
    named = (*recipe.references(), *lenders)
    for ref in named:
        try:
            found[ref] = open_model(str(ref), locate(str(ref), recipe_folder=folder, maps=maps))
        except InputError as error:
            word = near_miss(ref.path, ("union", "base")) if ref in lenders else None
            failures.append(f"{error}; did you mean tokenizer_source: {word}?" if word else str(error))
            if len(failures) == _MOST_FAILURES:
                break
    if failures:
        raise InputError(*failures)
    unknown = sorted(set(maps) - {text for ref in named for text in (str(ref), ref.path)})
    if unknown:
        raise UsageError(f"--map {unknown[0]}: the recipe names no such model; it names " + ", ".join(map(str, found)))
    return found


__all__ = ["MergePlan", "MergeResult", "RecipeText", "open_models", "plan", "read_recipe", "recipe_text"]
