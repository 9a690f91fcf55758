"""What a finished run did: from its manifest, from planning it again, from reading result and inputs once more.

>>> report = plait.report("out/")
>>> [(each.reference, each.total.relative_l2) for each in report.measured.movements]
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..api import plan, read_recipe
from ..engine import host
from ..engine.errors import InputError, PlanError, RecipeError, UsageError
from ..engine.units import format_names
from ..loaders.checkpoint import locate, open_model, weight_files
from ..loaders.input_files import read_start
from ..loaders.manifest_file import MANIFEST_FILE, read_manifest
from ..loaders.safetensors_file import read_header
from .measuring import measure, plan_measuring
from .moving import Collected, graph_of, made_from
from .run_report import Effort, RunReport
from .verification import refuse_unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine.model import Model
    from ..engine.plan import Plan
    from ..engine.progress import Callback
    from ..loaders.manifest_file import Manifest, RecordedFile
    from ..merge import MergePlan
    from .moving import Made
    from .run_report import LeftOut

REPORT_INPUT_BYTES = 1 << 10
"""What the report holds of an input's tensor until figures are put together."""

_RECIPE_FILE, _CARD_FILE = "plait.yml", "README.md"
_RECIPE_LIMIT_BYTES = 10_000_000
_ANY_BYTES = 1 << 50
"""A bound for a plan that nobody carries out."""


def report(
    out: str | Path,
    *,
    maps: Mapping[str, str] | None = None,
    headers_only: bool = False,
    memory: str | int | None = None,
    workers: int | None = None,
    progress: Callback | None = None,
) -> RunReport:
    """What the run that wrote the folder ``out`` did.

    Reads the result and all inputs once; with ``headers_only``, or where an input is not there any more, no tensor:
    then ``measured`` is None and a note says why. ``maps`` says where inputs are now, as for `plan`. ``memory`` bounds
    the peak resident memory of this process. Raises InputError where the folder is not what a run left or an input is
    not the one that was merged, UsageError, or PlanError where the bound is too small.
    """
    started = time.perf_counter()
    planned = plan_report(out, maps=maps, headers_only=headers_only, memory=memory, workers=workers)
    return planned.run(progress, started=started)


def plan_report(
    out: str | Path,
    *,
    maps: Mapping[str, str] | None = None,
    headers_only: bool = False,
    memory: str | int | None = None,
    workers: int | None = None,
    tile_elements: int | None = None,
) -> Reporting:
    """Do what needs no tensors, and plan the rest; ``tile_elements`` asks for tiles of about that size."""
    found = open_report(Path(out), maps or {}, headers_only=headers_only)
    if found.merge is None or headers_only:
        return Reporting(found, None)
    result = _result(found)
    if result is None:
        return Reporting(replace(found, notes=(*found.notes, _NO_RESULT)), None)
    made, left_out = made_from(found.merge, result)
    planned = plan_measuring(
        graph_of(made),
        memory=memory,
        workers=workers,
        report_bytes=REPORT_INPUT_BYTES * sum(len(each.inputs) for each in made),
        tile_elements=tile_elements,
    )
    return Reporting(found, _Reading(result, tuple(made), tuple(left_out), planned))


@dataclass(frozen=True)
class _Reading:
    """What is to be read for a report, and how."""

    result: Model
    made: tuple[Made, ...]
    left_out: tuple[LeftOut, ...]
    plan: Plan


class Reporting:
    """A report but for what the tensors tell; ``reading`` is None where they are not read."""

    def __init__(self, found: RunReport, reading: _Reading | None) -> None:
        self.found, self.reading = found, reading

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the result and, as far as they are known, of the inputs."""
        models = self.found.merge.models.values() if self.found.merge is not None else ()
        return (self.found.folder, *(model.folder for model in models))

    @property
    def budget_bytes(self) -> int | None:
        """The bound on memory, where there is one."""
        return self.reading.plan.budget_bytes if self.reading is not None else None

    def run(self, progress: Callback | None = None, *, started: float | None = None) -> RunReport:
        """Read what is to be read. Raises InputError, also where a file has changed since its header was read."""
        found, reading = self.found, self.reading
        if reading is None or found.merge is None:
            return found
        started = time.perf_counter() if started is None else started
        collected = Collected(reading.made)
        final = measure(reading.plan, (*found.merge.models.values(), reading.result), collected.take, progress)
        references = [each.reference for each in found.manifest.inputs]
        return replace(
            found,
            measured=collected.measured(references, found.base, reading.left_out),
            effort=Effort(
                workers=reading.plan.workers,
                bytes_read=final.bytes_read,
                seconds=round(time.perf_counter() - started, 3),
                predicted_peak_bytes=reading.plan.predicted_peak_bytes,
                measured_peak_bytes=host.peak_resident_bytes(),
            ),
        )


_NO_RESULT = "the result's own tensors are not there any more, so how far it moved cannot be told"


def open_report(path: Path, maps: Mapping[str, str], *, headers_only: bool) -> RunReport:
    """The report as far as manifest, recipe and headers tell it."""
    manifest = _manifest(path)
    unknown = sorted(set(maps) - {each.reference for each in manifest.inputs})
    if unknown:
        names = ", ".join(each.reference for each in manifest.inputs)
        raise UsageError(f"--map {unknown[0]}: the run had no such input; it had {names}")
    notes: list[str] = []
    recipe = _recipe(path, manifest, notes)
    method = base = merge = None
    if recipe is not None:
        try:
            parsed, _ = read_recipe(path / _RECIPE_FILE, lenient=True)
            method, base = parsed.merge_method, str(parsed.base_model) if parsed.base_model is not None else None
            merge = _plan_again(path, manifest, maps, notes, headers_only=headers_only)
        except RecipeError as error:
            notes.append(f"this version cannot read the recipe: {error}")
    if headers_only:
        notes.append("no tensor was read, so how far the result moved is not told")
    return RunReport(
        folder=str(path),
        manifest=manifest,
        method=method,
        recipe=recipe,
        base=base,
        has_card=(path / _CARD_FILE).is_file(),
        merge=merge,
        measured=None,
        notes=tuple(notes),
    )


def _manifest(path: Path) -> Manifest:
    """The manifest of a finished folder. Raises InputError for any other folder."""
    if not path.is_dir():
        raise InputError(f"{path}: {'is a file; a run leaves a folder' if path.exists() else 'does not exist'}")
    refuse_unfinished(path, "report")
    if not (path / MANIFEST_FILE).exists():
        raise InputError(
            f"{path}: has no {MANIFEST_FILE}, so no run of plait left it; "
            f"plait diff INPUT {path} tells how far two models are apart, plait verify {path} checks the folder"
        )
    return read_manifest(path / MANIFEST_FILE)


def _recipe(path: Path, manifest: Manifest, notes: list[str]) -> str | None:
    """The recipe's text; None with a note where it is not what was run."""
    try:
        data = read_start(path / _RECIPE_FILE, _RECIPE_LIMIT_BYTES)
        text = data.decode("utf-8")
    except (InputError, UnicodeDecodeError) as error:
        notes.append(f"the recipe cannot be read: {error}")
        return None
    recorded = manifest.run.recipe_sha256
    if recorded is not None and hashlib.sha256(data).hexdigest() != recorded:
        notes.append(f"{path / _RECIPE_FILE} is not the recipe of this run any more, so it is left out")
        return None
    return text


def moved_inputs(out: Path, models: Mapping[str, str]) -> dict[str, str]:
    """Of the inputs of a run (reference to folder) those that a report on ``out`` has to be told the place of."""
    found = {reference: _find(reference, out, {}) for reference in models}
    return {
        reference: folder
        for reference, folder in models.items()
        if (place := found[reference]) is None or not place.samefile(folder)
    }


def _plan_again(
    path: Path, manifest: Manifest, maps: Mapping[str, str], notes: list[str], *, headers_only: bool
) -> MergePlan | None:
    """The same merge, planned anew where the inputs are now; None with a note where they are not there any more."""
    places = {each.reference: _find(each.reference, path, maps) for each in manifest.inputs}
    missing = [reference for reference, place in places.items() if place is None]
    if missing:
        names = format_names(missing)
        notes.append(
            f"not there any more: {names}; what needs the inputs is left out "
            f"(--map {missing[0]}=PATH says where {'they are' if len(missing) > 1 else 'it is'} now)"
        )
        return None
    merge, failure = None, None
    try:
        merge = _plan(path / _RECIPE_FILE, {reference: str(place) for reference, place in places.items()}, manifest)
    except InputError as error:  # perhaps because an input is another one now
        failure = error
    changed = [
        f"{each.reference}: {what}"
        for each in manifest.inputs
        if (what := _changed(places[each.reference], each.files))
    ]
    if not changed and failure is not None:
        raise failure
    if changed and headers_only:
        notes += [f"{each}; what needs the inputs is left out" for each in changed]
        return None
    if changed:
        raise InputError(
            *changed,
            "say where the inputs that were merged are with --map REF=PATH, or leave tensors out with --headers-only",
        )
    return merge


def _plan(recipe: Path, places: Mapping[str, str], manifest: Manifest) -> MergePlan:
    """Plan the merge as it was run; nobody carries it out, so memory is no reason to refuse it."""
    seed = manifest.run.seed
    try:
        return plan(recipe, seed=seed, maps=places, lenient=True)
    except PlanError:
        return plan(recipe, seed=seed, maps=places, lenient=True, memory=_ANY_BYTES)


def _find(reference: str, path: Path, maps: Mapping[str, str]) -> Path | None:
    """The folder of an input: as mapped, else from the output's folder, the one around it, the working directory.

    A folder without weights counts as none. Raises InputError where it is mapped.
    """
    if reference in maps:
        return locate(reference, recipe_folder=path, maps=maps)
    for folder in (path.resolve(), path.resolve().parent):
        try:
            place = locate(reference, recipe_folder=folder, maps={})
            weight_files(place)
        except InputError:
            continue
        return place
    return None


def _changed(folder: Path | None, recorded: Sequence[RecordedFile]) -> str:
    """How a model differs from what was recorded, as far as names, sizes and headers tell; "" if it does not."""
    if folder is None or not recorded:
        return ""
    names, _, _ = weight_files(folder)
    if names != [file.name for file in recorded]:
        return f"{folder} has other files than what was merged"
    for file in recorded:
        header = read_header(folder / file.name)
        for what, before, after in (
            ("size", file.size_bytes, header.file_bytes),
            ("header", file.header_sha256, header.sha256),
        ):
            if before is not None and before != after:
                return f"{folder / file.name} is not what was merged: its {what} differs from the manifest's"
    return ""


def _result(found: RunReport) -> Model | None:
    """The output as a model; None where its files are gone. Raises InputError where they are not what the run wrote."""
    path, shards = Path(found.folder), found.manifest.shards
    if not all((path / shard.name).exists() for shard in shards):
        return None
    what = _changed(path, shards)
    if what:
        raise InputError(f"{what.replace('was merged', 'the run wrote')}; plait verify {path} tells what is wrong")
    return open_model(found.folder, path)
