"""Pieces of an output's stack of layers: which layers of which models meet in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Model
    from .recipe import ModelRef, Parameters


@dataclass(frozen=True, slots=True)
class Source:
    """A model of a slice: which of its layers meet those of the others, in which stack; parameters innermost first."""

    ref: ModelRef
    model: Model
    layers: range | None
    stack: str | None
    scopes: tuple[Parameters, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of the output's stack; ``lead`` is the source whose names and layers it has."""

    sources: tuple[Source, ...]
    lead: Source
    base: Source | None
    scopes: tuple[Parameters, ...]

    @property
    def layers(self) -> int:
        """Layers of the output that come from it."""
        return len(self.lead.layers) if self.lead.layers is not None else 0

    @property
    def models(self) -> dict[ModelRef, Model]:
        """Every model that the slice takes tensors from."""
        return {source.ref: source.model for source in (self.lead, *self.sources)}


def moving_stacks(model: Model, stack: str | None) -> list[str]:
    """The stack whose layers slices count, and those that hold parts of the same layers."""
    if stack is None:
        return []
    return [stack, *(other.prefix for other in model.stacks.values() if other.follows == stack)]


def is_tied(model: Model) -> bool:
    """Whether a model's head is its input embedding: it stores none, or says that what it stores does not count."""
    return bool(model.aliases) or model.config.get("tie_word_embeddings") is True


def position_of(index: int, count: int) -> float:
    """T of a layer: 0 for the first to 1 for the last, 1 where there is only one."""
    return index / (count - 1) if count > 1 else 1.0
