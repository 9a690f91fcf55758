"""Where models keep their chat templates.

In ``chat_template.jinja``, in ``chat_template.json``, or under a key of ``tokenizer_config.json`` or
``processor_config.json``, there as one text or as a list of named ones; further named ones are files of
``additional_chat_templates``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import as_json, json_of, read_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TEMPLATE_FILE = "chat_template.jinja"
LEGACY_FILE = "chat_template.json"
NAMED_FOLDER = "additional_chat_templates"

TOKENIZER_FILE = "tokenizer_config.json"
PROCESSOR_FILE = "processor_config.json"

_WITH_KEY = (TOKENIZER_FILE, PROCESSOR_FILE, LEGACY_FILE)
"""Files that may have a template under a key. A processor's goes before a tokenizer's: it knows images, too."""

_KEY = "chat_template"
_TEMPLATE_BYTES = 1_000_000
_MOST_NAMED = 100
_MOST_NAME_LETTERS = 100


@dataclass(frozen=True, slots=True)
class Templates:
    """A model's own chat templates: the default one, None without, and others by name."""

    default: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)


def templates_of(folder: Path, files: Mapping[str, str] | None = None) -> Templates:
    """The chat templates of a model folder; ``files`` go before its own. What cannot be read is no template."""
    found: dict[str, str] = {}
    for name in _WITH_KEY:
        try:
            found |= _entries((json_of(folder / name, files) or {}).get(_KEY))
        except InputError:
            continue
    for path in named_files(folder):
        found |= _entry(path.stem, path)
    found |= _entry("default", folder / TEMPLATE_FILE)
    if files is not None and TEMPLATE_FILE in files:
        found["default"] = files[TEMPLATE_FILE]
    default = found.pop("default", None)
    return Templates(default or None, dict(sorted(found.items())[:_MOST_NAMED]))


def named_files(folder: Path) -> list[Path]:
    """The files with a model's named templates."""
    inner = folder / NAMED_FOLDER
    found = inner.glob("*.jinja") if inner.is_dir() else ()
    return sorted(path for path in found if path.is_file() and _is_name(path.stem))[:_MOST_NAMED]


def without_template(paths: Iterable[Path], files: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those files that have a template under a key, without that key; by name. Raises InputError."""
    found: dict[str, str] = {}
    for path in paths:
        value = json_of(path, files)
        if value is not None and _KEY in value:
            found[path.name] = as_json({key: each for key, each in value.items() if key != _KEY})
    return found


def _entries(value: object) -> dict[str, str]:
    """The templates under a key: one text, a list of named ones, or a mapping of them."""
    if isinstance(value, str):
        return {"default": value}
    pairs: list[tuple[object, object]] = []
    if isinstance(value, list):
        pairs = [(each.get("name"), each.get("template")) for each in value if isinstance(each, dict)]
    elif isinstance(value, dict):
        pairs = list(value.items())
    return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str) and _is_name(name)}


def _is_name(name: str) -> bool:
    """Whether a template of that name may be a file of that name, on any system."""
    letters = name.replace("_", "").replace("-", "")
    return letters.isascii() and letters.isalnum() and len(name) <= _MOST_NAME_LETTERS


def _entry(name: str, path: Path) -> dict[str, str]:
    """A file that is a template, under a name; nothing where it cannot be read."""
    try:
        data = read_start(path, _TEMPLATE_BYTES + 1)
        return {name: data.decode()} if len(data) <= _TEMPLATE_BYTES else {}
    except (InputError, UnicodeDecodeError):
        return {}
