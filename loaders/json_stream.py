"""A JSON file that is too large to be parsed in one go: its parts one after the other, from a short piece of text.

What is small is parsed by Python's own parser; only what does not fit the piece is taken apart. A vocabulary of a
million tokens can so be gone through in a few megabytes.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from typing import TYPE_CHECKING

from ..engine.errors import InputError
from .input_files import JSON_LEVELS, open_input, too_deep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

PIECE_BYTES = 1 << 18
"""What is read at a time, and what is parsed in one go at most, about."""

MOST_TEXT = 1 << 24
"""Characters that one value without parts may have; normalisation rules take some 400 000."""

_SPACE = re.compile(r"[ \t\n\r]*")
_MARK = re.compile(r"[ \t\n\r]*(.?)[ \t\n\r]*", re.DOTALL)


class JsonStream:
    """A JSON file as a ``with`` block; every method raises InputError, with line and column, where it is none.

    ``items`` goes through the object or array that comes next, ``value`` parses what comes next, ``skip`` passes over
    it; whoever asks for ``items`` takes each value with one of the three before the next.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._file = open_input(path)
        if os.fstat(self._file.fileno()).st_size > limit_bytes:
            self._file.close()
            raise InputError(f"{path}: larger than {limit_bytes // 1_000_000} MB")
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0
        self._lines_gone = self._columns_gone = self._level = 0
        self._ended = False

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def kind(self) -> str:
        """The first character of what comes next: ``{`` of an object, ``[`` of an array, ``"`` of a text."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches anywhere
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                raise self._wrong("Expecting value", self._at)

    def end(self) -> None:
        """Have the file end here."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                raise self._wrong("Extra data", self._at)
            if not self._read():
                return

    def items(self) -> Iterator[str | None]:
        """The keys of the object that comes next, or None for each value of an array."""
        is_object = self.kind == "{"
        closing = "}" if is_object else "]"
        self._enter()
        if self.kind == closing:
            self._leave()
            return
        while True:
            yield self._key() if is_object else None
            mark = self.kind
            if mark == closing:
                self._leave()
                return
            if mark != ",":
                raise self._wrong("Expecting ',' delimiter", self._at)
            self._at += 1

    def batches(self) -> Iterator[dict[str, object] | list[object]]:
        """The members of the object or array that comes next, parsed, some at a time."""
        return self._batches(kept=True)

    def value(self) -> object:
        """Parse what comes next."""
        kind = self.kind
        while True:
            try:
                found, end = self._parse(self._text, self._at)
                # The rest of a number may not have been read yet.
                if kind in '{["' or self._ended or (end < len(self._text) and self._text[end] not in ".eE"):
                    self._at = end
                    return found
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._wrong(error.msg, error.pos) from error
                held = len(self._text) - self._at
                if kind in "{[" and held >= PIECE_BYTES:
                    return self._large(kind)
                if held > MOST_TEXT:
                    raise self._wrong("a value is too long", self._at) from error
            except RecursionError as error:
                raise too_deep(self._path) from error
            except ValueError as error:
                raise InputError(f"{self._path}: not JSON: {error}") from error
            self._read()

    def skip(self) -> None:
        """Pass over what comes next."""
        if self.kind not in "{[":
            self.value()
            return
        for _ in self._batches(kept=False):
            pass

    def _batches(self, *, kept: bool) -> Iterator[dict[str, object] | list[object]]:
        """See ``batches``; what is not kept and does not fit the text is passed over."""
        is_object = self.kind == "{"
        closing = "}" if is_object else "]"
        self._enter()
        if self.kind == closing:
            self._leave()
            return
        goes_on = True
        while goes_on:
            keys, values, goes_on = self._some(closing)
            if not values:  # not even one fits
                keys = [self._key()] if is_object else []
                if kept:
                    values = [self.value()]
                else:
                    self.skip()
                    values = [None]
                goes_on = self.kind == ","
                if not goes_on and self.kind != closing:
                    raise self._wrong("Expecting ',' delimiter", self._at)
                self._at += goes_on
            yield dict(zip(keys, values, strict=True)) if is_object else values
        self._leave()

    def _large(self, kind: str) -> object:
        if kind == "{":
            members: dict[str, object] = {}
            for batch in self.batches():
                assert isinstance(batch, dict)
                members.update(batch)
            return members
        values: list[object] = []
        for batch in self.batches():
            values.extend(batch)
        return values

    def _some(self, closing: str) -> tuple[list[str], list[object], bool]:
        """Members that are in the text as a whole, and whether another follows; none where not even the first is."""
        if len(self._text) - self._at < PIECE_BYTES // 2:
            self._read()
        text, parse, mark = self._text, self._parse, _MARK.match
        at = _SPACE.match(text, self._at).end()  # type: ignore[union-attr]
        keys: list[str] = []
        values: list[object] = []
        key = ""
        try:
            while True:
                if closing == "}":
                    key, end = parse(text, at)
                    found = mark(text, end)
                    if type(key) is not str or found is None or found[1] != ":":
                        break
                    at = found.end()
                value, end = parse(text, at)
                found = mark(text, end)
                if found is None or (found[1] != "," and found[1] != closing):
                    break
                if closing == "}":
                    keys.append(key)
                values.append(value)
                if found[1] == closing:
                    self._at = found.start(1)
                    return keys, values, False
                self._at = at = found.end()
        except json.JSONDecodeError:  # cut off by the end of the text, or wrong: whoever looks again will see
            pass
        except RecursionError as error:
            raise too_deep(self._path) from error
        except ValueError as error:
            raise InputError(f"{self._path}: not JSON: {error}") from error
        return keys, values, True

    def _key(self) -> str:
        at = self._at
        if self.kind != '"':
            raise self._wrong("Expecting property name enclosed in double quotes", self._at)
        key = self.value()
        assert isinstance(key, str)
        if self.kind != ":":
            raise self._wrong("Expecting ':' delimiter", at)
        self._at += 1
        return key

    def _enter(self) -> None:
        if self.kind not in "{[":
            raise self._wrong("Expecting an object or an array", self._at)
        self._at += 1
        self._level += 1
        if self._level > JSON_LEVELS:
            raise too_deep(self._path)

    def _leave(self) -> None:
        self._at += 1
        self._level -= 1

    def _read(self) -> bool:
        """Let go of the text that was used, and read more; False at the end."""
        if self._ended:
            return False
        try:
            data = self._file.read(PIECE_BYTES)
            more = self._decoder.decode(data, final=not data)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path}: not JSON: {error}") from error
        lines = self._text.count("\n", 0, self._at)
        if lines:
            self._columns_gone = self._at - self._text.rfind("\n", 0, self._at) - 1
        else:
            self._columns_gone += self._at
        self._lines_gone += lines
        self._text, self._at = self._text[self._at :] + more, 0
        self._ended = not data
        return not self._ended

    def _wrong(self, what: str, at: int) -> InputError:
        lines = self._text.count("\n", 0, at)
        column = at - self._text.rfind("\n", 0, at) - 1 if lines else self._columns_gone + at
        return InputError(f"{self._path}:{self._lines_gone + lines + 1}:{column + 1}: not JSON: {what}")
