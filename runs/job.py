"""What a process of a run has to know to do its part."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Job:
    """What a process has to know: the folder, the run's token, its own number, the recipe, options of the plan."""

    folder: str
    run: str
    number: int
    recipe: tuple[str, str, str]
    options: Mapping[str, Any]
    allow_nonfinite: bool

    def as_json(self) -> bytes:
        """The job as JSON text."""
        return json.dumps(asdict(self), default=str).encode()


def read_job(text: str) -> Job:
    """The job of a JSON text."""
    given = json.loads(text)
    options = given["options"]
    if isinstance(options.get("device"), dict):
        from ..engine.devices import Device  # this takes a second

        options["device"] = Device(**options["device"])
    return Job(**(given | {"recipe": tuple(given["recipe"])}))
