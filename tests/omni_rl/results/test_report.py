"""The report of a run: on generated clips, on records without clips or facts, without samples."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RewardConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.loss_config import LossConfig
from core_rl.run.run_folder import SampleWriter
from omni_rl.config import OmniDataConfig, OmniModelConfig, SourceConfig
from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.data.splits import with_instructions
from omni_rl.results.clip_views import clip_views
from omni_rl.results.controls import ControlResult
from omni_rl.results.report import accuracy_gains, findings, reward_curves, write_report
from omni_rl.results.seed_run import SeedResult
from omni_rl.rewards.scores import score_records
from omni_rl.settings import Settings
from omni_rl.tasks.train import report

SHARES = {"social_iq": 0.5, "emer": 0.3, "video_r1": 0.2}


def settings(tmp_path: Path, generated: bool = True, seeds: int = 1) -> Settings:
    families = {"social_iq": "social", "emer": "emotion", "video_r1": "general"}
    return Settings(
        model=OmniModelConfig(),
        data_mix=OmniDataConfig(
            sources={name: SourceConfig(family=family) for name, family in families.items()},
            ratios=SHARES,
            general=["video_r1"],
            generated=generated,
        ),
        reward=RewardConfig(functions={"format": len}, weights={"format": 1.0}),
        curriculum=CurriculumConfig(),
        loss=LossConfig(),
        rollout=RolloutConfig(),
        trainer=TrainerConfig(seeds=list(range(seeds))),
        hardware=HardwareConfig(),
        doctor=DoctorConfig(),
        logger=LoggerConfig(),
        paths=PathsConfig(cache=str(tmp_path)),
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("scenes")
    drawn = [scenes.generate(folder, family, "test", 8, seed=0) for family in scenes.FAMILIES]
    return with_instructions([record for group in drawn for record in group], 2)


def told(records: list[Record], style: scenes.Style | None, seed: int = 0) -> pd.DataFrame:
    """Score what a narrator says; None repeats the reference solutions."""
    rng = np.random.default_rng(seed)
    texts = [
        record.solution
        if style is None or record.problem_type == "instruction"
        else scenes.retell(record, style, rng).solution
        for record in records
    ]
    return score_records(records, texts, seed)


def judged(records: list[Record]) -> tuple[SeedResult, dict[str, float], str]:
    """Make the result of a seed that went from weak to honest, with a baseline beside it."""
    majority = score_records(records, ["<answer>A</answer>"] * len(records))
    before, after = told(records, scenes.WEAK), told(records, None)
    result = SeedResult(before, after, {"majority": majority}, records=records)
    metrics, text = report([result], {"majority": [ControlResult(majority)]}, ["video_r1"])
    perceived = {f"start/perceived/{slot}": 0.98 for slot in scenes.SLOTS}
    return result, metrics | perceived, text


def write_samples(folder: Path, steps: int = 3) -> None:
    writer = SampleWriter(folder, every=4)
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "id": "r", "text": "t", "reward/total": step / 2}
        writer.add([{**row, "reward/format": value} for value in (0.0, 1.0)])
    writer.flush()


class Page(HTMLParser):
    """What a page refers to and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_run_is_shown_in_one_page_and_one_picture(tmp_path: Path, records: list[Record]) -> None:
    write_samples(tmp_path)
    result, metrics, text = judged(records)
    write_report(tmp_path, settings(tmp_path), result, metrics, text)

    page = Page((tmp_path / "report.html").read_text())
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for source in page.images)
    svgs = [s for s in page.images if s.startswith("data:image/svg")]
    assert len(svgs) == 3
    for source in svgs:
        ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
    assert len(page.images) - len(svgs) == 6  # one strip of frames a clip
    words = " ".join(" ".join(page.words).split())
    assert "stand in for real video" in words
    assert "elicitation" in words
    assert text.splitlines()[0] in "".join(page.words)
    with Image.open(tmp_path / "report.png") as picture:
        assert min(picture.size) > 500
    assert not list(tmp_path.glob(".report*"))


def test_real_records_without_clips_facts_or_samples(tmp_path: Path, records: list[Record]) -> None:
    bare = [
        replace(record, facts={}, solution="", videos=(tmp_path / "gone.mp4",))
        for record in records
        if record.problem_type != "instruction"
    ]
    rng = np.random.default_rng(0)
    texts = [scenes.retell(record, scenes.WEAK, rng).solution for record in records[: len(bare)]]
    table = score_records(bare, texts)
    result = SeedResult(table, table, records=bare)
    metrics, text = report([result], {}, ["video_r1"])
    write_report(tmp_path, settings(tmp_path, generated=False), result, metrics, text)

    page = Page((tmp_path / "report.html").read_text())
    assert len(page.images) == 2  # no curves, no frames
    words = " ".join(page.words)
    assert "Real clips carry no known facts" in words
    assert "stand in" not in words
    assert "grounded_focus " not in text
    assert "no change is shown" in words


def test_what_a_policy_writes_is_escaped(tmp_path: Path, records: list[Record]) -> None:
    texts = ["<script>alert('$x$')</script> <answer>A</answer>"] * len(records)
    table = score_records(records, texts)
    result = SeedResult(table, table, records=records)
    metrics, text = report([result], {}, ["video_r1"])
    write_report(tmp_path, settings(tmp_path), result, metrics, text)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_rewards_are_averaged_by_step_and_seed(tmp_path: Path) -> None:
    assert reward_curves(tmp_path) == {}
    for seed in (0, 1):
        write_samples(tmp_path / f"seed{seed}")
    (tmp_path / "seed0" / "samples.parquet" / "part-00009.tmp").write_text("cut off")
    write_samples(tmp_path / "seed0" / "sft")  # a control's own samples are not the run's
    curves = reward_curves(tmp_path)
    assert list(curves) == ["format", "total"]
    assert [len(seeds) for seeds in curves.values()] == [2, 2]
    assert curves["format"][0].tolist() == [0.5, 0.5, 0.5]
    assert curves["total"][1].to_dict() == {1: 0.5, 2: 1.0, 3: 1.5}


def test_a_reward_that_never_judged_has_no_curve(tmp_path: Path) -> None:
    writer = SampleWriter(tmp_path)
    writer.add([{"step": 1, "reward/total": 1.0, "reward/grounding": float("nan")}])
    writer.flush()
    assert list(reward_curves(tmp_path)) == ["total"]


def test_clips_are_chosen_without_a_look_at_the_results(records: list[Record]) -> None:
    worse, better = told(records, scenes.WEAK), told(records, None)
    views = clip_views(records, worse, better)
    assert [view.source for view in views] == ["social_iq"] * 2 + ["emer"] * 2 + ["video_r1"] * 2
    swapped = clip_views(records, better, worse)
    assert [v.question for v in swapped] == [v.question for v in views]
    for view in views:
        assert view.strip_HWC is not None
        assert view.strip_HWC.shape == (112, 4 * 112 + 3 * 4, 3)
        assert [said.when for said in view.told] == ["before", "after"]
        assert view.told[1].verdict == "right"
        assert view.told[1].people_focus in ("0.53", "0.62")  # 5 or 6 points
        assert "voice" in view.facts


def test_findings_say_what_the_intervals_allow(tmp_path: Path, records: list[Record]) -> None:
    _, metrics, _ = judged(records)
    said = " ".join(findings(settings(tmp_path), metrics, records))
    assert "the interval lies above 0" in said
    assert "more accurate than: the most frequent answer" in said
    assert "reference solutions earn 0.5" in said
    assert "One seed" in said
    assert [gain.name for gain in accuracy_gains(metrics)] == [
        "the start model",
        "the most frequent answer",
    ]

    metrics |= {"diff/accuracy_low": -0.1, "after_vs_majority/accuracy_low": -0.1}
    said = " ".join(findings(settings(tmp_path, seeds=3), metrics, records))
    assert "no change is shown" in said
    assert "Not shown to be more accurate than: the most frequent answer" in said
    assert "3 seeds" in said

    metrics |= {"diff/accuracy_high": -0.05}
    assert "became worse" in " ".join(findings(settings(tmp_path), metrics, records))
    blind = {name: value for name, value in metrics.items() if "perceived" not in name}
    assert "not tested for what it perceives" in " ".join(
        findings(settings(tmp_path), blind, records)
    )


def test_a_report_of_seeds_tells_each_of_them_and_what_controls_took(records: list[Record]) -> None:
    results, controls = [], []
    for seed in (4, 5, 6):
        weak, honest = told(records, scenes.WEAK, seed), told(records, None, seed)
        results.append(SeedResult(weak, honest, {}, {"learn_steps": 10.0 + seed}))
        controls.append(
            ControlResult(weak, {"steps": seed, "cpu_seconds": 52, "label_accuracy": 0.65})
        )
    metrics, text = report(results, {"sft_habit": controls, "last": controls}, ["video_r1"])
    seeds = [metrics[f"before/accuracy/seed{n}"] for n in range(3)]
    own = [table[table["problem_type"] != "instruction"]["accuracy"].mean() for table in
           (result.before for result in results)]  # fmt: skip
    assert seeds == pytest.approx(own)
    assert metrics["before/accuracy"] == pytest.approx(np.mean(own))
    assert [metrics[f"after/accuracy/seed{n}"] for n in range(3)] == [1, 1, 1]
    assert [metrics[f"diff/accuracy/seed{n}"] for n in range(3)] == pytest.approx(
        [1 - one for one in own]
    )
    assert metrics["sft_habit/accuracy/seed1"] == pytest.approx(own[1])
    assert metrics["after_vs_sft_habit/accuracy/seed2"] == pytest.approx(1 - own[2])
    assert metrics["sft_habit/diff/accuracy"] == 0  # the control is the start here
    assert (metrics["learn_steps"], metrics["sft_habit/steps"]) == (15, 5)
    assert metrics["last/accuracy"] == metrics["before/accuracy"]
    assert f"by seed {own[0]:.3f} -> 1.000, {own[1]:.3f} -> 1.000" in text
    line = next(line for line in text.splitlines() if line.startswith("sft_habit:"))
    assert f"by seed {own[0]:.3f}, {own[1]:.3f}, {own[2]:.3f}" in line
    assert "5 steps in 52 s of processor time" in line
    assert "labels are right 0.650 of the time" in line
    assert "last" not in {gain.name for gain in accuracy_gains(metrics)}


def test_the_same_run_gives_the_same_page(tmp_path: Path, records: list[Record]) -> None:
    result, metrics, text = judged(records)
    pages = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_report(folder, settings(tmp_path), result, metrics, text)
        pages.append(re.sub(r"<th>code</th>.*", "", (folder / "report.html").read_text()))
    assert pages[0] == pages[1]
