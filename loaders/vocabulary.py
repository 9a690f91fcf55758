"""The output's tokenizer: which vocabulary the recipe asks for, whose rows it is made of, which files change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .config_keys import configs, is_count, part_of
from .tokenizer_file import TOKENIZER_FILE, ModelTokenizer, named_tokens, read_tokenizer
from .tokenizer_files import changed_files
from .tokenizer_model import takes_up
from .tokenizer_union import Vocabularied, tokens_of
from .vocabulary_rows import is_plain, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.model import Model
    from ..engine.recipe import ModelRef, Recipe
    from ..engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class OutputTokenizer:
    """What the output's tokenizer is made of.

    ``vocabulary`` is None where every model's rows are in the output's order already. Tokenizer files are copied from
    ``source``'s folder, except those in ``left_out`` and those in ``files`` (name to text), which are written instead.
    ``notes`` are lines for the log. ``token_ids`` has every token of the output, and is empty where the recipe says
    nothing about tokenizers; ``donor_ids`` gives for each special or added token of the donor its id there and now
    (None: the output lacks it). ``digest`` names everything that decides on the output's tokenizer.
    """

    vocabulary: Vocabulary | None
    source: ModelRef
    files: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    token_ids: Mapping[str, int] = field(default_factory=dict, repr=False)
    donor_ids: Mapping[int, int | None] = field(default_factory=dict, repr=False)

    @property
    def digest(self) -> str:
        """Names the rows' assignment and the contents of the files that are written."""
        found = hashlib.sha256(f"{self.source} {sorted(self.left_out)}".encode())
        found.update((self.vocabulary.digest if self.vocabulary is not None else "").encode())
        for name, text in sorted(self.files.items()):
            found.update(f"{name} {len(text)} ".encode())
            found.update(text.encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def output_tokenizer(recipe: Recipe, models: Mapping[ModelRef, Model]) -> OutputTokenizer:
    """Work out the output's tokenizer; without a block in the recipe, that of the donor as it is.

    ``models`` are the inputs and those that only the block names. Raises InputError, naming the file, if a tokenizer
    cannot be read or is none.
    """
    block, merged = recipe.tokenizer, recipe.references()
    donor = merged[0]
    if block is None:
        return OutputTokenizer(None, donor)
    source = donor if isinstance(block.source, str) else block.source
    opened = {ref: models[ref] for ref in (*merged, *recipe.tokenizer_references())}
    known, document, notes = _tokenizers(opened, source)
    others = [known[ref] for ref in merged if ref != source] if block.source == "union" else []
    tokens = tokens_of(known[source], others, block.tokens, takes_up(document, known[source].tokenizer.path))
    vocabulary, row_notes = vocabulary_of(
        tokens.ids,
        known,
        merged=merged,
        base=recipe.base_model,
        source=source,
        rows_of=block.tokens,
        pad_to_multiple_of=block.pad_to_multiple_of,
    )
    is_as_it_was = is_plain(vocabulary, known)
    donated, own = known[donor].tokenizer, known[source].tokenizer
    special = {*donated.added, *named_tokens(donated.settings, donated.special)} & donated.ids.keys()
    del known, others  # the files take as much memory again
    changes = changed_files(own, document, tokens)
    return OutputTokenizer(
        None if is_as_it_was else vocabulary,
        source,
        changes.files,
        changes.left_out,
        (*notes, *tokens.notes, *row_notes),
        tokens.ids,
        {donated.ids[token]: tokens.ids.get(token) for token in sorted(special, key=donated.ids.__getitem__)},
    )


def _tokenizers(
    models: Mapping[ModelRef, Model], source: ModelRef
) -> tuple[dict[ModelRef, Vocabularied], dict[str, object], tuple[str, ...]]:
    """Each model's tokenizer with the number of its rows; one that has none is taken to have the source's.

    Also the source's tokenizer.json, and lines for the log.
    """
    read: dict[ModelRef, ModelTokenizer | None] = {}
    # The source comes last, so that its file is the one that is left.
    for ref in sorted(models, key=lambda ref: ref == source):
        document = {}  # let go of one before the next is read
        read[ref], document = read_tokenizer(Path(models[ref].folder), merges=ref == source) or (None, {})
    first = read[source]
    if first is None:
        raise InputError(f"{models[source].folder}: has no {TOKENIZER_FILE}, which 'tokenizer' in the recipe needs")
    found: dict[ModelRef, Vocabularied] = {}
    notes = []
    for ref, model in models.items():
        tokenizer = read[ref]
        if tokenizer is None:
            notes.append(f"{ref}: has no {TOKENIZER_FILE}; its tokens are taken to be those of {source}")
            tokenizer = first
        found[ref] = Vocabularied(str(ref), tokenizer, _rows(model, tokenizer))
    return found, document, tuple(notes)


def _rows(model: Model, tokenizer: ModelTokenizer) -> int:
    """Rows of a model's embedding: as stored, else as its config says, else as many as there are ids."""
    if model.vocabulary_rows is not None:
        return model.vocabulary_rows
    sizes = [
        size
        for path, inner in configs(model.config)
        if part_of(".".join(path)) in ("", "text") and is_count(size := inner.get("vocab_size"))
    ]
    return sizes[0] if sizes else max(tokenizer.ids.values(), default=-1) + 1
