"""The colours of pictures: those that the pages' style names, for light and for dark grounds."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from .page_parts import asset

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMED = re.compile(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")


class Colour(NamedTuple):
    """One colour, as it is on a light and on a dark ground."""

    light: str
    dark: str


@cache
def colours() -> Mapping[str, Colour]:
    """Every colour by its name in ``page.css``, such as ``ink`` or ``model-0``."""
    return {name: Colour(light, dark) for name, light, dark in _NAMED.findall(asset("page.css"))}


@cache
def model_colours() -> tuple[Colour, ...]:
    """The colours of the models, in their order; the ninth model has that of the first again."""
    found = colours()
    return tuple(found[f"model-{number}"] for number in range(sum(name[:6] == "model-" for name in found) - 1))
