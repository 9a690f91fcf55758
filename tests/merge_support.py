"""Short ways to make models, recipes and graphs, and to run them: on disk, in another process, or in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import torch
from plait import ops as _registered
from plait.engine.compile import compile_recipe
from plait.engine.execute import execute
from plait.engine.graph import Island, Node, Program, TensorGraph, TensorSpec
from plait.engine.methoddef import methods
from plait.engine.model import Model, StoredTensor
from plait.engine.opdef import REDUCE_BLOCK_ELEMENTS, Site, Tile, load, write
from plait.engine.plan import make_plan
from plait.engine.recipe_parser import parse_recipe
from plait.engine.schedule import Place
from plait.loaders.architecture import infer_architecture
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from plait.engine.compile import Compiled
    from plait.engine.plan import Plan
    from plait.engine.recipe import Recipe

assert _registered


# ------------------------------------------------------------------------------------------------ folders


def save_model(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = None) -> Path:
    """Write a model folder with the field's own library."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model folder, read with the field's own library."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def write_recipe(path: Path, text: str) -> Path:
    """Write an indented recipe."""
    path.write_text(dedent(text), encoding="utf-8")
    return path


def file_bytes(folder: Path) -> dict[str, bytes]:
    """The contents of every file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ processes

_REPORTING = """
import atexit, sys
def report():
    status = open("/proc/self/status").read().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM:"))
    sys.stderr.write("\\npeak_kib=" + peak.split()[1] + "\\n")
atexit.register(report)
sys.argv[0] = "plait"
from plait.cli import main
main()
"""


def plait(
    *arguments: str | Path | int, cwd: Path, stdin: str | None = None, measured: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; ``measured`` adds a last line for `peak_bytes`."""
    start = ["-c", _REPORTING] if measured else ["-m", "plait"]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def peak_bytes(finished: subprocess.CompletedProcess[str]) -> int:
    """The peak resident memory of a measured run, as the operating system saw it when the process left."""
    return int(finished.stderr.rsplit("peak_kib=", 1)[1]) * 1024


# ------------------------------------------------------------------------------------------------ headers only


def model(
    reference: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    config: Mapping[str, object] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> Model:
    """A model that exists as headers only, its structure inferred as that of one on disk."""
    stored = [
        StoredTensor(reference, name, TensorSpec(shape, (dtypes or {}).get(name, dtype)), f"{reference}.safetensors", 0)
        for name, shape in shapes.items()
    ]
    found = infer_architecture(stored, config or {})
    return Model(
        reference,
        reference,
        {tensor.name: tensor for tensor in found.order},
        found.roles,
        found.stacks,
        found.primary,
        config or {},
        found.aliases,
        found.vocabulary_rows,
    )


def decoder_shapes(
    layers: int = 4, *, prefix: str = "model.layers", hidden: int = 8, head: bool = True
) -> dict[str, tuple[int, ...]]:
    """The tensors of a small decoder: two matrices and a norm a layer."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (16, hidden)}
    for layer in range(layers):
        shapes[f"{prefix}.{layer}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.{layer}.mlp.down_proj.weight"] = (hidden, 2 * hidden)
        shapes[f"{prefix}.{layer}.input_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    return shapes | ({"lm_head.weight": (16, hidden)} if head else {})


def parse(text: str) -> Recipe:
    """Read an indented recipe with the real methods."""
    return parse_recipe(dedent(text), "recipe.yml", methods())


def compiled(text: str, *models: Model) -> Compiled:
    """Compile an indented recipe over models that exist as headers only."""
    recipe = parse(text)
    by_name = {each.reference: each for each in models}
    return compile_recipe(
        recipe, methods()[recipe.merge_method], {ref: by_name[str(ref)] for ref in recipe.references()}
    )


def down(layer: int) -> str:
    """The name of a layer's second matrix."""
    return f"model.layers.{layer}.mlp.down_proj.weight"


def factors(found: Compiled, output: str) -> dict[str, float]:
    """What each model's tensor is multiplied with on its way into an output; 1 where nothing is multiplied."""
    (island,) = [island for island in found.graph.islands if output in island.outputs]
    result: dict[str, float] = {}
    for node in island.program.nodes:
        if node.op.name == "load":
            slot = node.attr("slot")
            assert isinstance(slot, int)
            result.setdefault(island.leaves[slot].model, 1.0)
        if node.op.name == "scale":
            under = node
            while under.inputs:
                under = under.inputs[0]
            slot, factor = under.attr("slot"), node.attr("factor")
            assert isinstance(slot, int)
            assert isinstance(factor, float)
            result[island.leaves[slot].model] = factor
    return result


# ------------------------------------------------------------------------------------------------ graphs in memory


def loads(count: int, shape: tuple[int, ...] = (64,), dtype: torch.dtype = torch.bfloat16) -> list[Node]:
    """Load nodes of the first slots."""
    return [load(slot=slot, shape=shape, dtype=dtype) for slot in range(count)]


def program_of(node: Node) -> Program:
    """The program that writes a node."""
    return Program(write(node))


def island_of(program: Program, *outputs: str) -> Island:
    """An island that reads leaves called a, b, c … ."""
    specs = {node.attr("slot"): node.spec for node in program.loads}
    slots = range(max(slot for slot in specs if isinstance(slot, int)) + 1)
    leaves = tuple(
        StoredTensor("m", "abcdefghij"[slot], specs.get(slot, program.spec), "memory", 136 + 24 * slot)
        for slot in slots
    )
    return Island(program, leaves, outputs or ("out",))


def graph_of(*programs: Program) -> TensorGraph:
    """A tensor graph with an island a program, called out0, out1, … ."""
    return TensorGraph(tuple(island_of(program, f"out{index}") for index, program in enumerate(programs)))


def places_of(graph: TensorGraph) -> dict[str, Place]:
    """The outputs one after the other in one shard, behind a header."""
    places, offset_bytes = {}, 328
    for island in graph.islands:
        for name in island.outputs:
            places[name] = Place(0, offset_bytes)
            offset_bytes += island.spec.size_bytes
    return places


def budgeted(graph: TensorGraph, budget_bytes: int | None = 1 << 40, *, workers: int = 1, **given: int) -> Plan:
    """A plan for a process that holds nothing yet, with room without end unless ``budget_bytes`` says otherwise."""
    facts = {"seed": 0, "free_bytes": 1 << 40, "reserved_bytes": 0, "peak_so_far_bytes": 0, "header_bytes": 0} | given
    return make_plan(graph, places_of(graph), workers=workers, budget_bytes=budget_bytes, **facts)


def plan_of(graph: TensorGraph, *, target_elements: int, workers: int = 1, seed: int = 0) -> Plan:
    """A plan with tiles of a wanted size, whatever the budget would choose."""
    return budgeted(graph, workers=workers, seed=seed, tile_elements=target_elements)


class InMemory:
    """A reader and writer over tensors in memory."""

    def __init__(self, inputs: Mapping[str, torch.Tensor], graph: TensorGraph) -> None:
        self.inputs = {name: tensor.reshape(-1).view(torch.uint8) for name, tensor in inputs.items()}
        self.specs = {name: island.spec for island in graph.islands for name in island.outputs}
        # What was never written must not look right by chance.
        self.written = {
            name: torch.full((spec.size_bytes,), 0xA5, dtype=torch.uint8) for name, spec in self.specs.items()
        }

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        """See engine.model.TensorReader."""
        out.copy_(self.inputs[tensor.name][offset_bytes : offset_bytes + out.numel()])

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        """See engine.model.TensorWriter."""
        self.written[name][offset_bytes : offset_bytes + data.numel()] = data

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:
        """There is no kernel to copy memory to memory."""
        return False

    def result(self, name: str = "out0") -> torch.Tensor:
        """A written tensor."""
        return self.written[name].view(self.specs[name].dtype).reshape(self.specs[name].shape)


def run_in_memory(
    program: Program, inputs: Sequence[torch.Tensor], *, target_elements: int, workers: int = 1, seed: int = 0
) -> torch.Tensor:
    """Run one program with tiles of a wanted size through the real planner and executor."""
    graph = graph_of(program)
    memory = InMemory(dict(zip("abcdefghij", inputs, strict=False)), graph)
    execute(plan_of(graph, target_elements=target_elements, workers=workers, seed=seed), memory, memory)
    return memory.result()


def evaluate(program: Program, inputs: Sequence[torch.Tensor], *, name: str = "out0", seed: int = 0) -> torch.Tensor:
    """Run a program's kernels over whole tensors, each value in storage of its own."""
    values: dict[Node, torch.Tensor] = {}
    for node in program.nodes:
        ins = [values[source] for source in node.inputs]
        specs = [source.spec for source in node.inputs]
        attrs = dict(node.attrs)
        if node.op is load:
            slot = node.attr("slot")
            assert isinstance(slot, int)
            values[node] = inputs[slot].reshape(-1)
            continue
        if node.op is write:
            return ins[0].reshape(node.spec.shape)
        if node.op.bind is not None:
            attrs.update(node.op.bind(attrs, Site(name, seed)))
        elements = program.spec.elements
        scratch = torch.empty(node.op.scratch_bytes(specs, elements), dtype=torch.uint8)
        assert node.op.kernel is not None
        reduction, block = node.op.reduction, REDUCE_BLOCK_ELEMENTS
        if reduction is None:
            values[node] = torch.empty(elements, dtype=node.spec.dtype)
            node.op.kernel(values[node], ins, scratch, Tile(0, elements), **attrs)
            continue
        partial_spec, state_spec = (
            make(specs, elements, block) for make in (reduction.partial_spec, reduction.state_spec)
        )
        partial = torch.empty(partial_spec.shape, dtype=partial_spec.dtype)
        state = torch.zeros(state_spec.shape, dtype=state_spec.dtype)
        node.op.kernel(partial, ins, scratch, Tile(0, elements), block_elements=block, **attrs)
        reduction.fold(state, partial, Tile(0, elements), block)
        values[node] = reduction.result(state, node.spec)
    raise AssertionError("a program ends in its write")
