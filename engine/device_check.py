"""Whether a device computes what the host does: a pass over awkward numbers, there and here, to the last bit.

Done before a device gets any work, for every pass that it would have: zeros of both signs, numbers below the normal
range, halves of the last place, the largest ones. A device that flushes, fuses or rounds otherwise does not get the
pass, so the output does not tell where it was made.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from .finite import canonical
from .opdef import Site, Tile

if TYPE_CHECKING:
    from .backends import Backend
    from .graph import Node
    from .tiling import Pass

_ELEMENTS = 1 << 12
_FIRST = 12
"""Not the start of a tensor: masks depend on where an element stands, and words of theirs are cut here."""

_AWKWARD = (0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-126, -1e-39, 3e38, -3e38, 1 + 2.0**-12, 65504.0)


def agrees(current: Pass, backend: Backend) -> bool:
    """Whether a pass's kernels for devices give on this one the bytes that its kernels give on the host."""
    with np.errstate(all="ignore"):
        there = _computed(current, backend)
        here = _computed(current, None)
    backend.settle()
    for host, device in zip(here, there, strict=True):
        back = device.cpu()
        canonical(host)
        canonical(back)
        if not torch.equal(host.view(torch.uint8), back.view(torch.uint8)):
            return False
    return True


def _computed(current: Pass, backend: Backend | None) -> list[torch.Tensor]:
    """What a pass writes, computed by a backend or by the host's own kernels."""
    tile = Tile(_FIRST, _FIRST + _ELEMENTS)
    values: dict[Node, torch.Tensor] = {}
    written: list[torch.Tensor] = []
    for number, node in enumerate(current.nodes):
        for source in node.inputs:
            if source.settled and source not in values:
                values[source] = _state(source)
        ins = [values[source] for source in node.inputs]
        if node.op.kernel is None:
            if node.op.name == "write":
                written += ins
                continue
            loaded = _weights(node, number)
            values[node] = backend.to_device(loaded) if backend is not None else loaded
            continue
        form = node.op.device_form if backend is not None else None
        made = torch.zeros(_ELEMENTS, dtype=node.spec.dtype)
        specs = [source.spec for source in node.inputs]
        scratch = torch.zeros((form or node.op).scratch_bytes(specs, _ELEMENTS) // 8 * 8 + 8, dtype=torch.uint8)
        if backend is not None:
            made, scratch = backend.to_device(made), backend.to_device(scratch)
        attrs = dict(node.attrs)
        if node.op.bind is not None:
            attrs.update(node.op.bind(attrs, Site("", 0)))
        (form.kernel if form is not None else node.op.kernel)(made, ins, scratch, tile, **attrs)
        values[node] = made
    return written


def _weights(node: Node, number: int) -> torch.Tensor:
    """Numbers like weights, every third one an awkward one; the same at every call."""
    random = np.random.default_rng(number)
    usual = random.normal(0.0, 0.02, _ELEMENTS)
    awkward = random.choice(_AWKWARD, _ELEMENTS)
    chosen = np.where(random.random(_ELEMENTS) < 1 / 3, awkward, usual)
    return torch.from_numpy(chosen).to(node.spec.dtype)


def _state(node: Node) -> torch.Tensor:
    """Numbers in place of what earlier passes found."""
    random = np.random.default_rng(zlib.crc32(node.op.name.encode()))
    return torch.from_numpy(random.uniform(0.1, 1.0, node.spec.shape)).to(node.spec.dtype)
