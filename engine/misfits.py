"""Why models cannot be merged with each other, in the words of what they are instead of what one tensor lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Model, StoredTensor

_ADVICE = "quantised weights can only be passed through unchanged so far; name the model that it was made from"


def quantisation(model: Model) -> str | None:
    """How ``config.json`` says that a model's weights are quantised (``gptq``); None where it does not."""
    config = model.config.get("quantization_config")
    if not isinstance(config, dict):
        return None
    return str(config.get("quant_method") or "in a way that its config does not name")


def quantised(model: Model, stored: StoredTensor) -> InputError:
    """What to say of a tensor that arithmetic would make nonsense of."""
    dtype = str(stored.spec.dtype).removeprefix("torch.")
    way = quantisation(model)
    named = f" (quantised: {way})" if way is not None else ""
    return InputError(f"{stored.model}: {stored.name} is stored as {dtype}{named}, and {_ADVICE}")


def why_missing(model: Model, other: Model) -> str | None:
    """Why a model lacks tensors that ``other`` has, where it is a model of another kind; None where it is not."""
    for one, another in ((model, other), (other, model)):
        way = quantisation(one)
        if way is not None and quantisation(another) is None:
            return f"{one.reference} is quantised ({way}), and {another.reference} is not: {_ADVICE}"
    mine, theirs = _architecture(model.config), _architecture(other.config)
    if mine is not None and theirs is not None and mine != theirs:
        return (
            f"{model.reference} is a {mine}, {other.reference} a {theirs}: "
            "models are merged tensor by tensor, so they have to be of one architecture"
        )
    return None


def _architecture(config: Mapping[str, object]) -> str | None:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else None
