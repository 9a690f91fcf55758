"""The merge methods, as a list and one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from .console import output, print_lines, width_of
from .layout import Row, facts, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..engine.methoddef import MethodDef, Param

_SCOPES = {"model": "each model", "tensor": "the merge"}


def as_json(method: MethodDef) -> dict[str, object]:
    """A method as one JSON object."""
    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "base": method.base,
        "min_inputs": method.min_inputs,
        "max_inputs": method.max_inputs,
        "paper": method.paper,
        "parameters": [
            {
                "name": param.name,
                "kind": param.kind,
                "scope": param.scope,
                "required": param.required,
                "default": param.default,
                "low": param.low,
                "high": param.high,
                "choices": list(param.choices),
                "help": param.help,
            }
            for param in method.params
        ],
    }


def show_all(methods: Mapping[str, MethodDef]) -> None:
    """Print a block for each method: what it does, its parameters."""
    console = output()
    print_lines(console, all_page(methods, width_of(console)))


def show_one(method: MethodDef) -> None:
    """Print one method with its parameters."""
    console = output()
    print_lines(console, page(method, width_of(console)))


def all_page(methods: Mapping[str, MethodDef], width: int | None) -> Iterator[Text]:
    """A block a method, in lines of a width."""
    for method in methods.values():
        yield Text(method.name, "bold cyan")
        names = ", ".join(param.name for param in method.params) or "none"
        yield from facts([("", method.summary), ("", f"base model {method.base}; parameters: {names}")], width)
    yield Text()
    yield Text("plait methods NAME shows one in full", "dim")


def page(method: MethodDef, width: int | None) -> Iterator[Text]:
    """A method in full, in lines of a width."""
    yield Text(method.name, "bold cyan")
    pairs = [
        ("does", method.summary),
        ("result", method.formula),
        ("inputs", _inputs(method)),
        ("base model", method.base),
        ("paper", method.paper),
    ]
    yield from facts([(name, value) for name, value in pairs if value], width)
    if not method.params:
        return
    yield Text()
    titles = [Text(title, "bold") for title in ("kind", "given for", "default")]
    rows = [Row(Text("parameter", "bold"), titles)]
    for param in method.params:
        cells = [Text(param.kind), Text(_SCOPES[param.scope]), Text(_default(param))]
        rows.append(Row(Text(param.name, "cyan"), cells))
        rows += [Row(Text(part, "dim"), (), Text("  ")) for part in wrap(_meaning(param), width and width - 4)]
    yield from table(rows, width)


def _inputs(method: MethodDef) -> str:
    if method.max_inputs == method.min_inputs:
        text = str(method.min_inputs)
    elif method.max_inputs is None:
        text = f"{method.min_inputs} or more"
    else:
        text = f"{method.min_inputs} to {method.max_inputs}"
    return text + (", the base not counted" if method.excludes_base else "")


def _meaning(param: Param) -> str:
    bounds = [text for text in (_bound("at least", param.low), _bound("at most", param.high)) if text]
    choices = [f"one of {', '.join(param.choices)}"] if param.choices else []
    return "; ".join([param.help, *bounds, *choices])


def _bound(words: str, value: float | None) -> str:
    return "" if value is None else f"{words} {value:g}"


def _default(param: Param) -> str:
    if param.required:
        return "required"
    return "none" if param.default is None else str(param.default).lower()
