"""The merge methods, as a list and one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from .console import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.methoddef import MethodDef, Param

_SCOPES = {"model": "each model", "tensor": "whole"}


def facts(method: MethodDef) -> dict[str, object]:
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
    """Print a table of all methods."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("method", style="cyan", no_wrap=True)
    table.add_column("what it does")
    table.add_column("base model", no_wrap=True)
    table.add_column("parameters")
    for method in methods.values():
        names = " ".join(param.name for param in method.params)
        table.add_row(method.name, method.summary, method.base, names)
    console = output()
    console.print(table)
    console.print("\n[dim]plait methods NAME shows one in full[/]")


def show_one(method: MethodDef) -> None:
    """Print one method with its parameters."""
    console = output()
    console.print(f"[bold cyan]{method.name}[/]  {escape(method.summary)}")
    console.print(f"  result  {escape(method.formula)}")
    most = "any number of" if method.max_inputs is None else f"{method.min_inputs} to {method.max_inputs}"
    if method.max_inputs == method.min_inputs:
        most = str(method.min_inputs)
    console.print(f"  inputs  {most}; base model {method.base}")
    if method.paper:
        console.print(f"  paper   {escape(method.paper)}")
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
    for column in ("parameter", "kind", "given for", "default", "meaning"):
        table.add_column(column, no_wrap=column != "meaning")
    for param in method.params:
        table.add_row(param.name, _kind(param), _SCOPES[param.scope], _default(param), escape(param.help))
    console.print()
    console.print(table)


def _kind(param: Param) -> str:
    return "|".join(param.choices) if param.choices else param.kind


def _default(param: Param) -> str:
    if param.required:
        return "required"
    return "none" if param.default is None else str(param.default).lower()
