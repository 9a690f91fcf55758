"""Which run a journal belongs to: everything that the bytes of the output depend on."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..engine.errors import ChangedError, InputError, OutputError, UsageError
from ..engine.journal import read_journal
from ..loaders.shards import read_bytes
from ..version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..engine.journal import Batch
    from ..engine.model import Model
    from ..merge import MergePlan

_START_ANEW = "start anew with --overwrite"

_SAMPLE_BYTES = 1 << 16


def identity_of(merge: MergePlan, *, allow_nonfinite: bool) -> dict[str, object]:
    """The head of a run's journal. Where inputs and output lie is no part of it."""
    shards = hashlib.sha256()
    for shard in merge.shards:
        shards.update(f"{shard.file_name} {shard.size_bytes}\n".encode() + shard.header)
    return {
        "journal": 3,
        "version": VERSION,
        "torch": torch.__version__,
        "recipe_sha256": merge.recipe_sha256,
        "seed": merge.plan.seed,
        "allow_nonfinite": allow_nonfinite,
        "inputs": {
            str(ref): [
                [Path(file.path).name, file.size_bytes, file.modified_ns, file.header_sha256] for file in model.files
            ]
            for ref, model in merge.models.items()
        },
        "config_sha256": hashlib.sha256(json.dumps(merge.output_config(), sort_keys=True).encode()).hexdigest(),
        "tokenizer_sha256": merge.tokenizer.digest,
        "shards_sha256": shards.hexdigest(),
    }


def samples_of(merge: MergePlan) -> dict[str, list[int]]:
    """A checksum of each input file's last bytes: headers alone do not tell two fine-tunes of one model apart.

    Raises InputError.
    """
    try:
        return {
            str(ref): [
                zlib.crc32(read_bytes(Path(file.path), max(file.size_bytes - _SAMPLE_BYTES, 0), _SAMPLE_BYTES))
                for file in model.files
            ]
            for ref, model in merge.models.items()
        }
    except OutputError as error:
        raise InputError(str(error)) from None


def read_earlier(path: Path, identity: Mapping[str, object]) -> tuple[dict[str, object], tuple[Batch, ...]]:
    """The head and the batches of an interrupted run's journal. UsageError or InputError if that was another run."""
    found = read_journal(path)
    if found is None:
        raise UsageError(f"{path}: the journal is damaged, so nothing tells what is done; {_START_ANEW}")
    head, batches = found
    folder = path.parent
    if head.get("journal") != identity["journal"] or head.get("version") != identity["version"]:
        raise UsageError(
            f"{folder}: begun by plait {head.get('version')}, and this is {identity['version']}; "
            f"go on with the same version, or {_START_ANEW}"
        )
    for key, what in (("torch", "torch"), ("seed", "the seed"), ("allow_nonfinite", "--allow-nonfinite")):
        if head.get(key) != identity[key]:
            raise UsageError(
                f"{folder}: {what} was {_said(head.get(key))} when the run began and is {_said(identity[key])} now; "
                f"go on with the same, or {_START_ANEW}"
            )
    if head.get("recipe_sha256") != identity["recipe_sha256"]:
        raise UsageError(
            f"{folder}: the run was begun with another recipe ({folder / 'plait.yml'} has it); "
            f"go on with that, or {_START_ANEW}"
        )
    _compare_inputs(folder, head.get("inputs"), identity["inputs"])
    if head.get("config_sha256") != identity["config_sha256"]:
        raise InputError(f"{folder}: an input's config.json changed since the run began; {_START_ANEW}")
    if head.get("tokenizer_sha256") != identity["tokenizer_sha256"]:
        raise InputError(f"{folder}: an input's tokenizer changed since the run began; {_START_ANEW}")
    if head.get("shards_sha256") != identity["shards_sha256"]:
        raise UsageError(
            f"{folder}: the shards are laid out in another way than when the run began; "
            f"go on with the same --shard-size, or {_START_ANEW}"
        )
    return head, batches


def refuse_unlike(head: Mapping[str, object], identity: Mapping[str, object]) -> None:
    """UsageError or InputError if this process would not make what the run's first process does.

    Both have ``samples``, of `samples_of`. Times of files are left out: each machine may have copies of its own.
    """
    for key, what in (
        ("version", "version of plait"),
        ("torch", "version of torch"),
        ("recipe_sha256", "recipe"),
        ("seed", "seed"),
        ("allow_nonfinite", "--allow-nonfinite"),
    ):
        if head.get(key) != identity[key]:
            said = "" if key == "recipe_sha256" else f" ({_said(identity[key])}, not {_said(head.get(key))})"
            raise UsageError(f"another {what} than process 0 has{said}; it has to be the same everywhere")
    there, here, samples_there, samples_here = (
        found[key] for key in ("inputs", "samples") for found in (head, identity)
    )
    assert isinstance(there, dict)
    assert isinstance(here, dict)
    assert isinstance(samples_there, dict)
    assert isinstance(samples_here, dict)
    for reference, files in here.items():
        same = _without_times(there.get(reference, ())) == _without_times(files)
        if not same or samples_there[reference] != samples_here[reference]:
            raise InputError(f"{reference} is another model here than for process 0; it has to be the same everywhere")
    for key, what in (
        ("config_sha256", "an input's config.json"),
        ("tokenizer_sha256", "an input's tokenizer"),
        ("shards_sha256", "the layout of the shards (--shard-size)"),
    ):
        if head.get(key) != identity[key]:
            raise UsageError(f"{what} is another one than for process 0; it has to be the same everywhere")


def refuse_changed(models: Iterable[Model]) -> None:
    """ChangedError if a file of an input is not what it was when its header was read."""
    for model in models:
        for file in model.files:
            try:
                found = Path(file.path).stat()
            except OSError:
                continue  # whatever was needed of it has been read
            if found.st_size != file.size_bytes or (file.modified_ns and found.st_mtime_ns != file.modified_ns):
                raise ChangedError(
                    f"{file.path}: the file changed while Plait was running, and what was made of it is worthless"
                )


def _compare_inputs(folder: Path, before: object, now: object) -> None:
    assert isinstance(now, dict)
    if not isinstance(before, dict) or list(before) != list(now):
        raise UsageError(f"{folder}: the run was begun with other models; {_START_ANEW}")
    for reference, files in now.items():
        earlier = before[reference]
        if [file[0] for file in files] != [file[0] for file in earlier]:
            raise InputError(f"{folder}: {reference} has other files than when the run began; {_START_ANEW}")
        for file, was in zip(files, earlier, strict=True):
            for index, what in ((1, "size"), (3, "header"), (2, "time of change")):
                if file[index] != was[index]:
                    raise InputError(
                        f"{folder}: {file[0]} of {reference} changed since the run began (its {what} differs); "
                        f"put it back, or {_START_ANEW}"
                    )


def _without_times(files: Iterable[Sequence[object]]) -> list[tuple[object, ...]]:
    return [(file[0], file[1], file[3]) for file in files]


def _said(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
