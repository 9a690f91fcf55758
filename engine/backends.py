"""What the executor needs of a device: memory, three streams, marks to wait for, host memory that it can read."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch

from .units import format_bytes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .devices import Device

STREAMS = COPYING_IN, COMPUTING, COPYING_OUT = range(3)


class OutOfDeviceMemoryError(RuntimeError):
    """A device has less memory free than it is asked for."""


class Mark(Protocol):
    """A point in a stream."""

    def record(self) -> None:
        """Set it after all that the current stream has been given."""

    def wait(self) -> None:
        """Have the current stream go on only when it is reached."""

    def synchronize(self) -> None:
        """Return when it is reached."""


class Backend(Protocol):
    """One device, used by several workers. A worker's streams are its own."""

    def allocate(self, size_bytes: int) -> torch.Tensor:
        """Memory on the device, 1-D uint8, from a page boundary on. Raises OutOfDeviceMemoryError."""

    def streams(self) -> list[AbstractContextManager[Any]]:
        """Streams to copy in, to compute, to copy out; entering one makes it the thread's current one, often."""

    def mark(self) -> Mark:
        """A new mark."""

    def pin(self, room: torch.Tensor) -> bool:
        """Let the device read and write memory of the host itself, if it can; `unpin` before the memory goes."""

    def unpin(self, room: torch.Tensor) -> None:
        """Take it back."""

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """A copy on the device, of the same dtype."""

    def settle(self) -> None:
        """Return when all that was given to the device is done."""

    def begin(self) -> None:
        """What was allocated until now does not count."""

    def measured_peak_bytes(self) -> int:
        """The most memory that this program had on the device since `begin`, 0 where nobody knows."""


def backend_of(device: Device) -> Backend:
    """The backend for a device."""
    return PretendedBackend(device.free_bytes) if device.kind == "pretended" else TorchBackend(device.name)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, and not the program, is what failed."""
    return (
        isinstance(error, OutOfDeviceMemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in str(error)
    )


class TorchBackend:
    """A device that torch knows."""

    def __init__(self, name: str) -> None:
        self._device = torch.device(name)
        self._module: Any = getattr(torch, self._device.type)
        self._has_streams = hasattr(self._module, "Stream")

    def allocate(self, size_bytes: int) -> torch.Tensor:
        """See Backend."""
        try:
            return torch.empty(size_bytes, dtype=torch.uint8, device=self._device)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise OutOfDeviceMemoryError(str(error)) from None
            raise

    def streams(self) -> list[AbstractContextManager[Any]]:
        """See Backend."""
        if not self._has_streams:
            return [nullcontext() for _ in STREAMS]
        return [self._module.stream(self._module.Stream(self._device)) for _ in STREAMS]

    def mark(self) -> Mark:
        """See Backend."""
        if not self._has_streams:
            return _Whole(self)
        # To wait for it must not take a core from the other workers.
        mark: Mark = self._module.Event(blocking=True) if self._device.type == "cuda" else self._module.Event()
        return mark

    def pin(self, room: torch.Tensor) -> bool:
        """See Backend."""
        if self._device.type != "cuda":
            return False
        everywhere = 1  # cudaHostRegisterPortable: for every device
        # Not torch's pinned memory: that comes in powers of two, and the plan says what a worker has.
        return int(self._module.cudart().cudaHostRegister(room.data_ptr(), room.numel(), everywhere)) == 0

    def unpin(self, room: torch.Tensor) -> None:
        """See Backend."""
        self._module.cudart().cudaHostUnregister(room.data_ptr())

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """See Backend."""
        return values.to(self._device)

    def settle(self) -> None:
        """See Backend."""
        arguments = [self._device] if self._has_streams else []
        self._module.synchronize(*arguments)

    def begin(self) -> None:
        """See Backend."""
        if hasattr(self._module, "reset_peak_memory_stats"):
            self._module.reset_peak_memory_stats(self._device)

    def measured_peak_bytes(self) -> int:
        """See Backend."""
        ask = getattr(self._module, "max_memory_allocated", None)
        return int(ask(self._device)) if ask is not None else 0


class _Whole:
    """A mark of a device without streams: reached when everything is done."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def record(self) -> None:
        """See Mark."""

    def wait(self) -> None:
        """See Mark."""

    def synchronize(self) -> None:
        """See Mark."""
        self._backend.settle()


class PretendedBackend:
    """Memory of the host that is taken for a device's, no more than ``limit_bytes`` of it at a time.

    What is allocated there holds no zeros, so that nobody relies on them.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._taken_bytes = 0

    def allocate(self, size_bytes: int) -> torch.Tensor:
        """See Backend."""
        with self._lock:
            if self._taken_bytes + size_bytes > self.limit_bytes:
                raise OutOfDeviceMemoryError(f"{format_bytes(self.limit_bytes)} are all there is")
            self._taken_bytes += size_bytes
        return torch.full((size_bytes,), 0xA5, dtype=torch.uint8)

    def streams(self) -> list[AbstractContextManager[Any]]:
        """See Backend."""
        return [nullcontext() for _ in STREAMS]

    def mark(self) -> Mark:
        """See Backend."""
        return _Whole(self)

    def pin(self, _room: torch.Tensor) -> bool:
        """See Backend."""
        return False

    def unpin(self, room: torch.Tensor) -> None:
        """See Backend."""

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """See Backend."""
        return values.clone()

    def settle(self) -> None:
        """See Backend."""

    def begin(self) -> None:
        """See Backend: what is copied there was never counted."""

    def measured_peak_bytes(self) -> int:
        """See Backend: what is taken is kept to the end of a run."""
        return self._taken_bytes
