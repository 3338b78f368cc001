from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from core_rl.fingerprint import fingerprint


class Kind(Enum):
    one = 1
    two = 2


@dataclass
class Settings:
    lr: float = 0.1
    kind: Kind = Kind.one


def test_a_fingerprint_follows_its_parts_and_nothing_else() -> None:
    same = fingerprint(Settings(), {"b": 1, "a": Path("x")})
    assert fingerprint(Settings(), {"a": Path("x"), "b": 1}) == same
    others = [
        fingerprint(Settings(lr=0.2), {"b": 1, "a": Path("x")}),
        fingerprint(Settings(kind=Kind.two), {"b": 1, "a": Path("x")}),
        fingerprint({"b": 1, "a": Path("x")}, Settings()),
        fingerprint(Settings(), {"b": 1, "a": Path("x")}, 1),
    ]
    assert len({same, *others}) == 5
