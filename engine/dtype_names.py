"""The words for a dtype in a recipe."""

from __future__ import annotations

from .suggest import closest

_ALIASES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
DTYPE_NAMES = ("bfloat16", "float16", "float32", "float64")


def dtype_name(word: str) -> str | None:
    """The torch name of a dtype that a merge can be written in (``bf16`` → ``bfloat16``), or None."""
    bare = word.removeprefix("torch.")
    name = _ALIASES.get(bare, bare)
    return name if name in DTYPE_NAMES else None


def closest_dtype(word: str) -> str | None:
    """The dtype that a word is nearest to."""
    near = closest(word.removeprefix("torch."), [*DTYPE_NAMES, *_ALIASES])
    return dtype_name(near) if near else None
