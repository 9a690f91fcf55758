"""Parts of a model: which tensors a `modules:` entry names, and which stack its layers count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import Model
    from .recipe import Module

PRIMARY_NAMES = ("default", "text_decoder", "language_model", "text_model", "decoder", "llm")
"""Names that recipes use for the part that holds the main stack."""


@dataclass(frozen=True, slots=True)
class Region:
    """The tensors of a model under ``prefix`` (everything if empty) and not under any of ``without``.

    ``stack`` is the prefix of the stack that slices of this region count, None if it has no layers.
    """

    prefix: str
    without: tuple[str, ...]
    stack: str | None

    def holds(self, tensor_name: str) -> bool:
        """Whether a tensor belongs to the region."""
        return _under(tensor_name, self.prefix) and not any(_under(tensor_name, other) for other in self.without)


def whole(model: Model) -> Region:
    """All of a model; slices count its primary stack."""
    return Region("", (), model.primary)


def region_of(model: Model, module: Module, others: Sequence[Module]) -> Region:
    """The region that a module's name stands for in a model. RecipeError names the valid ones if there is none.

    A name is a component of tensor names (``vision_tower``, ``visual``) and stands for everything under it; the
    part with the main stack also goes by ``text_decoder`` and the like, and is what no other stack or module holds.
    """
    prefix = _prefix_ending_in(model.tensors, module.name)
    if prefix is not None and (model.primary is None or not _under(model.primary, prefix)):
        return Region(prefix, (), _largest_stack(model, prefix))
    if prefix is None and module.name not in PRIMARY_NAMES:
        valid = sorted(
            {_own_prefix(model, stack).rsplit(".", 1)[-1] for stack in model.stacks if stack != model.primary}
        )
        names = ", ".join([*valid, "text_decoder"])
        problem = Problem(module.where, f"{model.reference} has no module {module.name!r}", f"it has {names}")
        raise RecipeError([problem])
    without = {_own_prefix(model, stack) for stack in model.stacks if stack != model.primary}
    named = (_prefix_ending_in(model.tensors, other.name) for other in others if other is not module)
    without |= {name for name in named if name is not None}
    return Region("", tuple(sorted(without)), model.primary)


def _under(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + ".")


def _prefix_ending_in(tensor_names: Iterable[str], component: str) -> str | None:
    """The shortest dotted prefix of any tensor name that ends in a component, above the layer numbers."""
    best: str | None = None
    for name in tensor_names:
        parts = name.split(".")
        above = next((index for index, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
        if component in parts[:above]:
            prefix = ".".join(parts[: parts.index(component) + 1])
            best = prefix if best is None or len(prefix) < len(best) else best
    return best


def _own_prefix(model: Model, stack: str) -> str:
    """The shortest prefix of a stack that the primary stack is not under."""
    parts = stack.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        if model.primary is None or not _under(model.primary, prefix):
            return prefix
    return stack


def _largest_stack(model: Model, prefix: str) -> str | None:
    inside = [stack for stack in model.stacks.values() if _under(stack.prefix, prefix)]
    return max(inside, key=lambda stack: stack.layers).prefix if inside else None
