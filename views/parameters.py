"""Which value each parameter of a recipe has in each layer: what gradients and filters come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine.recipe import look_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..engine.mapping import OutputTensor
    from ..engine.methoddef import Value
    from ..engine.recipe import Parameters
    from ..merge import MergePlan
    from .layers import Layer

REST = "rest"
"""What a filter that is none is called, where other filters go before it."""


@dataclass
class Course:
    """One parameter under one filter: its value by output layer, and outside of the layers under None.

    ``model`` is the model's reference, None for a parameter of the whole tensor. ``again`` counts the sources of a
    tensor that are the same model.
    """

    model: str | None
    again: int
    name: str
    filter: str
    values: dict[int | None, Value] = field(default_factory=dict)

    @property
    def constant(self) -> Value | None:
        """The value, where it is the same everywhere."""
        first, *others = dict.fromkeys(map(_key, self.values.values()))
        return None if others else first[1]

    def over(self, layers: int) -> list[float | None]:
        """Its numbers for layers 0 to ``layers`` - 1; None where a layer has none."""
        found = (self.values.get(layer) for layer in range(layers))
        return [None if value is None or isinstance(value, str) else float(value) for value in found]


@dataclass(frozen=True)
class Settings:
    """The courses of a stack, those of one parameter and one model next to each other."""

    courses: tuple[Course, ...]

    def of(self, model: str | None, again: int = 0) -> Iterator[tuple[str, tuple[Course, ...]]]:
        """The parameters of a model, or of the whole tensor for None, each with its courses by filter."""
        found: dict[str, list[Course]] = {}
        for course in self.courses:
            if (course.model, course.again) == (model, again):
                found.setdefault(course.name, []).append(course)
        for name, group in found.items():
            yield name, tuple(sorted(group, key=lambda course: course.filter == REST))

    def bounds(self, name: str) -> tuple[float, float]:
        """From the least, at most 0, to the largest of a parameter's values over all models: bars share a scale."""
        each = [value for course in self.courses if course.name == name for value in course.values.values()]
        numbers = [float(value) for value in each if not isinstance(value, str)]
        low, high = min(*numbers, 0.0, 0.0), max(numbers, default=1.0)
        return low, high if high > low else low + 1.0


def one_value(courses: Sequence[Course]) -> Value | None:
    """The value of a parameter that is the same under every filter and in every layer; None where it is not."""
    first, *others = dict.fromkeys(_key(value) for course in courses for value in course.values.values())
    return None if others else first[1]


def settings_of(merge: MergePlan, layers: Iterable[Layer]) -> Settings:
    """The parameters that a recipe gives, as compiling looks them up, in layers of one stack and outside of it."""
    found: dict[tuple[str | None, int, str, str], Course] = {}
    given: set[tuple[str | None, int, str]] = set()
    seeker = _Seeker()
    of_models = [param for param in merge.method.params if param.scope == "model"]
    of_tensors = [param for param in merge.method.params if param.scope == "tensor"]
    for layer in layers:
        number = layer.number if layer.stack is not None else None
        for made in layer.tensors:
            for model, again, scopes, looked_up in _scopes(made.mapped):
                for param in of_tensors if model is None else of_models:
                    chosen, value = seeker.find(param.name, scopes, looked_up, made.mapped.t)
                    if value is not None:
                        given.add((model, again, param.name))
                    elif param.default is not None:
                        value = param.default
                    else:
                        continue
                    key = (model, again, param.name, chosen)
                    course = found.get(key) or found.setdefault(key, Course(*key))
                    course.values.setdefault(number, value)
    return Settings(tuple(course for key, course in found.items() if key[:3] in given))


def _scopes(tensor: OutputTensor) -> Iterator[tuple[str | None, int, tuple[Parameters, ...], str]]:
    """Where parameters of a tensor, and of each of its sources, are looked up, and by which name."""
    if tensor.copied:
        return
    yield None, 0, tensor.scopes, tensor.name
    seen: Counter[str] = Counter()
    for source in tensor.sources:
        reference = str(source.model)
        yield reference, seen[reference], source.scopes, source.stored.name
        seen[reference] += 1


class _Seeker:
    """Looks parameters up, once for all tensors of a layer where no filter asks for their names."""

    def __init__(self) -> None:
        self._filtered: dict[tuple[int, str], bool] = {}
        self._values: dict[tuple[int, str, float], Value | None] = {}

    def find(self, name: str, scopes: tuple[Parameters, ...], tensor_name: str, t: float) -> tuple[str, Value | None]:
        """The filter that holds for a tensor, ``rest`` for none, and the value; see engine.recipe.look_up."""
        # Scopes are kept alive by the plan, so their ids are theirs alone.
        key = (id(scopes), name)
        if key not in self._filtered:
            choices = [choice for scope in scopes if name in scope for choice in scope[name].choices]
            self._filtered[key] = any(choice.filter not in (None, "*") for choice in choices)
        if not self._filtered[key]:
            at = (*key, t)
            if at not in self._values:
                self._values[at] = look_up(name, scopes, tensor_name, t)
            return REST, self._values[at]
        return _filter_of(name, scopes, tensor_name), look_up(name, scopes, tensor_name, t)


def _filter_of(name: str, scopes: tuple[Parameters, ...], tensor_name: str) -> str:
    for scope in scopes:
        for choice in scope[name].choices if name in scope else ():
            if choice.matches(tensor_name):
                return REST if choice.filter in (None, "*") else str(choice.filter)
    return REST


def _key(value: Value) -> tuple[type, Value]:
    """1, 1.0 and True are equal and not the same; a number of either kind is."""
    return (type(value) if isinstance(value, (bool, str)) else float, value)
