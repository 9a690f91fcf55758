"""The machine's memory: what is free, what the process holds, what its peak was."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_CGROUPS = (  # folder, limit, usage, and what of the usage is cache that gives way
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),  # version 2
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)

_M_MMAP_THRESHOLD = -3


def usable_cores() -> int:
    """Cores this process may run on (fewer than the machine has, under affinity or in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Host memory that can be had now, bounded by the container's limit."""
    free_bytes = int(psutil.virtual_memory().available)
    room_bytes = container_room_bytes()
    return free_bytes if room_bytes is None else min(free_bytes, room_bytes)


def container_room_bytes(groups: tuple[tuple[str, str, str, str], ...] = _CGROUPS) -> int | None:
    """What the control group still allows, None where there is no limit. psutil does not see this."""
    for folder, limit_file, usage_file, cache_field in groups:
        try:
            limit = Path(folder, limit_file).read_text().strip()
            usage = Path(folder, usage_file).read_text().strip()
            statistics = Path(folder, "memory.stat").read_text().split()
        except OSError:
            continue
        if limit.isdigit() and usage.isdigit() and int(limit) < 1 << 60:
            # Pages of files that nobody uses count as usage, but are given up as soon as memory is asked for.
            cache = dict(zip(statistics[::2], statistics[1::2], strict=False)).get(cache_field, "0")
            return max(int(limit) - int(usage) + int(cache), 0)
    return None


def allow_open_files(count: int) -> bool:
    """Have this process be allowed so many open files; False where the system does not let it."""
    if sys.platform == "win32":
        return True
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return True
    if hard != resource.RLIM_INFINITY and hard < count:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    except (OSError, ValueError):
        return False
    return True


def resident_bytes(*, children: bool = False) -> int:
    """Resident memory of this process now, and with ``children`` of those that it started."""
    own = psutil.Process()
    total_bytes = int(own.memory_info().rss)
    for child in own.children(recursive=True) if children else ():
        with suppress(psutil.Error):  # it may just have ended
            total_bytes += int(child.memory_info().rss)
    return total_bytes


def device_bytes() -> int:
    """What this process has allocated on accelerators now; asks none that is not in use, because asking starts it."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0
    return sum(int(torch.cuda.memory_allocated(index)) for index in range(torch.cuda.device_count()))


def peak_resident_bytes() -> int:
    """The most resident memory this process ever had (VmHWM on Linux)."""
    if sys.platform == "linux":
        # Not ru_maxrss: a child inherits the larger peak of the process that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    windows_peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows_peak is not None:
        return int(windows_peak)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def give_back_freed_memory() -> None:
    """Have the C library map large allocations one by one, where it can be told to, so that freed ones go at once.

    Else what solvers take for a while stays in the heaps of threads, and a process holds more than it uses.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 20)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone: several would wait for our workers, or for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
