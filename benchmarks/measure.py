"""Measure a command as a whole process: seconds, processor seconds, peak memory.

The operating system is asked when the process ends, so short peaks count, and memory that the process has mapped from
files counts as long as it is resident. Nothing here imports torch: on Linux a child starts out with its parent's peak
as its own, so the parent has to stay small.
"""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BENCHMARKS = Path(__file__).resolve().parent
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Measurement:
    """One run of one command. ``load`` is the machine's load average just before: was it busy with something else?"""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    load: float


class CommandFailedError(RuntimeError):
    """A measured command ended with an error; the text has the end of its standard error."""


def measure(command: Sequence[str | Path], printed: Path | None = None) -> Measurement:
    """Run a command to its end and measure it; its standard output goes to ``printed``. Raises CommandFailedError."""
    # What earlier runs left to be written to disk is not this command's work.
    os.sync()
    load = os.getloadavg()[0]
    # A merge of local folders has no business on the network; asking it not to try makes the times repeatable.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as messages, (printed or Path(os.devnull)).open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=messages, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            messages.seek(0)
            tail = messages.read().decode(errors="replace")[-2000:]
            raise CommandFailedError(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{tail}")
    # Linux counts in KiB, macOS in bytes.
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return Measurement(wall_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit_bytes, load)


def median(samples: Iterable[Measurement]) -> Measurement:
    """The median of every column on its own."""
    columns = [asdict(sample) for sample in samples]
    return Measurement(**{name: statistics.median(row[name] for row in columns) for name in columns[0]})


def model_bytes(model: Path) -> int:
    """Bytes of a model's shards."""
    return sum(shard.stat().st_size for shard in model.glob("*.safetensors"))


def warm(models: Iterable[Path]) -> None:
    """Read every shard once, so that no tool pays for the disk in another's place."""
    block = bytearray(BLOCK_BYTES)
    for model in models:
        for shard in sorted(model.glob("*.safetensors")):
            with shard.open("rb", buffering=0) as file:
                while file.readinto(block):
                    pass


def digest(folder: Path) -> str:
    """One sha256 over the names and bytes of a model folder, but for what tells of the run itself."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "plait-manifest.json":
            total.update(f"{path.relative_to(folder)}\0".encode())
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    total.update(block)
    return total.hexdigest()


def ensure_family(folder: Path, shape: str, finetunes: int, dtype: str = "bfloat16") -> list[Path]:
    """The base and fine-tunes under ``folder``, written first if they are not there."""
    models = [folder / name for name in ("base", *(f"ft{number}" for number in range(1, finetunes + 1)))]
    if not all((model / "config.json").exists() for model in models):
        writer = [
            BENCHMARKS / "checkpoints.py",
            folder,
            "--shape",
            shape,
            "--finetunes",
            str(finetunes),
            "--dtype",
            dtype,
        ]
        subprocess.run([sys.executable, *map(str, writer)], check=True)
    return models


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
