"""Merges on a device beside the same on the host: the same bytes? the predicted peak? how near the floor?

    python benchmarks/devices.py --shape 1b --json devices.json          # on a machine with a GPU
    python benchmarks/devices.py --shape tiny --device pretended         # anywhere: bytes and memory, no speed

The floor reads the inputs, carries them to the device, carries back as much as the output has and writes it, with as
many threads as the merge has workers, and computes nothing. Ends with 1 if a byte differs or a device's peak is above
its prediction.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from measure import digest, ensure_family, machine, model_bytes, warm
from plait.api import plan
from plait.engine.backends import backend_of
from plait.engine.devices import devices_there, pretended
from plait.engine.host import usable_cores
from plait.engine.units import GIB
from recipes import METHODS, recipe_text
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from plait.engine.devices import Device

BLOCK_BYTES = 8 << 20
ROOM_BYTES = 64 << 20


@dataclass(frozen=True)
class Line:
    """One method: seconds there and here, peaks on the device, whether the bytes are the same."""

    method: str
    on_device: bool
    device_seconds: float
    host_seconds: float
    predicted_peak_bytes: int
    measured_peak_bytes: int
    same_bytes: bool
    notes: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """What was promised and is not so."""
        over = self.measured_peak_bytes > self.predicted_peak_bytes
        return [*([] if self.same_bytes else ["other bytes"]), *(["over its prediction"] if over else [])]


def compare(method: str, models: list[Path], work: Path, device: Device, workers: int) -> Line:
    """Merge twice, and keep nothing but the figures."""
    recipe = work / f"{method}.yml"
    recipe.write_text(recipe_text(method, models), encoding="utf-8")
    results, digests = [], []
    for where in ("cpu", device):
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        warm(models)
        results.append(plan(recipe, device=where, workers=workers).run(out))
        digests.append(digest(out))
        shutil.rmtree(out)
    host, there = results
    peaks = [(entry["predicted_peak_bytes"], entry["measured_peak_bytes"]) for entry in there.devices]
    predicted_bytes, measured_bytes = peaks[0] if peaks else (0, 0)
    assert isinstance(predicted_bytes, int)
    assert isinstance(measured_bytes, int)
    return Line(
        method,
        bool(there.devices),
        there.seconds,
        host.seconds,
        predicted_bytes,
        measured_bytes,
        digests[0] == digests[1],
        tuple(note for note in there.warnings if note not in host.warnings),
    )


def floor_seconds(models: list[Path], work: Path, device: Device, workers: int) -> float:
    """Seconds for the same bytes without any arithmetic."""
    base, *_ = models
    blocks = [
        (path, start, model is base)
        for model in models
        for path in sorted(model.glob("*.safetensors"))
        for start in range(0, path.stat().st_size, BLOCK_BYTES)
    ]
    lock, backend = threading.Lock(), backend_of(device)
    out = work / "floor.bin"

    def carry() -> None:
        room = torch.empty(BLOCK_BYTES, dtype=torch.uint8)
        pinned, memory = backend.pin(room), backend.allocate(BLOCK_BYTES)
        view = memoryview(room.numpy().data)
        with out.open("r+b", buffering=0) as target:
            while True:
                with lock:
                    if not blocks:
                        break
                    path, start, is_written = blocks.pop(0)
                with path.open("rb", buffering=0) as source:
                    source.seek(start)
                    count = source.readinto(view)
                memory[:count].copy_(room[:count], non_blocking=True)
                if is_written:
                    room[:count].copy_(memory[:count], non_blocking=True)
                    backend.settle()
                    target.seek(start)
                    target.write(view[:count])
        backend.settle()
        if pinned:
            backend.unpin(room)

    warm(models)
    out.write_bytes(b"")
    threads = [threading.Thread(target=carry) for _ in range(workers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    out.unlink()
    return seconds


def show(lines: list[Line], floor: float, device: Device) -> Table:
    """The table, a row a method."""
    table = Table(title=f"{device.name}; floor {floor:.2f} s")
    for title in ("method", "there", "beside the floor", "here", "peak of predicted, MiB", "bytes", ""):
        table.add_column(title)
    for line in lines:
        peak = f"{line.measured_peak_bytes / 2**20:.0f} of {line.predicted_peak_bytes / 2**20:.0f}"
        table.add_row(
            line.method,
            f"{line.device_seconds:.2f} s" if line.on_device else "-",
            f"{line.device_seconds / floor:.2f}" if line.on_device else "-",
            f"{line.host_seconds:.2f} s",
            peak if line.on_device else "stays on the host",
            "same" if line.same_bytes else "OTHER",
            "; ".join((*line.faults, *line.notes)),
        )
    return table


def main() -> int:
    """Measure, print, and end with 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny")
    parser.add_argument(
        "--family", type=Path, help="where the models are, or are written; default build/families/SHAPE"
    )
    parser.add_argument("--work", type=Path, default=Path("build/devices"))
    parser.add_argument("--device", default="auto", help="cuda:0, mps, …, or pretended")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    there = devices_there() if arguments.device != "pretended" else ()
    found = [each for each in there if arguments.device in ("auto", each.kind, each.name)]
    if not found:
        console.print("no device is used: a pretended one shows bytes and memory, and its seconds mean nothing")
    device = found[0] if found else pretended(free_bytes=4 * GIB)
    arguments.work.mkdir(parents=True, exist_ok=True)
    models = ensure_family(arguments.family or Path("build/families") / arguments.shape, arguments.shape, finetunes=2)
    floor = floor_seconds(models, arguments.work, device, arguments.workers)
    lines = [compare(method, models, arguments.work, device, arguments.workers) for method in arguments.methods]
    console.print(show(lines, floor, device))
    if arguments.json is not None:
        report = {
            "machine": machine(),
            "device": {**asdict(device), "real": bool(found), "torch": torch.__version__},
            "shape": arguments.shape,
            "input_bytes": sum(map(model_bytes, models)),
            "floor_seconds": floor,
            "methods": [asdict(line) for line in lines],
        }
        arguments.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return 1 if any(line.faults for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
