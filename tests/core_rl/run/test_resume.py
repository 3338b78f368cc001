"""A run that was interrupted and resumed is the uninterrupted run, in every figure but times."""

from __future__ import annotations

import csv
import itertools
import os
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from core_rl.config import DoctorConfig, HardwareConfig, LoggerConfig
from core_rl.loop.batches import shuffled_batches
from core_rl.loop.continuation import Later
from core_rl.loop.module import GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.run import resume
from core_rl.run.resume import BEFORE, LAST, fault, has_resume_point, resume_point
from core_rl.run.signals import TerminatedError, terminable
from core_rl.types import Actions, Batch
from tests.core_rl.toy import (
    Recorder,
    ToyPolicy,
    grpo,
    module_of,
    phases,
    rce,
    run,
    settings,
)

KL = LossConfig(kl=KLConfig(weight=0.1, adaptive=True, low=1e-4, high=1e-3, every=2, ema=0.5))
SETUPS: dict[str, tuple[Curriculum, dict[str, Any]]] = {
    "fresh": (phases(grpo(8)), {}),
    "accumulated": (phases(grpo(8)), {"accumulation": 2}),
    "reused": (phases(grpo(8, num_iterations=2, minibatches=2)), {}),
    "reused and accumulated": (phases(grpo(8, num_iterations=4)), {"accumulation": 2}),
    "two phases": (phases(rce(3), grpo(5)), {"schedule": "cosine", "warmup": 0.3}),
    "stored, then reused": (phases(rce(2), grpo(6, num_iterations=3)), {}),
}


class Figures(Recorder):
    """Without gradients, which DeepSpeed holds."""

    def on_before_optimizer_step(self, *_: Any) -> None:
        pass


class Crash(Callback):
    """Ends the run in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise OSError("the machine is gone")


def noisy(queries: Sequence[int], actions: Actions) -> list[list[float]]:
    """A reward with random numbers of every generator."""
    first_BG = actions.ids_BGT[..., 0].tolist()
    noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
    return [[value + 0.1 * noise * g for g, value in enumerate(row)] for row in first_BG]


def trained(
    folder: Path,
    setup: str,
    *more: Callback,
    resumed: Path | str | None = None,
    seed: int = 0,
    **changes: Any,
) -> tuple[GroupPolicyModule, Recorder]:
    curriculum, trainer = SETUPS[setup]
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    recorder = Figures()
    module = module_of(
        ToyPolicy(queries=4),
        noisy,
        curriculum,
        KL,
        settings(
            val_every=2,
            checkpoint_every=1,
            resume=None if resumed is None else str(resumed),
            **trainer,
        ),
    )

    def stream(phase: Phase) -> Iterator[Batch | Later]:
        for queries in shuffled_batches([0, 1, 2, 3], 2, phase.index):
            if phase.index or len(curriculum.phases) == 1:
                yield queries
            else:
                yield Later(queries, lambda queries=queries: module.draw_for_reuse(queries))

    changes.setdefault("doctor", DoctorConfig(every=3, on_failure="warn"))
    run(
        module,
        stream,
        folder,
        held_out=[[0, 1], [2, 3]],
        callbacks=[recorder, *more],
        logger=LoggerConfig(kind="csv"),
        **changes,
    )
    return module, recorder


def crashed(folder: Path, setup: str, step: int) -> None:
    with pytest.raises(OSError, match="gone"):
        trained(folder, setup, Crash(step))


def figures(recorder: Recorder, after: int) -> list[dict[str, float]]:
    """What was logged in the steps after `after`."""
    return [seen for seen in recorder.metrics if seen["step"] > after]


def same(resumed: Recorder, whole: Recorder, after: int) -> bool:
    """Whether all figures are alike; right after a resume some are not logged yet."""
    pairs = zip(figures(resumed, after), figures(whole, after), strict=True)
    return all("train/loss" in a and a.items() <= b.items() for a, b in pairs)


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the doctor's, which looks more closely after a resume."""
    with (folder / "csv" / "metrics.csv").open(newline="") as stream:
        named = [{k: v for k, v in row.items() if v} for row in csv.DictReader(stream)]
    return [row for row in named if not any(name.startswith("health/") for name in row)]


def samples(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "samples.parquet").reset_index(drop=True)


@pytest.mark.parametrize("same_folder", [True, False], ids=["same folder", "new folder"])
@pytest.mark.parametrize("setup", list(SETUPS))
def test_every_step_after_a_resume_is_that_of_the_uninterrupted_run(
    setup: str, same_folder: bool, tmp_path: Path
) -> None:
    whole, recorder = trained(tmp_path / "whole", setup)
    for step in (1, 4, 6) if same_folder else (3,):
        old = tmp_path / f"old{step}"
        new = old if same_folder else tmp_path / f"new{step}"
        crashed(old, setup, step)
        again, resumed = trained(new, setup, resumed=old, seed=99)
        assert torch.equal(again.policy.logits, whole.policy.logits), step
        assert same(resumed, recorder, step), step
        assert [seen["step"] for seen in resumed.metrics][-1] == 8
        pd.testing.assert_frame_equal(samples(new), samples(tmp_path / "whole"))
        assert rows(new) == rows(tmp_path / "whole"), step
        best = (new / "checkpoints" / "best.json").read_text()
        assert best == (tmp_path / "whole" / "checkpoints" / "best.json").read_text()


def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", "reused")
    folder = tmp_path / "run"
    crashed(folder, "reused", 1)
    for step in (2, 3, 5, 7):
        with pytest.raises(OSError, match="gone"):
            trained(folder, "reused", Crash(step), resumed=folder)
    again, _ = trained(folder, "reused", resumed=folder)
    assert torch.equal(again.policy.logits, whole.policy.logits)
    pd.testing.assert_frame_equal(samples(folder), samples(tmp_path / "whole"))


def test_sigterm_saves_the_step_and_loses_nothing(tmp_path: Path) -> None:
    class Terminate(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    whole, _ = trained(tmp_path / "whole", "reused")
    folder = tmp_path / "run"
    with terminable(), pytest.raises(TerminatedError, match=r"saved after step 5 .*resume=auto"):
        trained(folder, "reused", Terminate())
    assert samples(folder)["step"].max() == 5
    again, _ = trained(folder, "reused", resumed=folder)
    assert torch.equal(again.policy.logits, whole.policy.logits)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_outside_a_training_sigterm_ends_at_once() -> None:
    with pytest.raises(TerminatedError), terminable():
        os.kill(os.getpid(), signal.SIGTERM)


# -- the files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained(folder, "fresh")
    return folder


def copied(run_folder: Path, tmp_path: Path) -> Path:
    into = tmp_path / "run" / "checkpoints"
    into.mkdir(parents=True)
    for name in (LAST, BEFORE):
        (into / name).write_bytes((run_folder / "checkpoints" / name).read_bytes())
    return into


def test_the_newest_and_the_one_before_stay(run_folder: Path) -> None:
    names = {path.name for path in (run_folder / "checkpoints").iterdir()}
    assert names == {LAST, BEFORE, "best", "best.json", "step-00000007", "step-00000008"}
    steps = [
        torch.load(run_folder / "checkpoints" / name, weights_only=True)["global_step"]
        for name in (BEFORE, LAST)
    ]
    assert steps == [7, 8]


def test_a_short_run_keeps_one(tmp_path: Path) -> None:
    module = module_of(ToyPolicy(), noisy, phases(grpo(2)), trainer=settings(checkpoint_every=100))
    run(module, lambda phase: itertools.repeat([0]), tmp_path)
    assert resume_point(str(tmp_path)) == str(tmp_path / "checkpoints" / LAST)


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "gone"])
def test_what_is_damaged_is_named_and_the_one_before_used(
    damage: str, run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(run_folder, tmp_path)
    last = folder / LAST
    whole = last.read_bytes()
    changed = {
        "torn": whole[: len(whole) // 2],
        "empty": b"",
        "flipped": whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
    }
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes(changed[damage])
    assert resume_point(str(folder.parent)) == str(folder / BEFORE)
    assert has_resume_point(folder.parent)
    if damage != "gone":
        assert f"{last} is damaged" in caplog.text
        with pytest.raises(ValueError, match=f"{LAST} is damaged: .*name .*{BEFORE}"):
            resume_point(str(last))
    (folder / BEFORE).write_bytes(b"PK")
    with pytest.raises((ValueError, FileNotFoundError), match=r"trainer\.resume="):
        resume_point(str(folder.parent))


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    """Those that are not found change nothing: times and padding of the archive."""
    path = tmp_path / "c.ckpt"
    state = {"weights": torch.randn(64), "step": 3, "name": "x" * 20}
    torch.save(state, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(whole)), 300):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        resume._fault.cache_clear()
        if fault(path) is None:
            read = torch.load(path, weights_only=True)
            assert torch.equal(read.pop("weights"), state["weights"]), place
            assert read == {"step": 3, "name": "x" * 20}, place


def test_a_best_without_its_folder_is_chosen_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crashed(tmp_path, "fresh", 4)
    best = tmp_path / "checkpoints" / "best"
    for path in best.iterdir():
        path.unlink()
    best.rmdir()
    trained(tmp_path, "fresh", resumed=tmp_path)
    assert "best: it is missing; the best is chosen anew" in caplog.text
    assert best.is_dir()


def test_a_resume_point_is_a_file_or_a_run_folder(run_folder: Path) -> None:
    file = run_folder / "checkpoints" / LAST
    assert resume_point(None) is None
    assert resume_point(str(file)) == resume_point(str(run_folder)) == str(file)


@pytest.mark.parametrize("name", ["", "nothing", "nothing.ckpt"])
def test_no_resume_point_names_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainer\.resume=.*last\.ckpt"):
        resume_point(str(tmp_path / name))


@pytest.mark.parametrize("stage", [1, 2])
def test_under_deepspeed_the_folder_is_sealed(stage: int, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    machine = HardwareConfig(strategy="deepspeed", zero_stage=stage)
    whole, _ = trained(tmp_path / "whole", "reused", hardware=machine)
    folder = tmp_path / "run"
    with pytest.raises(OSError, match="gone"):
        trained(folder, "reused", Crash(5), hardware=machine)
    again, _ = trained(folder, "reused", resumed=folder, hardware=machine)
    assert torch.equal(again.policy.logits, whole.policy.logits)
    kept = folder / "checkpoints" / LAST
    assert resume_point(str(folder)) == resume_point(str(kept)) == str(kept)
    shard = next(path for path in kept.rglob("*.pt"))
    shard.write_bytes(shard.read_bytes()[:-1])
    resume._fault.cache_clear()
    assert resume_point(str(folder)) == str(folder / "checkpoints" / BEFORE)
