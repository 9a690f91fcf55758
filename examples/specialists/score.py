"""How many problems a model answers exactly right: greedy decoding, compared with the one right answer.

Run ``python -m plait.examples.specialists.score FOLDER...`` for a table.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from ...engine.host import one_torch_thread
from . import FOLDER, MODELS
from .model import Llama, decode_greedily, read_llama
from .tasks import TASKS, Problem, decode, encode, scored_problems

# The skills that the specialists are trained for; `copy`, which all models can do, is left out.
SKILLS: tuple[str, ...] = ("sort", "flip")


def answer(llama: Llama, prompts: list[str], new_tokens: int) -> list[str]:
    """What the model writes after each of the prompts, which must be equally long."""
    ids = torch.tensor([encode(prompt) for prompt in prompts])  # (prompts, time)
    return [decode(row) for row in decode_greedily(llama, ids, new_tokens).tolist()]


def score_task(llama: Llama, task: str, problems: int) -> float:
    """Share of the first `problems` test problems of `task` that the model answers exactly right."""
    by_length: dict[int, list[Problem]] = defaultdict(list)
    for problem in scored_problems(task, problems):
        by_length[len(problem.prompt)].append(problem)
    right = 0
    for group in by_length.values():
        written = answer(llama, [problem.prompt for problem in group], len(group[0].answer))
        right += sum(text == problem.answer for text, problem in zip(written, group, strict=True))
    return right / problems


def score_folder(folder: Path, *, problems: int = 200) -> dict[str, float]:
    """Share of test problems that the model in `folder` answers exactly right, by skill.

    Raises FileNotFoundError where the folder holds no config.json or no safetensors file.
    """
    llama = read_llama(folder)
    with one_torch_thread():  # several wait for each other most of the time: the matrices are tiny
        return {skill: score_task(llama, skill, problems) for skill in SKILLS}


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each of the folders, by default the three committed models."""
    parser = argparse.ArgumentParser(prog="python -m plait.examples.specialists.score", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: the three in this package")
    parser.add_argument("--problems", type=int, default=200, help="problems a task (default: %(default)s)")
    options = parser.parse_args(arguments)
    folders = options.folders or [FOLDER / name for name in MODELS]
    width = max(len(folder.name) for folder in folders)
    print(" " * width, *(f"{task:>7}" for task in TASKS))
    for folder in folders:
        llama = read_llama(folder)
        print(f"{folder.name:{width}}", *(f"{score_task(llama, task, options.problems):7.1%}" for task in TASKS))


if __name__ == "__main__":
    main()
