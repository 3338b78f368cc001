"""What is logged, sampled and kept while the real loop runs."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors import safe_open

from core_rl.config import DoctorConfig, LoggerConfig
from core_rl.doctor.findings import UnhealthyError
from core_rl.loop.module import GroupPolicyModule
from core_rl.objective.curriculum import Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.callbacks import TrainLog, validated
from core_rl.types import Batch
from tests.core_rl.faulty_runs import Poisons
from tests.core_rl.toy import (
    PathReward,
    Recorder,
    ToyPolicy,
    forever,
    group_of,
    grpo,
    module_of,
    phases,
    rce,
    run,
    settings,
)

REWARD = PathReward([float(i) for i in range(9)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def saved(folder: Path) -> tuple[torch.Tensor, dict[str, float]]:
    with safe_open(folder / "policy.safetensors", "pt") as file:
        metrics = {key: float(value) for key, value in file.metadata().items()}
        return file.get_tensor("logits"), metrics


# -- the log -------------------------------------------------------------------------------------


def test_one_line_a_step_with_what_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = module_of(ToyPolicy(), REWARD, phases(grpo(4)), trainer=settings(accumulation=2))
    with caplog.at_level(logging.INFO, "core_rl.run.callbacks"):
        run(module, forever([0]), tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.msg.startswith("step")]
    assert len(lines) == 4
    line = re.compile(
        r"step (\d)/4 train/loss -?[\d.e-]+ reward/total [\d.]+ train/kl [\d.e-]+ "
        r"rollout/mixed_share [\d.]+ reward/path [\d.]+ left \d\d:\d\d:\d\d"
    )
    assert [line.fullmatch(text).group(1) for text in lines] == ["1", "2", "3", "4"]
    assert lines[-1].endswith("left 00:00:00")


def test_the_log_may_skip_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = module_of(ToyPolicy(), REWARD, phases(grpo(5)), trainer=settings(log_every=2))
    with caplog.at_level(logging.INFO, "core_rl.run.callbacks"):
        run(module, forever([0]), tmp_path)
    steps = [text.split()[1] for text in caplog.messages if text.startswith("step")]
    assert steps == ["2/5", "4/5"]


def test_metrics_that_nobody_logged_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = TrainLog(every=1, names=("train/loss", "no/such"))
    with caplog.at_level(logging.INFO, "core_rl.run.callbacks"):
        run(
            module_of(ToyPolicy(), REWARD, phases(grpo(1))),
            forever([0]),
            tmp_path,
            None,
            (),
            [extra],
        )
    assert any(re.fullmatch(r"step 1/1 train/loss \S+ left \S+", text) for text in caplog.messages)


# -- samples -------------------------------------------------------------------------------------


def test_every_judged_candidate_is_written_with_its_reward(tmp_path: Path) -> None:
    trainer = settings(accumulation=2)
    module = module_of(ToyPolicy(2), REWARD, phases(grpo(3)), trainer=trainer, candidates=4)
    recorder = Recorder()
    run(module, forever([0, 1]), tmp_path, callbacks=[recorder])
    table = pd.read_parquet(tmp_path / "samples.parquet")
    # 3 steps of 2 micro-batches of 2 queries of 4 candidates
    assert list(table["step"]) == [step for step in (1, 2, 3) for _ in range(16)]
    assert list(table["id"][:8]) == [0] * 4 + [1] * 4
    assert list(table["candidate"][:8]) == [0, 1, 2, 3] * 2
    assert (table["reward/path"] == table["reward/total"]).all()
    # What is logged at the end of a step is the mean over its micro-batches.
    means = table["reward/total"].groupby(table["step"]).mean()
    assert list(means) == pytest.approx(recorder.series("reward/total")[1::2])
    assert set(table["length"]) == {2}


def test_a_reused_candidate_is_written_once(tmp_path: Path) -> None:
    curriculum = phases(grpo(8, num_iterations=2, minibatches=2))
    run(module_of(ToyPolicy(), REWARD, curriculum, candidates=4), forever([0]), tmp_path)
    table = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(table["step"]) == [1] * 4 + [2] * 4 + [5] * 4 + [6] * 4


def test_columns_stay_the_same_over_phases(tmp_path: Path) -> None:
    """Stored candidates may come without the rewards that fresh ones get."""
    stored = group_of([[[0, 0], [1, 1]]], [[0.0, 1.0]])
    rewards = stored.rewards
    stored = type(stored)(
        stored.queries,
        stored.actions,
        type(rewards)((), rewards.values_RBG[:0], rewards.total_BG),
        stored.advantages_BGT,
        stored.mixed_B,
    )

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat(stored if phase.index == 0 else [0])

    run(module_of(ToyPolicy(), REWARD, phases(rce(1), grpo(1))), stream, tmp_path)
    table = pd.read_parquet(tmp_path / "samples.parquet")
    assert table["reward/path"].isna().tolist() == [True] * 2 + [False] * 8


def test_samples_survive_a_crash(tmp_path: Path) -> None:
    class Crash(Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 2:
                raise OSError("disk")

    module = module_of(ToyPolicy(), REWARD, phases(grpo(5)), candidates=4)
    with pytest.raises(OSError, match="disk"):
        run(module, forever([0]), tmp_path, callbacks=[Crash()])
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 8


@pytest.mark.parametrize("elsewhere", [False, True])
def test_readable_text_where_it_is_asked_for(elsewhere: bool, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "read.me" if elsewhere else tmp_path / "run" / "samples.log"
    logger = LoggerConfig(kind="none", debug=True, log_path=str(target) if elsewhere else None)
    module = module_of(ToyPolicy(), REWARD, phases(grpo(1)), candidates=2)
    run(module, forever([0]), tmp_path / "run", logger=logger)
    blocks = target.read_text().strip().split("\n\n")
    assert len(blocks) == 2
    assert re.match(r"step: 1\nid: 0\ncandidate: 0\ntext: ?\nlength: 2\nreward/total: ", blocks[0])


def test_no_text_unless_asked(tmp_path: Path) -> None:
    run(module_of(ToyPolicy(), REWARD, phases(grpo(1))), forever([0]), tmp_path)
    assert not list(tmp_path.glob("**/*.log"))


# -- checkpoints ---------------------------------------------------------------------------------


def test_the_newest_stay(tmp_path: Path) -> None:
    trainer = settings(checkpoint_every=2, keep_checkpoints=2, accumulation=2)
    recorder = Recorder()
    module = module_of(ToyPolicy(), REWARD, phases(grpo(7)), trainer=trainer)
    run(module, forever([0]), tmp_path, callbacks=[recorder])
    assert names(tmp_path) == ["before.ckpt", "last.ckpt", "step-00000004", "step-00000006"]
    logits, metrics = saved(tmp_path / "checkpoints" / "step-00000004")
    assert metrics["step"] == 4
    assert torch.equal(logits, recorder.policies[8])  # as it stood before step 5


def test_the_best_by_held_out_reward_stays_though_training_goes_on(tmp_path: Path) -> None:
    """Two phases of stored candidates: first towards a good path, then towards a bad one."""
    policy = ToyPolicy()
    good, bad = ([[path, [1, 1]]] for path in ([2, 2], [0, 0]))

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat(group_of(good if phase.index == 0 else bad, [[1.0, 0.0]]))

    rewards: list[tuple[int, float]] = []

    class Validated(Callback):
        def on_validation_end(self, trainer, pl_module: GroupPolicyModule) -> None:
            reward = float(trainer.callback_metrics["val/reward"])
            rewards.append((trainer.global_step, reward))

    trainer = settings(lr=0.3, val_every=4)
    module = module_of(policy, REWARD, phases(rce(12), rce(24)), trainer=trainer)
    run(module, stream, tmp_path, held_out=[[0]], callbacks=[Validated()])
    _, metrics = saved(tmp_path / "checkpoints" / "best")
    best = max(reward for _, reward in rewards)
    assert [step for step, _ in rewards] == list(range(0, 37, 4))  # the start, too
    assert metrics["val/reward"] == best == 8.0
    assert metrics["step"] == next(step for step, reward in rewards if reward == best)
    assert rewards[-1][1] < best
    assert names(tmp_path) == ["best", "best.json"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = settings(checkpoint_every=1)
    module = module_of(ToyPolicy(), REWARD, phases(grpo(5)), trainer=trainer)
    broken = Poisons(3, weights=True)
    with pytest.raises(UnhealthyError):
        run(module, forever([0]), tmp_path, callbacks=[broken], doctor=DoctorConfig(enabled=False))
    assert names(tmp_path) == ["before.ckpt", "last.ckpt", "step-00000002", "step-00000003"]
    assert saved(tmp_path / "checkpoints" / "step-00000003")[0].isfinite().all()


@pytest.mark.parametrize("same_folder", [True, False])
def test_a_resumed_run_keeps_the_best_so_far(same_folder: bool, tmp_path: Path) -> None:
    """Its checkpoint is written before the validation of the same step."""
    old, new = tmp_path / "old", tmp_path / ("old" if same_folder else "new")

    def train(path: list[int], steps: int, folder: Path, resume: str | None) -> float:
        trainer = settings(lr=0.3, val_every=8, checkpoint_every=8, resume=resume)
        module = module_of(ToyPolicy(), REWARD, phases(rce(steps)), trainer=trainer)
        stored = group_of([[path, [1, 1]]], [[1.0, 0.0]])
        runner = run(module, forever(stored), folder, held_out=[[0]])
        return float(runner.callback_metrics["val/reward"])

    assert train([2, 2], 8, old, None) == 8.0
    assert train([0, 0], 40, new, str(old)) < 8.0
    assert saved(new / "checkpoints" / "best")[1]["step"] == 8


def test_the_figures_of_the_best_can_be_read(tmp_path: Path) -> None:
    trainer = settings(lr=0.3, val_every=1)
    module = module_of(ToyPolicy(), REWARD, phases(rce(3)), trainer=trainer)
    run(module, forever(group_of([[[2, 2], [1, 1]]], [[1.0, 0.0]])), tmp_path, held_out=[[0]])
    _, metrics = saved(tmp_path / "checkpoints" / "best")
    assert validated(tmp_path) == {name: metrics[name] for name in ("val/reward", "val/path")}
    assert validated(tmp_path / "elsewhere") == {}


def test_without_held_out_queries_nothing_is_best(tmp_path: Path) -> None:
    trainer = settings(val_every=1, checkpoint_every=1, keep_checkpoints=1)
    run(module_of(ToyPolicy(), REWARD, phases(grpo(2)), trainer=trainer), forever([0]), tmp_path)
    assert names(tmp_path) == ["before.ckpt", "last.ckpt", "step-00000002"]


@pytest.mark.parametrize(
    ("said", "best_step", "warned"),
    [
        ([0.5, 1.0, None, None], 1, True),  # down: its part is missing, not bad
        ([None, None, -9.0, None], 2, True),  # the first choice was made without it
        ([-9.5, -9.0, -1.0, 1.0], 3, False),
        ([2.0, 1.0, 1.5, 1.0], 0, False),  # training never was better than the start
    ],
)
def test_what_is_compared_was_judged_by_the_same_functions(
    said: list[float | None],
    best_step: int,
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter(said)

    def judge(queries, actions) -> list[list[float | None]]:
        if actions.num_candidates > 1:  # while training
            return [[0.0] * actions.num_candidates for _ in queries]
        return [[next(answers)]]

    def path(queries, actions) -> list[list[float]]:
        return [[2.0] * actions.num_candidates for _ in queries]

    trainer = settings(val_every=1)
    module = module_of(ToyPolicy(), path, phases(grpo(3)), trainer=trainer)
    module.reward = WeightedReward({"path": path, "judge": judge}, {"path": -1.0, "judge": 1.0})
    run(module, forever([0]), tmp_path, held_out=[[0]])
    assert saved(tmp_path / "checkpoints" / "best")[1]["step"] == best_step
    assert ("judge judged nothing held out" in caplog.text) is warned


def test_a_reward_that_cannot_be_told_is_not_the_best(tmp_path: Path) -> None:
    def unable(queries, actions) -> list[list[None]]:
        return [[None] * actions.num_candidates for _ in queries]

    module = module_of(ToyPolicy(), unable, phases(grpo(2)), trainer=settings(val_every=1))
    run(module, forever([0]), tmp_path, held_out=[[0]])
    assert not (tmp_path / "checkpoints").exists() or names(tmp_path) == []
