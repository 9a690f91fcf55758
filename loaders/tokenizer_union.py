"""Which tokens the output has, and their ids: one model's tokens, and perhaps those of others after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .tokenizer_file import AddedToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .tokenizer_file import ModelTokenizer


@dataclass(frozen=True)
class OutputTokens:
    """The output's tokens. ``ids`` has all of them; ``added`` those that are looked for in the text first, by id.

    ``plain`` are new tokens that are none of these and join the source's own vocabulary; ``cut`` are tokens of the
    source that lost their ids, because it has no rows for them. ``notes`` are lines for the log.
    """

    ids: Mapping[str, int]
    added: Mapping[str, AddedToken]
    plain: tuple[str, ...]
    cut: frozenset[str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Vocabularied:
    """A model's tokenizer beside the number of its embedding's rows; tokens at or above it are as good as not there."""

    name: str
    tokenizer: ModelTokenizer
    rows: int


def tokens_of(
    source: Vocabularied, others: Iterable[Vocabularied], extra: Iterable[str], takes_up: Callable[[str], bool]
) -> OutputTokens:
    """The source's tokens with their ids, then what only ``others`` have, in their order, then ``extra``.

    Of what is new, ordinary tokens come first, model by model in the order of their ids, and added ones after them.
    A token that some model adds is an added one; the first model's settings count. A new ordinary token joins the
    vocabulary if the source ``takes_up`` it; else it is added as a word, which is not looked for inside of others.
    Those that join come before such words: then the words need no place in the vocabulary, where they would be used
    inside of others after all.
    """
    own, rows = source.tokenizer, source.rows
    ids = {token: index for token, index in own.ids.items() if index < rows}
    cut = frozenset(own.ids.keys() - ids.keys())
    notes = [f"{source.name}: {_counted(len(cut))} at or above its {rows} rows left out"] if cut else []
    added = {text: token for text, token in own.added.items() if text in ids}
    plain: dict[str, None] = {}
    differing: dict[str, str] = {}
    for other in others:
        theirs = other.tokenizer
        for token, index in sorted(theirs.ids.items(), key=lambda item: item[1]):
            if token not in ids and token not in theirs.added and index < other.rows:
                plain[token] = None
        for text, added_token in theirs.added.items():
            if theirs.ids[text] < other.rows and added.setdefault(text, added_token) != added_token:
                differing.setdefault(text, other.name)
    for text, name in differing.items():
        notes.append(f"{name}: the added token {text!r} has other settings than in an earlier model, which count")
    ordinary = [token for token in plain if token not in added]
    joining = {token: None for token in ordinary if takes_up(token)}
    end = max(ids.values(), default=-1) + 1
    words = {token: None for token in ordinary if token not in joining}
    new = [text for text in dict.fromkeys((*joining, *words, *added, *extra)) if text not in ids]
    ids.update((text, end + number) for number, text in enumerate(new))
    alone = set(new).difference(added, joining)
    added |= {text: AddedToken(text, single_word=text in words) for text in new if text in alone}
    by_id = dict(sorted(added.items(), key=lambda item: ids[item[0]]))
    return OutputTokens(ids, by_id, tuple(joining), cut, tuple(notes))


def _counted(number: int) -> str:
    return "1 token" if number == 1 else f"{number} tokens"
