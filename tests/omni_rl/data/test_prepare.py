"""Official downloads in their published layouts, made into a folder that a run reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core_rl.config import OnBadRecord
from omni_rl.config import SourceConfig
from omni_rl.data.prepare import prepare
from omni_rl.data.record_files import read_records
from omni_rl.data.sources import read_source
from tests.omni_rl.data.test_converters import EMER_REWRITTEN, SOCIAL, VIDEO_R1

SKIP = OnBadRecord.skip


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def social_iq(raw: Path) -> None:
    """One object a line under a .json name, in `siq2/qa`; 20 clips with two questions each."""
    rows = []
    for clip in range(20):
        touched(raw / "siq2" / "video" / f"clip{clip}.mp4")
        for number in range(2):
            row = SOCIAL | {"vid_name": f"clip{clip}", "qid": f"clip{clip}_q{number}"}
            rows.append(row | {"q": f"Why does she smile at {number}?"})
    # A qid of two different questions, the right text under two letters, and a lost clip.
    rows.append(rows[0] | {"q": "How does he answer?"})
    rows[1] |= {"a3": "She is proud"}
    rows.append(rows[0] | {"qid": "gone_q0", "vid_name": "gone"})
    (raw / "siq2" / "qa").mkdir(parents=True)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (raw / "siq2" / "qa" / "qa_train.json").write_text(lines)


def emer(raw: Path) -> None:
    rows = []
    for clip in range(20):
        touched(raw / "video" / f"face{clip}.mp4")
        rows.append(EMER_REWRITTEN | {"path": f"video/face{clip}.mp4", "id": clip})
    (raw / "emer_rewrite.json").write_text(json.dumps(rows))


def video_r1(raw: Path) -> None:
    rows = []
    for picture in range(20):
        touched(raw / "Video-R1-data" / "General" / f"{picture}.png")
        rows.append(VIDEO_R1 | {"problem_id": picture, "path": f"./General/{picture}.png"})
    (raw / "Video-R1-data" / "Video-R1-260k.json").write_text(json.dumps(rows))


def intentbench(raw: Path) -> None:
    rows: list[dict[str, Any]] = []
    for clip in range(3):
        touched(raw / "IntentBench" / "videos" / f"{clip}.mp4")
        rows.append(EMER_REWRITTEN | {"video": f"{clip}.mp4", "path": None, "qid": f"q{clip}"})
    (raw / "IntentBench" / "qa.json").write_text(json.dumps(rows), encoding="utf-8-sig")


@pytest.mark.parametrize("write", [social_iq, emer, video_r1], ids=lambda write: write.__name__)
def test_a_download_becomes_a_source_and_held_out_records(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    raw, out, name = tmp_path / "raw", tmp_path / "out", write.__name__
    raw.mkdir()
    write(raw)
    counts = prepare(name, raw, out, 0.3, SKIP)
    taught = read_source(name, SourceConfig(path=f"{name}.yaml"), out).records
    held_out = read_records(out / "val.json", None, "val")
    assert counts["records"] == len(taught) + len(held_out)
    assert counts["held_out"] == len(held_out) > 0
    assert counts["clips"] == 20
    files = [
        {path for one in part for path in (*one.videos, *one.images)} for part in (taught, held_out)
    ]
    assert not files[0] & files[1]  # no clip is on both sides
    assert all(path.is_file() for path in files[0] | files[1])
    assert counts["skipped"] == (1 if name == "social_iq" else 0)


def test_social_iq_keeps_questions_that_share_a_qid(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    social_iq(raw)
    assert prepare("social_iq", raw, out, 0.0, SKIP)["records"] == 41
    ids = {one.id: one for one in read_records(out / "social_iq.jsonl", None, "siq")}
    [twin] = [one for key, one in ids.items() if key.startswith("clip0_q0-")]
    assert twin.problem == "How does he answer?"
    assert prepare("social_iq", raw, tmp_path / "again", 0.0, SKIP)["records"] == 41
    assert twin.id in (tmp_path / "again" / "social_iq.jsonl").read_text()


def test_data_sets_share_one_val_and_are_not_made_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    for name, write in (("emer", emer), ("video_r1", video_r1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        prepare(name, tmp_path / name, out, 0.3, SKIP)
    sources = {one.id.split("/")[0] for one in read_records(out / "val.json", None, "val")}
    assert sources == {"emer", "video_r1"}
    before = (out / "emer.jsonl").stat().st_mtime_ns
    counts = prepare("emer", tmp_path / "emer", out, 0.3, SKIP)
    assert (out / "emer.jsonl").stat().st_mtime_ns == before
    assert counts["records"] == 20 and "prepared already" in caplog.text
    assert (
        yaml.safe_load((out / "emer.yaml").read_text())["datasets"][0]["json_path"] == "emer.jsonl"
    )


def test_the_test_finds_its_clips_in_videos(tmp_path: Path) -> None:
    intentbench(tmp_path)
    assert prepare("intentbench", tmp_path, tmp_path / "out", 0.3, SKIP)["held_out"] == 3
    records = read_records(tmp_path / "out" / "intentbench" / "qa.json", None, "test")
    assert [one.videos[0].parent.name for one in records] == ["videos"] * 3
    assert len(read_records(tmp_path / "IntentBench" / "qa.json", None, "test")) == 3


def test_what_is_missing_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"qa_train\.json.*published at https://"):
        prepare("social_iq", tmp_path, tmp_path / "out", 0.1, SKIP)
    with pytest.raises(FileNotFoundError, match="no such folder; published at"):
        prepare("emer", tmp_path / "none", tmp_path / "out", 0.1, SKIP)
    social_iq(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4 is missing.*published at https://"):
        prepare("social_iq", tmp_path, tmp_path / "out", 0.1, OnBadRecord.error)
    assert not (tmp_path / "out").exists()
