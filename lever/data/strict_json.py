"""Read JSON strictly: an error names the file, the record, the field, its value and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from core_rl.config import is_number

Value = TypeVar("Value")


def load_json(path: Path, what: str) -> object:
    """Read a JSON file whose objects name no key twice; `what` it should be is for the message.

    A byte order mark at its start, as editors on Windows write one, is left out.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not JSON, or an object names a key twice (all but the last would be lost).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of {what}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
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
    """An object of a JSON file and its place in it; null counts as missing.

    Every method that reads a field raises ValueError where the field is missing or not as asked.

    Args:
        where: "file#3" or "file: query 7", for messages.
        value: the object.
    """

    def __init__(self, where: str, value: object) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
        self._value = value

    @property
    def names(self) -> list[str]:
        return list(self._value)

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._value.get(name) is not None

    def is_text(self, name: str) -> bool:
        """Whether a field holds a text."""
        return isinstance(self._value.get(name), str)

    def is_empty(self, name: str) -> bool:
        """Whether a field holds an empty list."""
        return self._value.get(name) == []

    def wrong(self, name: str, expected: str) -> ValueError:
        """Return the error for a field that is not as expected."""
        return ValueError(f"{self.where}: {name}={self._value.get(name)!r}: expected {expected}")

    def text(self, name: str, default: str | None = None) -> str:
        """Read a text; `default`, where given, stands for a missing one."""
        if default is not None and not self.has(name):
            return default
        return self._read(name, _is_text, "a text")

    def integer(self, name: str) -> int:
        return self._read(name, _is_integer, "a whole number")

    def flag(self, name: str) -> bool:
        """Read true, false, 1 or 0."""
        return bool(self._read(name, _is_flag, "true or false, or 1 or 0"))

    def number(self, name: str) -> float:
        return float(self._read(name, is_number, "a finite number"))

    def items(self, name: str) -> list[object]:
        return self._read(name, _is_filled, "a list that is not empty")

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

    def _read(self, name: str, fits: Callable[[object], TypeGuard[Value]], expected: str) -> Value:
        value = self._value.get(name)
        if not fits(value):
            raise self.wrong(name, expected)
        return value


def integers(where: str, name: str, value: object) -> tuple[int, ...]:
    """Check a list of whole numbers."""
    if not isinstance(value, list) or not all(map(_is_integer, value)):
        raise ValueError(f"{where}: {name}={value!r}: expected a list of whole numbers")
    return tuple(value)


def numbers(where: str, name: str, value: object) -> tuple[float, ...]:
    """Check a list of finite numbers."""
    if not isinstance(value, list) or not all(map(is_number, value)):
        raise ValueError(f"{where}: {name}={value!r}: expected a list of finite numbers")
    return tuple(map(float, value))


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value in (0, 1)


def _is_filled(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list) and bool(value)
