"""A model as the engine sees it: names, specs, places in files. Loaders make these; nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from .graph import TensorSpec


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as an input holds it.

    ``model`` is the reference the recipe uses; ``file`` the path of the file, ``offset_bytes`` where the
    tensor's bytes start in it. Data is dense, row-major, little-endian.
    """

    model: str
    name: str
    spec: TensorSpec
    file: str
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes as stored."""
        return self.spec.size_bytes


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of layers: tensors named ``{prefix}.{layer}.{suffix}`` for layer 0 to ``layers`` - 1.

    ``prefix`` is everything before the outermost numbered segment, such as ``model.layers`` or
    ``vision_tower.encoder.layers``; ``suffixes`` are in the model's order, over all layers. ``follows`` is the
    stack whose layers these are parts of, where a model keeps a list of attentions beside a list of norms.
    """

    prefix: str
    layers: int
    suffixes: tuple[str, ...]
    follows: str | None = None

    def tensor_name(self, layer: int, suffix: str) -> str:
        """The name of one tensor of one layer."""
        return f"{self.prefix}.{layer}.{suffix}"


@dataclass(frozen=True, slots=True)
class TensorRole:
    """Where a tensor belongs: ``stack`` and ``layer`` for one in a stack; else ``leading`` or trailing.

    ``leading`` is true for the input embeddings and what belongs to them (positions, token types, their norm
    or projection); false for the rest (final norm, head). ``per_layer`` is true for a tensor in no stack that
    holds a part for every layer of the main one, such as a table of embeddings for each layer; they lie one after the
    other along ``part_axis``, which is None where that is not known.
    """

    stack: str | None = None
    layer: int | None = None
    suffix: str | None = None
    leading: bool = False
    per_layer: bool = False
    part_axis: int | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One weight file of an input: size, sha256 of its header, time of change (ns), as they were when it was read."""

    path: str
    size_bytes: int
    header_sha256: str
    modified_ns: int = 0


@dataclass(frozen=True)
class Model:
    """An input, headers only.

    ``tensors`` is in the model's order: leading tensors, layers 0 to L - 1, trailing tensors; inside each
    group as the files hold them. ``primary`` is the prefix of the stack that ``layer_range`` counts.
    ``config`` is the parsed config.json. ``aliases`` maps the name of a tied weight that is not stored
    (``lm_head.weight``) to the stored tensor it shares. ``files`` are the weight files in name order.
    """

    reference: str
    folder: str
    tensors: Mapping[str, StoredTensor]
    roles: Mapping[str, TensorRole]
    stacks: Mapping[str, Stack]
    primary: str | None
    config: Mapping[str, object] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    vocabulary_rows: int | None = None
    files: tuple[StoredFile, ...] = ()

    @property
    def layers(self) -> int:
        """Layers in the primary stack; 0 if there is none."""
        return self.stacks[self.primary].layers if self.primary is not None else 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())


class TensorReader(Protocol):
    """Reads ranges of stored tensors; safe to call from several threads."""

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        """Fill ``out`` (1-D, uint8, contiguous) from ``offset_bytes`` of the tensor's data. Raises InputError."""


class TensorWriter(Protocol):
    """Writes ranges of output tensors at places known beforehand; safe to call from several threads."""

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        """Put ``data`` (1-D, uint8, contiguous) at ``offset_bytes`` of the tensor's data. Raises OutputError."""

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:
        """Let the kernel copy a range of a stored tensor; False where it cannot and bytes have to be moved."""


class ReadBack(Protocol):
    """Gives back what was written."""

    def read_back(self, name: str, offset_bytes: int, size_bytes: int) -> bytes:
        """Bytes of an output tensor's data, as the disk has them. Raises OutputError."""


class DurableWriter(TensorWriter, ReadBack, Protocol):
    """A writer whose bytes can be made to survive a loss of power."""

    def sync(self, names: Iterable[str]) -> None:
        """Return when what was written of these tensors is on disk. Raises OutputError."""
