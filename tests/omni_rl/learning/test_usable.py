"""Records that cannot be asked are found before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core_rl.config import OnBadRecord
from omni_rl.data.record import Record
from omni_rl.learning.usable import askable
from omni_rl.policy.prompts import PromptBuilder
from tests.omni_rl.clips import clip_file, sound_file

SKIP, ERROR = OnBadRecord.skip, OnBadRecord.error


def record(name: str, **fields: object) -> Record:
    plain = Record(
        id=name,
        source="real",
        problem="What is seen?",
        problem_type="free-form",
        options=(),
        answer="a square",
        solution="",
        data_type="video",
        videos=(),
        images=(),
        audios=(),
        origin=f"real.jsonl:{name}",
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


@pytest.fixture
def mixed(tmp_path: Path) -> list[Record]:
    """A good clip, one that is too long, one that is damaged, and a sound without a token."""
    good = clip_file(tmp_path / "good.mp4")
    long = clip_file(tmp_path / "long.mp4", frames=400)
    cut = clip_file(tmp_path / "cut.mp4")
    cut.write_bytes(cut.read_bytes()[:900])
    short = sound_file(tmp_path / "short.wav", seconds=0.001)
    return [
        record("good", videos=(good,)),
        record("long", videos=(long,)),
        record("cut", videos=(cut,)),
        record("short", audios=(short,)),
        record("good", videos=(good,)),  # drawn twice
    ]


def test_each_bad_record_is_named_and_left_out(
    fresh_policy, mixed: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder = fresh_policy().builder
    builder.config = replace(builder.config, max_prompt=600)
    kept = askable(builder, mixed, SKIP, tmp_path)
    assert [one.id for one in kept] == ["good", "good"]
    for name, words in (
        ("long", "above max_prompt=600"),
        ("cut", "cut.mp4"),
        ("short", "holds no sound"),
    ):
        assert any(name in line and words in line for line in caplog.messages)
    with pytest.raises(ValueError, match=r"record 'long'.*above max_prompt"):
        askable(builder, mixed, ERROR, tmp_path)


def test_what_was_found_is_kept_until_a_file_or_a_setting_changes(
    fresh_policy, mixed: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = fresh_policy().builder
    tried: list[str] = []
    build = PromptBuilder.__call__

    def counted(self: PromptBuilder, records: list[Record]) -> object:
        tried.extend(one.id for one in records)
        return build(self, records)

    monkeypatch.setattr(PromptBuilder, "__call__", counted)
    askable(builder, mixed, SKIP, tmp_path)
    assert sorted(tried) == ["cut", "good", "long", "short"]
    askable(builder, mixed, SKIP, tmp_path)
    assert len(tried) == 4
    clip_file(mixed[2].videos[0])  # mended
    assert "cut" in [one.id for one in askable(builder, mixed, SKIP, tmp_path)]
    assert tried[4:] == ["cut"]
    builder.config = replace(builder.config, max_prompt=builder.config.max_prompt - 1)
    askable(builder, mixed, SKIP, tmp_path)
    assert len(tried) == 9
