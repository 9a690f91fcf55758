"""A folder with a model that an enemy wrote, merges over it, and what an independent reader makes of the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import plait
import torch
from merge_support import save_model
from plait.engine.errors import InputError, PlaitError
from plait.loaders.safetensors_file import DTYPES
from safetensors import SafetensorError, deserialize
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

GOOD = {
    "embed.weight": torch.tensor([[3.0, 2.0, 1.0], [4.0, 1.5, 0.75]]),
    "layers.0.w": torch.tensor([[1.5, 3.0]], dtype=torch.bfloat16),
    "steps": torch.tensor(9, dtype=torch.int64),
}
VICTIM = {
    "embed.weight": torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.5, 0.25]]),
    "layers.0.w": torch.tensor([[0.5, -1.0]], dtype=torch.bfloat16),
    "steps": torch.tensor(7, dtype=torch.int64),
}
COPY = "merge_method: passthrough\nmodels: [victim]\n"
MEAN = """\
merge_method: linear
models:
  - {model: good, parameters: {weight: 0.5}}
  - {model: victim, parameters: {weight: 0.5}}
"""
MOST_CPU_SECONDS = 5.0
"""For a small case, in which what is quadratic takes minutes."""

STRICTER = (
    # The format wants names to be unique; the library takes one of two, and which is a matter of luck.
    "twice",
    # Of no use but to those who write to other people's terminals.
    "control characters",
    # In keys that the format does not have, the library's parser lets these through.
    "where a size or an offset belongs",
    # The format wants this as the first byte of a header; the library does not look.
    "does not start with",
    # There is nothing to merge.
    "holds no tensors",
    # Types that torch has no tensors of.
    "is unknown or not read yet",
)
"""What Plait refuses and the library reads. There is nothing that the library refuses and Plait reads."""


class Found(NamedTuple):
    """A tensor as a reader sees it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def values(self) -> torch.Tensor:
        """Its elements in double precision."""
        return torch.frombuffer(bytearray(self.data), dtype=DTYPES[self.dtype]).reshape(self.shape).double()


def read_independently(data: bytes) -> dict[str, Found] | None:
    """Every tensor of a file as the format's own library reads it; None if it does not."""
    try:
        found = deserialize(data)
    except SafetensorError:
        return None
    return {name: Found(each["dtype"], tuple(each["shape"]), bytes(each["data"])) for name, each in found}


def file_of(fields: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header, given as an object or as its text."""
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, Any]:
    """A tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def header_end(data: bytes) -> int:
    """Where the header of a proper file ends."""
    return 8 + int.from_bytes(data[:8], "little")


class World:
    """A folder with a good model, one that is tampered with, and recipes over them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.victim, self.out = folder, folder / "victim", folder / "out"
        save_model(self.victim, VICTIM, {"num_hidden_layers": 1})
        save_model(folder / "good", GOOD, {"num_hidden_layers": 1})
        self.file = self.victim / "model.safetensors"
        self.proper = self.file.read_bytes()
        (folder / "copy.yml").write_text(COPY)
        (folder / "mean.yml").write_text(MEAN)

    def merge(self, recipe: str = "copy.yml") -> dict[str, Found] | PlaitError:
        """The output as the independent reader sees it, or the refusal: soon, and nothing is written beside OUT."""
        before, started = self.surroundings(), time.process_time()
        outcome: dict[str, Found] | PlaitError
        with no_hang():
            try:
                plait.plan(self.folder / recipe).run(self.out)
                outcome = {}
            except PlaitError as error:
                outcome = error
        assert time.process_time() - started < MOST_CPU_SECONDS
        assert self.surroundings() == before
        if isinstance(outcome, PlaitError):
            assert not (self.out / "config.json").exists(), "a refused merge leaves no model"
        else:
            outcome = read_independently((self.out / "model.safetensors").read_bytes()) or {}
        return outcome

    def _merge_and_clear(self, recipe: str) -> dict[str, Found] | PlaitError:
        try:
            return self.merge(recipe)
        finally:
            shutil.rmtree(self.out, ignore_errors=True)

    def refusal(self, *words: str, recipe: str = "copy.yml") -> str:
        """The one line that says all of these and names the model."""
        outcome = self.merge(recipe)
        assert isinstance(outcome, InputError), outcome
        return one_line(outcome, "victim", *words)

    def agrees(self, data: bytes) -> bool:
        """Put a file in the model's place: it is copied as the library reads it, or refused; whether it is copied."""
        self.file.write_bytes(data)
        ours, theirs = self._merge_and_clear("copy.yml"), read_independently(data)
        if isinstance(ours, PlaitError):
            assert isinstance(ours, InputError), ours
            message = one_line(ours, str(self.file))
            assert theirs is None or any(words in message for words in STRICTER), message
            return False
        assert ours == theirs
        return True

    def averages(self, data: bytes) -> bool:
        """The same where the file is merged with a good one; whether it is merged."""
        self.file.write_bytes(data)
        ours, theirs = self._merge_and_clear("mean.yml"), read_independently(data)
        if isinstance(ours, PlaitError):
            assert isinstance(ours, InputError)
            assert all("victim" in line for line in str(ours).split("\n"))
            assert theirs is None or not _fits(theirs) or any(words in str(ours) for words in STRICTER), str(ours)
            return False
        assert theirs is not None
        assert ours.keys() == GOOD.keys()
        assert ours["steps"].values.equal(GOOD["steps"].double()), "integers are the first model's"
        # A stack of layers that goes by another name is the model's stack all the same.
        stack = next(found for name, found in theirs.items() if name.endswith(".0.w"))
        mean = {name: (GOOD[name].double() + theirs.get(name, stack).values) / 2 for name in GOOD}
        assert ours["embed.weight"].values.equal(mean["embed.weight"].float().double())
        assert torch.allclose(ours["layers.0.w"].values, mean["layers.0.w"], rtol=2**-8, atol=1e-38)
        return True

    def surroundings(self) -> dict[str, tuple[int, int, str]]:
        """All there is beside OUT: when it was written, how large it is, and where it leads if it is a link."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if self.out not in (path, *path.parents):
                facts = path.lstat()
                target = str(path.readlink()) if path.is_symlink() else ""
                found[str(path.relative_to(self.folder))] = (facts.st_mtime_ns, facts.st_size, target)
        return found


def _fits(theirs: dict[str, Found]) -> bool:
    """Whether a file holds what the good model holds, and finite."""
    return all(
        name in theirs
        and (DTYPES.get(theirs[name].dtype), theirs[name].shape) == (tensor.dtype, tuple(tensor.shape))
        and bool(theirs[name].values.isfinite().all())
        for name, tensor in GOOD.items()
    )


def one_line(error: PlaitError, *words: str) -> str:
    """The message, once it is one line of visible characters that says all of these."""
    message = str(error)
    assert message.isprintable(), repr(message)
    assert len(message) < 5000
    assert [each for each in words if each not in message] == [], message
    return message


def shard(world: World, weight_map: dict[str, Any]) -> None:
    """Make the tampered model one of two shards with an index."""
    world.file.unlink()
    names = list(VICTIM)
    save_file({name: VICTIM[name] for name in names[:2]}, world.victim / "model-00001-of-00002.safetensors")
    save_file({name: VICTIM[name] for name in names[2:]}, world.victim / "model-00002-of-00002.safetensors")
    proper = dict.fromkeys(names[:2], "model-00001-of-00002.safetensors") | {
        names[2]: "model-00002-of-00002.safetensors"
    }
    (world.victim / "model.safetensors.index.json").write_text(json.dumps({"weight_map": proper | weight_map}))


def short(value: object) -> str:
    """A test's name for a value that may be a page."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else ascii(value)[:40]


@contextmanager
def no_hang(seconds: float = 60.0) -> Iterator[None]:
    """Fail where a block waits without end, as reading from a pipe does."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------------------------------------ corruption

TOKENS = (
    *(b"0", b"-1", b"1.0", b"1e3", b"00", b"4294967296", b"9223372036854775808", b"18446744073709551616", b"9" * 400),
    *(b"null", b"true", b"NaN", b"[]", b"{}", b"[[[[", b'""', b'"', b",", b":", b"}", b"]", b"\\", b"\\u0000", b"\n"),
    *(b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"embed.weight"', b'"steps"', b"\xff", b"\xed"),
    *(b'"F32"', b'"I32"', b'"BF16"', b'"F4"', b'"F8_E4M3"', b'"BOOL"', b'"C64"', b"../", b"\\ud800", b"\\u001b[2J"),
)


def spliced(data: bytes, random: Random) -> bytes:
    """A file after a few cuts, repeats, insertions and overwritten pieces, most of them in its header."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        end = header_end(data) if len(data) > 8 and header_end(data) < len(data) else len(data)
        start = random.randrange(8 if random.random() < 0.9 else 0, max(end, 9))
        stop = min(start + random.choice((0, 0, 1, 1, 2, 4, 8, 30)), len(data))
        source = random.randrange(max(len(data), 1))
        piece = random.choice(
            (random.choice(TOKENS), b"", random.randbytes(stop - start), data[source : source + random.randrange(40)])
        )
        longer = len(piece) - (stop - start)
        data = data[:start] + piece + data[stop:]
        if start >= 8 and random.random() < 0.8:  # the length says so, or nothing of it would be parsed
            data = struct.pack("<Q", max(end - 8 + longer, 0)) + data[8:]
    return data
