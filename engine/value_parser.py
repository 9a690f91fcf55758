"""Scalars of a recipe as the values that parameters have: numbers, booleans, words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .recipe_fields import Reading, describe
from .suggest import closest, did_you_mean
from .yaml_nodes import YamlNode, YamlScalar

if TYPE_CHECKING:
    from .methoddef import Param, Value

_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false"}
_WORDS = {"true": True, "false": False}
# Longer numerals are not meant as numbers, and converting them is slow.
_LONGEST_NUMERAL = 400


def number_of(node: YamlNode) -> float | int | None:
    """The number that a scalar is, or that its text spells (YAML reads ``1e-9`` as text); None if it is none.

    A number too large to hold is infinite.
    """
    if not isinstance(node, YamlScalar) or isinstance(node.value, bool) or node.value is None:
        return None
    value = node.value
    if isinstance(value, str):
        if len(value) > _LONGEST_NUMERAL or "_" in value:
            return None
        try:
            return int(value)
        except ValueError:
            pass
    try:
        return value if isinstance(value, int) and abs(value) < 2**63 else float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def whole_number_of(node: YamlNode) -> int | None:
    """The whole number that a scalar is or spells; None if it is none."""
    number = number_of(node)
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def value_of(node: YamlScalar, param: Param, reading: Reading) -> Value | None:
    """A scalar as a value of the parameter; a mistake reported and None if it is not one."""
    if param.kind == "bool":
        value: Value | None = _boolean(node)
    elif param.kind == "choice":
        return _choice(node, param, reading)
    else:
        return number_for(node, param, reading)
    if value is None:
        _wrong_kind(node, param, reading)
    return value


def number_for(node: YamlNode, param: Param, reading: Reading) -> float | int | None:
    """A number for a numeric parameter, checked against its bounds."""
    number = number_of(node)
    if number is None:
        _wrong_kind(node, param, reading)
        return None
    if not math.isfinite(number):
        reading.error(node.where, f"{param.name!r} must be a finite number, not {describe(node)}")
        return None
    low, high = param.low, param.high
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"between {low:g} and {high:g}" if low is not None and high is not None else ""
        bounds = bounds or (f"at least {low:g}" if low is not None else f"at most {high:g}")
        reading.error(node.where, f"{param.name!r} must be {bounds}, not {describe(node)}")
        return None
    if param.is_share and not 0 <= number <= 1:
        what, hint = ("nothing", "") if number < 0 else ("everything", f"write {number / 100:g} for {number:g}%")
        reading.warn(
            node.where,
            f"{param.name!r} goes from 0 to 1 ({param.help}); {describe(node)} is taken for {what}",
            hint if 2 <= number <= 100 else "",
        )
    if param.kind == "float":
        return float(number)
    if number != int(number):
        _wrong_kind(node, param, reading)
        return None
    return int(number)


def _boolean(node: YamlScalar) -> bool | None:
    """True and false, also as text, and the numbers 1 and 0."""
    if isinstance(node.value, bool):
        return node.value
    number = number_of(node)
    if number is not None:
        return bool(number) if number in (0, 1) else None
    return _WORDS.get(node.text.lower())


def _choice(node: YamlScalar, param: Param, reading: Reading) -> str | None:
    flag = _boolean(node)
    word = node.text if flag is None else str(flag).lower()
    if word in param.choices and node.value is not None:
        return word
    if node.text in param.choices:  # a method may offer a number as a word
        return node.text
    hint = did_you_mean(closest(node.text, param.choices))
    words = ", ".join(param.choices)
    reading.error(node.where, f"{param.name!r} must be one of {words}, not {describe(node)}", hint)
    return None


def _wrong_kind(node: YamlNode, param: Param, reading: Reading) -> None:
    wanted = _KINDS.get(param.kind, "a word")
    reading.error(node.where, f"{param.name!r} must be {wanted}, not {describe(node)}")
