"""A task that succeeds or fails as told, for the tests of the command line."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

from core_rl.config import HardwareConfig, TrainerConfig

ERRORS: dict[str, Exception] = {
    "user_error": ValueError("data_mix.size=0: expected above 0"),
    "no_file": FileNotFoundError("paths.data: no file data.json"),
    "no_package": ImportError("pip install 'people-focus-rl[judge]'"),
    "bug": RuntimeError("the two shapes differ"),
}


def probe(
    behaviour: str, trainer: TrainerConfig, hardware: HardwareConfig, seed: int, folder: Path
) -> dict[str, float]:
    """Return some metrics, fit a model, raise or die, as `behaviour` says."""
    assert isinstance(trainer, TrainerConfig)
    assert isinstance(folder, Path)
    if trainer.resume is not None:
        rank = os.environ.get("LOCAL_RANK", "0")
        (folder / f"resumed-{rank}").write_text(trainer.resume)
    if behaviour in ERRORS:
        raise ERRORS[behaviour]
    if behaviour == "exits":
        sys.exit(0)
    if behaviour == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if behaviour == "leaks":
        leak(folder)
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "fit":
        return {"world_size": float(fit(hardware))}
    logging.getLogger(__name__).info("probe says hello")
    (folder / "report.txt").write_text("lr\n")
    (folder / "report.html").write_text("<html><body>\n<h1>lr</h1></body></html>")
    return {"lr": trainer.lr, "draw": random.random(), "val/reward": -trainer.lr}


def leak(folder: Path) -> None:
    """Meet the key and the password wherever a run may: log, samples, tables, and an error."""
    from core_rl.files import write_json
    from core_rl.run.run_folder import SampleWriter

    said = f"401: {os.environ['API_KEY']} is no key for http://me:pa55-word@host:80/v1"
    logging.getLogger(__name__).warning("the server said %s", said)
    writer = SampleWriter(folder)
    writer.add([{"step": 1, "text": said}])
    writer.flush()
    write_json(folder / "report.json", {"said": [said]})
    raise RuntimeError(said)


def fit(hardware: HardwareConfig) -> int:
    """Take one step with Lightning's demonstration model; return the number of processes."""
    from lightning import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel

    from core_rl.run.strategies import trainer_kwargs

    trainer = Trainer(
        **trainer_kwargs(hardware),
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BoringModel())
    return trainer.world_size
