"""Stage 4 on data in the published layout: YAML lists, JSON records, clips in folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from omni_rl.data import scenes
from omni_rl.data.record_files import write_records
from tests.end_to_end.running import metrics, run
from tests.omni_rl.sizes import SMALL_MODEL

SOURCES = {"social": "social_iq", "emotion": "emer", "general": "video_r1"}
SMALL = (
    *("trainer=smoke", "model.warm_start=none", "data_mix=stage4_people_focus", "logger=csv"),
    *SMALL_MODEL,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `paths.data` should be; the records know no facts, as real ones do not."""
    folder = tmp_path_factory.mktemp("data")
    held_out = []
    for family, source in SOURCES.items():
        made = scenes.generate(folder / source, family, "train", 8, seed=0)
        records = [replace(record, facts={}) for record in made]
        write_records(folder / source / "records.json", records[:6], data_root=folder / source)
        listed = {
            "json_path": f"{source}/records.json",
            "data_root": source,
            "sampling_strategy": "random:5",
        }
        (folder / f"{source}.yaml").write_text(yaml.safe_dump({"datasets": [listed]}))
        held_out += records[6:]
    (folder / "intentbench").mkdir()
    for target in (folder / "val.json", folder / "intentbench" / "qa.json"):
        write_records(target, held_out, data_root=target.parent)
    return folder


def test_the_main_job_reads_the_published_layout(data: Path, tmp_path: Path) -> None:
    folder = run(
        "+exp=stage4_people_focus",
        *SMALL,
        "data_mix.size=10",
        f"paths.data={data}",
        output=tmp_path,
    )
    log = (folder / "train.log").read_text()
    assert "source social_iq: 5 of 5 items in the mix" in log
    found = metrics(folder)
    assert "after/accuracy" in found
    assert "after/grounded_focus" not in found  # nothing is known of real clips


@pytest.mark.parametrize(
    ("policy", "code", "words"),
    [("error", 1, "social-train-00000"), ("skip", 0, "skipped")],
)
def test_a_truncated_clip_stops_the_run_or_is_counted(
    data: Path, tmp_path: Path, policy: str, code: int, words: str
) -> None:
    clip = data / "social_iq" / "clips" / "social-train-00000.mp4"
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    listed = data / "social_iq.yaml"
    asked = listed.read_text()
    listed.write_text(asked.replace("random:5", "all"))
    try:
        folder = run(
            "+exp=stage4_people_focus",
            *SMALL,
            "data_mix.size=24",
            f"data_mix.on_bad_record={policy}",
            f"paths.data={data}",
            output=tmp_path,
            code=code,
        )
    finally:
        clip.write_bytes(whole)
        listed.write_text(asked)
    assert words in (folder / "train.log").read_text()


def test_a_broken_line_names_its_file(data: Path, tmp_path: Path) -> None:
    path = data / "emer" / "records.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole))[:-40])
    try:
        folder = run(
            "+exp=stage4_people_focus", *SMALL, f"paths.data={data}", output=tmp_path, code=1
        )
    finally:
        path.write_text(whole)
    assert "records.json" in (folder / "train.log").read_text()
