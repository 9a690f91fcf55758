"""Which input tensors make which output tensor: slices and layers become names.

The ways to write a recipe come down to one: a sequence of slices over a region of the model. ``models:`` is a
single slice of the whole stack; a module is a region with its own slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InputError, Problem, RecipeError
from .layer_parts import Parts, moved_parts
from .misfits import why_missing
from .regions import Region, region_of, whole
from .slices import Slice, Source, is_tied, moving_stacks, position_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .errors import Location
    from .methoddef import MethodDef
    from .model import Model, StoredTensor, TensorRole
    from .recipe import ModelRef, Module, Parameters, Recipe

Models = Mapping["ModelRef", "Model"]

_MOST_MISSING = 8
"""Missing tensors that an error lists before it counts the rest."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One input of one output tensor; ``scopes`` are its parameters, innermost first."""

    model: ModelRef
    stored: StoredTensor
    scopes: tuple[Parameters, ...]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor to be made. ``copied``: outside of what the recipe merges, taken from the donor as it is.

    ``parts`` is there if the inputs hold a part for each layer, and the layers move: then these are the inputs.
    """

    name: str
    base: StoredTensor | None
    sources: tuple[SourceTensor, ...]
    scopes: tuple[Parameters, ...]
    t: float
    copied: bool = False
    parts: Parts = ()


@dataclass(frozen=True, slots=True)
class StackLayers:
    """The layers of an output stack: how many the donor has, and which of them each output layer comes from."""

    donor_layers: int
    source_layers: tuple[int, ...]


@dataclass(frozen=True)
class OutputMap:
    """Every output tensor in the model's order, and the output's layer stacks by prefix.

    ``untied``: the donor's head is its input embedding, and the output's is not.
    """

    tensors: tuple[OutputTensor, ...]
    stacks: Mapping[str, StackLayers]
    untied: bool = False


def donor_of(recipe: Recipe) -> ModelRef:
    """The model that gives config, tokenizer and order: the base, else the first one listed."""
    return recipe.references()[0]


def map_tensors(recipe: Recipe, method: MethodDef, models: Models) -> OutputMap:
    """Work out every output tensor. Raises RecipeError (layers that are not there) or InputError (tensors)."""
    mapper = _Mapper(recipe, method, models)
    donor = models[donor_of(recipe)]
    if not recipe.modules:
        return mapper.finish(list(mapper.region(whole(donor), None)), donor)
    regions = [region_of(donor, module, recipe.modules) for module in recipe.modules]
    found: dict[str, OutputTensor] = {}
    for region, module in zip(regions, recipe.modules, strict=True):
        found.update((tensor.name, tensor) for tensor in mapper.region(region, module))
    return mapper.finish(list(mapper.with_rest(donor, regions, found)), donor)


class _Mapper:
    """Collects what is missing, so that one error names all of it."""

    def __init__(self, recipe: Recipe, method: MethodDef, models: Models) -> None:
        self.recipe, self.method, self.models = recipe, method, models
        self.missing: list[tuple[Model, str]] = []
        self.stacks: dict[str, StackLayers] = {}
        self.parts: Mapping[str, Parts] = {}
        self.untied = False

    def finish(self, tensors: list[OutputTensor], donor: Model) -> OutputMap:
        if self.missing:
            lacking = {model.reference: model for model, _ in self.missing}
            reasons = [why for model in lacking.values() if (why := why_missing(model, donor))]
            # Of a model of another kind one tensor is enough to see.
            lines = [line for _, line in self.missing[: 1 if reasons else _MOST_MISSING]]
            if len(self.missing) > len(lines):
                lines.append(f"… and {len(self.missing) - len(lines)} tensors more")
            raise InputError(*reasons, *lines)
        for stack in donor.stacks.values():
            self.stacks.setdefault(stack.prefix, StackLayers(stack.layers, tuple(range(stack.layers))))
        return OutputMap(tuple(tensors), self.stacks, self.untied)

    def with_rest(
        self, donor: Model, regions: Sequence[Region], found: dict[str, OutputTensor]
    ) -> Iterator[OutputTensor]:
        """The donor's order, with what no module holds copied from the donor."""
        ref = donor_of(self.recipe)

        def holder(name: str) -> Region | None:
            return next((region for region in regions if region.holds(name)), None)

        waiting: dict[Region, list[OutputTensor]] = {region: [] for region in regions}
        for name, tensor in found.items():
            region = holder(name)
            assert region is not None
            waiting[region].append(tensor)
        for name, stored in donor.tensors.items():
            region = holder(name)
            if region is None:
                yield OutputTensor(name, None, (SourceTensor(ref, stored, ()),), (), 0.0, copied=True)
            else:
                # A region's tensors come out together where its first one stands: layers keep their order.
                yield from waiting.pop(region, ())

    # ---------------------------------------------------------------------------------- recipe → slices

    def region(self, region: Region, module: Module | None) -> Iterator[OutputTensor]:
        recipe = self.recipe
        outer = (module.parameters, recipe.parameters) if module is not None else (recipe.parameters,)
        entries = module.models if module is not None else recipe.models
        if entries:
            sources = tuple(
                self.source(entry.model, None, (entry.parameters, *outer), entry.where, region) for entry in entries
            )
            self.same_layers(sources, region)
            base = recipe.base_model
            yield from self.slices([self.slice(sources, outer, entries[0].where, base, whole_stack=True)], region)
            return
        parts = module.slices if module is not None else recipe.slices
        slices = []
        for part in parts:
            scopes = (part.parameters, *outer)
            sources = tuple(
                self.source(source.model, source.layer_range, (source.parameters, *scopes), source.where, region)
                for source in part.sources
            )
            counts = {len(source.layers) for source in sources if source.layers is not None}
            if len(counts) > 1:
                text = ", ".join(f"{source.ref} {len(source.layers or ())}" for source in sources)
                raise RecipeError([Problem(part.where, f"the sources of a slice differ in layers: {text}")])
            slices.append(self.slice(sources, scopes, part.where, recipe.base_model, whole_stack=False))
        yield from self.slices(slices, region)

    def source(
        self,
        ref: ModelRef,
        layer_range: tuple[int, int] | None,
        scopes: tuple[Parameters, ...],
        where: Location,
        region: Region,
    ) -> Source:
        model = self.models[ref]
        # A region is named after the donor's tensors; a model that calls its stack otherwise has its own primary.
        stack = region.stack if region.stack in model.stacks else model.primary
        if stack is None:
            if layer_range is not None:
                raise RecipeError([Problem(where, f"{ref} has no stack of layers to take {list(layer_range)} from")])
            return Source(ref, model, None, None, scopes)
        count = model.stacks[stack].layers
        start, end = layer_range if layer_range is not None else (0, count)
        if end > count:
            message = f"layer_range [{start}, {end}], but {ref} has {count} layers"
            raise RecipeError([Problem(where, message, f"its last layer is {count - 1}; write [{start}, {count}]")])
        return Source(ref, model, range(start, end), stack, scopes)

    def same_layers(self, sources: Sequence[Source], region: Region) -> None:
        base = self.recipe.base_model
        models = {base: self.models[base]} if base is not None and self.method.base != "unused" else {}
        models.update((source.ref, source.model) for source in sources)
        stacks = {ref: model.stacks.get(region.stack or "") for ref, model in models.items()}
        counts = {ref: stack.layers for ref, stack in stacks.items() if stack is not None}
        if len(set(counts.values())) > 1:
            text = ", ".join(f"{ref} has {count}" for ref, count in counts.items())
            raise InputError(f"the models differ in layers: {text}; write slices: to say which layers meet")

    def slice(
        self,
        sources: tuple[Source, ...],
        scopes: tuple[Parameters, ...],
        where: Location,
        base_ref: ModelRef | None,
        *,
        whole_stack: bool,
    ) -> Slice:
        base = next((source for source in sources if source.ref == base_ref), None)
        if base is None and base_ref is not None and whole_stack:
            first = sources[0]
            model = self.models[base_ref]
            stack = first.stack if first.stack in model.stacks else model.primary
            base = Source(base_ref, model, range(model.stacks[stack].layers) if stack else None, stack, ())
        if base is None and self.method.base == "required":
            message = f"{self.method.name} needs the base model among the sources of every slice"
            raise RecipeError([Problem(where, message, f"add {base_ref} with its layer_range")])
        if self.method.excludes_base:
            sources = tuple(source for source in sources if source.ref != base_ref)
        lead = base or sources[0]
        return Slice(sources, lead, base if self.method.base != "unused" else None, scopes)

    # ---------------------------------------------------------------------------------- slices → tensors

    def slices(self, slices: Sequence[Slice], region: Region) -> Iterator[OutputTensor]:
        first, last = slices[0], slices[-1]
        self.parts = moved_parts(slices, region)
        yield from self.outside(first, region, leading=True)
        stack = first.lead.stack
        if stack is not None:
            output_layer = 0
            taken: list[int] = []
            for part in slices:
                for position in range(part.layers):
                    yield from self.layer(part, position, output_layer + position)
                output_layer += part.layers
                taken += part.lead.layers or ()
            layers = StackLayers(first.lead.model.stacks[stack].layers, tuple(taken))
            self.stacks |= dict.fromkeys(moving_stacks(first.lead.model, stack), layers)
        yield from self.outside(last, region, leading=False)
        yield from self.heads(first, last, region)

    def heads(self, first: Slice, last: Slice, region: Region) -> Iterator[OutputTensor]:
        """The head, where the last slice's model stores none and the output's is not the output's embedding.

        Of tied models, the output is tied, too, where a head of its own would not be all: where it has a bias, which
        then has another name, or where an encoder and a decoder have the same embedding.
        """
        donor = self.models[donor_of(self.recipe)]
        models = (donor, *first.models.values(), *last.models.values())
        names = [name for name in last.lead.model.aliases if region.holds(name)]
        alone = len(names) == 1 and names[0].removesuffix("weight") + "bias" not in last.lead.model.tensors
        tied = all(map(is_tied, models)) and (first.models.keys() == last.models.keys() or not alone)
        if tied or region.stack != donor.primary:
            return
        self.untied = is_tied(donor)
        for name in names:
            yield self.tensor(last, name, [name] * len(last.sources), name, 0.0)

    def outside(self, part: Slice, region: Region, *, leading: bool) -> Iterator[OutputTensor]:
        """Tensors that are in no layer of the stack; those of other stacks come with the leading ones."""
        lead = part.lead
        moving = moving_stacks(lead.model, lead.stack)
        for name in lead.model.tensors:
            role = lead.model.roles[name]
            if not region.holds(name) or (role.stack is not None and role.stack in moving):
                continue
            if (role.leading or role.stack is not None) == leading:
                yield self.tensor(part, name, [name] * len(part.sources), name, self.depth(lead.model, role))

    def depth(self, model: Model, role: TensorRole) -> float:
        """Where a tensor stands in its own stack, 0 to 1; 0 for one in no stack."""
        if role.stack is None or role.layer is None:
            return 0.0
        return position_of(role.layer, model.stacks[role.stack].layers)

    def layer(self, part: Slice, position: int, output_layer: int) -> Iterator[OutputTensor]:
        lead = part.lead
        assert lead.stack is not None
        assert lead.layers is not None
        t = position_of(position, part.layers)
        for stack in moving_stacks(lead.model, lead.stack):
            for suffix in lead.model.stacks[stack].suffixes:
                name = f"{stack}.{lead.layers[position]}.{suffix}"
                if name not in lead.model.tensors:
                    continue  # layers of one stack may differ, as dense and expert layers do
                names = [
                    f"{source.stack if stack == lead.stack else stack}.{source.layers[position]}.{suffix}"
                    if source.layers is not None
                    else name
                    for source in part.sources
                ]
                yield self.tensor(part, f"{stack}.{output_layer}.{suffix}", names, name, t)

    def tensor(self, part: Slice, output_name: str, names: Sequence[str], lead_name: str, t: float) -> OutputTensor:
        base = self.stored(part.base.model, lead_name, output_name) if part.base is not None else None
        sources = []
        for source, name in zip(part.sources, names, strict=True):
            stored = self.stored(source.model, name, output_name)
            if stored is not None:
                sources.append(SourceTensor(source.ref, stored, source.scopes))
        return OutputTensor(output_name, base, tuple(sources), part.scopes, t, parts=self.parts.get(output_name, ()))

    def stored(self, model: Model, name: str, output_name: str) -> StoredTensor | None:
        """A tensor by name, or the one it is tied to; noted as missing if there is neither."""
        stored = model.tensors.get(name) or model.tensors.get(model.aliases.get(name, ""))
        if stored is None:
            needed = "" if name == output_name else f", needed for {output_name}"
            self.missing.append((model, f"{model.reference} has no tensor {name}{needed}"))
        return stored
