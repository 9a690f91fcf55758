"""Merges in memory: tensors in, tensors out, through recipe, compiler, plan and executor."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import plait.ops  # noqa: F401 -- makes the methods known
import torch
import yaml
from hypothesis import strategies as st
from plait.engine.backends import OutOfDeviceMemoryError, PretendedBackend
from plait.engine.compile import compile_recipe
from plait.engine.execute import execute
from plait.engine.graph import TensorSpec
from plait.engine.methoddef import MethodDef, Param, methods
from plait.engine.model import Model, StoredTensor, TensorRole
from plait.engine.plan import make_plan
from plait.engine.recipe_parser import parse_recipe
from plait.engine.schedule import Place
from plait.engine.units import GIB

if TYPE_CHECKING:
    from plait.engine.plan import Plan

Tensors: TypeAlias = Mapping[str, torch.Tensor]
Settings: TypeAlias = Mapping[str, Any]

PLENTY_BYTES = 1 << 40


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's data, 1-D uint8."""
    if tensor.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)  # strides of an empty tensor may be anything
    return tensor.contiguous().reshape(-1).view(torch.uint8)


class MemoryReader:
    """Reads stored tensors from memory."""

    def __init__(self, models: Mapping[str, Tensors]) -> None:
        self._data = {
            (model, name): as_bytes(tensor) for model, tensors in models.items() for name, tensor in tensors.items()
        }

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        data = self._data[tensor.model, tensor.name]
        assert 0 <= offset_bytes <= offset_bytes + out.numel() <= data.numel()
        out.copy_(data[offset_bytes : offset_bytes + out.numel()])


class MemoryWriter:
    """Takes written ranges and counts how often each byte was written."""

    def __init__(self, specs: Mapping[str, TensorSpec]) -> None:
        self._specs = specs
        self._data = {name: torch.zeros(spec.size_bytes, dtype=torch.uint8) for name, spec in specs.items()}
        self._times = {name: torch.zeros_like(data) for name, data in self._data.items()}
        self._lock = threading.Lock()

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        end = offset_bytes + data.numel()
        assert 0 <= offset_bytes <= end <= self._data[name].numel()
        self._data[name][offset_bytes:end] = data
        with self._lock:
            self._times[name][offset_bytes:end] += 1

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:
        return False  # there is no kernel here to do it

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was written, once every byte was written exactly once."""
        assert [name for name, times in self._times.items() if not bool((times == 1).all())] == []
        return {name: self._data[name].view(spec.dtype).reshape(spec.shape) for name, spec in self._specs.items()}


@dataclass(frozen=True)
class Merge:
    """A recipe over models in memory: ``entries`` are the recipe's ``models:`` with their parameters."""

    method: str
    models: Mapping[str, Tensors] = field(repr=False)
    entries: Sequence[tuple[str, Settings]]
    base: str | None = None
    parameters: Settings = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    seed: int = 0

    @property
    def recipe_text(self) -> str:
        recipe: dict[str, Any] = {
            "merge_method": self.method,
            "models": [{"model": ref, "parameters": dict(settings)} for ref, settings in self.entries],
            "parameters": dict(self.parameters),
        }
        for key in ("dtype", "out_dtype"):
            if getattr(self, key) is not None:
                recipe[key] = getattr(self, key)
        if self.base is not None:
            recipe["base_model"] = self.base
        return yaml.safe_dump(recipe)

    def plan(
        self, *, workers: int = 1, tile_elements: int | None = None, budget_bytes: int | None = PLENTY_BYTES
    ) -> Plan:
        """Compile and plan; without ``tile_elements`` the budget decides on the tiles."""
        recipe = parse_recipe(self.recipe_text, "recipe.yml", methods())
        assert all("goes from 0 to 1" in warning.message for warning in recipe.warnings), recipe.warnings
        models = {ref: _headers(str(ref), self.models[str(ref)]) for ref in recipe.references()}
        graph = compile_recipe(recipe, methods()[self.method], models).graph
        names = [name for island in graph.islands for name in island.outputs]
        return make_plan(
            graph,
            {name: Place(0, position) for position, name in enumerate(names)},
            workers=workers,
            seed=self.seed,
            budget_bytes=budget_bytes,
            free_bytes=PLENTY_BYTES,
            reserved_bytes=0,
            peak_so_far_bytes=0,
            header_bytes=0,
            tile_elements=tile_elements,
        )

    def run(
        self,
        *,
        workers: int = 1,
        tile_elements: int | None = None,
        budget_bytes: int | None = PLENTY_BYTES,
        let_through: set[StoredTensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The merged tensors."""
        plan = self.plan(workers=workers, tile_elements=tile_elements, budget_bytes=budget_bytes)
        return self.carry_out(plan, let_through)

    def carry_out(self, plan: Plan, let_through: set[StoredTensor] | None = None) -> dict[str, torch.Tensor]:
        """The merged tensors of a plan made before."""
        specs = {name: island.spec for island in plan.graph.islands for name in island.outputs}
        writer = MemoryWriter(specs)
        execute(plan, MemoryReader(self.models), writer, let_through=let_through)
        return writer.tensors()


def _headers(reference: str, tensors: Tensors) -> Model:
    stored = {
        name: StoredTensor(reference, name, TensorSpec(tuple(tensor.shape), tensor.dtype), f"{reference}/memory", 0)
        for name, tensor in tensors.items()
    }
    return Model(reference, reference, stored, dict.fromkeys(stored, TensorRole()), {}, None)


def digests(tensors: Tensors) -> dict[str, bytes]:
    """The bytes of each tensor, to compare: NaN equals itself and -0 is not 0."""
    return {name: as_bytes(tensor).numpy().tobytes() for name, tensor in tensors.items()}


def family(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Sequence[torch.dtype], *, seed: int = 0
) -> dict[str, dict[str, torch.Tensor]]:
    """``base`` and ``m0``, ``m1``, …, one per further dtype: weights of the usual size, small steps away from the base.

    A tenth of the elements does not move, as in a fine-tune that is stored in 16 bits.
    """
    random = np.random.default_rng(seed)
    found: dict[str, dict[str, torch.Tensor]] = {("base" if i == 0 else f"m{i - 1}"): {} for i in range(len(dtypes))}
    for name, shape in shapes.items():
        base = torch.from_numpy(random.normal(0, 0.02, shape)).to(dtypes[0])
        found["base"][name] = base
        for index, dtype in enumerate(dtypes[1:]):
            step = random.normal(0, 0.002, shape) * (random.random(shape) < 0.9)
            found[f"m{index}"][name] = (base.double() + torch.as_tensor(step)).to(dtype)
    return found


def typical(name: str, models: Mapping[str, Tensors]) -> Merge:
    """A merge that computes, with every parameter at its default or at a half where it has to be given."""
    method = methods()[name]
    given: dict[str, dict[str, Any]] = {"model": {}, "tensor": {}}
    for param in method.params:
        if param.required:
            given[param.scope][param.name] = 0.5
    if method.param("density") is not None:
        given["model"]["density"] = 0.5
    if method.name == "passthrough":
        given["model"]["scale"] = 0.5
    if method.param("rescale") is not None:
        given["tensor"]["rescale"] = "l1"
    own = 0 if method.excludes_base or method.base != "required" else 1
    count = min(max(method.min_inputs - own, 3), (method.max_inputs or 4) - own)
    entries = [(f"m{index}", given["model"]) for index in range(count)]
    return Merge(name, models, entries, "base" if method.base == "required" else None, given["tensor"])


# ------------------------------------------------------------------------------------------------ any parameters

_USUAL = (-0.75, 0.0, 0.25, 0.5, 0.53, 1.0, 1.5)
"""Values for a number without bounds: negative, none, part, odd, all, more than all."""


def values(param: Param) -> st.SearchStrategy[Any]:
    """Any value that a declared parameter takes."""
    if param.kind == "bool":
        return st.booleans()
    if param.kind == "choice":
        return st.sampled_from(param.choices)
    low, high = param.low, param.high
    if param.kind == "int":
        least = 1 if low is None else int(low)
        return st.integers(least, least + 12 if high is None else int(high))
    usual = [value for value in _USUAL if (low is None or value >= low) and (high is None or value <= high)]
    return st.sampled_from(usual) if usual else st.floats(low, high)


def settings_of(method: MethodDef, scope: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any settings of one scope of a method; those that are not required may be left out."""
    params = [param for param in method.params if param.scope == scope]
    return st.fixed_dictionaries(
        {param.name: values(param) for param in params if param.required},
        optional={param.name: values(param) for param in params if not param.required},
    )


@st.composite
def merges(draw: st.DrawFn, /, method: MethodDef, models: Mapping[str, Tensors], **fixed: Any) -> Merge:
    """Any merge of ``base`` and the other models that the method takes."""
    names = [name for name in models if name != "base"]
    # A base that is an input of its own counts as one.
    own = 0 if method.excludes_base or method.base != "required" else 1
    least, most = max(method.min_inputs - own, 1), min(len(names), (method.max_inputs or len(names)) - own)
    count = draw(st.integers(least, most))
    entries = [(name, draw(settings_of(method, "model"))) for name in names[:count]]
    with_base = method.base == "required" or (method.base == "optional" and draw(st.booleans()))
    seed = draw(st.integers(0, 3))
    parameters = draw(settings_of(method, "tensor"))
    return Merge(method.name, models, entries, "base" if with_base else None, parameters, seed=seed, **fixed)


class CrowdedBackend(PretendedBackend):
    """A device on which somebody takes the memory while it computes: every third tile fails."""

    def __init__(self) -> None:
        super().__init__(GIB)
        self.marks = 0

    def mark(self) -> Any:
        return _Failing(self)


class _Failing:
    def __init__(self, backend: CrowdedBackend) -> None:
        self._backend = backend

    def record(self) -> None:
        self._backend.marks += 1
        if self._backend.marks % 7 == 0:
            raise OutOfDeviceMemoryError("somebody else's")

    def wait(self) -> None: ...

    def synchronize(self) -> None: ...
