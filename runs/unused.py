"""Which tensors and rows of the inputs a merge is not made of, and why: what the manifest says of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ..engine.row_map import RowMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ..engine.graph import Island, Node
    from ..engine.model import Model, StoredTensor
    from ..merge import MergePlan

_PLAIN_NAMES = 20
"""Names that are listed one by one; more of them are folded over their numbers."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def unused_by_input(merge: MergePlan) -> dict[str, list[dict[str, object]]]:
    """By model reference, the unused tensors: ``why`` (a key of loaders.manifest_file.REASONS), how many, names."""
    mapped: set[tuple[str, str]] = set()
    layers: set[tuple[str, str, int]] = set()
    models = {model.reference: model for model in merge.models.values()}
    for tensor in merge.compiled.mapping.tensors:
        for stored in [source.stored for source in tensor.sources] + ([tensor.base] if tensor.base else []):
            mapped.add((stored.model, stored.name))
            role = models[stored.model].roles.get(stored.name)
            if role is not None and role.stack is not None and role.layer is not None:
                layers.add((stored.model, role.stack, role.layer))
    merged = {merge.models[ref].reference for ref in merge.recipe.references()}
    written = {_NUMBER.sub("*", tensor.name) for tensor in merge.compiled.mapping.tensors}
    found: dict[str, dict[str, list[str]]] = {}
    for stored in (*merge.plan.graph.unused, *_not_lent(merge)):
        why = _why(stored, models[stored.model], mapped, layers, written) if stored.model in merged else "lender"
        found.setdefault(stored.model, {}).setdefault(why, []).append(stored.name)
    return {
        reference: [{"why": why, "tensors": len(names), "names": list(folded(names))} for why, names in reasons.items()]
        for reference, reasons in found.items()
    }


def rows_by_input(merge: MergePlan) -> dict[str, list[dict[str, object]]]:
    """By model reference, the tensors of which some rows only are in the output: how many are ``used``, ``of`` all."""
    used: dict[StoredTensor, NDArray[np.bool_]] = {}
    whole: set[StoredTensor] = set()
    for island in merge.plan.graph.islands:
        for node in island.program.loads:
            if node.op.name == "gather":
                for stored, rows in _gathered(island, node):
                    used[stored] = used[stored] | rows if stored in used else rows
            else:
                whole.update(island.leaves[slot] for slot in node.slots)
    found: dict[str, list[dict[str, object]]] = {}
    for stored, rows in used.items():
        if stored not in whole and not rows.all():
            part = {"name": stored.name, "used": int(rows.sum()), "of": len(rows)}
            found.setdefault(stored.model, []).append(part)
    return found


def _gathered(island: Island, node: Node) -> Iterator[tuple[StoredTensor, NDArray[np.bool_]]]:
    """Which rows of each of its sources a gather reads: bool [rows]."""
    table = node.attr("rows")
    assert isinstance(table, RowMap)
    columns = max(node.spec.elements // max(len(table.values), 1), 1)
    source, row = table.values >> 32, table.values & 0xFFFFFFFF
    for number, slot in enumerate(node.slots):
        stored = island.leaves[slot]
        rows = np.zeros(stored.spec.elements // columns, bool)
        rows[row[source == number]] = True
        yield stored, rows


def _not_lent(merge: MergePlan) -> Iterator[StoredTensor]:
    """Tensors of the models that the tokenizer block alone names, as far as no row of them is used."""
    used = {(leaf.model, leaf.name) for island in merge.plan.graph.islands for leaf in island.leaves}
    for ref in merge.recipe.tokenizer_references():
        for stored in merge.models[ref].tensors.values():
            if (stored.model, stored.name) not in used:
                yield stored


def _why(
    stored: StoredTensor,
    model: Model,
    mapped: set[tuple[str, str]],
    layers: set[tuple[str, str, int]],
    written: set[str],
) -> str:
    if (stored.model, stored.name) in mapped:
        return "weight"
    role = model.roles.get(stored.name)
    if _NUMBER.sub("*", stored.name) not in written:
        return "no_place"
    if role is not None and role.stack is not None and role.layer is not None:
        taken = any(of == stored.model and stack == role.stack for of, stack, _ in layers)
        if (stored.model, role.stack, role.layer) not in layers:
            return "layer" if taken else "elsewhere"
        return "no_place"
    return "elsewhere"


def folded(names: Iterable[str]) -> Iterable[str]:
    """Names as they are; if there are many, one for those that differ in numbers: ``layers.{0..31}.weight``."""
    listed = list(names)
    if len(listed) <= _PLAIN_NAMES:
        return listed
    ranges: dict[str, list[tuple[int, int]]] = {}
    for name in listed:
        numbers = [int(digits) for digits in _NUMBER.findall(name)]
        pattern = _NUMBER.sub("\0", name)
        known = ranges.get(pattern) or [(number, number) for number in numbers]
        ranges[pattern] = [(min(lo, n), max(hi, n)) for (lo, hi), n in zip(known, numbers, strict=True)]
    return [_filled(pattern, spans) for pattern, spans in ranges.items()]


def _filled(pattern: str, spans: Iterable[tuple[int, int]]) -> str:
    first, *rest = pattern.split("\0")
    shown = [str(lo) if lo == hi else f"{{{lo}..{hi}}}" for lo, hi in spans]
    return first + "".join(span + part for span, part in zip(shown, rest, strict=True))
