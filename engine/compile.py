"""Recipe, headers and methods → the tensor graph.

Each output tensor's inputs and parameter values are looked up, the method turns them into a program, and tensors
with equal specs and values share one. Equal results are made once, whatever number of names they go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .errors import InputError, Problem, RecipeError
from .graph import Island, Node, Program, TensorGraph, TensorSpec
from .layer_parts import LayerParts
from .mapping import OutputMap, map_tensors
from .methoddef import MergeInputs, MethodDef, ModelInput, Value
from .misfits import quantisation, quantised
from .opdef import GraphError, gather, load, ops, write
from .recipe import look_up
from .vocabulary_rows import VocabularyRows, is_vocabulary_tensor, stored_under, vocabularies_differ

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .mapping import Models, OutputTensor
    from .model import Model, StoredTensor
    from .recipe import ModelRef, Parameters, Recipe
    from .vocabulary import Vocabulary

_WIDE = (torch.float32, torch.float64)
_ARITHMETIC = (torch.bfloat16, torch.float16, *_WIDE)


@dataclass(frozen=True)
class Compiled:
    """The graph, and how output names map to input names."""

    graph: TensorGraph
    mapping: OutputMap
    notes: tuple[str, ...]


def compile_recipe(recipe: Recipe, method: MethodDef, models: Models, vocabulary: Vocabulary | None = None) -> Compiled:
    """Build and verify the tensor graph of a merge. Raises RecipeError or InputError.

    ``vocabulary`` says how rows of vocabulary tensors are put together; without one they stay where they are.
    """
    mapping = map_tensors(recipe, method, models)
    compiler = _Compiler(recipe, method, models, vocabulary)
    islands = merge_equal(compiler.island(tensor) for tensor in mapping.tensors)
    used = {(leaf.model, leaf.name) for island in islands for leaf in island.leaves}
    unused = tuple(
        stored
        for ref in recipe.references()  # a model that only lends rows is not merged
        for stored in models[ref].tensors.values()
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
        if node.op.kernel is None and node.op not in (load, gather, write):
            raise GraphError(f"{node.op.name} has no kernel")
        if node.spec.space != "state" and node.spec.shape != program.spec.shape:
            raise GraphError(f"{node} has another shape than the output {list(program.spec.shape)}")
    if program.root.op is not write or program.spec.space != "weight":
        raise GraphError(f"a program ends in a write of a weight, not in {program.root}")
    slots = {slot for node in program.loads for slot in node.slots}
    if slots != set(range(len(slots))):
        raise GraphError(f"load slots are {sorted(slots)}")


class _Compiler:
    def __init__(self, recipe: Recipe, method: MethodDef, models: Models, vocabulary: Vocabulary | None) -> None:
        self.recipe, self.method, self.models, self.vocabulary = recipe, method, models, vocabulary
        self.by_name = {model.reference: model for model in models.values()}
        self.programs: dict[object, tuple[Program, tuple[int, ...]]] = {}
        self.by_root: dict[Node, Program] = {}
        wanted = recipe.out_dtype or recipe.dtype
        self.wanted_dtype: torch.dtype | None = getattr(torch, wanted) if wanted else None

    def island(self, tensor: OutputTensor) -> Island:
        """The island of one output tensor."""
        first = tensor.base or tensor.sources[0].stored
        rows = self.vocabulary_rows(first)
        if tensor.copied or not first.spec.dtype.is_floating_point:
            self.check_copied(tensor)
            return self.copy(tensor, first) if rows is None else self.copy_rows(tensor, first, rows)
        if not tensor.parts:
            self.check_specs(tensor, first, rows)
        params = self.values(tensor.scopes, "tensor", tensor.name, tensor.t)
        per_model = tuple(
            self.values(source.scopes, "model", source.stored.name, tensor.t) for source in tensor.sources
        )
        self.check_required(tensor, per_model)
        gathered: VocabularyRows | LayerParts | None = rows
        if tensor.parts:
            if rows is not None:
                raise InputError(
                    f"{tensor.name} has a part for each layer and a row for each token: only one may change"
                )
            gathered = LayerParts(tensor.parts)
            loads = [gathered.input(number) for number in range(len(tensor.parts))]
        elif rows is not None:
            loads = [rows.input(ref) for ref in self.references(tensor)]
        if gathered is not None:
            read = [first.spec, *(leaf.spec for leaf in gathered.leaves)]
            program, order = self.build(tensor, loads, read, params, per_model)
            return Island(program, tuple(gathered.leaves[slot] for slot in order), (tensor.name,))
        stored = _inputs(tensor)
        leaves = tuple(dict.fromkeys(stored))
        slots = tuple(leaves.index(each) for each in stored)
        specs = tuple(leaf.spec for leaf in leaves)
        key = (specs, slots, tensor.base is None, _items(params), tuple(map(_items, per_model)), tensor.t)
        if key not in self.programs:
            loads = [_load(slot, specs[slot]) for slot in slots]
            self.programs[key] = self.build(tensor, loads, specs, params, per_model)
        program, order = self.programs[key]
        return Island(program, tuple(leaves[slot] for slot in order), (tensor.name,))

    def references(self, tensor: OutputTensor) -> list[ModelRef]:
        """The models of a tensor's inputs, the base first where there is one."""
        base = self.recipe.base_model if tensor.base is not None else None
        return [*([base] if base is not None else ()), *(source.model for source in tensor.sources)]

    def vocabulary_rows(self, first: StoredTensor) -> VocabularyRows | None:
        """What puts the rows of a vocabulary tensor in the output's order; None for any other tensor."""
        if self.vocabulary is None or not is_vocabulary_tensor(self.by_name[first.model], first):
            return None
        stored = stored_under(first.name, self.vocabulary, self.models)
        specs = [first.spec, *(each.spec for each in stored.values())]
        return VocabularyRows(self.vocabulary, stored, self.compute(specs))

    def copy_rows(self, tensor: OutputTensor, stored: StoredTensor, rows: VocabularyRows) -> Island:
        """A vocabulary tensor that is not merged, and whose rows are moved all the same."""
        node = rows.input(self.references(tensor)[0])
        program, order = self.finish(ops()["cast"](node, dtype=self.wanted_dtype or stored.spec.dtype))
        return Island(program, tuple(rows.leaves[slot] for slot in order), (tensor.name,))

    def compute(self, specs: Sequence[TensorSpec]) -> torch.dtype:
        """The dtype of arithmetic on inputs: wide where one of them or the output is."""
        dtype = self.wanted_dtype or specs[0].dtype
        wide = dtype in _WIDE or any(spec.dtype in _WIDE for spec in specs)
        return torch.float64 if wide else torch.float32

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
        loads: list[Node],
        specs: Sequence[TensorSpec],
        params: dict[str, Value | None],
        per_model: tuple[dict[str, Value | None], ...],
    ) -> tuple[Program, tuple[int, ...]]:
        """Have the method build the program; also which of the leaves it reads, in slot order.

        ``loads`` are the inputs, the base first; ``specs`` those of the leaves.
        """
        dtype = self.wanted_dtype or specs[0].dtype
        inputs = MergeInputs(
            spec=TensorSpec(loads[0].spec.shape, dtype),
            compute=self.compute(specs),
            base=loads[0] if tensor.base is not None else None,
            models=tuple(
                ModelInput(node, ordinal, values)
                for ordinal, (node, values) in enumerate(zip(loads[-len(per_model) :], per_model, strict=True))
            ),
            params=params,
            t=tensor.t,
        )
        unfit = next((each for each in _inputs(tensor) if each.spec.dtype not in _ARITHMETIC), None)
        try:
            merged = self.method.build(inputs)
        except InputError as error:  # the headers fit, so it is the recipe's numbers that do not
            problem = Problem(self.recipe.where["merge_method"], f"{error} (for {tensor.name})")
            raise RecipeError([problem]) from None
        except GraphError:
            if unfit is None:
                raise
            raise quantised(self.by_name[unfit.model], unfit) from None
        if merged.op is load and merged.spec.dtype not in _ARITHMETIC:
            return self.finish(merged)
        if unfit is not None:
            raise quantised(self.by_name[unfit.model], unfit)
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

    def check_copied(self, tensor: OutputTensor) -> None:
        """Integers of several models are copied from the first: right for a table of positions, wrong for weights."""
        stored = _inputs(tensor)
        if tensor.copied or len({each.model for each in stored}) == 1:
            return
        for each in stored:
            if not each.spec.dtype.is_floating_point and quantisation(self.by_name[each.model]) is not None:
                raise quantised(self.by_name[each.model], each)

    def check_specs(self, tensor: OutputTensor, first: StoredTensor, rows: VocabularyRows | None) -> None:
        for stored in _stored(tensor):
            if stored.spec.shape != first.spec.shape and rows is None:
                raise self.shapes_differ(tensor, first, stored)
            if not stored.spec.dtype.is_floating_point:
                raise InputError(
                    f"{stored.model}: {stored.name} is {stored.spec.dtype}, but {first.spec.dtype} in {first.model}"
                )

    def shapes_differ(self, tensor: OutputTensor, first: StoredTensor, other: StoredTensor) -> InputError:
        """What to say of two inputs of other shapes."""
        if all(is_vocabulary_tensor(self.by_name[each.model], each) for each in (first, other)):
            every = [first, *_stored(tensor)]
            return vocabularies_differ(tensor.name, [(each.model, max(each.spec.shape)) for each in every])
        a, b = list(first.spec.shape), list(other.spec.shape)
        return InputError(
            f"{tensor.name} is {a} in {first.model} and {b} in {other.model}; only tensors of one shape can be merged"
        )


def _load(slot: int, spec: TensorSpec) -> Node:
    return load(slot=slot, shape=spec.shape, dtype=spec.dtype)


def _with_write(node: Node) -> tuple[Node, tuple[int, ...]]:
    """Put the write on top and number the loads by first use: what simplification dropped is not read."""
    order: list[int] = []
    renumbered: dict[Node, Node] = {}
    for each in Program(write(node)).nodes:
        if each.slots:
            order += [slot for slot in each.slots if slot not in order]
            new = tuple(order.index(slot) for slot in each.slots)
            attrs = {**dict(each.attrs), **({"slot": new[0]} if each.op is load else {"slots": new})}
            renumbered[each] = Node(each.op, (), attrs.items(), each.spec)
        else:
            inputs = [renumbered[source] for source in each.inputs]
            renumbered[each] = Node(each.op, inputs, each.attrs, each.spec)
            if each.op is write:
                return renumbered[each], tuple(order)
    raise AssertionError("a program ends in its write")


def _items(values: Mapping[str, Value | None]) -> tuple[tuple[str, str], ...]:
    """Parameter values as a key; by text, since 1 and True are equal and mean different things."""
    return tuple((name, repr(value)) for name, value in values.items())


def _stored(tensor: OutputTensor) -> list[StoredTensor]:
    """The inputs of a tensor as they are stored, without the base."""
    return [source.stored for source in tensor.sources]


def _inputs(tensor: OutputTensor) -> list[StoredTensor]:
    """The inputs of a tensor as they are stored, the base first where there is one."""
    return [*((tensor.base,) if tensor.base is not None else ()), *_stored(tensor)]


def names_by_model(tensors: Iterable[StoredTensor], models: Iterable[Model]) -> dict[str, list[str]]:
    """Names of stored tensors by model reference, for the models that have any."""
    found: dict[str, list[str]] = {model.reference: [] for model in models}
    for stored in tensors:
        found[stored.model].append(stored.name)
    return {reference: names for reference, names in found.items() if names}
