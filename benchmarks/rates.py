"""What this machine does in a second, for the time model: ops in memory, files in a folder.

    python benchmarks/rates.py                          # a table
    python benchmarks/rates.py --json rates.json        # for PLAIT_RATES=rates.json
    python benchmarks/rates.py --python                 # the table of engine/rates.py

Every method merges one matrix, with its example and with each of its switches, as `plait methods` has them, and each
op's processor time is divided by the work it did. One worker; what it waits for others does not count. Files are read
once before they are measured: from the page cache, unless --mib is more than memory holds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from plait import ops as _registered
from plait.engine.errors import PlaitError
from plait.engine.execute import execute
from plait.engine.graph import TensorSpec
from plait.engine.methoddef import methods
from plait.engine.model import Model, StoredTensor, TensorRole
from plait.engine.opdef import ops
from plait.engine.rates import RATES
from plait.engine.timing import Profiler
from plait.engine.trial import example_recipe, plan_of_example, try_out
from plait.loaders.positioned_io import PositionedFile
from plait.reports.scanning import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait.engine.methoddef import MethodDef
    from plait.engine.profile import OpTime

assert _registered

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Matrix:
    """Reads the same random matrices every time, and forgets what is written."""

    bytes_of: dict[str, torch.Tensor]

    def read_into(self, tensor: StoredTensor, offset_bytes: int, out: torch.Tensor) -> None:
        """See engine.model.TensorReader."""
        out.copy_(self.bytes_of[tensor.model][offset_bytes : offset_bytes + out.numel()])

    def write_from(self, name: str, offset_bytes: int, data: torch.Tensor) -> None:
        """See engine.model.TensorWriter."""

    def copy_from(self, name: str, offset_bytes: int, tensor: StoredTensor, size_bytes: int) -> bool:  # noqa: ARG002
        """See engine.model.TensorWriter."""
        return False


def example_texts(method: MethodDef) -> Iterator[str]:
    """The method's example, and the same with each of its switches turned."""
    yield example_recipe(method)
    for turned, _ in try_out(method).switches:
        yield example_recipe(method, dict(turned))


def measure_ops(side: int, rounds: int) -> dict[str, list[OpTime]]:
    """Each op's rows, one for each merge that it was part of."""
    spec, found = TensorSpec((side, side), torch.bfloat16), defaultdict(list)
    base = torch.randn(side, side) * 0.02
    memory = Matrix({})

    def model(reference: str) -> Model:
        if reference not in memory.bytes_of:
            values = base if reference.endswith("base") else base + torch.randn(side, side) * 0.002
            memory.bytes_of[reference] = values.to(torch.bfloat16).reshape(-1).view(torch.uint8)
        stored = {"weight": StoredTensor(reference, "weight", spec, reference, 0)}
        return Model(reference, reference, stored, {"weight": TensorRole()}, {}, None)

    for method in methods().values():
        for text in example_texts(method):
            try:
                plan = plan_of_example(text, method, model)
            except PlaitError:
                continue
            for _ in range(rounds):
                profiler = Profiler(time.thread_time)
                execute(plan, memory, memory, timed=profiler.worker)
                for row in profiler.profile(plan, {}, 0.0, None).ops:
                    if row.units:
                        found[row.name].append(row)
    return found


def nanoseconds(rows: dict[str, list[OpTime]]) -> dict[str, float]:
    """By op, the least that a unit of work took: what disturbs a measurement only ever adds."""
    return {name: min(row.seconds / row.units for row in each) * 1e9 for name, each in sorted(rows.items())}


def by_locality(by_op: dict[str, float]) -> dict[str, float]:
    """What is usual for a locality: the median of its ops. States are too small to say what a large one takes."""
    groups: dict[str, list[float]] = defaultdict(list)
    for name, value in by_op.items():
        if ops()[name].locality != "state":
            groups[ops()[name].locality].append(value)
    return {**RATES.locality_nanoseconds, **{key: sorted(each)[len(each) // 2] for key, each in groups.items()}}


def measure_files(folder: Path, size_bytes: int) -> dict[str, float]:
    """Bytes a second: written past the page cache and synced, read, copied by the kernel, read and hashed."""
    block = torch.randint(0, 255, (BLOCK_BYTES,), dtype=torch.uint8)
    offsets = range(0, size_bytes, BLOCK_BYTES)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        source, target = str(Path(name) / "source"), str(Path(name) / "target")
        started = time.perf_counter()
        with PositionedFile(source, "create", direct=True) as file:
            for offset in offsets:
                file.write_from(offset, block.numpy().data)
            file.sync()
        write_seconds = time.perf_counter() - started
        for _ in range(2):  # the first one fills the page cache
            started = time.perf_counter()
            with PositionedFile(source) as file:
                for offset in offsets:
                    file.read_into(offset, block.numpy().data)
            read_seconds = time.perf_counter() - started
        started = time.perf_counter()
        with PositionedFile(source) as file, PositionedFile(target, "create") as copy:
            for offset in offsets:
                copy.copy_range(file, offset, offset, BLOCK_BYTES)
            copy.sync()
        copy_seconds = time.perf_counter() - started
        started = time.perf_counter()
        scan({source: (len(offsets) * BLOCK_BYTES, None)}, digests=True)
        check_seconds = time.perf_counter() - started
    seconds = {"read": read_seconds, "write": write_seconds, "copy": copy_seconds, "check": check_seconds}
    return {f"{kind}_bytes": len(offsets) * BLOCK_BYTES / each for kind, each in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="rows and columns of the matrix")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="where files are measured")
    parser.add_argument("--mib", type=int, default=512, help="how large a file")
    parser.add_argument("--json", type=Path, help="where to write the rates")
    parser.add_argument("--python", action="store_true", help="print the ops as the package has them")
    options = parser.parse_args()
    by_op = nanoseconds(measure_ops(options.side, options.rounds))
    files = measure_files(options.folder, options.mib << 20)
    localities = by_locality(by_op)
    for title, table in (("op", by_op), ("usual", localities)):
        for name, value in table.items():
            print(f'    "{name}": {value:.3g},' if options.python else f"{title:8}{name:32}{value:10.3g} ns")
    for name, value in files.items():
        print(f"{name:40}{value / 1e9:10.3g} GB/s")
    if options.json is not None:
        rates = {**files, "op_nanoseconds": by_op, "locality_nanoseconds": localities}
        assert set(rates) <= {field.name for field in fields(RATES)}
        options.json.write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
