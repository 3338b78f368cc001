"""Run the loop: Lightning's Trainer with the callbacks, logs and checkpoints of every pipeline."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from core_rl.config import DoctorConfig, LoggerConfig, TrainerConfig
from core_rl.doctor.callback import Doctor, Examine
from core_rl.hardware import is_main_process, wait_for_all
from core_rl.loop.batches import PhaseBatches, Stream
from core_rl.loop.module import GroupPolicyModule
from core_rl.run.callbacks import (
    Checkpoints,
    DeviceUse,
    Samples,
    SavePolicy,
    TrainLog,
    write_policy,
)
from core_rl.run.examine import examine_policy
from core_rl.run.resume import EarlierRows, ResumePoint, resume_point
from core_rl.run.shards import check_shards
from core_rl.run.signals import saving_first
from core_rl.run.strategies import trainer_kwargs
from core_rl.sealed import change, recover
from core_rl.types import Describe, Query

log = logging.getLogger(__name__)

SHOWN = ("train/loss", "reward/total", "val/reward", "train/kl", "rollout/mixed_share")


@dataclass(frozen=True)
class Hooks:
    """What a pipeline adds to a run of the loop.

    Attributes:
        save: writes the policy into a folder, in the form that its library opens.
        describe: columns that name a query in `samples.parquet`.
        restore: reads the weights of such a folder.  At the end the policy becomes the checkpoint
            `chosen`, where there is one, and is saved as `final`.  None leaves the policy of the
            last step; `keep_chosen` can do the rest later.
        chosen: under `checkpoints`.
        final: under the run's folder.
        callbacks: more of them.
        examine: checks the policy before the first step of a phase.
    """

    save: SavePolicy
    describe: Describe
    restore: Callable[[Path], object] | None = None
    chosen: str = "best"
    final: str = "checkpoints/final"
    callbacks: Sequence[Callback] = ()
    examine: Examine = examine_policy


def fit(
    module: GroupPolicyModule,
    stream: Stream,
    held_out: Sequence[Sequence[Query]],
    folder: Path,
    hooks: Hooks,
) -> L.Trainer:
    """Train through every phase of the module's curriculum, and keep the best policy.

    Args:
        module: the loop with its policy and its settings.
        stream: endless batches of a phase.
        held_out: batches of queries that select the best policy.
        folder: where everything goes.
        hooks: what the pipeline adds.

    Returns:
        Lightning's trainer, for its metrics.

    Raises:
        UnhealthyError: see `core_rl.doctor.callback.Doctor`.
        KeyboardInterrupt: Ctrl-C while training.
        TerminatedError: SIGTERM, after saving.
    """
    quieten_lightning()
    settings = module.settings
    trainer = settings.trainer
    resumed = resume_point(trainer.resume)
    check_shards(resumed, settings.hardware)
    loggers = build_logger(settings.logger, folder)
    keep = (trainer.checkpoint_every, trainer.keep_checkpoints)
    callbacks: list[Callback] = [
        ResumePoint(folder, trainer.checkpoint_every),  # before others see the next step
        *_watching(module, folder, hooks.describe, resumed),
        Checkpoints(folder, hooks.save, *keep, resumed),
        *hooks.callbacks,
        *_doctor(settings.doctor, folder, held_out, hooks),
        *([LearningRateMonitor("step")] if loggers else []),
        *([EarlierRows(Path(resumed).parents[1])] if resumed else []),
    ]
    runner = L.Trainer(
        **trainer_kwargs(settings.hardware),
        **_schedule(module, trainer, bool(held_out)),
        logger=loggers or False,
        callbacks=callbacks,
        default_root_dir=folder,
    )
    # Lightning's own answer to SIGTERM ends a run with code 0, and nothing is saved.
    vars(runner._signal_connector)["register_signal_handlers"] = lambda: None
    batches = PhaseBatches(module, module.curriculum, stream, trainer.accumulation)
    with _interruptible(), saving_first():
        runner.fit(module, batches, _loader(held_out), ckpt_path=resumed, weights_only=True)
    if hooks.restore is not None:
        keep_chosen(folder, hooks.save, hooks.restore, hooks.chosen, hooks.final)
    return runner


def keep_chosen(
    folder: Path,
    save: SavePolicy,
    restore: Callable[[Path], object],
    chosen: str = "best",
    final: str = "checkpoints/final",
) -> None:
    """Restore the chosen checkpoint of a run, if there is one, and save the policy once.

    Args:
        folder: of the run.
        save: as in `Hooks`, likewise the others.
        restore: reads the weights of a checkpoint.
        chosen: under `checkpoints`.
        final: under the run's folder.
    """
    wait_for_all()  # the main process may still be writing it
    checkpoint = folder / "checkpoints" / chosen
    if is_main_process():
        recover(checkpoint)
    wait_for_all()
    if checkpoint.is_dir():
        wrong = change(checkpoint)
        if wrong is None:
            restore(checkpoint)
        else:  # the run's work must not be lost with it
            log.error("%s is damaged: %s; the policy of the last step is kept", checkpoint, wrong)
    if is_main_process():
        write_policy(save, folder / final, {})
        log.info("policy saved under %s", folder / final)
    wait_for_all()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, where Lightning raises SystemExit."""
    try:
        yield
    except SystemExit as left:
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from left
        raise


def _watching(
    module: GroupPolicyModule, folder: Path, describe: Describe, resumed: str | None
) -> list[Callback]:
    """Callbacks that show how the run goes."""
    samples = Samples(folder, describe, debug_path(module.settings.logger, folder))
    if resumed is not None:
        samples.writer.take_over(Path(resumed).parents[1])
    trainer = module.settings.trainer
    rewards = (f"reward/{name}" for name in module.reward.functions)
    return [
        TrainLog(trainer.log_every, (*SHOWN, *rewards)),
        samples,
        DeviceUse(),
        *([TQDMProgressBar(refresh_rate=1, leave=True)] if trainer.progress else []),
    ]


def _doctor(
    limits: DoctorConfig, folder: Path, held_out: Sequence[Sequence[Query]], hooks: Hooks
) -> list[Callback]:
    """Watch the run's health, unless the settings forbid it."""
    if not limits.enabled:
        return []
    spare = [query for batch in held_out[:1] for query in batch]
    return [Doctor(limits, folder, hooks.examine, spare, hooks.describe)]


def _schedule(module: GroupPolicyModule, trainer: TrainerConfig, validates: bool) -> dict[str, Any]:
    """Keyword arguments of `lightning.Trainer` for lengths and intervals."""
    return {
        "max_steps": module.curriculum.total_steps,
        "max_epochs": -1,
        "accumulate_grad_batches": trainer.accumulation,
        "gradient_clip_val": trainer.grad_clip,
        "val_check_interval": trainer.val_every * trainer.accumulation,  # in micro-batches
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1.0 if validates else 0,
        "num_sanity_val_steps": -1,  # the start is validated as well: it may be the best
        "log_every_n_steps": trainer.log_every,
        "enable_checkpointing": False,  # `core_rl.run.callbacks.Checkpoints` does it
        "enable_progress_bar": trainer.progress,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }


def debug_path(logger: LoggerConfig, folder: Path) -> Path | None:
    """File for prompts, completions and rewards as text; None if they are not wanted.

    The environment variables DEBUG_MODE and LOG_PATH work like `logger.debug` and
    `logger.log_path`.
    """
    wanted = os.environ.get("DEBUG_MODE", "").lower() in ("1", "true", "yes")
    if not (logger.debug or wanted):
        return None
    path = logger.log_path or os.environ.get("LOG_PATH")
    return Path(path) if path else folder / "samples.log"


def _share(held_out: Sequence[Any], runner: L.Trainer) -> Sequence[Any]:
    """This process's batches; all of them where there are fewer than processes: none may idle."""
    if len(held_out) < runner.world_size:
        return held_out
    return held_out[runner.global_rank :: runner.world_size]


def _loader(batches: Sequence[Any]) -> DataLoader[Any]:
    """A loader that does not change batches."""
    return DataLoader(cast("Any", list(batches)), batch_size=None, collate_fn=list)


def quieten_lightning() -> None:
    """Keep hints of Lightning that do not apply here out of the log."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*module\(s\) in eval mode at the start of training.*",  # dropout is off on purpose
        r".*does not have many workers.*",
        r".*smaller than the logging interval.*",
        r"`torch\.distributed\.\w+` is deprecated.*",  # by DeepSpeed
        r".*your dataloader is not resumable.*",  # `PhaseBatches` goes on where it stopped
    ):
        warnings.filterwarnings("ignore", message=message)


def build_logger(config: LoggerConfig, folder: Path) -> list[Logger]:
    """Build the metric logger that `logger.kind` names.

    Raises:
        ImportError: wandb asked for and not installed.
    """
    if config.kind == "tensorboard":
        return [TensorBoardLogger(folder, name="tensorboard", version="")]
    if config.kind == "csv":
        return [CSVLogger(folder, name="csv", version="")]
    if config.kind == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return [WandbLogger(project=config.project, save_dir=folder)]
    return []
