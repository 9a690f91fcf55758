"""config.json against the tensors that stand beside it: layers, vocabulary, width, dtype, head."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ..engine.units import format_count
from .config import counts_about
from .config_keys import configs, is_count, part_of, words_of
from .findings import Check, Findings, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..engine.model import Model, StoredTensor, TensorRole
    from .findings import Severity

CONFIG_FILE = "config.json"

_WIDTH_WORDS = frozenset({"hidden", "embedding", "embed", "embd", "emb", "dim", "model", "width"})
_NOT_WIDTH_WORDS = frozenset({"max", "position", "num", "n", "layers", "head", "type", "per"})
_HEAD_WORDS = frozenset({"head", "heads", "output", "out", "unembed", "unembedding", "classifier", "decoder", "proj"})
_HEADS = (["output"], ["output_layer"], ["lm_head"], ["embed_out"])
_LEAST_LAYERS = 3
"""Layers of a stack from which on one that lacks a tensor stands out."""


def check_config(model: Model | None) -> Check:
    """Check a model's config against its tensors; pure."""
    if model is None:
        return skipped("config", "not checked: a file of the model is missing or cannot be read")
    findings = Findings()
    if not model.config:
        findings.warning(CONFIG_FILE, "there is none, and most programs cannot load a model without it")
        return findings.check("config", "missing")
    said = [*_layers(model, findings), *_vocabulary(model, findings)]
    _width(model, findings)
    _dtype(model, findings)
    _gaps(model, findings)
    said += _head(model, findings)
    return findings.check("config", ", ".join(said) or "nothing in it can be told from the tensors")


def tied_head(model: Model) -> tuple[StoredTensor, StoredTensor] | None:
    """Embedding and head where the config ties them and both are stored: then they have to be equal."""
    embedding, head = _embedding(model), _stored_head(model)
    if embedding is None or head is None or embedding.spec != head.spec or _said_tied(model) is not True:
        return None
    if not _is_head_name(head.name):
        return None  # of an encoder, say, whose config means another tie
    return embedding, head


def text_configs(config: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The config and those nested in it that are about text, each with how its keys begin: ``text_config.``."""
    for path, inner in configs(config):
        if len(path) < 2 and (not path or part_of(path[0]) == "text"):
            yield "".join(f"{key}." for key in path), inner


def _layers(model: Model, findings: Findings) -> Iterator[str]:
    for stack in model.stacks.values():
        counts = counts_about(model.config, stack.prefix)
        if any(stack.layers in (count.count, count.count + count.extra) for count in counts):
            yield f"{format_count(stack.layers)} layers in {stack.prefix}"
            continue
        # Counts of blocks, or of another part's layers, may mean something else.
        sure = [count for count in counts if (count.part == "text" or not count.path) and "layer" in count.key]
        if sure and stack.prefix == model.primary:
            key = ".".join((*sure[0].path, sure[0].key))
            findings.problem(CONFIG_FILE, f"{key} is {sure[0].count}, and {stack.prefix} has {stack.layers} layers")
    for start, inner in text_configs(model.config):
        types, layers = inner.get("layer_types"), inner.get("num_hidden_layers")
        if isinstance(types, list) and is_count(layers) and len(types) != layers:
            findings.problem(
                CONFIG_FILE, f"{start}layer_types has {len(types)} entries, and num_hidden_layers is {layers}"
            )


def _vocabulary(model: Model, findings: Findings) -> Iterator[str]:
    rows, embedding = model.vocabulary_rows, _embedding(model)
    sizes = {
        f"{start}vocab_size": size
        for start, inner in text_configs(model.config)
        if is_count(size := inner.get("vocab_size"))
    }
    if rows is None or embedding is None or not sizes:
        return
    if rows in sizes.values():
        yield f"{format_count(rows)} rows of vocabulary"
        return
    key, size = next(iter(sizes.items()))
    head = _stored_head(model)
    if rows > size and head is not None and head.spec.shape[0] == size:
        return  # rows for what is read and never said, such as an image's place
    # Some architectures have rows beyond their vocabulary; where the head has them too, they are tokens.
    counted = rows < size or head is not None or bool(model.aliases)
    severity: Severity = "problem" if counted else "warning"
    if rows < size or "pad_vocab_size_multiple" not in model.config:
        findings.add(severity, CONFIG_FILE, f"{key} is {size}, and {embedding.name} has {rows} rows")


def _width(model: Model, findings: Findings) -> None:
    embedding = _embedding(model)
    widths = {
        f"{start}{key}": width
        for start, inner in text_configs(model.config)
        for key, width in inner.items()
        if is_count(width) and _is_width(key)
    }
    if embedding is None or not widths or embedding.spec.shape[1] in widths.values():
        return
    key, width = next(iter(widths.items()))
    findings.problem(CONFIG_FILE, f"{key} is {width}, and {embedding.name} has {embedding.spec.shape[1]} columns")


def _is_width(key: str) -> bool:
    words = set(words_of(key))
    return key == "n_embd" or bool(words & _WIDTH_WORDS and not words & _NOT_WIDTH_WORDS)


def _dtype(model: Model, findings: Findings) -> None:
    if "quantization_config" in model.config:
        return  # what is stored is not what is computed with
    said = model.config.get("dtype") or model.config.get("torch_dtype")
    sizes: Counter[str] = Counter()
    for tensor in model.tensors.values():
        if tensor.spec.dtype.is_floating_point:
            sizes[str(tensor.spec.dtype).removeprefix("torch.")] += tensor.size_bytes
    if isinstance(said, str) and sizes and said not in sizes and said != "auto":
        findings.warning(CONFIG_FILE, f"dtype is {said}, and the tensors are {', '.join(sorted(sizes))}")


def _gaps(model: Model, findings: Findings) -> None:
    """Tensors that a single layer of a stack lacks."""
    held: dict[tuple[str, str], set[int]] = defaultdict(set)
    for role in model.roles.values():
        if role.stack is not None and role.suffix is not None and role.layer is not None:
            held[role.stack, role.suffix].add(role.layer)
    for (prefix, suffix), layers in held.items():
        stack = model.stacks[prefix]
        if stack.layers >= _LEAST_LAYERS and len(layers) == stack.layers - 1:
            (missing,) = set(range(stack.layers)) - layers
            # The first and the last layer of many architectures are built otherwise.
            if missing not in (0, stack.layers - 1):
                findings.warning(stack.tensor_name(missing, suffix), "is missing, and every other layer has one")


def _head(model: Model, findings: Findings) -> Iterator[str]:
    embedding, head = _embedding(model), _stored_head(model)
    if embedding is None:
        return
    if any(name not in model.tensors and _is_head_name(name) for name in model.aliases):
        yield "head tied"
    elif head is not None:
        yield f"head {head.name}"
    elif _said_tied(model) is False and _generates(model) and not any(map(_may_be_head, model.roles.items())):
        findings.problem(
            CONFIG_FILE, "tie_word_embeddings is false, and no tensor is an output head: it would be made at random"
        )


def _may_be_head(named: tuple[str, TensorRole]) -> bool:
    name, role = named
    return not role.leading and role.stack is None and bool(_HEAD_WORDS & set(words_of(name)))


def _is_head_name(name: str) -> bool:
    return name.split(".")[-2:-1] in _HEADS


def _stored_head(model: Model) -> StoredTensor | None:
    rows = model.vocabulary_rows
    trailing = [tensor for name, tensor in model.tensors.items() if model.roles[name].stack is None]
    named = [tensor for tensor in trailing if _is_head_name(tensor.name) and len(tensor.spec.shape) == 2]
    embedding = _embedding(model)
    shaped = [
        tensor
        for tensor in trailing
        if not model.roles[tensor.name].leading
        and len(tensor.spec.shape) == 2
        and tensor.spec.shape[0] == rows
        and tensor is not embedding
    ]
    return next(iter([*named, *shaped]), None)


def _embedding(model: Model) -> StoredTensor | None:
    """The table of token embeddings: what the model's vocabulary was counted on."""
    tied = next(iter(model.aliases.values()), None)
    if tied is not None:
        return model.tensors[tied]
    tables = [
        tensor
        for name, tensor in model.tensors.items()
        if model.roles[name].leading and len(tensor.spec.shape) == 2 and tensor.spec.shape[0] == model.vocabulary_rows
    ]
    return tables[0] if tables else None


def _said_tied(model: Model) -> bool | None:
    """What the config says of the head; None where it is silent."""
    said = [inner["tie_word_embeddings"] for _, inner in text_configs(model.config) if "tie_word_embeddings" in inner]
    return any(value is True for value in said) if said else None


def _generates(model: Model) -> bool:
    listed = model.config.get("architectures")
    return isinstance(listed, list) and any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in listed)
