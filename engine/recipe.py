"""The recipe as data: what the YAML says, frozen, and how a parameter's value is looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from .errors import Location, Problem
    from .methoddef import Value


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the recipe names it: a path or ``org/name``, perhaps ``@revision``, perhaps ``+adapter``."""

    path: str
    revision: str | None = None
    adapter: ModelRef | None = None

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        return f"{text}+{self.adapter}" if self.adapter else text


@dataclass(frozen=True, slots=True)
class Choice:
    """One ``{filter, value}`` of a setting. A tuple is a gradient over the layers of the slice."""

    filter: str | None
    value: Value | tuple[float, ...]

    def matches(self, tensor_name: str) -> bool:
        """Whether the filter is absent, ``*``, or a substring of the tensor's name."""
        return self.filter is None or self.filter == "*" or self.filter in tensor_name


@dataclass(frozen=True, slots=True)
class Setting:
    """What a recipe says about one parameter in one scope; the first matching choice counts."""

    choices: tuple[Choice, ...]
    where: Location

    def value(self, tensor_name: str, t: float) -> Value | None:
        """The value for a tensor at position ``t`` of its slice, None if no filter matches."""
        for choice in self.choices:
            if choice.matches(tensor_name):
                return interpolate(choice.value, t) if isinstance(choice.value, tuple) else choice.value
        return None


Parameters: TypeAlias = Mapping[str, Setting]


def no_parameters() -> Parameters:
    """The parameters of a scope that gives none."""
    return MappingProxyType({})


def interpolate(gradient: tuple[float, ...], t: float) -> float:
    """Evaluate a gradient at t in [0, 1]: linear between its evenly spaced numbers."""
    if len(gradient) == 1:
        return gradient[0]
    position = min(max(t, 0.0), 1.0) * (len(gradient) - 1)
    left = min(int(position), len(gradient) - 2)
    part = position - left
    return (1.0 - part) * gradient[left] + part * gradient[left + 1]


def look_up(name: str, scopes: Iterable[Parameters], tensor_name: str, t: float) -> Value | None:
    """The value of a parameter from the first scope that gives one; a scope whose filters miss gives none."""
    for scope in scopes:
        setting = scope.get(name)
        if setting is not None:
            value = setting.value(tensor_name, t)
            if value is not None:
                return value
    return None


@dataclass(frozen=True, slots=True)
class InputModel:
    """An entry of ``models:``."""

    model: ModelRef
    parameters: Parameters
    where: Location


@dataclass(frozen=True, slots=True)
class Source:
    """A source of a slice. ``layer_range`` is half-open; None means the whole stack."""

    model: ModelRef
    layer_range: tuple[int, int] | None
    parameters: Parameters
    where: Location


@dataclass(frozen=True, slots=True)
class Slice:
    """An entry of ``slices:``: the sources whose layers are merged with each other."""

    sources: tuple[Source, ...]
    parameters: Parameters
    where: Location


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of ``modules:``: exactly one of ``models`` and ``slices`` is non-empty."""

    name: str
    models: tuple[InputModel, ...]
    slices: tuple[Slice, ...]
    parameters: Parameters
    where: Location


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What the recipe says about a token's embedding, for the models that lack the token; with ``force``, for all.

    ``zero``: zeros. ``model`` alone: that model's own row of the token; with ``token`` or ``token_id``: its row of
    another one. None of them: what is usual for a token that nothing is said about.
    """

    model: ModelRef | None = None
    token: str | None = None
    token_id: int | None = None
    zero: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerBlock:
    """``tokenizer:``, or ``tokenizer_source:`` alone: which vocabulary the output has, and where new rows come from."""

    source: ModelRef | Literal["union", "base"] = "union"
    tokens: Mapping[str, TokenRow] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None

    def references(self) -> tuple[ModelRef, ...]:
        """Every model the block names, each once, in order of appearance."""
        found = [self.source] if isinstance(self.source, ModelRef) else []
        found += [row.model for row in self.tokens.values() if row.model is not None]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. Exactly one of ``models``, ``slices`` and ``modules`` is non-empty.

    ``dtype`` and ``out_dtype`` are torch dtype names (``bfloat16``). ``tokenizer`` is None where the recipe says
    nothing about it. ``chat_template`` is kept as given, for the loaders. ``text`` is the recipe verbatim.
    """

    merge_method: str
    text: str
    file: str
    where: Mapping[str, Location]
    base_model: ModelRef | None = None
    models: tuple[InputModel, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: tuple[Module, ...] = ()
    parameters: Parameters = field(default_factory=no_parameters)
    dtype: str | None = None
    out_dtype: str | None = None
    seed: int | None = None
    name: str | None = None
    tokenizer: TokenizerBlock | None = None
    chat_template: str | None = None
    warnings: tuple[Problem, ...] = field(default=())

    def references(self) -> tuple[ModelRef, ...]:
        """Every model that is merged, each once, in order of appearance; the base first."""
        found = [self.base_model] if self.base_model is not None else []
        found += [entry.model for entry in self.models]
        found += [source.model for part in self.slices for source in part.sources]
        for module in self.modules:
            found += [entry.model for entry in module.models]
            found += [source.model for part in module.slices for source in part.sources]
        return tuple(dict.fromkeys(found))

    def tokenizer_references(self) -> tuple[ModelRef, ...]:
        """The models that are named in the tokenizer block alone: they are opened and not merged."""
        merged = self.references()
        return tuple(ref for ref in self.tokenizer.references() if ref not in merged) if self.tokenizer else ()
