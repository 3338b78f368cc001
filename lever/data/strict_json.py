"""JSON read strictly: every complaint names file, entry, field, value and what was expected."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard


def load_json(path: Path, what: str) -> Any:
    """Read a JSON file whose objects name no key twice.

    Args:
        path: the file.
        what: what the file should be, for the message; "an official VQA file", say.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not JSON, or an object names a key twice (all but the last would be lost).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of {what}")
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    except _RepeatedKeyError as error:
        raise ValueError(f"{path}: key {error} occurs twice in one object") from error


class _RepeatedKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(repr(key) for key in keys if keys.count(key) > 1))
    return entry


class Row:
    """An object of a JSON file that knows where it stands.

    Every reader of a field raises ValueError where the field is missing or not as asked.

    Args:
        where: "file#3" or "file: query 7", for messages.
        value: the object.
    """

    def __init__(self, where: str, value: Any) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
        self._value: Mapping[str, Any] = value

    def has(self, name: str) -> bool:
        """Tell whether a field is there and not null."""
        return self._value.get(name) is not None

    def wrong(self, name: str, expected: str) -> ValueError:
        """Make the error for a field that is not as expected."""
        return ValueError(f"{self.where}: {name}={self._value.get(name)!r}: expected {expected}")

    @property
    def names(self) -> list[str]:
        return list(self._value)

    def text(self, name: str, default: str | None = None) -> str:
        """Read a text; `default`, where given, stands for a missing one."""
        if default is not None and not self.has(name):
            return default
        value = self._value.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def integer(self, name: str) -> int:
        value = self._value.get(name)
        if not _is_integer(value):
            raise self.wrong(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Read true, false, 1 or 0."""
        value = self._value.get(name)
        if not isinstance(value, int) or value not in (0, 1):
            raise self.wrong(name, "true or false, or 1 or 0")
        return bool(value)

    def number(self, name: str) -> float:
        """Read a finite number."""
        value = self._value.get(name)
        if not _is_number(value):
            raise self.wrong(name, "a finite number")
        return float(value)

    def items(self, name: str) -> list[Any]:
        """Read a list that is not empty."""
        value = self._value.get(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "a list that is not empty")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        return integers(self.where, name, self.items(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        return numbers(self.where, name, self.items(name))

    def row(self, name: str, where: str = "") -> Row:
        """Read an object; `where`, if given, names it in messages."""
        return Row(where or f"{self.where}, {name}", self._value.get(name))

    def rows(self, name: str) -> list[Row]:
        """Read a list of objects that is not empty."""
        items = enumerate(self.items(name))
        return [Row(f"{self.where}, {name}[{i}]", item) for i, item in items]


def integers(where: str, name: str, value: Any) -> tuple[int, ...]:
    """Check a list of whole numbers."""
    if not isinstance(value, list) or not all(map(_is_integer, value)):
        raise ValueError(f"{where}: {name}={value!r}: expected a list of whole numbers")
    return tuple(value)


def numbers(where: str, name: str, value: Any) -> tuple[float, ...]:
    """Check a list of finite numbers."""
    if not isinstance(value, list) or not all(map(_is_number, value)):
        raise ValueError(f"{where}: {name}={value!r}: expected a list of finite numbers")
    return tuple(map(float, value))


def _is_integer(value: Any) -> TypeGuard[int]:
    # bool is an int to Python and not to anyone else.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)
