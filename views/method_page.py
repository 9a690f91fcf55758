"""The page of merge methods in the docs, as Markdown: everything on it comes from the methods' declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.units import link_papers
from . import method_words as words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..engine.methoddef import MethodDef
    from ..engine.trial import Trial

_HEAD = """\
# Merge methods

<!-- Written by `make docs` from the declarations in ops/methods/: change those, not this page. -->

In the formulas b is the base model's tensor, xᵢ that of model i, Δᵢ = xᵢ − b its task vector, and wᵢ its weight; the
result is one output tensor. n is a tensor's number of elements, K the number of models.

- **Models** are those that the recipe lists. Where the base is not counted, it may be listed all the same.
- **Passes** say how often the inputs are read. They are counted on the example, for a matrix of 4096 × 4096, and a
  setting that changes them is named. A tensor is cut into tiles anywhere, unless something else is said; so is the
  memory that a tensor takes beside its tiles, if that is a MiB or more.
- A parameter given **per model** may stand in a `models:` entry or a slice's source, or further out for all of them.
  One given **per tensor** has no effect there: it belongs in a slice, a module, or the recipe's own `parameters:`.
  Both take one value, a gradient over the layers, or values by filter: see [the guide](guide.md#recipes).

`plait methods NAME` shows the same on a terminal. [differences.md](differences.md) lists where results differ from
mergekit's, and why.
"""


def page(methods: Mapping[str, MethodDef], trials: Mapping[str, Trial]) -> str:
    """The whole page: a table of all methods, then a section each."""
    parts = [_HEAD, "\n".join(_overview(methods, trials))]
    for family, members in words.families(methods).items():
        parts.append(f"## {family}")
        parts += [section(method, trials[method.name]).rstrip("\n") for method in members]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def section(method: MethodDef, trial: Trial) -> str:
    """The section of one method."""
    lines = [f"### {method.name}", "", f"{method.summary}.", ""]
    if method.formula:
        lines += ["```text", method.formula, "```", ""]
    lines += [f"- Models: {words.models_and_base(method)}", f"- Base model: {words.base(method)}"]
    lines.append(f"- Passes: {words.passes(trial, quote='`')}")
    if method.paper:
        lines.append("- Paper: " + link_papers(method.paper))
    lines.append("")
    if method.params:
        lines += [*_parameters(method), ""]
    lines += ["```yaml", *trial.recipe.splitlines(), "```", ""]
    return "\n".join(lines)


def _overview(methods: Mapping[str, MethodDef], trials: Mapping[str, Trial]) -> Iterator[str]:
    rows = []
    for method in methods.values():
        passes = words.passes_in_short(trials[method.name]).rpartition(" ")[0]
        name = f"[{method.name}](#{method.name})"
        rows.append([name, method.summary, passes, words.base(method), words.models(method)])
    yield from _table(["method", "what it does", "passes", "base model", "models"], rows)


def _parameters(method: MethodDef) -> Iterator[str]:
    rows = [
        [
            f"`{param.name}`",
            param.kind,
            words.SCOPES[param.scope],
            words.default(param),
            words.accepted(param) or "any",
            param.help,
        ]
        for param in method.params
    ]
    yield from _table(["parameter", "kind", "given", "default", "values", "meaning"], rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
