"""One job: check what was composed, hand it to its task, keep what it measured.

Only Hydra is imported before the configuration has passed its checks.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from core_rl import secrets
from core_rl.config import HardwareConfig
from experiments import errors, schema

log = logging.getLogger(__name__)

ON_TEST = (
    "A sweep chose between runs by {}, a figure of the test set (objective_on_test=true): what is "
    "best here is not shown to be best on other data."
)


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def job(cfg: DictConfig) -> float | None:
    """Run one composed job; return the metric that `objective` names, for a sweeper."""
    in_batch = HydraConfig.get().mode == RunMode.MULTIRUN
    folder = Path(HydraConfig.get().runtime.output_dir)
    secrets.scrub_logs()
    with errors.reported_job(folder, in_batch):
        schema.validate(cfg, in_batch)
        if cfg.trainer.resume is not None:
            from experiments import resuming

            settings, output = OmegaConf.to_yaml(cfg, resolve=True), Path(cfg.paths.output)
            cfg.trainer.resume = resuming.resumed(cfg.trainer.resume, folder, settings, output)
        return execute(cfg, folder)


def execute(cfg: DictConfig, folder: Path) -> float | None:
    """Run the task of a checked configuration; its run folder is `folder`."""
    from core_rl import hardware
    from core_rl.preflight import checks as preflight
    from core_rl.preflight import plan
    from core_rl.run import processes
    from core_rl.run import run_folder as artifacts
    from experiments.resuming import running

    # In a file a progress bar is one long line.
    cfg.trainer.progress = cfg.trainer.progress and sys.stderr.isatty()
    values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    if hardware.is_main_process():
        if plan.before_run(values, folder) or preflight.before_run(values, folder):
            return None
    elif cfg.plan or cfg.preflight == "only":
        return None
    asked = cfg.hardware.devices * cfg.hardware.num_nodes
    if cfg.hardware.one_process and asked > 1:
        log.warning("this experiment runs on one device: hardware.devices=%d is not used", asked)
    machine = OmegaConf.to_object(cfg.hardware)
    assert isinstance(machine, HardwareConfig)
    hardware.prepare(machine, cfg.seed)
    with processes.together(machine, folder) as folder:
        task = hydra.utils.instantiate(
            cfg.task, folder=folder, _partial_=True, _recursive_=False, _convert_="object"
        )
        if not hardware.is_main_process():  # a further process of the same run
            return task().get(cfg.objective)
        started = artifacts.start_run(folder, OmegaConf.to_yaml(cfg, resolve=True))
        # Linked at the start, so that a killed run can be resumed as `latest`.
        artifacts.link_latest(Path(cfg.paths.output), folder)
        with running(folder):
            metrics = task()
        if schema.on_test(cfg.objective):
            metrics |= {"objective_on_test": 1.0}
            artifacts.add_to_reports(folder, ON_TEST.format(cfg.objective))
        artifacts.finish_run(folder, metrics, cfg.seed, started)
    if cfg.objective is None:
        return None
    if cfg.objective not in metrics:
        raise ValueError(f"objective={cfg.objective!r}: expected one of {', '.join(metrics)}")
    return metrics[cfg.objective]
