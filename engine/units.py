"""Sizes, rates, durations and names: read from text, printed for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?)(i?)(b?)\s*$", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def parse_size(text: str) -> int:
    """Read a size in bytes: ``512MiB`` and ``2GiB`` are binary, ``5GB``, ``500M`` and ``5B`` decimal.

    A bare number of billions is written ``5B``, as in mergekit's help: 5·10⁹ bytes. Raises ValueError.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 512MiB, 2GiB, 5GB or 500M")
    number, prefix, binary, _ = match.groups()
    if binary and not prefix:
        raise ValueError(f"{text!r} is not a size; write 512MiB, 2GiB, 5GB or 500M")
    if not prefix and text.strip().lower().endswith("b"):
        factor = 10**9
    else:
        factor = (1024 if binary else 1000) ** _POWERS[prefix.lower()]
    size_bytes = int(float(number) * factor)
    if size_bytes <= 0:
        raise ValueError(f"{text!r} is not a size: it must be above zero")
    return size_bytes


def format_bytes(size_bytes: float) -> str:
    """Print a size with a binary unit and three significant digits: ``1.05 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{int(value)} B"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}"


def format_count(count: int) -> str:
    """Print a count with thin thousands: ``1 240 000``."""
    return f"{count:,}".replace(",", " ")


def format_seconds(seconds: float) -> str:
    """Print a duration: ``8.2 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clean(text: str) -> str:
    """A name as one line of visible characters: control characters are escaped, so that none reaches a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def format_names(names: Sequence[str]) -> str:
    """Print the first names of a list: ``a, b, c and 4 more``."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def link_papers(text: str) -> str:
    """A reference to papers with their arXiv numbers as Markdown links."""
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def align_up(value: int, multiple: int) -> int:
    """Round ``value`` up to a multiple."""
    return -(-value // multiple) * multiple
