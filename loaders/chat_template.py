"""The output's chat template: which one the recipe means, and the files that carry it.

The output has what transformers writes today: the default template in ``chat_template.jinja``, named ones as files of
``additional_chat_templates``, and none in any other place. A template is somebody's program: it is parsed where the
recipe gives it, and never run.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine.errors import Problem, RecipeError
from ..engine.suggest import closest, did_you_mean
from ..engine.units import clean
from .chat_formats import FORMATS
from .chat_sources import (
    LEGACY_FILE,
    NAMED_FOLDER,
    PROCESSOR_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    named_files,
    templates_of,
    without_template,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..engine.errors import Location

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""Marks of transformers around a model's turn; Jinja itself does not know them."""

_MARKED = re.compile(r"<[|｜][^<>'\"{}\s]{1,60}[|｜]>|\[\|[^\[\]'\"{}\s]{1,60}\|\]|<(?:start|end)_of_turn>")
"""What can only be a special token, by its form."""

_TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "[|endofturn|]",
    "<|eot|>",
    "<|end|>",
)
_RETURN = "<|return|>"
"""Where a format has it, it ends turns, and ``<|end|>`` ends a part of one."""


@dataclass(frozen=True, slots=True)
class ChatFiles:
    """What the choice of a template makes of the files beside the weights.

    ``texts`` are written and ``left_out`` not copied, by name. ``source`` is the format's name or the model whose
    template it is; None where files stay as they are. Of a template that is not the tokenizer's own, ``turn_ends`` are
    the tokens with which it ends a turn, and which have to stop a generation; ``marks`` all special tokens it writes.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    source: str | None = None
    turn_ends: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def chat_files(
    choice: str | None,
    where: Location,
    models: Mapping[str, Path],
    files: Mapping[str, str] | None = None,
    *,
    processor: Path | None = None,
) -> ChatFiles:
    """Carry out ``chat_template:``; without one everything stays as it is.

    ``models`` maps references to folders, first the model that gives the tokenizer; ``files`` are the texts of those
    of its files that the output has in another form. ``processor`` is the folder that processor_config.json comes
    from, if that is another. Raises RecipeError where the choice is no template (``where`` is its place), InputError
    where a file cannot be rewritten.
    """
    if choice is None:
        return ChatFiles()
    check_choice(choice, where)
    donor, folder = next(iter(models.items()))
    own = templates_of(folder, files)
    is_own = False
    word, named = choice.strip(), own.named
    notes: list[str] = []
    if is_jinja(choice):
        source, template = "the recipe", choice
        turn_ends = turn_ends_of(template)
    elif word != "auto":
        source, template, turn_end = word, FORMATS[word].template, FORMATS[word].turn_end
        turn_ends = (turn_end,) if turn_end is not None else ()
    else:
        found = {name: own if name == donor else templates_of(each) for name, each in models.items()}
        chosen = most_common({name: each.default for name, each in found.items()})
        if chosen is None:
            return ChatFiles(notes=("chat_template: auto: no model has a chat template, so the output has none",))
        source, template, named = chosen, found[chosen].default or "", found[chosen].named
        is_own, turn_ends = chosen == donor, turn_ends_of(template)
    if named and word != "auto":
        notes.append(f"chat_template: the templates that {donor} has by name are kept: {', '.join(named)}")
    texts = {TEMPLATE_FILE: template} | {f"{NAMED_FOLDER}/{name}.jinja": text for name, text in named.items()}
    texts |= without_template((folder / TOKENIZER_FILE, (processor or folder) / PROCESSOR_FILE), files)
    gone = {LEGACY_FILE, *(f"{NAMED_FOLDER}/{path.name}" for path in named_files(folder))} - set(texts)
    if is_own:  # its ids and tokens already go with it
        return ChatFiles(texts, frozenset(gone), source)
    return ChatFiles(texts, frozenset(gone), source, turn_ends, marks_of(template), tuple(notes))


def check_choice(choice: str, where: Location) -> None:
    """RecipeError unless the choice is ``auto``, the name of a format, or a Jinja template without mistakes."""
    names = ("auto", *FORMATS)
    if not is_jinja(choice):
        if choice.strip() not in names:
            hint = did_you_mean(closest(choice.strip(), names)) or f"write one of {', '.join(names)}, or a template"
            shown = clean(choice if len(choice) <= 60 else choice[:60] + "…")
            message = f"chat_template: '{shown}' is neither the name of a chat template nor a Jinja template"
            raise RecipeError([Problem(where, message, hint)])
        return
    mistake = _mistake_in(choice)
    if mistake is not None:
        raise RecipeError([Problem(where, f"chat_template: the Jinja template is wrong in {mistake}")])


def is_jinja(choice: str) -> bool:
    """Whether the choice is a template rather than a name."""
    return "{{" in choice or "{%" in choice


def most_common(templates: Mapping[str, str | None]) -> str | None:
    """The first model that has the template that most models have; of equally many, the first model's."""
    same = {name: text.replace("\r\n", "\n").strip() for name, text in templates.items() if text is not None}
    counts = Counter(same.values())
    # Counter keeps the order, and max takes the first of equals.
    return max(same, key=lambda name: counts[same[name]], default=None)


def turn_ends_of(template: str) -> tuple[str, ...]:
    """The known tokens among those that a template writes which end a turn."""
    marks = marks_of(template)
    return (_RETURN,) if _RETURN in marks else tuple(token for token in _TURN_ENDS if token in marks)


def marks_of(template: str) -> tuple[str, ...]:
    """What a template writes that has the form of a special token, each once, in its order."""
    return tuple(dict.fromkeys(_MARKED.findall(_COMMENT.sub("", template))))


def _mistake_in(template: str) -> str | None:
    """The first mistake in a Jinja template, as ``line N: what``. None where there is none, or no Jinja to ask."""
    try:
        from jinja2 import TemplateSyntaxError, nodes
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
    try:
        # Parsed only: a compiler already computes what is constant, such as 9 ** 9 ** 9.
        tree = environment.parse(_GENERATION.sub("", template))
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {clean(str(error.message))}"
    except RecursionError:
        return "its depth: it is nested too deeply"
    known = ((nodes.Filter, environment.filters, "filter"), (nodes.Test, environment.tests, "test"))
    for kind, names, what in known:
        for node in tree.find_all(kind):
            if node.name not in names:
                return f"line {node.lineno}: there is no {what} {clean(node.name)!r}"
    return None
