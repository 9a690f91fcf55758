"""Methods that bring their definition along, as `reference` in their declaration: what the accuracy tests need of them.

That is enough for a definition without ranks, votes and chance. Where float32 and float64 may decide differently, or a
mask has to be known, the definition is one more function in another of these modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from plait import ops as _registered
from plait.engine.methoddef import methods
from plait.engine.trial import example_values
from reference import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from plait.engine.methoddef import MethodDef, Scope
    from reference import Question

assert _registered

_MOST = 8


def _declared(method: MethodDef) -> Callable[[Question], Answer]:
    """A method's reference, its settings completed by their defaults."""
    reference = method.reference
    assert reference is not None

    def completed(scope: Scope, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {param.name: settings.get(param.name, param.default) for param in method.params if param.scope == scope}

    def answer(q: Question) -> Answer:
        of_models = [completed("model", of) for of in q.of_models]
        value = reference(q.base, q.models, completed("tensor", q.settings), of_models)
        origin = np.mean(q.models, axis=0) if q.base is None else q.base
        # The terms are not known here; they are about as large as what the inputs differ by.
        magnitude = np.abs(value) + np.abs(origin) + np.abs(np.stack(q.models) - origin).sum(axis=0)
        return Answer(value, origin, magnitude, np.zeros(value.shape, dtype=np.bool_))

    return answer


_WITH = [method for method in methods().values() if method.reference is not None]

METHODS: Mapping[str, Callable[[Question], Answer]] = {method.name: _declared(method) for method in _WITH}

ON_TASK_VECTORS = frozenset(method.name for method in _WITH if method.excludes_base)


def _cases() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Each with its example's values, over the numbers of models that it takes, no two of them weighted alike."""
    for method in _WITH:
        own = 0 if method.excludes_base or method.base != "required" else 1
        for count in range(max(method.min_inputs - own, 1), min(method.max_inputs or _MOST, _MOST) - own + 1):
            of_each = [example_values(method, "model") for _ in range(count)]
            for index, values in enumerate(of_each):
                if "weight" in values:
                    values["weight"] = (-1) ** (index // 3) * (0.9 - 0.13 * index)
            yield method.name, dict(example_values(method, "tensor")), of_each


CASES = list(_cases())
