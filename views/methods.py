"""The merge methods, as a list and one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from . import method_words as words
from .console import output, print_lines, width_of
from .layout import Row, facts, heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..engine.methoddef import MethodDef, Param
    from ..engine.trial import Trial


def as_json(method: MethodDef, trial: Trial) -> dict[str, object]:
    """A method as one JSON object."""
    return {
        "name": method.name,
        "summary": method.summary,
        "formula": method.formula,
        "base": method.base,
        "min_inputs": method.min_inputs,
        "max_inputs": method.max_inputs,
        "passes": trial.cost.passes,
        "granularity": trial.cost.granularity,
        "held_mib": trial.cost.held_mib,
        "paper": method.paper,
        "example": trial.recipe,
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


def show_all(methods: Mapping[str, MethodDef], trials: Mapping[str, Trial]) -> None:
    """Print a block for each method: what it does, what it takes."""
    console = output()
    print_lines(console, all_page(methods, trials, width_of(console)))


def show_one(method: MethodDef, trial: Trial) -> None:
    """Print one method with its parameters."""
    console = output()
    print_lines(console, page(method, trial, width_of(console)))


def all_page(methods: Mapping[str, MethodDef], trials: Mapping[str, Trial], width: int | None) -> Iterator[Text]:
    """A block a method, family by family, in lines of a width."""
    for family, members in words.families(methods).items():
        yield from (Text(part, "bold") for part in wrap(family, width))
        for method in members:
            yield Text("  ").append(method.name, "bold cyan")
            takes = [
                f"base model {words.base(method)}",
                words.passes_in_short(trials[method.name]),
                f"parameters: {', '.join(param.name for param in method.params) or 'none'}",
            ]
            yield from facts([("", method.summary), ("", "; ".join(takes))], width)
        yield Text()
    yield Text("plait methods NAME shows one in full", "dim")


def page(method: MethodDef, trial: Trial, width: int | None) -> Iterator[Text]:
    """A method in full, in lines of a width."""
    yield Text(method.name, "bold cyan")
    pairs = [
        ("does", method.summary),
        ("result", method.formula),
        ("models", words.models_and_base(method)),
        ("base model", words.base(method)),
        ("passes", words.passes(trial)),
        ("paper", method.paper),
    ]
    yield from facts([(name, value) for name, value in pairs if value], width)
    yield Text()
    if method.params:
        titles = [Text(title, "bold") for title in ("kind", "given", "default")]
        rows = [Row(Text("parameter", "bold"), titles)]
        for param in method.params:
            cells = [Text(param.kind), Text(words.SCOPES[param.scope]), Text(words.default(param))]
            rows.append(Row(Text(param.name, "cyan"), cells))
            rows += [Row(Text(part, "dim"), (), Text("  ")) for part in wrap(_meaning(param), width and width - 4)]
        yield from table(rows, width)
        yield Text()
    yield heading("  example")
    yield from (Text(f"    {line}") for line in trial.recipe.splitlines())


def _meaning(param: Param) -> str:
    return "; ".join(filter(None, [param.help, words.accepted(param)]))
