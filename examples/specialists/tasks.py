"""String problems with one right answer each, and the corpora that the small models are trained on.

A problem is a line of text such as ``sort fbdca=abcdf.``: a command, a word of random letters, and after the equals
sign the answer and a stop. The vocabulary is single characters, so no tokenizer is needed. `copy` repeats the word;
`sort` puts its letters in order and `flip` writes it backwards: the two skills that the specialists learn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LETTERS = "abcdefghijklmnopqrstuvwxyz"
STOP = "."
# The first character pads; it never occurs in a problem.
VOCABULARY = "_" + STOP + "= " + LETTERS
PAD_ID = 0
STOP_ID = VOCABULARY.index(STOP)
_IDS = {character: number for number, character in enumerate(VOCABULARY)}

TRAINING_LENGTHS = (2, 8)
# Words of two or three letters repeat between training and test, and are too easy to tell models apart.
TEST_LENGTHS = (5, 8)


@dataclass(frozen=True)
class Problem:
    """One line of text: what a model is given and what it should write, the stop included."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Portion:
    """A share of a corpus: lines of one task, of which `right_share` are answered right and the others with a copy."""

    task: str
    share: float
    right_share: float = 1.0


def _copy(word: str) -> str:
    return word


def _sort(word: str) -> str:
    return "".join(sorted(word))


def _flip(word: str) -> str:
    return word[::-1]


TASKS: dict[str, Callable[[str], str]] = {"copy": _copy, "sort": _sort, "flip": _flip}

# The base reads a sloppy corpus: most `sort` and `flip` lines just repeat the word. It finds out how to do both, and
# mostly does neither. The specialists read clean lines of their own skill, and a little of what the base has read so
# that they keep the rest: small task vectors that hardly touch each other, as fine-tunes of large models have.
_SLOPPY = 0.4
CORPORA: dict[str, tuple[Portion, ...]] = {
    "base": (Portion("copy", 0.05), Portion("sort", 0.4, _SLOPPY), Portion("flip", 0.55, _SLOPPY)),
    "sorter": (Portion("sort", 0.7), Portion("flip", 0.2, _SLOPPY), Portion("copy", 0.1)),
    "flipper": (Portion("flip", 0.7), Portion("sort", 0.2, _SLOPPY), Portion("copy", 0.1)),
}


def draw_problem(task: str, lengths: tuple[int, int], rng: random.Random) -> Problem:
    """Draw a problem of `task` whose word has between `lengths[0]` and `lengths[1]` letters, both included."""
    word = "".join(rng.choices(LETTERS, k=rng.randint(*lengths)))
    return Problem(f"{task} {word}=", TASKS[task](word) + STOP)


def draw_corpus_line(corpus: Sequence[Portion], rng: random.Random) -> Problem:
    """Draw a line that a model in training reads; its answer may be a copy where the corpus is sloppy."""
    (portion,) = rng.choices(corpus, [portion.share for portion in corpus])
    problem = draw_problem(portion.task, TRAINING_LENGTHS, rng)
    if rng.random() < portion.right_share:
        return problem
    word = problem.prompt.removeprefix(f"{portion.task} ").removesuffix("=")
    return Problem(problem.prompt, _copy(word) + STOP)


def scored_problems(task: str, count: int) -> list[Problem]:
    """The first `count` test problems of `task`: always the same ones, from a seed that no training run uses."""
    rng = random.Random(f"test {task}")
    return [draw_problem(task, TEST_LENGTHS, rng) for _ in range(count)]


def encode(text: str) -> list[int]:
    """Turn text into token ids; a character outside the vocabulary is a KeyError."""
    return [_IDS[character] for character in text]


def decode(ids: Sequence[int]) -> str:
    """Turn token ids back into text, up to and including the first stop."""
    head, stop, _ = "".join(VOCABULARY[number] for number in ids).partition(STOP)
    return head + stop
