"""Layer stacks, embeddings and heads, inferred from tensor names and config.json: no table of model families."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING

from ..engine.model import Stack, TensorRole
from .config_keys import LayerCount, configs, is_count, layer_counts, part_of, stack_word, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..engine.model import StoredTensor

_NUMBERED = re.compile(r"\.(0|[1-9][0-9]{0,5})\.")

_EMBEDDING_WORDS = frozenset(
    {"embed", "embeds", "embedding", "embeddings", "embedder", "emb", "wte", "wpe", "wtt", "rotary", "rope", "shared"}
)
_EMBEDDING_MODULES = frozenset({"cls_token", "class_token", "mask_token", "project_in"})
_PRE_NORM = re.compile(r"^(ln_pre|norm_pre|pre_?la?ye?r_?norm)$")
_OUTPUT_WORDS = frozenset({"out", "output", "head", "heads", "unembed", "unembedding", "classifier"})
_OUTPUT_MODULES = (["output"], ["output_layer"], ["lm_head"])
_NOT_TOKENS = frozenset(
    # Embeddings of something else than tokens; a table of positions can have more rows than the vocabulary.
    {"pos", "position", "positions", "positional", "wpe", "type", "types", "segment", "patch", "rotary", "rope", "time"}
    | {"per", "proj", "project", "projection", "mapping", "norm", "layernorm", "relative", "cls", "class", "mask"}
)
_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_HEADLESS = re.compile(r"(?<!LMHead)(?<!Chat)Model$|Encoder$|Classification$|QuestionAnswering$")
_WHOLE_LAYERS = frozenset({"layers", "layer", "blocks", "block", "h"})
_ROOTS = frozenset({"model", "transformer", "gpt_neox", "backbone", "decoder", "encoder"})


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a model is built, as engine.model.Model wants it; ``order`` is every tensor in the model's order."""

    stacks: Mapping[str, Stack]
    primary: str | None
    roles: Mapping[str, TensorRole]
    order: tuple[StoredTensor, ...]
    aliases: Mapping[str, str]
    vocabulary_rows: int | None


@dataclass(slots=True)
class _Group:
    """Tensors that share what stands before their first number; a stack if the numbers and names say so."""

    prefix: str
    layers: dict[int, list[tuple[StoredTensor, str]]] = field(default_factory=dict)
    size_bytes: int = 0
    has_modules: bool = False

    @property
    def count(self) -> int:
        return max(self.layers) + 1

    @property
    def contiguous(self) -> bool:
        return len(self.layers) == self.count


def infer_architecture(tensors: Sequence[StoredTensor], config: Mapping[str, object]) -> Architecture:
    """Find stacks, roles, order, tied head and vocabulary of a model from its names and its config.

    ``tensors`` is in the order of the files. The outermost numbered segment of a name is the layer, so experts
    inside a layer are no layers. Pure: nothing is read.
    """
    counts = layer_counts(config)
    groups = _stacks(_grouped(tensors), counts)
    primary = _primary(groups, counts)
    stacks = {
        group.prefix: Stack(
            group.prefix,
            group.count,
            tuple(dict.fromkeys(suffix for layer in sorted(group.layers) for _, suffix in group.layers[layer])),
            primary.prefix if primary is not None and _is_part_of(group, primary) else None,
        )
        for group in groups
    }
    roles: dict[str, TensorRole] = {}
    stacked: list[StoredTensor] = []
    for group in groups:
        for layer in sorted(group.layers):
            for tensor, suffix in group.layers[layer]:
                roles[tensor.name] = TensorRole(group.prefix, layer, suffix)
                stacked.append(tensor)
    outside = [tensor for tensor in tensors if tensor.name not in roles]
    leading = [tensor for tensor in outside if is_leading(tensor.name)]
    before = frozenset(tensor.name for tensor in leading)
    trailing = [tensor for tensor in outside if tensor.name not in before]
    layers = primary.count if primary is not None else 0
    widths = _part_widths(config)
    for tensor in outside:
        per_layer = _is_per_layer(tensor, layers)
        axes = [
            axis for axis, size in enumerate(tensor.spec.shape) if per_layer and size in {layers * w for w in widths}
        ]
        axis = axes[0] if len(axes) == 1 else None
        roles[tensor.name] = TensorRole(leading=tensor.name in before, per_layer=per_layer, part_axis=axis)
    order = (*leading, *stacked, *trailing)
    embedding = _input_embedding(leading, config)
    return Architecture(
        stacks=stacks,
        primary=primary.prefix if primary is not None else None,
        roles={tensor.name: roles[tensor.name] for tensor in order},
        order=order,
        aliases=_aliases(embedding, trailing, stacks, config),
        vocabulary_rows=embedding.spec.shape[0] if embedding is not None else None,
    )


def is_leading(name: str) -> bool:
    """Whether a tensor outside the stacks is an input embedding or belongs to one; a head or a final norm does not."""
    modules = name.split(".")
    words = frozenset(words_of(name))
    if words & _OUTPUT_WORDS:
        return False
    if words & (_EMBEDDING_WORDS - {"shared"}) or "shared" in modules:
        return True
    return any(module in _EMBEDDING_MODULES or _PRE_NORM.match(module) for module in modules)


def _grouped(tensors: Iterable[StoredTensor]) -> list[_Group]:
    """Group tensors by what stands before the first numbered segment, in first-seen order."""
    groups: dict[str, _Group] = {}
    for tensor in tensors:
        match = _NUMBERED.search(tensor.name, 1)
        if match is None:
            continue
        prefix = tensor.name[: match.start()]
        group = groups.get(prefix)
        if group is None:
            group = groups[prefix] = _Group(intern(prefix))
        suffix = intern(tensor.name[match.end() :])
        group.layers.setdefault(int(match[1]), []).append((tensor, suffix))
        group.size_bytes += tensor.size_bytes
        group.has_modules = group.has_modules or "." in suffix
    return list(groups.values())


def _stacks(groups: Sequence[_Group], counts: Sequence[LayerCount]) -> list[_Group]:
    """Those groups that are stacks of layers.

    A layer is made of modules: ``heads.0.weight`` and ``projector.2.weight`` are single modules in a list. Where the
    config names their number, or where there is nothing better, one layer or layers of one module will do.
    """
    named = {value for count in counts for value in (count.count, count.count + count.extra, count.extra)}
    found = [group for group in groups if _is_stack(group, named=group.count in named)]
    if not found:
        found = [group for group in groups if group.contiguous and group.has_modules]
    if not found:
        found = [
            group
            for group in groups
            if group.contiguous and (group.count > 1 or 1 in named) and not _is_list_of_tables(group.prefix)
        ]
    return found


def _is_stack(group: _Group, *, named: bool) -> bool:
    if not group.contiguous:
        # Layers without any tensor exist (pruned ones that only pass on); a Sequential has more gaps than that.
        present = len(group.layers)
        return named and group.has_modules and present >= 4 and 4 * present >= 3 * group.count
    if group.has_modules:
        return named or group.count > 1
    return named and group.count > 1 and not _is_list_of_tables(group.prefix)


def _is_list_of_tables(prefix: str) -> bool:
    """Whether numbered modules are embeddings or heads, one a codebook, rather than layers."""
    words = {word.removesuffix("s") for word in words_of(prefix.rpartition(".")[2])}
    return bool(words & (_EMBEDDING_WORDS | _OUTPUT_WORDS))


def _primary(groups: Sequence[_Group], counts: Sequence[LayerCount]) -> _Group | None:
    """The stack that the config counts, as text or as the whole model.

    Then text, no eye or ear, and what is called layers; then what has most bytes.
    """
    ranks: dict[int, int] = {}
    for count in counts:
        rank = 2 if count.part == "text" else 1 if not count.path else 0
        for layers in (count.count, count.count + count.extra):
            ranks[layers] = max(ranks.get(layers, 0), rank)

    def preference(group: _Group) -> tuple[int, bool, bool, bool, bool, bool, int]:
        part = part_of(group.prefix)
        is_decoder = stack_word(group.prefix) != "encoder"
        whole = group.prefix.rpartition(".")[2] in _WHOLE_LAYERS
        likely = part in ("", "text"), group.has_modules, part == "text"
        return ranks.get(group.count, 0), *likely, is_decoder, whole, group.size_bytes

    return max(groups, key=preference, default=None)


def _is_part_of(group: _Group, primary: _Group) -> bool:
    """Whether a list of modules holds parts of the primary stack's layers: it stands beside it and is as long."""
    whole = group.prefix.rpartition(".")[2] in _WHOLE_LAYERS
    if group is primary or whole or group.count != primary.count:
        return False
    beside = group.prefix.rpartition(".")[0] == primary.prefix.rpartition(".")[0]
    return (
        beside
        and part_of(group.prefix) == part_of(primary.prefix)
        and stack_word(group.prefix) == stack_word(primary.prefix)
    )


def _is_per_layer(tensor: StoredTensor, layers: int) -> bool:
    """Whether a tensor outside the stacks has a part for every layer, as ``embed_tokens_per_layer`` has."""
    sizes = tensor.spec.shape if "per_layer" in tensor.name else ()
    return len(sizes) == 2 and layers > 1 and any(size % layers == 0 for size in sizes)


def _part_widths(config: Mapping[str, object]) -> set[int]:
    """What the config says of the size of a layer's part, as ``hidden_size_per_layer_input`` does."""
    return {
        value
        for _, inner in configs(config)
        for key, value in inner.items()
        if "per_layer" in key and "vocab" not in key and is_count(value)
    }


def _input_embedding(leading: Sequence[StoredTensor], config: Mapping[str, object]) -> StoredTensor | None:
    """The table of token embeddings: two-dimensional, of the text, as many rows as the config says, or the most."""
    tables = [
        tensor
        for tensor in leading
        if len(tensor.spec.shape) == 2 and not frozenset(words_of(tensor.name)) & _NOT_TOKENS
    ]
    sizes = {size for _, inner in configs(config) if is_count(size := inner.get("vocab_size"))}

    def preference(tensor: StoredTensor) -> tuple[bool, bool, int]:
        rows = tensor.spec.shape[0]
        return part_of(tensor.name) in ("", "text"), rows in sizes, rows

    return max(tables, key=preference, default=None)


def _aliases(
    embedding: StoredTensor | None,
    trailing: Sequence[StoredTensor],
    stacks: Iterable[str],
    config: Mapping[str, object],
) -> dict[str, str]:
    """What is not stored because it is the input embedding: the output head, and an encoder's and decoder's own."""
    if embedding is None:
        return {}
    aliases: dict[str, str] = {}
    before, _, rest = embedding.name.rpartition("shared")
    if rest == ".weight":
        sides = {side for side in ("encoder", "decoder") if any(stack.startswith(before + side) for stack in stacks)}
        aliases = {f"{before}{side}.embed_tokens.weight": embedding.name for side in sorted(sides)}
    if _is_tied(config) and not any(_is_head(tensor, embedding) for tensor in trailing):
        aliases[_head_name(embedding, trailing)] = embedding.name
    return aliases


def _is_head(tensor: StoredTensor, embedding: StoredTensor) -> bool:
    """Whether a trailing tensor is an output head: shaped like the embedding, or so named with other rows."""
    if tensor.spec.shape == embedding.spec.shape:
        return True
    return len(tensor.spec.shape) == 2 and tensor.name.split(".")[-2:-1] in _OUTPUT_MODULES


def _is_tied(config: Mapping[str, object]) -> bool:
    """Whether the head is the input embedding.

    Silence means yes for a model that generates text: the key is left out where it has the library's default,
    which is true, and a head that is neither stored nor tied would be random. A model that by its name has no head
    has nothing to tie, whatever the config says.
    """
    listed = config.get("architectures")
    architectures = [str(name) for name in listed] if isinstance(listed, list) else []
    if architectures and all(_HEADLESS.search(name) for name in architectures):
        return False
    said = [inner["tie_word_embeddings"] for _, inner in configs(config) if "tie_word_embeddings" in inner]
    if said:
        return any(value is True for value in said)
    return any(name.endswith(_GENERATING) for name in architectures)


def _head_name(embedding: StoredTensor, trailing: Sequence[StoredTensor]) -> str:
    """What the head is called: as its bias is; else mostly ``lm_head``, beside what holds embeddings and layers."""
    biases = [
        tensor.name
        for tensor in trailing
        if tensor.name.endswith(".bias") and tensor.spec.shape == embedding.spec.shape[:1]
    ]
    if biases:
        return max(biases, key=len).removesuffix("bias") + "weight"
    modules = embedding.name.split(".")[:-1]
    if modules[-1] == "embed_in":
        return "embed_out.weight"
    if modules == ["tok_embeddings"]:
        return "output.weight"
    root = next((at for at, module in enumerate(modules) if module in _ROOTS), 0)
    return ".".join([*modules[:root], "lm_head", "weight"])
