"""The ``parameters:`` of one scope: names, values, gradients and filters."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .recipe import Choice, Parameters, Setting, no_parameters
from .recipe_fields import CHOICE, RECIPE, Reading, describe, fields_of, is_holder, shown, text_of, unrepeated
from .suggest import closest, did_you_mean, near_miss
from .value_parser import number_for, value_of
from .yaml_nodes import YamlEntry, YamlList, YamlMap, YamlNode, YamlScalar

if TYPE_CHECKING:
    from .methoddef import Param, Value


def parse_parameters(entry: YamlEntry | None, reading: Reading, *, of_one_model: bool) -> Parameters:
    """The settings of a scope. ``of_one_model``: the scope is a ``models:`` entry or the source of a slice.

    A setting with a mistake in it is there without choices: it is given, whatever it says.
    """
    if entry is None:
        return no_parameters()
    node = entry.value
    if not isinstance(node, YamlMap):
        reading.error(node.where, f"parameters must be a mapping, not {describe(node)}", "write NAME: VALUE below it")
        return no_parameters()
    settings: dict[str, Setting] = {}
    for item in unrepeated(node, lambda name: _is_known(name, reading), reading):
        param = _declared(item, reading)
        if param is None:
            continue
        if of_one_model and param.scope == "tensor":
            reading.warn(
                item.where,
                f"{param.name!r} has no effect here: it is a setting of the whole tensor, not of one model",
                "move it to the top-level 'parameters:'",
            )
            continue
        settings.setdefault(param.name, Setting(_choices(item, param, reading), item.where))
    return MappingProxyType(settings)


def _is_known(name: str, reading: Reading) -> bool:
    return any(method.param(name) is not None for method in reading.methods.values())


def _declared(entry: YamlEntry, reading: Reading) -> Param | None:
    """The parameter that an entry sets; None, and something said about it, if the method has none of that name."""
    name, method = entry.key, reading.method
    param = method.param(name) if method is not None else None
    if param is not None:
        return param
    if _is_known(name, reading):
        if method is not None:  # of a method that does not exist nothing is known
            reading.warn(entry.where, f"{method.name} does not use the parameter {name!r}; it is ignored")
        return None
    used = sorted({param.name for each in ([method] if method else reading.methods.values()) for param in each.params})
    meant = near_miss(name, used)
    whose = f"of {method.name}" if method is not None else "of any method"
    if meant is not None and is_holder(entry, reading):
        reading.warn(entry.where, f"unknown parameter {shown(name)}", did_you_mean(meant))
        return None
    if meant is not None:
        message = f"{shown(name)} is not a parameter {whose}"
        reading.findings.near_miss(entry.where, message, did_you_mean(meant))
        return method.param(meant) if method is not None and not reading.findings.lenient else None
    if not is_holder(entry, reading):
        names = {param.name for each in reading.methods.values() for param in each.params}
        hint = did_you_mean(closest(name, used) or closest(name, names))
        if name in RECIPE.keys:
            hint = f"{name!r} stands at the top of the recipe, beside 'parameters:'"
        reading.warn(entry.where, f"no method has a parameter {shown(name)}; it is ignored", hint)
    return None


def _choices(entry: YamlEntry, param: Param, reading: Reading) -> tuple[Choice, ...]:
    """What an entry says: a value, a gradient, one filter, or a list of filters."""
    node = entry.value
    if isinstance(node, YamlMap):
        return _filtered(node, param, reading)
    if isinstance(node, YamlList) and any(isinstance(item, YamlMap) for item in node.items):
        return tuple(choice for item in node.items for choice in _filtered(item, param, reading))
    value = _value(node, param, reading)
    return () if value is None else (Choice(None, value),)


def _filtered(node: YamlNode, param: Param, reading: Reading) -> tuple[Choice, ...]:
    if not isinstance(node, YamlMap):
        message = f"{param.name!r} mixes filters with {describe(node)}"
        reading.error(node.where, message, "write each as {filter: …, value: …}, the rest as {value: …}")
        return ()
    fields = fields_of(node, CHOICE, reading)
    assert fields is not None, "it is a mapping"
    if "value" not in fields:
        reading.error(node.where, f"a filter of {param.name!r} has no value", "write {filter: …, value: …}")
        return ()
    wanted = None
    if "filter" in fields:
        wanted = text_of(fields["filter"].value, "filter", reading)
        if wanted is None:
            return ()
    value = _value(fields["value"].value, param, reading)
    return () if value is None else (Choice(wanted, value),)


def _value(node: YamlNode, param: Param, reading: Reading) -> Value | tuple[float, ...] | None:
    if isinstance(node, YamlScalar):
        return value_of(node, param, reading)
    if not isinstance(node, YamlList):
        reading.error(node.where, f"the value of {param.name!r} must not be {describe(node)}")
        return None
    if param.kind not in ("float", "int"):
        reading.error(node.where, f"{param.name!r} takes one value, not a list", "only numbers can be a gradient")
        return None
    if not node.items:
        reading.error(node.where, f"the gradient of {param.name!r} is empty")
        return None
    numbers = [number_for(item, param, reading) for item in node.items]
    gradient = tuple(float(number) for number in numbers if number is not None)
    return gradient if len(gradient) == len(numbers) else None
