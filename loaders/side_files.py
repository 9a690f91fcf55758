"""Everything that stands beside the weights: which files are copied, which are written, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.errors import InputError, Location
from ..engine.units import clean, format_names
from .chat_sources import NAMED_FOLDER, named_files
from .chat_template import chat_files
from .folder import donated_files
from .generation import Vocabulary, follow_vocabulary
from .input_files import as_json, json_of
from .special_tokens import added_tokens, special_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from .chat_template import ChatFiles

_GENERATION = "generation_config.json"
_OF_TOKENIZER = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab.*|merges\.txt|spiece\.model|sentencepiece.*\.model"
    r"|chat_template.*|tokenization.*\.py"
)
"""Files that belong to a tokenizer: all of these come from one model."""

_AT_A_TIME = 1 << 16


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What stands beside the weights. Names are relative to the output folder.

    ``copies`` are files as an input has them, ``texts`` files that are written, ``config`` is config.json. ``notes``
    are worth a warning.
    """

    copies: Mapping[str, Path]
    texts: Mapping[str, str]
    config: Mapping[str, object]
    notes: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that are copied and of those that are written, config.json aside."""
        copied = sum(path.stat().st_size for path in self.copies.values())
        # A tokenizer's text is large, and so would be a copy of it.
        starts = ((text, at) for text in self.texts.values() for at in range(0, len(text), _AT_A_TIME))
        return copied + sum(len(text[at : at + _AT_A_TIME].encode("utf-8", "backslashreplace")) for text, at in starts)


def side_files(
    models: Mapping[str, Path],
    config: Mapping[str, object],
    *,
    chat_template: str | None = None,
    where: Location | None = None,
    tokenizer: str | None = None,
    files: Mapping[str, str] | None = None,
    left_out: Collection[str] = (),
    vocabulary: Vocabulary | None = None,
) -> SideFiles:
    """Decide on everything beside the weights, from small files of the inputs; nothing is written.

    ``models`` maps references to folders, the donor first; ``config`` is the output's, but for ids of tokens.
    ``chat_template`` is the recipe's choice and ``where`` its place. ``tokenizer`` is the model that gives the
    tokenizer where that is not the donor, ``files`` the texts of those of its files that are another in the output,
    ``left_out`` those that the output must not have, and ``vocabulary`` what is known of the new tokens. Raises
    RecipeError for a wrong choice, InputError for a file that has to be changed and cannot be read.
    """
    donor = next(iter(models))
    source = tokenizer if tokenizer is not None else donor
    chat = chat_files(
        chat_template,
        where if where is not None else Location("recipe", 1, 1),
        {source: models[source]} | dict(models),
        files,
        processor=models[donor],
    )
    texts = dict(files or {}) | dict(chat.texts)
    known = vocabulary
    if known is None:  # the tokenizer's ids hold, and its own tokens matter to a new template only
        known = Vocabulary(ids=added_tokens(models[source], texts) if chat.source is not None else None)
    notes = [*chat.notes, *_missing(chat, known, models, source)]
    generation = _generation_of(models[donor], strict=known.donor_ids is not None or bool(chat.turn_ends))
    special = special_tokens(models[source], texts) if known.donor_ids is not None else {}
    made = follow_vocabulary(config, generation, known, special_tokens=special, turn_ends=chat.turn_ends)
    if made.generation is not None and made.generation != generation:
        texts[_GENERATION] = as_json(made.generation)
    gone = {*left_out, *chat.left_out, *texts}
    copies = {name: path for name, path in _copies(models[donor], models[source]).items() if name not in gone}
    return SideFiles(copies, texts, made.config, tuple(map(clean, (*notes, *made.notes))))


def _missing(chat: ChatFiles, known: Vocabulary, models: Mapping[str, Path], source: str) -> list[str]:
    """What the template writes as one token and the tokenizer does not have."""
    missing = [token for token in chat.marks if known.ids is not None and token not in known.ids]
    if not missing:
        return []
    having = [name for name in models if name != source and not set(missing) - set(added_tokens(models[name]) or ())]
    entries = ", ".join(f"'{token}': {{source: {{kind: zero}}}}" for token in missing)
    remedy = (
        f"{having[0]} has them: add them with tokenizer: {{source: union}}"
        if having
        else f"add them with tokenizer: {{source: base, tokens: {{{entries}}}}}"
    )
    return [
        f"chat_template: {chat.source}: the output's tokenizer cuts {format_names(missing)} into pieces, because it "
        f"has no such tokens; {remedy}, or choose another template"
    ]


def _generation_of(folder: Path, *, strict: bool) -> dict[str, object] | None:
    """The donor's generation_config.json. One that cannot be read is copied as it is, unless it has to be changed."""
    try:
        return json_of(folder / _GENERATION)
    except InputError:
        if strict:
            raise
        return None


def _copies(donor: Path, source: Path) -> dict[str, Path]:
    """The files that go along as they are: a tokenizer's from its model, all others from the donor."""
    found = {
        entry.name: entry
        for folder in dict.fromkeys((donor, source))
        for entry in donated_files(folder)
        if donor == source or (folder == source) == bool(_OF_TOKENIZER.fullmatch(entry.name))
    }
    return found | {f"{NAMED_FOLDER}/{path.name}": path for path in named_files(source)}
