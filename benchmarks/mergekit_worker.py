"""Run recipes with mergekit, one after another, in one process: importing it costs more than a small merge.

Run by mergekit's own Python, see `against_mergekit.py`. Each line of standard input is a JSON object with ``recipe``
(its text), ``out`` and ``seed``; each answer is a line with a JSON object: ``seconds``, or ``error``.
"""

from __future__ import annotations

import json
import os
import sys
import time

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def main() -> None:
    """Serve until standard input ends."""
    # Whatever a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        started = time.perf_counter()
        try:
            options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=task["seed"])
            configuration = MergeConfiguration.model_validate(yaml.safe_load(task["recipe"]))
            run_merge(configuration, task["out"], options=options)
            answer: dict[str, float | str] = {"seconds": time.perf_counter() - started}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
