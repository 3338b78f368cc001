"""The files from which a run goes on: the newest, and the one before it.

`checkpoints/last.ckpt` is written under a hidden name in the same folder, flushed to the disk and
then renamed; the one before stays as `before.ckpt`.  One that is torn or has a flipped byte is
named, and the one before is used.  A checkpoint is a file (a zip archive, whose records have
checksums); DeepSpeed's is a folder that holds another, `checkpoint`, and is sealed.
"""

from __future__ import annotations

import csv
import logging
import shutil
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from core_rl.hardware import mean_over_ranks
from core_rl.loop.module import GroupPolicyModule
from core_rl.run.signals import TerminatedError, asked_to_end
from core_rl.sealed import damage, seal, sync

log = logging.getLogger(__name__)

LAST, BEFORE = "last.ckpt", "before.ckpt"
ROWS = Path("csv", "metrics.csv")  # of the figures of each step


class ResumePoint(Callback):
    """Write `checkpoints/last.ckpt` between two steps, at the end, and on SIGTERM.

    A step is over once it was validated and logged.  So the checkpoint of step N is written when
    step N + 1 is about to begin; its random states are those before the batch was fetched.

    Args:
        folder: of the run.
        every: optimiser steps between two; 0: none, not even on SIGTERM.

    Raises:
        TerminatedError: SIGTERM arrived, at whichever process, and all is saved.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder / "checkpoints"
        self.every = every
        self._step = -1
        self._saved = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = trainer.global_step
        if trainer.is_global_zero and self.every:
            _remove(unfinished(self.folder))  # left by a write that was killed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        if step == self._step:  # more batches to accumulate
            return
        self._step = step
        # Lightning's checkpoints lack this, by which it numbers what it logs.
        trainer.fit_loop.epoch_loop._batches_that_stepped = step
        if mean_over_ranks(float(asked_to_end()), pl_module.device) > 0:
            raise TerminatedError(self._keep_and_say(trainer))
        if self.every and step % self.every == 0 and step != self._saved:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every and trainer.global_step != self._saved:
            assert isinstance(pl_module, GroupPolicyModule)
            pl_module.continuation.mark()
            self._save(trainer)

    def _keep_and_say(self, trainer: L.Trainer) -> str:
        step = trainer.global_step
        if not self.every:
            return f"ended by SIGTERM at step {step}; this part of the run keeps no checkpoint"
        last = self.folder / LAST
        if step != self._saved or not last.exists():
            self._save(trainer)
        return (
            f"ended by SIGTERM; saved after step {step} as {last}: the same command with "
            "trainer.resume=auto goes on there"
        )

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(unfinished(self.folder))
        if trainer.is_global_zero:
            keep(self.folder)
        trainer.strategy.barrier()
        self._saved = trainer.global_step


def unfinished(folder: Path) -> Path:
    """Name under which the next checkpoint is written, in the folder `checkpoints` of a run."""
    return folder / f".{LAST}"


def keep(folder: Path) -> None:
    """Let the checkpoint that was just written become the last, and the last the one before."""
    new, last, before = unfinished(folder), folder / LAST, folder / BEFORE
    if new.is_dir():
        seal(new)
    if last.exists():
        _remove(before)
        last.rename(before)
    new.rename(last)
    sync(folder)


def has_resume_point(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint to go on from, whole or not."""
    return any((folder / "checkpoints" / name).exists() for name in (LAST, BEFORE))


def resume_point(resume: str | None) -> str | None:
    """Find the checkpoint that `trainer.resume` names: itself, or the newest whole of a run folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: all are damaged.
    """
    if resume is None:
        return None
    path = Path(resume)
    if path.is_dir() and not (path / "checkpoint").is_dir():
        found = [path / "checkpoints" / name for name in (LAST, BEFORE)]
    else:
        found = [path]
    there = [one for one in found if one.exists()]
    if not there:
        raise FileNotFoundError(
            f"trainer.resume={resume}: no {found[0]}; name a run folder that has checkpoints/{LAST}"
        )
    faults: list[str] = []
    for one in there:
        wrong = fault(one)
        if wrong is None:
            if faults:
                log.warning("%s; going on from %s", faults[0], one)
            return str(one)
        faults.append(f"{one} is damaged: {wrong}")
    beside = path.with_name(BEFORE)
    other = f"name {beside}" if path.name == LAST and beside.exists() else "name another checkpoint"
    raise ValueError(
        f"trainer.resume={resume}: {'; '.join(faults)}; {other}, or leave trainer.resume out and "
        "start anew"
    )


def fault(path: Path) -> str | None:
    """Say what is wrong with a checkpoint, in a few words; None if it is whole."""
    state = path.stat()
    return _fault(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _fault(path: Path, size: int, changed: int) -> str | None:
    if path.is_dir():
        return damage(path)
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # reads every record and compares its checksum
        if torn is not None:
            return f"its record {torn} has another checksum than when it was written"
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)  # finds the other bytes
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return str(error).partition("\n")[0] or type(error).__name__
    except Exception as error:  # the unpickler raises whatever a byte leads it to
        return f"{type(error).__name__} while reading it"
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class EarlierRows(Callback):
    """Put the rows of the run that is resumed before those of this one.

    Lightning begins the file anew, also in the same folder.  Rows of steps that are made again are
    left out.

    Args:
        run: folder of the run that is resumed; its file is read here.
    """

    def __init__(self, run: Path) -> None:
        self.rows: list[dict[str, str]] = []
        if (run / ROWS).is_file():
            with (run / ROWS).open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if (row["step"] or "").isdigit()]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and trainer.is_global_zero:
                earlier = [
                    {name: value for name, value in row.items() if value}
                    for row in self.rows
                    if int(row["step"]) < trainer.global_step
                ]
                logger.experiment.metrics[:0] = earlier
