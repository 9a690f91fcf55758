"""Command lines: what one left behind, and several of them in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ONE_AFTER_THE_OTHER = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from plait.cli import main
def stream():
    return TextIOWrapper(BytesIO(), "utf-8", newline="", write_through=True)
found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["plait", *arguments]
    code = 0
    with redirect_stdout(stream()) as out, redirect_stderr(stream()) as err:
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
    found.append((code, *(each.buffer.getvalue().decode() for each in (out, err))))
print(json.dumps(found))
"""


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it is."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def each_of(
    commands: Sequence[Sequence[str]], cwd: Path, under: Sequence[str] = (), environment: dict[str, str] | None = None
) -> list[Said]:
    """Command lines one after the other in one process, which ``under`` starts: what is said of it holds for them all.

    For what a process of the tests' own cannot have, such as fewer privileges. A start costs more than most commands.
    """
    done = subprocess.run(
        [*under, sys.executable, "-c", _ONE_AFTER_THE_OTHER, json.dumps([list(map(str, each)) for each in commands])],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Said(*each) for each in json.loads(done.stdout)]
