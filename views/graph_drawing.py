"""The graph as boxes in clusters, and arrows: what Graphviz and Mermaid are asked to lay out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.units import format_bytes
from .layout import count
from .op_tree import range_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NAMED = 3
"""Tensors that a box names before it counts the rest."""

MOST_KINDS = 12
"""Op graphs in a folded picture; of further kinds only the steps are said."""


@dataclass(frozen=True)
class Box:
    """One node. ``mark`` is the letter of the model that it stands for or is read from, "" for what is made."""

    key: str
    lines: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Cluster:
    """Boxes, and smaller clusters, with a frame around them."""

    key: str
    lines: tuple[str, ...]
    boxes: tuple[Box, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Arrow:
    """From one box to another, with what goes along it; ``mark`` is the letter of the model that it comes from."""

    source: str
    target: str
    label: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Drawing:
    """A picture that has yet to be laid out. ``marks`` are the models' letters in their order."""

    title: str
    marks: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    arrows: tuple[Arrow, ...]


def drawing(document: Mapping[str, Any], *, ops: bool = True) -> Drawing:
    """Draw a document: folded, or every tensor with its ops where it is expanded, or one tensor where it has one.

    Without ``ops`` a folded one is drawn without op graphs.
    """
    if document["tensor"] is not None:
        parts = [_tensor(document, document["tensors"][0])]
    elif document["expanded"]:
        parts = [([cluster], arrows) for cluster, arrows in map(_model_alone, document["models"])]
        parts += _every_tensor(document)
    else:
        kinds = main_kinds(document, MOST_KINDS) if ops else []
        parts = [_folded(document), *(_kind(document, kind) for kind in kinds)]
    return Drawing(
        _title(document),
        tuple(model["mark"] for model in document["models"]),
        tuple(cluster for clusters, _ in parts for cluster in clusters),
        tuple(arrow for _, arrows in parts for arrow in arrows),
    )


def _title(document: Mapping[str, Any]) -> str:
    recipe, totals = document["recipe"], document["totals"]
    return (
        f"{recipe['method']}: {count(totals['tensors'], 'tensor')}, {format_bytes(totals['bytes_read'])} read, "
        f"{format_bytes(totals['bytes_written'])} written"
    )


def main_kinds(document: Mapping[str, Any], most: int) -> list[Mapping[str, Any]]:
    """At most so many kinds, the largest first, and of those that do the same with other numbers only the first."""
    found: dict[str, Mapping[str, Any]] = {}
    for kind in document["kinds"]:
        found.setdefault(kind["steps"], kind)
    return list(found.values())[:most]


# ---------------------------------------------------------------------------------- folded: models, layers, kinds


def _folded(document: Mapping[str, Any]) -> tuple[list[Cluster], list[Arrow]]:
    """The models with the layers that they give, the output's groups, and who gives what to whom."""
    below: dict[int | None, list[Mapping[str, Any]]] = {}
    for group in document["groups"]:
        below.setdefault(group["parent"], []).append(group)
    stacks = {group["stack"] for group in document["groups"]} - {None}
    numbers = {model["mark"]: number for number, model in enumerate(document["models"])}
    given: dict[str, dict[str, Box]] = {mark: {} for mark in numbers}
    arrows: list[Arrow] = []

    def cluster(group: Mapping[str, Any]) -> Cluster:
        lines = (group["title"], f"{count(group['tensors'], 'tensor')}, {format_bytes(group['bytes'])}")
        if group["times"] > 1:
            inner = tuple(map(cluster, below[group["id"]]))
            return Cluster(f"g{group['id']}", (*lines, f"{group['times']} times:"), (), inner)
        boxes = []
        for kind in group["kinds"]:
            members = [member for member in group["members"] if member["kind"] == kind]
            box = Box(f"g{group['id']}k{kind}", (f"[{kind}] {_steps(document, kind)}", _names(members)))
            boxes.append(box)
            read = {mark for member in members for mark in member["models"]}
            arrows.extend(
                Arrow(give(group, source).key, box.key, source["layers"], source["model"])
                for source in group["from"]
                if source["model"] in read
            )
        return Cluster(f"g{group['id']}", lines, tuple(boxes))

    def give(group: Mapping[str, Any], source: Mapping[str, Any]) -> Box:
        mark, layers = source["model"], source["layers"]
        where = f"{group['stack']} " if len(stacks) > 1 and group["stack"] is not None else ""
        title = f"{where}layers {layers}" if layers else "in no layer"
        found = given[mark]
        if title not in found:
            found[title] = Box(f"m{numbers[mark]}n{len(found)}", (title,), mark)
        return found[title]

    output = Cluster("output", ("output",), (), tuple(map(cluster, below[None])))
    models = [
        Cluster(f"m{numbers[model['mark']]}", _model(model), tuple(given[model["mark"]].values()), (), model["mark"])
        for model in document["models"]
    ]
    return [*models, output], arrows


def _model(model: Mapping[str, Any]) -> tuple[str, str]:
    facts = [count(model["layers"], "layer"), format_bytes(model["bytes"]), *model["dtypes"]]
    return f"{model['mark']}  {model['reference']}", ", ".join([*facts, *(["base"] if model["base"] else [])])


def _steps(document: Mapping[str, Any], kind: int) -> str:
    return str(document["kinds"][kind - 1]["steps"])


def _names(members: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(member["name"] for member in members[:_NAMED])
    return names + (f" and {len(members) - _NAMED} more" if len(members) > _NAMED else "")


def _kind(document: Mapping[str, Any], kind: Mapping[str, Any]) -> tuple[list[Cluster], list[Arrow]]:
    """The op graph of the tensor that stands for a kind."""
    others = kind["tensors"] - 1
    alike = f" and {count(others, 'tensor')} like it" if others else ""
    lines = (f"[{kind['number']}]  {kind['steps']}", kind["example"] + alike)
    program = document["programs"][kind["program"]]
    boxes, arrows = op_graph(program, kind["reads"], f"k{kind['number']}", varies=kind["varies"])
    return [Cluster(f"k{kind['number']}", lines, tuple(boxes))], arrows


# ------------------------------------------------------------------------------------------------- one by one


def _tensor(document: Mapping[str, Any], tensor: Mapping[str, Any]) -> tuple[list[Cluster], list[Arrow]]:
    boxes, arrows = op_graph(document["programs"][tensor["program"]], tensor["reads"], "t0")
    return [Cluster("t0", (tensor["name"],), tuple(boxes))], arrows


def _model_alone(model: Mapping[str, Any]) -> tuple[Cluster, list[Arrow]]:
    box = Box(f"m{model['mark']}", _model(model), model["mark"])
    return Cluster(f"models{model['mark']}", ("model",), (box,), (), model["mark"]), []


def _every_tensor(document: Mapping[str, Any]) -> Iterator[tuple[list[Cluster], list[Arrow]]]:
    """Every tensor with its ops, those of a layer in one frame."""
    groups = {group["id"]: group for group in document["groups"]}
    writes: dict[str, str] = {}
    layers: dict[str, list[Cluster]] = {}
    arrows: list[Arrow] = []
    for number, tensor in enumerate(document["tensors"]):
        name, key = tensor["name"], f"t{number}"
        if tensor["same_as"] is None:
            boxes, inner = op_graph(document["programs"][tensor["program"]], tensor["reads"], key)
            writes[name] = boxes[-1].key
            arrows += inner
        else:
            boxes = [Box(f"{key}n0", ("write", f"the same as {tensor['same_as']}"))]
            arrows.append(Arrow(writes[tensor["same_as"]], boxes[0].key, "equal"))
        stack = groups[tensor["group"]]["stack"]
        layer = f"{stack}.{name[len(stack) + 1 :].partition('.')[0]}" if stack is not None else ""
        layers.setdefault(layer, []).append(Cluster(key, (name,), tuple(boxes)))
    for number, (layer, clusters) in enumerate(layers.items()):
        # Tensors in no layer have no frame around their own.
        yield ([Cluster(f"l{number}", (layer,), (), tuple(clusters))] if layer else clusters), []
    yield [], arrows


# ------------------------------------------------------------------------------------------------ op graphs


def op_graph(
    program: Mapping[str, Any],
    reads: Sequence[Mapping[str, Any]],
    key: str,
    *,
    varies: Iterable[Mapping[str, Any]] = (),
) -> tuple[list[Box], list[Arrow]]:
    """A box for each op of a program and an arrow for each input; the write comes last.

    ``reads`` are the tensors that its slots stand for, ``varies`` the numbers that are not the same in all that the
    picture stands for.
    """
    spread = {(each["node"], each["attr"]): (each["low"], each["high"]) for each in varies}
    boxes = [_op(node, reads, key, spread) for node in program["nodes"]]
    arrows = [Arrow(f"{key}n{source}", f"{key}n{node['id']}") for node in program["nodes"] for source in node["inputs"]]
    return boxes, arrows


def _op(
    node: Mapping[str, Any],
    reads: Sequence[Mapping[str, Any]],
    key: str,
    spread: Mapping[tuple[int, str], tuple[Any, Any]],
) -> Box:
    marks = list(dict.fromkeys(reads[slot]["model"] for slot in node["slots"]))
    names = list(dict.fromkeys(reads[slot]["name"] for slot in node["slots"]))
    attrs = attr_texts(node, spread)
    moved = f", {format_bytes(node['bytes'])}" if node["bytes"] is not None else ""
    space = f" {node['space']}" if node["space"] != "weight" else ""
    spec = f"{node['dtype']}{space} {node['shape']}{moved}"
    lines = (" ".join([node["op"], *marks]), *names[:_NAMED], *attrs, spec)
    return Box(f"{key}n{node['id']}", lines, marks[0] if len(marks) == 1 else "")


def attr_texts(node: Mapping[str, Any], spread: Mapping[tuple[int, str], tuple[Any, Any]]) -> list[str]:
    """What an op was told, such as ``density=0.5``; a range where it differs over what is shown."""
    return [
        f"{name}={range_text([_tupled(each) for each in spread.get((node['id'], name), (value,))])}"
        for name, value in node["attrs"].items()
    ]


def _tupled(value: object) -> object:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
