"""The ops on rows of vocabulary tensors as plain expressions over whole tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import strategies as st
from plait.engine.row_map import RowTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F64 = torch.float64


def _flags(rows: RowTable) -> torch.Tensor:
    return torch.from_numpy(np.array(rows.values, dtype=np.int64))[:, None]


def _put_rows(ins: Sequence[torch.Tensor], *, rows: RowTable, columns: int) -> torch.Tensor:
    x, other = (each.reshape(-1, columns) for each in ins)
    return torch.where(_flags(rows) != 0, other, x).reshape(-1)


def _divide_rows(ins: Sequence[torch.Tensor], *, rows: RowTable, columns: int) -> torch.Tensor:
    divisors = _flags(rows).clamp(min=1).to(ins[0].dtype)
    return (ins[0].reshape(-1, columns) / divisors).reshape(-1)


def _put_means(ins: Sequence[torch.Tensor], *, rows: RowTable, columns: int) -> torch.Tensor:
    x, means = ins
    return torch.where(_flags(rows) != 0, means.to(x.dtype), x.reshape(-1, columns)).reshape(-1)


def _column_sums(ins: Sequence[torch.Tensor], *, columns: int, rows: int) -> torch.Tensor:
    """The sums themselves: how the op splits them in two is its own affair."""
    return ins[0].double().reshape(-1, columns)[:rows].sum(0)


def _column_means(ins: Sequence[torch.Tensor], *, rows: int) -> torch.Tensor:
    (high, low), (sizes,) = ins
    bits = 52 - max(rows - 1, 0).bit_length()
    return torch.ldexp(high + low * 2.0**-bits, torch.frexp(sizes)[1] - bits) / rows


PLAIN: Mapping[str, Callable[..., torch.Tensor]] = {
    "column_means": _column_means,
    "column_sums": _column_sums,
    "divide_rows": _divide_rows,
    "put_means": _put_means,
    "put_rows": _put_rows,
}

STATES: Mapping[str, Sequence[int]] = {"column_sums": (1,), "put_means": (1,)}


def _table(draw: st.DrawFn, elements: int, most: int) -> dict[str, Any]:
    columns = draw(st.sampled_from([n for n in range(1, max(elements, 1) + 1) if elements % n == 0]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return {"rows": RowTable(random.integers(0, most + 1, elements // columns)), "columns": columns}


def _draw_put_rows(draw: st.DrawFn, tensor: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    x = tensor()
    return [x, tensor()], _table(draw, x.numel(), 1), dtype


def _draw_divide_rows(draw: st.DrawFn, tensor: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    x = tensor()
    return [x], _table(draw, x.numel(), 5), dtype


def _draw_put_means(draw: st.DrawFn, tensor: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    x = tensor()
    attrs = _table(draw, x.numel(), 1)
    return [x, torch.linspace(-1, 3, attrs["columns"], dtype=F64)], attrs, dtype


CALLS: Mapping[str, Callable[..., Any]] = {
    "divide_rows": _draw_divide_rows,
    "put_means": _draw_put_means,
    "put_rows": _draw_put_rows,
}
