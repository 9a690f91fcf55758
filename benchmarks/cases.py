"""What is compared with mergekit: methods, and several sets of parameters for each.

Weights are no round numbers, except where a vote is meant to cancel: with 0.3 and 0.2 two task vectors on bfloat16's
grid often cancel to the last bit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FINETUNES = 3


@dataclass(frozen=True)
class Case:
    """One merge. ``models`` are names in the family with parameters; ``base`` whether `base` is the base model."""

    method: str
    models: tuple[tuple[str, Mapping[str, Any]], ...]
    base: bool = True
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The parameters, as they stand in the table."""
        shared = [f"{name} {_brief(value)}" for name, value in self.params.items()]
        names = list(dict.fromkeys(name for _, given in self.models for name in given))
        own = [f"{name} {', '.join(_brief(given[name]) for _, given in self.models)}" for name in names]
        models = len(self.tuned)
        kind = f"{models} model{'s' if models > 1 else ''}{'' if self.base else ', no base'}"
        return "; ".join([kind, *own, *shared])

    @property
    def tuned(self) -> tuple[str, ...]:
        """The names of the models other than the base."""
        return tuple(name for name, _ in self.models if name != "base")

    def per_model(self, name: str, default: float) -> list[float]:
        """A parameter of the models other than the base; it must be a plain number."""
        return [float(given.get(name, default)) for model, given in self.models if model != "base"]

    def recipe(self, family: Path, dtype: str) -> str:
        """The recipe's text: JSON is YAML."""
        models = [
            {"model": str(family / name)} | ({"parameters": dict(given)} if given else {})
            for name, given in self.models
        ]
        recipe: dict[str, Any] = {"merge_method": self.method, "models": models, "dtype": dtype}
        if self.base:
            recipe["base_model"] = str(family / "base")
        if self.params:
            recipe["parameters"] = dict(self.params)
        return json.dumps(recipe, indent=2) + "\n"


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    if isinstance(value, dict):
        return f"{value['filter']}: {value['value']}" if "filter" in value else str(value["value"])
    return str(value).lower()


def _tuned(count: int = FINETUNES, /, **params: list[Any]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The first fine-tunes, each with its share of the parameters."""
    return tuple((f"ft{n + 1}", {name: values[n] for name, values in params.items()}) for n in range(count))


BASE_AND_ONE: tuple[tuple[str, Mapping[str, Any]], ...] = (("base", {}), ("ft1", {}))
WEIGHTS: list[Any] = [0.61, 0.37, 0.29]
CANCELLING: list[Any] = [0.3, 0.2, 0.1]
FILTERED: list[Any] = [[{"filter": "mlp", "value": 0.61}, {"value": 0.23}], 0.37, [0.1, 0.4, 0.2]]
RANKS: dict[str, list[Any]] = {"weight": WEIGHTS, "density": [0.5, 0.33, 0.71]}
OUTLIERS = RANKS | {"gamma": [0.05, 0.01, 0.1]}

DETERMINISTIC = (
    Case("passthrough", _tuned(1), base=False),
    Case("passthrough", _tuned(1, scale=[0.9]), base=False),
    Case("passthrough", _tuned(1, scale=[[{"filter": "o_proj", "value": 0.0}, {"value": 1.1}]]), base=False),
    Case("linear", _tuned(weight=WEIGHTS), base=False),
    Case("linear", _tuned(weight=WEIGHTS), base=False, params={"normalize": False}),
    Case("linear", _tuned(weight=FILTERED), base=False),
    *(Case("slerp", BASE_AND_ONE, params={"t": t}) for t in (0.3, [0, 0.5, 1], FILTERED[0])),
    *(
        Case("nuslerp", _tuned(2, weight=WEIGHTS), base, params)
        for base in (False, True)
        for params in ({}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True})
    ),
    *(Case("multislerp", _tuned(weight=WEIGHTS), base) for base in (False, True)),
    Case("multislerp", _tuned(weight=WEIGHTS), params={"normalize_weights": False, "eps": 1e-4}),
    *(Case("karcher", _tuned(), base=False, params=params) for params in ({}, {"max_iter": 3, "tol": 1e-7})),
    *(
        Case("task_arithmetic", _tuned(weight=WEIGHTS), params=params)
        for params in ({}, {"normalize": True}, {"lambda": 0.7})
    ),
    Case("task_arithmetic", _tuned(weight=FILTERED)),
    *(Case("ties", _tuned(**RANKS), params=params) for params in ({}, {"normalize": False}, {"lambda": 0.7})),
    Case("ties", _tuned(**RANKS), params={"rescale": True}),
    Case("ties", _tuned(weight=CANCELLING)),
    Case("breadcrumbs", _tuned(**OUTLIERS)),
    Case("breadcrumbs", _tuned(**RANKS), params={"normalize": True}),
    Case("breadcrumbs_ties", _tuned(**OUTLIERS)),
    Case("breadcrumbs_ties", _tuned(**RANKS), params={"normalize": True, "lambda": 0.7}),
    Case("breadcrumbs_ties", _tuned(weight=CANCELLING)),
    *(
        Case("sce", _tuned(), params=params)
        for params in ({}, {"select_topk": 0.5}, {"select_topk": 0.1}, {"select_topk": 0.01})
    ),
    *(Case("ram", _tuned(), params=params) for params in ({}, {"epsilon": 0.002})),
    *(Case("ramplus_tl", _tuned(), params=params) for params in ({}, {"epsilon": 0.002, "r": 0.5, "alpha": 0.9})),
    *(Case("model_stock", _tuned(), params=params) for params in ({}, {"filter_wise": True})),
    Case("model_stock", _tuned(2)),
    *(Case("nearswap", BASE_AND_ONE, params={"t": t}) for t in (0.001, 0.0001)),
    Case("arcee_fusion", BASE_AND_ONE),
)

DENSITIES: list[Any] = [0.53, 0.47, 0.66]


def _random(method: str, **more: list[Any]) -> tuple[Case, ...]:
    drawn = {"weight": WEIGHTS, "density": DENSITIES} | more
    return (
        Case(method, _tuned(1, **drawn)),
        Case(method, _tuned(2, **drawn)),
        Case(method, _tuned(3, **drawn)),
        Case(method, _tuned(2, **drawn), params={"rescale": False, "normalize": True, "lambda": 0.7}),
    )


RANDOMISED = (
    *_random("dare_linear"),
    *_random("dare_ties"),
    *_random("della_linear", epsilon=[0.15, 0.1, 0.2]),
    *_random("della", epsilon=[0.15, 0.1, 0.2]),
)
