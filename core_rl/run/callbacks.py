"""Callbacks of every run: the log, the samples, the checkpoints."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from core_rl.doctor.findings import UnhealthyError, failed
from core_rl.doctor.weights import weights_finite
from core_rl.files import write_json
from core_rl.hardware import process_rank
from core_rl.loop.module import GroupPolicyModule
from core_rl.run.run_folder import SampleWriter
from core_rl.sealed import change, hidden, put_in_place, recover, seal
from core_rl.secrets import scrub
from core_rl.types import Describe, RewardTable

log = logging.getLogger(__name__)

SavePolicy = Callable[[Path, dict[str, float]], None]


class TrainLog(Callback):
    """Log a line for each step: `step 12/80 reward/total 1.23 ... left 0:01:20`.

    Args:
        every: optimiser steps between two lines.
        names: metrics to show if they were logged.
    """

    def __init__(self, every: int, names: tuple[str, ...]) -> None:
        self.every = every
        self.names = names
        self._began = 0.0
        self._first = 0
        self._told = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.monotonic()
        self._first = self._told = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self._told or step % self.every:
            return
        self._told = step
        seen = trainer.callback_metrics
        parts = [f"{name} {float(seen[name]):.4g}" for name in self.names if name in seen]
        spent = time.monotonic() - self._began
        left = spent / (step - self._first) * (trainer.max_steps - step)
        clock = time.strftime("%H:%M:%S", time.gmtime(left))
        log.info("step %d/%d %s left %s", step, trainer.max_steps, " ".join(parts), clock)


class Samples(Callback):
    """Write every judged candidate to `samples.parquet`, and readable text if asked.

    `step` is the optimiser step, from 1, that first learned from the candidate.  A candidate that
    is used again is not written again.

    Args:
        folder: of the run.
        describe: columns that name a query (id, question).
        text_path: file for prompts, completions and rewards as text; None writes none.
    """

    def __init__(self, folder: Path, describe: Describe, text_path: Path | None = None) -> None:
        self.writer = SampleWriter(folder, rank=process_rank())
        self.describe = describe
        self.text_path = text_path
        self._step = 0
        self._written: WeakValueDictionary[int, RewardTable] = WeakValueDictionary()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.writer.keep_until(trainer.global_step)  # later ones are made again

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.writer.flush()  # no step that the checkpoint has may be missing

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        self._step = trainer.global_step + 1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        group = pl_module.last_group
        if group is None:
            return
        if group.learned or self._written.get(id(group.rewards)) is group.rewards:
            return
        self._written[id(group.rewards)] = group.rewards
        rows = []
        # Every part needs the same columns: readers drop those that the first part lacks.
        unjudged = {f"reward/{name}": math.nan for name in pl_module.reward.functions}
        totals, values = group.rewards.total_BG.tolist(), group.rewards.values_RBG.tolist()
        lengths = group.actions.mask_BGT.sum(-1).tolist()
        for b, query in enumerate(group.queries):
            named = self.describe(query)
            for g in range(group.actions.num_candidates):
                rewards = {
                    f"reward/{name}": values[r][b][g] for r, name in enumerate(group.rewards.names)
                }
                rows.append(
                    {
                        "step": self._step,
                        **named,
                        "candidate": g,
                        "text": group.actions.texts[b][g] if group.actions.texts else "",
                        "length": lengths[b][g],
                        "reward/total": totals[b][g],
                        **unjudged,
                        **rewards,
                    }
                )
        self.writer.add(rows)
        if self.text_path is not None and trainer.is_global_zero:
            self._write_text(rows)

    def _write_text(self, rows: list[dict[str, Any]]) -> None:
        assert self.text_path is not None
        self.text_path.parent.mkdir(parents=True, exist_ok=True)
        with self.text_path.open("a", encoding="utf-8") as stream:
            for row in rows:
                stream.write(
                    scrub("\n".join(f"{key}: {value}" for key, value in row.items())) + "\n\n"
                )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.writer.flush()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.writer.flush()


class Checkpoints(Callback):
    """Keep the newest and the best policy, in the form its library opens.

    Writes `checkpoints/step-00000100` every `every` steps (the newest `keep` stay), and
    `checkpoints/best` by held-out reward, the start included.  A resumed run takes over the best of
    the run that it continues.

    Held-out rewards are compared only if the same functions judged.  A validation that lacks one
    of them selects nothing; the first validation with a further one starts the selection again.

    Args:
        folder: of the run.
        save: writes the policy into a folder.
        every: optimiser steps between two; 0: none but the best.
        keep: how many stay.
        resumed: the checkpoint that is resumed.
    """

    def __init__(
        self,
        folder: Path,
        save: SavePolicy,
        every: int,
        keep: int,
        resumed: str | None = None,
    ) -> None:
        self.folder = folder / "checkpoints"
        self.save = save
        self.every = every
        self.keep = keep
        self.best = float("-inf")
        self._figures: dict[str, float] = {}  # of the best, on held-out queries
        self._judges: set[str] = set()  # weighted functions that judged at a validation so far
        self.resumed = resumed
        self._saved_at = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            recover(self.folder / "best")
        trainer.strategy.barrier()
        if self.resumed is None:
            return
        before = Path(self.resumed).parent
        if not (before / "best.json").exists():
            return
        wrong = change(before / "best") if (before / "best").exists() else "it is missing"
        if wrong is not None:
            log.warning("%s: %s; the best is chosen anew", before / "best", wrong)
            return
        # The checkpoint itself may be older than the best.
        stored = json.loads((before / "best.json").read_text(encoding="utf-8"))
        self.best, self._judges = stored["val/reward"], set(stored.pop("judges", ()))
        self._figures = stored
        if trainer.is_global_zero and before.resolve() != self.folder.resolve():
            shutil.copytree(before / "best", self.folder / "best", dirs_exist_ok=True)
            self._note_best()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.every and step and step % self.every == 0 and step != self._saved_at:
            self._saved_at = step
            self._write(trainer, f"step-{step:08d}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, GroupPolicyModule)
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "val/reward" not in seen:
            return
        functions = pl_module.reward.functions
        judging = set(pl_module.reward.judging({name: seen[f"val/{name}"] for name in functions}))
        if not judging >= self._judges:
            silent = ", ".join(sorted(self._judges - judging))
            log.warning("%s judged nothing held out: this validation selects no best", silent)
            return
        if judging > self._judges:  # the best so far was chosen without their part
            self._judges, self.best = judging, float("-inf")
        if math.isfinite(seen["val/reward"]) and seen["val/reward"] > self.best:
            self.best = seen["val/reward"]
            self._write(trainer, "best")
            self._figures = {name: value for name, value in seen.items() if name.startswith("val/")}
            if trainer.is_global_zero:
                self._note_best()

    def _note_best(self) -> None:
        best = {**self._figures, "val/reward": self.best, "judges": sorted(self._judges)}
        write_json(self.folder / "best.json", best)

    @staticmethod
    def _refuse_broken(trainer: L.Trainer) -> None:
        """Raise UnhealthyError, on every process, if weights are not finite."""
        found = [weights_finite(trainer.lightning_module)]
        if failed(found):
            log.error("step %d: weights are not finite: nothing is saved", trainer.global_step)
            raise UnhealthyError(found)

    def _write(self, trainer: L.Trainer, name: str) -> None:
        self._refuse_broken(trainer)
        if not trainer.is_global_zero:
            return
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        step = {"step": float(trainer.global_step)}
        write_policy(self.save, self.folder / name, metrics | step)
        for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)


def write_policy(save: SavePolicy, folder: Path, metrics: dict[str, float]) -> None:
    """Write a policy whole or not at all, in place of an earlier one; see `core_rl.sealed`."""
    new = hidden(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    save(new, metrics)
    seal(new)
    put_in_place(new, folder)


def validated(folder: Path) -> dict[str, float]:
    """Read `val/<name>` of the best policy of a run: the figures that may choose between runs.

    Args:
        folder: of the run; without a validation there are none.
    """
    best = folder / "checkpoints" / "best.json"
    if not best.exists():
        return {}
    stored = json.loads(best.read_text(encoding="utf-8"))
    return {name: value for name, value in stored.items() if name.startswith("val/")}


class DeviceUse(Callback):
    """Log peak memory and utilisation of the GPU, where there is one."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        device = pl_module.device
        if device.type != "cuda":
            return
        pl_module.log("gpu/peak_gib", torch.cuda.max_memory_allocated(device) / 2**30)
        try:
            pl_module.log("gpu/utilisation", float(torch.cuda.utilization(device)))
        except (ModuleNotFoundError, RuntimeError):
            return  # nvidia-ml-py is not installed: memory alone is shown
