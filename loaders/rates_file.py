"""What a machine does in a second, from the JSON that benchmarks/rates.py writes."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import InputError, UsageError
from ..engine.rates import RATES
from .input_files import read_json

if TYPE_CHECKING:
    from ..engine.rates import Rates

VARIABLE = "PLAIT_RATES"
"""The environment variable that names the file."""

_LIMIT_BYTES = 1_000_000


def read_rates(path: str | None) -> Rates:
    """The rates of a file, by the names of `Rates`; those it lacks, and all where there is no file, are the usual ones.

    Raises UsageError for a file that cannot be read or holds something else.
    """
    if not path:
        return RATES
    try:
        found = read_json(Path(path), _LIMIT_BYTES)
    except InputError as error:
        raise UsageError(f"{VARIABLE}: {error}") from None
    given: dict[str, object] = {}
    for field in fields(RATES):
        usual = getattr(RATES, field.name)
        if field.name not in found:
            continue
        value = found[field.name]
        if isinstance(usual, float):
            given[field.name] = _positive(path, field.name, value)
        elif isinstance(value, dict):
            given[field.name] = {**usual, **{key: _positive(path, f"{field.name}.{key}", value[key]) for key in value}}
        else:
            raise UsageError(f"{VARIABLE}: {path}: {field.name!r} is not a table of numbers")
    return replace(RATES, **given)  # type: ignore[arg-type]


def _positive(path: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{VARIABLE}: {path}: {name!r} is {value!r}, and has to be a number above zero")
    return float(value)
