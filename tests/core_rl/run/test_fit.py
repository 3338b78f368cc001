"""The run around the loop: resume points, loggers, and what lands in the folder."""

from __future__ import annotations

import csv
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import load_file

from core_rl.config import LoggerConfig, TrainerConfig
from core_rl.objective.curriculum import Phase
from core_rl.run.fit import build_logger, debug_path
from core_rl.types import Batch
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


@pytest.mark.parametrize(
    ("kind", "expected"), [("tensorboard", [TensorBoardLogger]), ("csv", [CSVLogger]), ("none", [])]
)
def test_loggers_write_into_the_run_folder(kind: str, expected: list, tmp_path: Path) -> None:
    built = build_logger(LoggerConfig(kind=kind), tmp_path)
    assert [type(logger) for logger in built] == expected
    assert all(tmp_path in Path(logger.log_dir).parents for logger in built)


def test_metrics_of_every_step_reach_the_logger(tmp_path: Path) -> None:
    trainer = settings(val_every=2)
    module = module_of(ToyPolicy(), REWARD, phases(rce(1), grpo(3)), trainer=trainer)
    logger = LoggerConfig(kind="csv")
    run(module, forever([0]), tmp_path, held_out=[[0]], logger=logger)
    (file,) = tmp_path.glob("csv/**/metrics.csv")
    rows = list(csv.DictReader(file.open()))
    kept = [row for row in rows if row["train/loss"]]
    assert [row["step"] for row in kept] == ["0", "1", "2", "3"]
    assert [bool(row["train/kl"]) for row in kept] == [False, True, True, True]
    for name in ("reward/path", "reward/total", "rollout/mixed_share", "train/grad_norm"):
        assert all(row[name] for row in kept), name
    assert sum(bool(row["val/reward"]) for row in rows) == 2
    assert any(row["train/lr"] for row in rows)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("validates", [True, False])
def test_the_best_policy_is_what_stays_and_the_main_process_saves_it(
    validates: bool, rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step towards a good path, then many towards a bad one."""
    monkeypatch.setenv("RANK", rank)
    policy = ToyPolicy()
    good, bad = ([[path, [1, 1]]] for path in ([2, 2], [0, 0]))

    def stream(phase: Phase) -> Iterator[Batch]:
        return itertools.repeat(group_of(good if phase.index == 0 else bad, [[1.0, 0.0]]))

    def restore(folder: Path) -> None:
        policy.load_state_dict(load_file(folder / "policy.safetensors"))

    recorder = Recorder()
    run(
        module_of(policy, REWARD, phases(rce(4), rce(8)), trainer=settings(lr=0.3, val_every=4)),
        stream,
        tmp_path,
        held_out=[[0]] if validates else [],
        callbacks=[recorder],
        restore=restore,
    )
    kept = recorder.policies[4 if validates else -1]  # before the fifth step, or before the last
    assert torch.equal(policy.logits, kept) is validates
    final = tmp_path / "checkpoints" / "final"
    if rank == "0":
        saved = load_file(final / "policy.safetensors")["logits"]
        assert torch.equal(saved, policy.logits)
    else:
        assert not final.exists()


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.25)])
def test_the_learning_rate_follows_the_phase(schedule: str, last: float, tmp_path: Path) -> None:
    rates: list[float] = []

    class Rates(Recorder):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    trainer = settings(lr=0.1, schedule=schedule, warmup=0.25, accumulation=2)
    curriculum = phases(grpo(4), grpo(4, lr_scale=0.5))
    module = module_of(ToyPolicy(), REWARD, curriculum, trainer=trainer)
    run(module, forever([0]), tmp_path, callbacks=[Rates()])
    first = [0.05, 0.1, 0.1 * (1.0 if schedule == "constant" else 0.75), 0.1 * last]
    assert rates == pytest.approx([*first, *(0.5 * rate for rate in first)])


def test_gradients_are_clipped_by_norm(tmp_path: Path) -> None:
    norms: list[float] = []

    class Norms(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            norms.append(float(trainer.callback_metrics["train/grad_norm"]))

        def on_train_start(self, trainer, pl_module) -> None:
            weights = pl_module.policy.logits  # its gradient is dropped right after the step

            def stepped(*_: object) -> None:
                norms.append(float(weights.grad.norm()))

            trainer.optimizers[0].register_step_post_hook(stepped)

    trainer: TrainerConfig = settings(grad_clip=1e-3)
    module = module_of(ToyPolicy(), REWARD, phases(grpo(2)), trainer=trainer)
    run(module, forever([0] * 4), tmp_path, callbacks=[Norms()])
    clipped, before = min(norms), max(norms)
    assert before > 0.01  # what is logged is the norm as it came
    assert clipped == pytest.approx(1e-3, rel=1e-2)


def test_the_progress_bar_shows_the_parts_of_the_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = module_of(ToyPolicy(), REWARD, phases(grpo(2)), trainer=settings(progress=True))
    run(module, forever([0]), tmp_path)
    shown = capsys.readouterr().out
    assert "reward/path=" in shown and "reward/total=" in shown
    assert "2/2" in shown


def test_ctrl_c_is_not_a_failed_run(tmp_path: Path) -> None:
    class Interrupt(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            raise KeyboardInterrupt

    class Leave(Recorder):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            raise SystemExit(3)

    handler = signal.getsignal(signal.SIGINT)  # Lightning ignores the signal from then on
    try:
        for callback, expected in ((Interrupt(), KeyboardInterrupt), (Leave(), SystemExit)):
            module = module_of(ToyPolicy(), REWARD, phases(grpo(2)))
            with pytest.raises(expected):
                run(module, forever([0]), tmp_path, callbacks=[callback])
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("debug", "log_path", "environment", "expected"),
    [
        (False, None, {}, None),
        (False, None, {"LOG_PATH": "env.log"}, None),
        (True, None, {}, "run/samples.log"),
        (True, "own.log", {"LOG_PATH": "env.log"}, "own.log"),
        (False, None, {"DEBUG_MODE": "true"}, "run/samples.log"),
        (False, None, {"DEBUG_MODE": "1", "LOG_PATH": "env.log"}, "env.log"),
        (False, None, {"DEBUG_MODE": "false"}, None),
    ],
)
def test_readable_text_follows_settings_and_environment(
    debug: bool,
    log_path: str | None,
    environment: dict[str, str],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = debug_path(LoggerConfig(debug=debug, log_path=log_path), Path("run"))
    assert found == (Path(expected) if expected else None)
