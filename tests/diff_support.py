"""Models and reports for the tests of `plait diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from plait.reports.diff_report import DiffReport, Figures, StackLayers, TensorDiff
from plait.views import diff_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Tensors = dict[str, torch.Tensor]


def named(layers: int = 3, vocabulary: int = 50, hidden: int = 24) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small decoder."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.self_attn.q_proj.bias"] = (hidden,)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (3 * hidden, hidden)
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensors:
    random = np.random.default_rng(seed)
    return {name: torch.from_numpy(random.normal(0, 1, shape)).to(dtype) for name, shape in shapes.items()}


def moved(tensors: Tensors, seed: int = 1) -> Tensors:
    """A fine-tune: half of the elements move a little, each tensor by its own step."""
    random = np.random.default_rng(seed)
    return {
        name: (x.double() + (0.01 + index / 50) * torch.from_numpy(random.normal(0, 1, x.shape)) * (x.double() > 0)).to(
            x.dtype
        )
        for index, (name, x) in enumerate(tensors.items())
    }


def figures(relative_l2: float | None = 0.01, elements: int = 100) -> Figures:
    """Figures of that distance; None for what has no numbers."""
    distance = 0.0 if relative_l2 is None else relative_l2
    changed = elements // 2 if relative_l2 != 0 else 0
    return Figures(elements, changed, relative_l2 is not None, 1.0, 1.0, 1 - distance**2 / 2, distance**2, 0.1, 0, 0)


def report_of(cells: dict[tuple[int, str], Figures], others: Iterable[tuple[str, Figures]] = ()) -> DiffReport:
    tensors = [
        TensorDiff(
            f"model.layers.{layer}.{kind}.weight", "model.layers", layer, f"{kind}.weight", (10, 10), *TWICE, None, of
        )
        for (layer, kind), of in cells.items()
    ]
    tensors += [TensorDiff(name, None, None, name, (10, 10), *TWICE, None, of) for name, of in others]
    layers = max((layer for layer, _ in cells), default=0) + 1
    stacks = (StackLayers("model.layers", layers, layers),)
    return DiffReport("models/a", "models/b", tuple(tensors), (), (), (), stacks, (), 2, 1 << 30, 1.5, 1 << 28, 1 << 28)


TWICE = ("bfloat16", "bfloat16")
LLAMA = [
    *("input_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm"),
    *(f"self_attn.{letter}_proj" for letter in "kqvo"),
]


def page_of(report: DiffReport) -> str:
    """The page as one text."""
    return "\n".join(diff_page.page(report))
