"""The tensors of a model folder, one at a time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import torch


class Stored:
    """A model folder open for reading; ``names`` in the order of the files."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            file = self._stack.enter_context(safe_open(shard, "pt"))
            self._files |= dict.fromkeys(file.keys(), file)
        self.names = list(self._files)

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor as stored."""
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    def __enter__(self) -> Stored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
