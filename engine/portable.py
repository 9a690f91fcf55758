"""Whether a kernel can run on any device, told from what its code calls.

A kernel is portable where all it calls are operations of torch that are exact, or rounded as IEEE 754 says, on every
device, and that allocate nothing of a tile's size. Square roots are among them in principle, but devices differ;
exponentials, sums and products of matrices are not. Anything that this module does not know keeps an op on the host.
"""

from __future__ import annotations

import builtins
import dis
import functools
import types
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_ARITHMETIC = ("add", "sub", "mul", "div", "abs", "neg", "maximum", "minimum", "clamp", "clamp_min", "clamp_max")
_CHOOSING = ("ge", "gt", "le", "lt", "eq", "ne", "hardshrink", "masked_fill")
_BITS = ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not")
_OPERATIONS = frozenset(
    {*(_ARITHMETIC + _CHOOSING + _BITS), *(f"{name}_" for name in _ARITHMETIC + _CHOOSING + _BITS)}
    | {"copy_", "fill_", "zero_"}
)

_DTYPES = frozenset({"bfloat16", "float16", "float32", "float64", "int16", "int32", "int64", "uint8"})
_ABOUT = frozenset({"dtype", "itemsize", "numel", "shape", "view", "elements", "lo", "hi"}) | _DTYPES
"""What may be asked of a tensor, a tile or torch itself."""

_OF_STATES = frozenset({"tolist"})
"""States are on the host, so reading their numbers waits for nobody."""

_KNOWN = _OPERATIONS | _ABOUT | _OF_STATES


@functools.cache
def portable(kernel: Callable[..., None]) -> bool:
    """Whether a kernel, and every function of its module that it calls, keeps to operations that devices agree on."""
    return _keeps_to_it(kernel, set())


def _keeps_to_it(function: object, seen: set[object]) -> bool:
    if not isinstance(function, types.FunctionType) or function.__closure__:
        return False  # what a closure holds cannot be told from the code
    if function in seen:
        return True
    seen.add(function)
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(each for each in code.co_consts if isinstance(each, types.CodeType))
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval not in _KNOWN:
                return False
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and not _is_known(step.argval, function, seen):
                return False
            if step.opname.startswith(("IMPORT", "STORE_GLOBAL", "STORE_ATTR")):
                return False
    return True


def _is_known(name: str, function: types.FunctionType, seen: set[object]) -> bool:
    """Whether something global is a number, a table, a builtin, torch, or a function that keeps to it, too."""
    if name not in function.__globals__:
        return hasattr(builtins, name)
    value = function.__globals__[name]
    if isinstance(value, types.FunctionType):
        return _keeps_to_it(value, seen)
    return value is torch or isinstance(value, (int, float, dict, tuple))
