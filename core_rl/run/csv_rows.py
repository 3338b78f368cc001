"""Rows of `metrics.csv` that were written before a resume."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

FILE = Path("csv", "metrics.csv")


class EarlierRows(Callback):
    """Put the rows of the run that is resumed before those of this one.

    Lightning begins the file anew, also in the same folder.  Rows of steps that are made again are
    left out.

    Args:
        run: folder of the run that is resumed; its file is read here.
    """

    def __init__(self, run: Path) -> None:
        self.rows: list[dict[str, str]] = []
        if (run / FILE).is_file():
            with (run / FILE).open(newline="", encoding="utf-8") as stream:
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
