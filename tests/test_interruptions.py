"""What a command says that was interrupted."""

from __future__ import annotations

import pytest
import typer
from plait.engine.errors import Interrupted
from plait.entry import leave_with_code


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (KeyboardInterrupt(), ["error: interrupted; nothing was written"]),
        (Interrupted(0.25), ["error: interrupted; the output is not complete", "25% is done and kept"]),
    ],
)
def test_an_interruption_says_what_is_left(
    raised: BaseException, says: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    @app.command()
    def run() -> None:
        raise raised

    monkeypatch.setattr("sys.argv", ["plait", "run"])
    with pytest.raises(SystemExit) as left:
        leave_with_code(app)
    assert left.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(says)
    assert all(part in line for part, line in zip(says, lines, strict=True))
