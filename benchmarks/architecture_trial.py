"""Merge a small model of an architecture in three ways, and hold what transformers loads against what was asked for.

The merges are: linear with a copy of itself that was perturbed, a layer left out, a layer twice. What transformers
cannot do with its own unmodified save is no fault of a merge: the control comes first.
"""

from __future__ import annotations

import gc
import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import plait
import torch
from catalogue import build, elements
from overheard import overheard
from plait.engine.errors import PlaitError
from plait.loaders.checkpoint import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES = (0.25, 0.75)
"""How much of the model and of its perturbed copy the linear merge takes."""

Merge: TypeAlias = Callable[[str, Path], None]
"""Merges from a recipe's text to a folder."""

PASSED = "passed"
FEWEST_LAYERS = 2
_EARS = {"vision", "audio"}
MERGES = ("linear", "drop", "double")


@dataclass
class Loaded:
    """A folder as transformers loaded it: its weights, how long its lists of modules are, and what it said."""

    tensors: dict[str, torch.Tensor]
    lists: dict[str, int]
    config: dict[str, Any]
    text_counts: dict[str, int]
    complaints: list[str]


@dataclass
class Outcome:
    """What became of one architecture.

    ``unbuilt`` is why transformers does not build it small, ``control`` why it does not load its own save as it was;
    both empty where the architecture counts.
    """

    name: str
    unbuilt: str = ""
    control: str = ""
    results: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether transformers itself can do what is asked."""
        return not self.unbuilt and not self.control

    @property
    def passed(self) -> bool:
        """Whether every merge came out right."""
        return self.counts and all(self.results.get(merge) == PASSED for merge in MERGES)


def load(kind: Any, folder: Path) -> Loaded:
    """Load a folder as transformers does; every warning, logged or raised, and every weight not found is kept."""
    with overheard() as said:
        model, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
    complaints = [f"{what}: {_few(found)}" for what, found in info.items() if found]
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)}
    return Loaded(
        tensors=dict(model.state_dict()),
        lists=lists,
        config=json.loads(model.config.to_json_string(use_diff=False)),
        text_counts=_counts(model.config),
        complaints=[*complaints, *said],
    )


def _counts(config: Any) -> dict[str, int]:
    """The whole numbers in the config of what writes text."""
    text = config.get_text_config(decoder=True)
    derived = getattr(text, "num_hidden_layers", None)  # of some, counted from a list of layers
    found = {"num_hidden_layers": derived} if type(derived) is int else {}
    waiting = [("", text)]
    while waiting:
        path, inner = waiting.pop()
        found |= {path + key: value for key, value in vars(inner).items() if type(value) is int}
        nested = {key: value for key, value in vars(inner).items() if hasattr(value, "model_type")}
        waiting += [(f"{path}{key}.", value) for key, value in nested.items() if not _EARS & set(key.split("_"))]
    return found


def try_architecture(
    name: str, scratch: Path, *, mergekit: Merge | None = None, limit_elements: int = 30_000_000
) -> Outcome:
    """Build, merge and load one architecture under ``scratch``, which is removed again.

    ``mergekit`` makes the linear merge once more, from the same folders.
    """
    outcome = Outcome(name)
    kind = getattr(importlib.import_module("transformers"), name)
    folders = [scratch / "model", scratch / "perturbed"]
    try:
        try:
            size = elements(name)
            if size > limit_elements:
                outcome.unbuilt = f"its small form has {size / 1e6:.0f} million weights"
                return outcome
            originals = _save_pair(name, folders)
        except Exception as error:
            outcome.unbuilt = _line(error)
            return outcome
        try:
            controls = [load(kind, folder) for folder in folders]
        except Exception as error:
            outcome.control = _line(error)
            return outcome
        outcome.control = _unfaithful(controls[0], originals[0]) or _unfaithful(controls[1], originals[1])
        if outcome.control:
            return outcome
        merges: list[tuple[str, str, Merge]] = [(which, which, merge_with_plait) for which in MERGES]
        merges += [("mergekit", "linear", mergekit)] if mergekit is not None else []
        for label, which, merge in merges:
            out = scratch / label
            try:
                outcome.results[label] = _try(which, kind, folders, controls, out, merge)
            except PlaitError as error:
                outcome.results[label] = f"refused: {error}".replace(f"{scratch}/", "")
            except Exception as error:
                outcome.results[label] = _line(error).replace(f"{scratch}/", "")
            shutil.rmtree(out, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        gc.collect()
    return outcome


def merge_with_plait(recipe: str, out: Path) -> None:
    """Merge as a user would."""
    path = out.with_suffix(".yml")
    path.write_text(recipe, encoding="utf-8")
    plait.plan(path, workers=1).run(out)


def _save_pair(name: str, folders: Sequence[Path]) -> list[dict[str, torch.Tensor]]:
    """Save a model and a perturbed copy of it; gives what was saved."""
    model = build(name)
    saved = []
    with overheard():
        for folder in folders:
            model.save_pretrained(folder)
            saved.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for tensor in model.parameters():  # a tied one comes once
                    if tensor.requires_grad and tensor.is_floating_point():
                        tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype), alpha=0.01)
    return saved


def _unfaithful(control: Loaded, saved: dict[str, torch.Tensor]) -> str:
    """Why an unmodified save does not come back from transformers as it was."""
    lost = [line for line in control.complaints if line.startswith(("missing", "unexpected", "mismatched", "error"))]
    if lost:
        return f"transformers does not load its own save: {lost[0]}"
    different = [
        name
        for name, tensor in saved.items()
        if name not in control.tensors
        or control.tensors[name].shape != tensor.shape
        or not torch.equal(control.tensors[name], tensor.to(control.tensors[name].dtype))
    ]
    return f"transformers does not load its own save as it was: {_few(different)}" if different else ""


def _try(
    which: str,
    kind: Any,
    folders: Sequence[Path],
    controls: Sequence[Loaded],
    out: Path,
    merge: Merge,
) -> str:
    """Make one of the merges; what is wrong with it, or PASSED."""
    first, second = controls
    if which == "linear":
        lines = [
            f"  - {{model: {path}, parameters: {{weight: {share}}}}}"
            for path, share in zip(folders, SHARES, strict=True)
        ]
        merge("\n".join(["merge_method: linear", "models:", *lines]), out)
        found = load(kind, out)
        return _compare(found, first, lambda name: _mean(first.tensors[name], second.tensors[name]))
    layers = open_model("model", folders[0]).layers
    if layers < FEWEST_LAYERS:
        return f"its stack has {layers} layers"
    parts = [(0, 1), (2, layers)] if which == "drop" else [(0, 2), (1, layers)]
    parts = [(start, end) for start, end in parts if start < end]
    sources = [layer for start, end in parts for layer in range(start, end)]
    lines = [f"  - sources: [{{model: {folders[0]}, layer_range: [{start}, {end}]}}]" for start, end in parts]
    merge("\n".join(["merge_method: passthrough", "slices:", *lines]), out)
    found = load(kind, out)
    followed = {
        key for key, count in first.text_counts.items() if (count, found.text_counts.get(key)) == (layers, len(sources))
    }
    if not followed:
        return f"the text's config counts {layers} layers no longer than {len(sources)}"
    wrong = _unmoved(first.config, found.config, sources)
    if wrong:
        return wrong
    stacks = _changed_lists(first.lists, found.lists)
    if not stacks:
        return "no list of modules has changed its length"
    for stack, (before, after) in stacks.items():
        if (before, after) != (layers, len(sources)):
            return f"{stack} went from {before} to {after} layers"
    origin = {name: first.tensors.get(_source_name(name, stacks, sources)) for name in found.tensors}
    whole = {name: tensor for name, tensor in origin.items() if tensor is not None}
    return _compare(found, first, lambda name: _parts(whole[name], found.tensors[name].shape, layers, sources))


def _parts(whole: torch.Tensor, shape: Sequence[int], layers: int, sources: Sequence[int]) -> torch.Tensor:
    """A tensor with the parts of the layers that are left, if it has one for each; else as it is."""
    axes = [axis for axis, size in enumerate(whole.shape) if len(shape) == whole.dim() and size != shape[axis]]
    if len(axes) != 1 or whole.shape[axes[0]] * len(sources) != shape[axes[0]] * layers:
        return whole
    parts = whole.chunk(layers, axes[0])
    return torch.cat([parts[source] for source in sources], axes[0])


def _changed_lists(before: dict[str, int], after: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Outermost lists of modules whose length has changed."""
    changed: dict[str, tuple[int, int]] = {}
    for name in sorted(before.keys() & after.keys(), key=len):
        if before[name] != after[name] and not any(name.startswith(f"{outer}.") for outer in changed):
            changed[name] = before[name], after[name]
    return changed


def _source_name(name: str, stacks: dict[str, tuple[int, int]], sources: Sequence[int]) -> str:
    """The name, in the unmodified model, of what a layer of the output was made of."""
    for stack in stacks:
        if name.startswith(f"{stack}."):
            layer, _, rest = name.removeprefix(f"{stack}.").partition(".")
            return f"{stack}.{sources[int(layer)]}.{rest}"
    return name


def _unmoved(before: dict[str, Any], after: dict[str, Any], sources: Sequence[int]) -> str:
    """A list of words, one a layer, that has not followed the layers, in the config that transformers read."""
    for key, value in before.items():
        if isinstance(value, dict) and isinstance(after.get(key), dict) and "rope" not in key:
            if wrong := _unmoved(value, after[key], sources):
                return wrong
        elif key == "layer_types" and isinstance(value, list) and "num_hidden_layers" in before:
            moved = before["num_hidden_layers"] != after["num_hidden_layers"]
            expected = [value[source] for source in sources] if moved else value
            if after[key] != expected:
                return f"{key} is {after[key]} and not {expected}"
    return ""


def _compare(found: Loaded, control: Loaded, expected: Callable[[str], torch.Tensor]) -> str:
    """What is wrong with a loaded model, or PASSED."""
    new = [line for line in found.complaints if line not in control.complaints]
    if new:
        return new[0]
    for name, tensor in found.tensors.items():
        try:
            wanted = expected(name)
        except KeyError:
            return f"{name} has nothing to come from"
        if wanted.shape != tensor.shape:
            return f"{name} has another shape"
        if wanted.dtype != tensor.dtype:
            return f"{name} is {tensor.dtype} and not {wanted.dtype}"
        if not torch.allclose(wanted.double(), tensor.double(), rtol=1e-5, atol=1e-6):
            return f"{name} is not what the merge says"
    return PASSED


def _mean(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    if not first.is_floating_point():
        return first
    return (SHARES[0] * first.double() + SHARES[1] * second.double()).to(first.dtype)


def _few(names: Any) -> str:
    listed = [str(name) for name in (names if not isinstance(names, str) else [names])]
    return ", ".join(sorted(listed)[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _line(error: Exception) -> str:
    if "ignore_mismatched_sizes" in str(error):
        return "weights of another shape than transformers expects"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
