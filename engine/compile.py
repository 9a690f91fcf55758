"""Recipe, headers and methods → the tensor graph.

Each output tensor's inputs and parameter values are looked up, the method turns them into a program, and tensors
with equal specs and values share one. Equal results are made once, whatever number of names they go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .errors import InputError
from .graph import Island, Node, Program, TensorGraph
from .mapping import OutputMap, map_tensors
from .methoddef import MergeInputs, MethodDef, ModelInput, Value
from .opdef import GraphError, load, ops, write
from .recipe import look_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .graph import TensorSpec
    from .mapping import Models, OutputTensor
    from .model import Model, StoredTensor
    from .recipe import Parameters, Recipe

_WIDE = (torch.float32, torch.float64)
_ARITHMETIC = (torch.bfloat16, torch.float16, *_WIDE)


@dataclass(frozen=True)
class Compiled:
    """The graph, and how output names map to input names."""

    graph: TensorGraph
    mapping: OutputMap
    notes: tuple[str, ...]


def compile_recipe(recipe: Recipe, method: MethodDef, models: Models) -> Compiled:
    """Build and verify the tensor graph of a merge. Raises RecipeError or InputError."""
    mapping = map_tensors(recipe, method, models)
    compiler = _Compiler(recipe, method)
    islands = merge_equal(compiler.island(tensor) for tensor in mapping.tensors)
    used = {(leaf.model, leaf.name) for island in islands for leaf in island.leaves}
    unused = tuple(
        stored
        for model in models.values()
        for stored in model.tensors.values()
        if (stored.model, stored.name) not in used
    )
    graph = TensorGraph(islands, (), unused)
    for program in graph.programs:
        verify(program)
    return Compiled(graph, mapping, tuple(_notes(recipe, method)))


def _notes(recipe: Recipe, method: MethodDef) -> Iterable[str]:
    listed = [entry.model for entry in recipe.models]
    if method.excludes_base and recipe.base_model in listed:
        yield f"{recipe.base_model} is the base and listed among the models: it counts as the base only"


def merge_equal(islands: Iterable[Island]) -> tuple[Island, ...]:
    """Join islands whose results are equal: same program, same leaves, and no random mask in it."""
    found: dict[object, Island] = {}
    for island in islands:
        key: object = island.name if island.program.site_dependent else (island.program, island.leaves)
        twin = found.get(key)
        found[key] = island if twin is None else Island(twin.program, twin.leaves, twin.outputs + island.outputs)
    return tuple(found.values())


def verify(program: Program) -> None:
    """Check a program as a whole before anything runs. Raises GraphError, which is a defect of a method."""
    known = ops()
    for node in program.nodes:
        if known.get(node.op.name) is not node.op:
            raise GraphError(f"{node.op.name} is not a registered op")
        if node.op.kernel is None and node.op not in (load, write):
            raise GraphError(f"{node.op.name} has no kernel")
        if node.spec.space != "state" and node.spec.shape != program.spec.shape:
            raise GraphError(f"{node} has another shape than the output {list(program.spec.shape)}")
    if program.root.op is not write or program.spec.space != "weight":
        raise GraphError(f"a program ends in a write of a weight, not in {program.root}")
    slots = [node.attr("slot") for node in program.loads]
    if sorted(map(str, slots)) != sorted(map(str, range(len(slots)))):
        raise GraphError(f"load slots are {slots}")


class _Compiler:
    def __init__(self, recipe: Recipe, method: MethodDef) -> None:
        self.recipe, self.method = recipe, method
        self.programs: dict[object, tuple[Program, tuple[int, ...]]] = {}
        self.by_root: dict[Node, Program] = {}
        wanted = recipe.out_dtype or recipe.dtype
        self.wanted_dtype: torch.dtype | None = getattr(torch, wanted) if wanted else None

    def island(self, tensor: OutputTensor) -> Island:
        """The island of one output tensor."""
        first = tensor.base or tensor.sources[0].stored
        if tensor.copied or not first.spec.dtype.is_floating_point:
            return self.copy(tensor, first)
        self.check_specs(tensor, first)
        params = self.values(tensor.scopes, "tensor", tensor.name, tensor.t)
        per_model = tuple(
            self.values(source.scopes, "model", source.stored.name, tensor.t) for source in tensor.sources
        )
        self.check_required(tensor, per_model)
        stored = [source.stored for source in tensor.sources]
        if tensor.base is not None:
            stored.insert(0, tensor.base)
        leaves = tuple(dict.fromkeys(stored))
        slots = tuple(leaves.index(each) for each in stored)
        specs = tuple(leaf.spec for leaf in leaves)
        key = (specs, slots, tensor.base is None, _items(params), tuple(map(_items, per_model)), tensor.t)
        if key not in self.programs:
            self.programs[key] = self.build(tensor, specs, slots, params, per_model)
        program, order = self.programs[key]
        return Island(program, tuple(leaves[slot] for slot in order), (tensor.name,))

    def copy(self, tensor: OutputTensor, stored: StoredTensor) -> Island:
        """A tensor that is not merged: integers, and what the recipe leaves out."""
        key = ("copy", stored.spec)
        if key not in self.programs:
            node = _load(0, stored.spec)
            if stored.spec.dtype in _ARITHMETIC and self.wanted_dtype is not None:
                node = ops()["cast"](node, dtype=self.wanted_dtype)
            self.programs[key] = self.finish(node)
        return Island(self.programs[key][0], (stored,), (tensor.name,))

    def build(
        self,
        tensor: OutputTensor,
        specs: tuple[TensorSpec, ...],
        slots: tuple[int, ...],
        params: dict[str, Value | None],
        per_model: tuple[dict[str, Value | None], ...],
    ) -> tuple[Program, tuple[int, ...]]:
        """Have the method build the program; also which of the leaves it reads, in slot order."""
        loads = [_load(slot, specs[slot]) for slot in slots]
        base = loads.pop(0) if tensor.base is not None else None
        dtype = self.wanted_dtype or specs[0].dtype
        wide = dtype in _WIDE or any(spec.dtype in _WIDE for spec in specs)
        inputs = MergeInputs(
            spec=specs[0].with_(dtype=dtype),
            compute=torch.float64 if wide else torch.float32,
            base=base,
            models=tuple(
                ModelInput(node, ordinal, values)
                for ordinal, (node, values) in enumerate(zip(loads, per_model, strict=True))
            ),
            params=params,
            t=tensor.t,
        )
        try:
            merged = self.method.build(inputs)
        except InputError as error:
            raise InputError(f"{tensor.name}: {error}") from None
        if merged.op is load and merged.spec.dtype not in _ARITHMETIC:
            return self.finish(merged)
        unfit = [spec.dtype for spec in specs if spec.dtype not in _ARITHMETIC]
        if unfit:
            raise InputError(
                f"{tensor.sources[0].stored.model}: {tensor.name} is stored as {unfit[0]}, "
                "and quantised weights can only be passed through unchanged so far"
            )
        return self.finish(ops()["cast"](merged, dtype=dtype))

    def finish(self, node: Node) -> tuple[Program, tuple[int, ...]]:
        """The program that ends in a node, the same object for the same graph, and the leaves it reads."""
        root, order = _with_write(node)
        return self.by_root.setdefault(root, Program(root)), order

    def values(self, scopes: tuple[Parameters, ...], scope: str, tensor_name: str, t: float) -> dict[str, Value | None]:
        """Every declared parameter of a scope: looked up, else its default."""
        found: dict[str, Value | None] = {}
        for param in self.method.params:
            if param.scope == scope:
                value = look_up(param.name, scopes, tensor_name, t)
                found[param.name] = param.default if value is None else value
        return found

    def check_required(self, tensor: OutputTensor, per_model: tuple[dict[str, Value | None], ...]) -> None:
        for source, values in zip(tensor.sources, per_model, strict=True):
            for param in self.method.params:
                if param.required and param.scope == "model" and values[param.name] is None:
                    raise InputError(
                        f"{source.model}: no {param.name!r} for {source.stored.name}: "
                        "its filters leave this tensor out; add an entry without a filter"
                    )

    def check_specs(self, tensor: OutputTensor, first: StoredTensor) -> None:
        for source in tensor.sources:
            stored = source.stored
            if stored.spec.shape != first.spec.shape:
                raise InputError(_shape_message(tensor, first, stored))
            if not stored.spec.dtype.is_floating_point:
                raise InputError(
                    f"{stored.model}: {stored.name} is {stored.spec.dtype}, but {first.spec.dtype} in {first.model}"
                )


def _load(slot: int, spec: TensorSpec) -> Node:
    return load(slot=slot, shape=spec.shape, dtype=spec.dtype)


def _with_write(node: Node) -> tuple[Node, tuple[int, ...]]:
    """Put the write on top and number the loads by first use: what simplification dropped is not read."""
    order: list[int] = []
    renumbered: dict[Node, Node] = {}
    for each in Program(write(node)).nodes:
        if each.op is load:
            slot = each.attr("slot")
            assert isinstance(slot, int)
            renumbered[each] = _load(len(order), each.spec)
            order.append(slot)
        else:
            inputs = [renumbered[source] for source in each.inputs]
            renumbered[each] = Node(each.op, inputs, each.attrs, each.spec)
            if each.op is write:
                return renumbered[each], tuple(order)
    raise AssertionError("a program ends in its write")


def _items(values: Mapping[str, Value | None]) -> tuple[tuple[str, str], ...]:
    """Parameter values as a key; by text, since 1 and True are equal and mean different things."""
    return tuple((name, repr(value)) for name, value in values.items())


def _shape_message(tensor: OutputTensor, first: StoredTensor, other: StoredTensor) -> str:
    a, b = list(first.spec.shape), list(other.spec.shape)
    text = f"{tensor.name} is {a} in {first.model} and {b} in {other.model}"
    if len(a) == 2 and len(b) == 2 and a[0] != b[0] and a[1] == b[1]:
        text += f": the vocabularies differ ({a[0]} and {b[0]} rows); merging them needs a tokenizer block"
    return text


def names_by_model(tensors: Iterable[StoredTensor], models: Iterable[Model]) -> dict[str, list[str]]:
    """Names of stored tensors by model reference, for the models that have any."""
    found: dict[str, list[str]] = {model.reference: [] for model in models}
    for stored in tensors:
        found[stored.model].append(stored.name)
    return {reference: names for reference, names in found.items() if names}
