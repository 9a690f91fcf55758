"""What a merge method is, and the registry of methods.

A method is one function that composes ops, with one decorator that declares its parameters. Validation with
suggestions, `plait methods`, the docs and the tests read the declaration; nothing is written twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from .graph import Node, TensorSpec

Value: TypeAlias = "float | int | bool | str"
Kind: TypeAlias = Literal["float", "int", "bool", "choice"]
Scope: TypeAlias = Literal["model", "tensor"]
BaseRule: TypeAlias = Literal["required", "optional", "unused"]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a method, declared once.

    ``scope`` is ``model`` for a value per input model and ``tensor`` for one per output tensor (the latter is
    not looked for in a ``models:`` entry or a slice's source). ``default`` None means that the parameter may
    be absent, unless ``required``. ``low`` and ``high`` bound a number, inclusive. ``is_share``: a number outside of 0
    to 1 is as good as the nearer end, and a warning, since it is hardly what was meant. ``choices`` are the words a
    ``choice`` accepts; booleans among them are written ``true`` and ``false``. ``example`` is a value to show the
    method with, where neither the default nor, if required, a half would do.
    """

    name: str
    kind: Kind
    scope: Scope
    help: str
    default: Value | None = None
    required: bool = False
    low: float | None = None
    high: float | None = None
    is_share: bool = False
    choices: tuple[str, ...] = ()
    example: Value | None = None


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of one output tensor.

    ``node`` loads it as stored; ``ordinal`` counts the inputs of the slice, the base left out where the method
    leaves it out; ``params`` has every declared model parameter (None where it has no value).
    """

    node: Node
    ordinal: int
    params: Mapping[str, Value | None]

    def number(self, name: str) -> float:
        """A parameter as a float; the declaration guarantees that it has a value."""
        value = self.params[name]
        assert value is not None
        return float(value)


@dataclass(frozen=True, slots=True)
class MergeInputs:
    """What a method builds one tensor's graph from.

    ``compute`` is the dtype of the arithmetic (float32 for 16-bit outputs, else float64); ``t`` the position in
    the slice from 0 (first layer) to 1 (last).
    """

    spec: TensorSpec
    compute: torch.dtype
    base: Node | None
    models: tuple[ModelInput, ...]
    params: Mapping[str, Value | None]
    t: float

    def flag(self, name: str) -> bool:
        """A boolean parameter of the tensor."""
        return bool(self.params[name])

    def number(self, name: str) -> float:
        """A numeric parameter of the tensor."""
        value = self.params[name]
        assert value is not None
        return float(value)


Build: TypeAlias = Callable[[MergeInputs], "Node"]
Array: TypeAlias = "NDArray[np.float64]"
Settings: TypeAlias = Mapping[str, Any]
Reference: TypeAlias = "Callable[[Array | None, Sequence[Array], Settings, Sequence[Settings]], Array]"


@dataclass(frozen=True, slots=True, eq=False)
class MethodDef:
    """A merge method: its parameters, how many inputs it takes, and the function that builds the graph.

    ``build`` returns a weight in ``MergeInputs.compute``, or a load node where the stored tensor passes
    unchanged. ``excludes_base``: a base listed among the models is left out (methods that work on task vectors).
    ``family`` is the first line of the docstring of the module that the method stands in. ``reference`` is the
    definition once more, slow and plain, for tests to compare with: from the base, the models, the tensor's
    parameters and those of each model to the merged tensor, all whole and in float64.
    """

    name: str
    summary: str
    build: Build
    params: tuple[Param, ...]
    base: BaseRule
    excludes_base: bool
    min_inputs: int
    max_inputs: int | None
    paper: str
    formula: str
    family: str = ""
    reference: Reference | None = None

    def param(self, name: str) -> Param | None:
        """The declaration of a parameter, or None."""
        return next((param for param in self.params if param.name == name), None)


_METHODS: dict[str, MethodDef] = {}


def method(
    name: str,
    *,
    params: tuple[Param, ...] = (),
    base: BaseRule = "optional",
    excludes_base: bool = False,
    min_inputs: int = 1,
    max_inputs: int | None = None,
    paper: str = "",
    formula: str = "",
    reference: Reference | None = None,
) -> Callable[[Build], Build]:
    """Register a function as a merge method; the first line of its docstring is the summary."""

    def register(build: Build) -> Build:
        if name in _METHODS:
            raise ValueError(f"method {name!r} is defined twice")
        _METHODS[name] = MethodDef(
            name,
            _first_line(build),
            build,
            params,
            base,
            excludes_base,
            min_inputs,
            max_inputs,
            paper,
            formula,
            _first_line(sys.modules.get(build.__module__)),
            reference,
        )
        return build

    return register


def _first_line(documented: object) -> str:
    """The first line of a docstring, without its full stop."""
    return (documented.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def methods() -> Mapping[str, MethodDef]:
    """Every registered method by name, in alphabetical order."""
    return dict(sorted(_METHODS.items()))
