"""Model folders: find one, list its weight files, read their headers, and say what the model is made of."""

from __future__ import annotations

import difflib
import os
import re
import stat
from itertools import count
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from ..engine.graph import TensorSpec
from ..engine.model import Model, StoredFile, StoredTensor
from ..engine.units import format_names
from .architecture import infer_architecture
from .input_files import read_json
from .safetensors_file import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch

CONFIG_LIMIT_BYTES = 10_000_000
INDEX_LIMIT_BYTES = 100_000_000
"""Far above what there is: 90 000 tensors take 10 MB of index."""

_SUFFIX = ".safetensors"
_ADAPTER = "adapter_model.safetensors"
_IS_ADAPTER = "holds an adapter, not a model; adapters are not available yet: merge it into its model, and name that"
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2")
_INDEX_SUFFIX = ".safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_WEIGHTS = (*_PICKLES, ".gguf", ".h5", ".msgpack", ".npz", ".onnx")
_SHARD = re.compile(r"^(.+)-(\d+)-of-(\d+)\.safetensors$")
_LONGEST_NAME = 255
_NO_NAME = re.compile(r"[/\\:\x00-\x1f\x7f]")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?$")


def open_model(reference: str, folder: Path) -> Model:
    """Read the headers of a model folder; no tensor is read.

    ``reference`` is what the recipe calls the model. Raises InputError, naming the file and where there is one the
    tensor, if the folder, its index, its config or a header is not as it should be.
    """
    if not folder.is_dir():
        what = "is a file; a model is named by its folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder}: {what} (model {reference})")
    config = read_config(folder)
    names, index, index_path = weight_files(folder)
    files, tensors = [], []
    holders: dict[str, str] = {}
    specs: dict[tuple[torch.dtype, tuple[int, ...]], TensorSpec] = {}
    for name in names:
        path = str(folder / name)
        header = read_header(path)
        files.append(StoredFile(path, header.file_bytes, header.sha256, Path(path).stat().st_mtime_ns))
        for tensor, entry in header.entries.items():
            if tensor in holders:
                raise InputError(f"{path}: tensor {tensor!r} is also in {holders[tensor]}")
            holders[tensor] = name
            key = (entry.dtype, entry.shape)
            spec = specs.get(key)
            if spec is None:
                spec = specs[key] = TensorSpec(entry.shape, entry.dtype)
            tensors.append(StoredTensor(reference, tensor, spec, path, entry.offset_bytes))
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    for tensor, name in index.items():
        if holders.get(tensor) != name:
            held = f"it is in {holders[tensor]}" if tensor in holders else "no file of the model holds it"
            raise InputError(f"{index_path}: tensor {tensor!r} is listed in {name}, but {held}")
    return model_of(reference, folder, tensors, config, files)


def model_of(
    reference: str,
    folder: Path,
    tensors: Sequence[StoredTensor],
    config: Mapping[str, object],
    files: Iterable[StoredFile],
) -> Model:
    """A model from what its headers and its config say, its structure inferred."""
    architecture = infer_architecture(tensors, config)
    return Model(
        reference=reference,
        folder=str(folder),
        tensors={tensor.name: tensor for tensor in architecture.order},
        roles=architecture.roles,
        stacks=architecture.stacks,
        primary=architecture.primary,
        config=config,
        aliases=architecture.aliases,
        vocabulary_rows=architecture.vocabulary_rows,
        files=tuple(files),
    )


def read_config(folder: Path) -> dict[str, object]:
    """Parse a folder's config.json; a folder without one gives {}. Raises InputError."""
    path = folder / "config.json"
    # A link that leads nowhere is a file that is missing, not a model without one.
    return read_json(path, CONFIG_LIMIT_BYTES) if os.path.lexists(path) else {}


def locate(path_text: str, *, recipe_folder: Path, maps: Mapping[str, str] | None) -> Path:
    """Find the folder of a model that a recipe names.

    ``maps`` (reference to path, from the command line) is asked first; None where a command takes none. Then the text
    is a path: absolute or from the home folder, else from the recipe's folder, else from the working directory.
    Raises InputError that says where it looked and what to do.
    """
    if maps is not None and path_text in maps:
        mapped = _expanded(maps[path_text])
        if not _kind_of(mapped):
            raise InputError(f"--map {path_text}={maps[path_text]}: {mapped} does not exist")
        return mapped
    places = _places(path_text, recipe_folder)
    kinds = {place: kind for place in places if (kind := _kind_of(place))}
    if kinds:
        return _plain(min(kinds, key=lambda place: kinds[place] != "folder"))
    looked = ", ".join(dict.fromkeys(os.path.normpath(place) for place in places))
    advice = [f"did you mean {near}?"] if (near := _nearest(path_text, places)) else []
    # An owner's name that is a folder here is none.
    if _HUB_ID.match(path_text) and not any(_kind_of(place.parent) for place in places):
        how = "name the folder of a local copy" if maps is None else f"name a local copy with --map {path_text}=PATH"
        advice.append(f"it looks like a Hub id, and models are not downloaded yet: {how}")
    raise InputError("; ".join([f"model {path_text}: not found (looked at {looked})", *advice]))


def _plain(place: Path) -> Path:
    """A folder without ``..`` in its path, where that is still the same folder: through a link it may not be."""
    plain = Path(os.path.normpath(place))
    try:
        return plain if plain.samefile(place) else place
    except OSError:
        return place


def _places(path_text: str, recipe_folder: Path) -> list[Path]:
    """Where a path of a recipe may lead, best first."""
    texts = [path_text]
    if os.sep == "/" and "\\" in path_text:
        # Recipes written on Windows run elsewhere too.
        texts.append(path_text.replace("\\", "/"))
    places: list[Path] = []
    for text in texts:
        path = _expanded(text)
        places += [path] if path.is_absolute() else [recipe_folder / path, Path.cwd() / path]
    return list(dict.fromkeys(places))


def _expanded(text: str) -> Path:
    """A path with its ``~`` replaced; as it is where that names nobody on this machine."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _kind_of(place: Path) -> str:
    """What is at a path; "" for nothing, for a name that no file can have, and for what we may not look at."""
    try:
        return "folder" if stat.S_ISDIR(place.stat().st_mode) else "file"
    except (OSError, ValueError):
        return ""


def _nearest(path_text: str, places: Sequence[Path]) -> str | None:
    """The folder beside a missing one whose name is most like it, in the words of whoever named that."""
    if len(places[0].name) > _LONGEST_NAME:  # no file has it, and comparing takes long
        return None
    siblings: dict[str, Path] = {}
    for place in places:
        try:
            siblings = {path.name: path for path in place.parent.iterdir() if path.is_dir()} | siblings
        except (OSError, ValueError):
            continue
    name = places[0].name
    near = difflib.get_close_matches(name, siblings, n=1)
    if not near:
        return None
    return path_text.removesuffix(name) + near[0] if path_text.endswith(name) else str(siblings[near[0]])


def weight_files(folder: Path) -> tuple[list[str], dict[str, str], Path | None]:
    """The names of a folder's weight files in order, its index (tensor to file name) and the index's path."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    # With both a single file and an index, the file is the model: transformers reads it so.
    if f"model{_SUFFIX}" in names:
        return [f"model{_SUFFIX}"], {}, None
    indexes = [name for name in names if name.endswith(_INDEX_SUFFIX)]
    index_name = f"model{_INDEX_SUFFIX}" if f"model{_INDEX_SUFFIX}" in indexes else None
    if index_name is None and len(indexes) == 1:
        index_name = indexes[0]
    if index_name is not None:
        path = folder / index_name
        index = read_index(path)
        files = sorted(set(index.values()))
        missing = [name for name in files if name not in names]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {len(files)} files are not in the folder, first {missing[0]}; "
                "is a download incomplete?"
            )
        return files, index, path
    files = [name for name in names if name.endswith(_SUFFIX)]
    if not files:
        raise InputError(_no_weights(folder, names))
    return _one_set(folder, files), {}, None


def _one_set(folder: Path, files: list[str]) -> list[str]:
    """Of safetensors files without an index, those that make up the model."""
    sets: dict[tuple[str, str], dict[int, str]] = {}
    for name in files:
        if match := _SHARD.match(name):
            sets.setdefault((match[1], match[3]), {})[int(match[2])] = name
    if not sets:
        if files == [_ADAPTER]:
            raise InputError(f"{folder}: {_IS_ADAPTER}")
        return [name for name in files if name != _ADAPTER]
    # consolidated-00001-of-00002 beside model-00001-of-00003 is the same model once more.
    chosen = [key for key in sets if key[0] == "model"] or list(sets)
    if len(chosen) > 1:
        names = " and ".join(f"{stem}-*-of-{total}{_SUFFIX}" for stem, total in chosen)
        raise InputError(f"{folder}: holds several sets of files, {names}, and no index that says which one to read")
    stem, total = chosen[0]
    shards = sets[chosen[0]]
    first = 0 if 0 in shards else 1
    if len(shards) < int(total):
        missing = next(number for number in count(first) if number not in shards)
        raise InputError(
            f"{folder}: file {missing} of {int(total)} ({stem}-*-of-{total}{_SUFFIX}) is missing; "
            "is a download incomplete?"
        )
    return list(shards.values())


def _no_weights(folder: Path, names: Sequence[str]) -> str:
    """Why a folder without safetensors files cannot be read."""
    if "adapter_config.json" in names:
        return f"{folder}: {_IS_ADAPTER}"
    caches = [folder / ".cache" / "huggingface" / "download", folder.parent.parent / "blobs"]
    held = [*names, *(path.name for cache in caches for path in _listed(cache))]
    unfinished = [name for name in held if name.endswith(_UNFINISHED)]
    if unfinished:
        return f"{folder}: holds no safetensors files; is a download incomplete? ({unfinished[0]})"
    others = [name for name in names if name.endswith(_OTHER_WEIGHTS) and name != "training_args.bin"]
    if others:
        suffix = Path(others[0]).suffix
        kind = "pickled" if suffix in _PICKLES else suffix[1:].upper()
        return f"{folder}: holds no safetensors files, and {kind} weights ({others[0]}) are not read yet"
    # One level down, as a repository has them; two levels down, as the Hub's cache has its snapshots.
    inner = sorted(
        path.parent.relative_to(folder).as_posix()
        for pattern in (f"*/*{_SUFFIX}", f"snapshots/*/*{_SUFFIX}")
        for path in folder.glob(pattern)
    )
    if inner:
        return f"{folder}: holds no safetensors files, but its folder {inner[0]} does; name that one"
    return f"{folder}: holds no safetensors files ({f'it has {format_names(names)}' if names else 'it is empty'})"


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, in order; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def read_index(path: Path) -> dict[str, str]:
    """Parse an index and check its file names: a name leads nowhere but to the index's own folder."""
    weight_map = read_json(path, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: has no weight_map")
    index: dict[str, str] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or _NO_NAME.search(name):
            raise InputError(f"{path}: tensor {tensor!r}: {name!r} is not the name of a file in this folder")
        index[tensor] = intern(name)
    return index
