"""The types behind `conf/`, and the checks a configuration must pass before a run starts.

Each package describes its settings in a `config.py` without torch.  They are named here as strings,
so this package imports none of the pipelines.  `conf/config.yaml` starts from the node `schema`,
registered below.  Some groups have other types in each pipeline; their options start from the
pipeline's own node, as in `/omni_model@_here_`.  Hydra checks types while it composes; `validate`
checks ranges.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import BooleanNode, DictConfig, IntegerNode, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException

from core_rl import config as core
from core_rl.loss_config import LossConfig

# Name of the node -> the dataclass, imported when Hydra starts.
PIPELINE_NODES = {
    "omni_model": "omni_rl.config:OmniModelConfig",
    "omni_data": "omni_rl.config:OmniDataConfig",
    "sa2va_model": "sa2va_rl.config:Sa2VAModelConfig",
    "sa2va_data": "sa2va_rl.config:Sa2VADataConfig",
    "sa2va_reward_net": "sa2va_rl.config:RewardNetConfig",
    "sa2va_reward_fit": "sa2va_rl.config:RewardFitConfig",
    "sa2va_ppo": "sa2va_rl.config:PPOConfig",
    "sa2va_selector": "sa2va_rl.config:SelectorConfig",
    "sa2va_scale": "sa2va_rl.config:ScaleConfig",
    "sa2va_compare_sizes": "sa2va_rl.config:CompareSizes",
    "sa2va_compare": "sa2va_rl.compare_config:CompareConfig",
    "lever_data": "lever.config:LeverDataConfig",
    "lever_answerer": "lever.generation_config:AnswererConfig",
    "lever_beams": "lever.generation_config:BeamConfig",
    "lever_rl_data": "lever.generation_config:RlDataConfig",
    "lever_model": "lever.model_config:LeverModelConfig",
    "lever_learn": "lever.model_config:LearnConfig",
    "lever_choose": "lever.model_config:ChooseConfig",
    "lever_pipeline": "lever.model_config:PipelineConfig",
}

# The keys of every run.  An experiment may add keys of its own, as long as its task reads them.
ROOT: dict[str, Any] = {
    "task": None,
    "seed": IntegerNode(0, is_optional=False),
    "debug": BooleanNode(False, is_optional=False),
    "objective": StringNode(None),  # metric handed to the sweeper, see `check_objective`
    "objective_on_test": BooleanNode(False, is_optional=False),
    "preflight": StringNode(
        "warn", is_optional=False
    ),  # off | warn | only: see core_rl.preflight.checks
    "plan": BooleanNode(False, is_optional=False),  # memory and time: see core_rl.preflight.plan
    "model": None,
    "data_mix": None,
    "reward": core.RewardConfig,
    "curriculum": core.CurriculumConfig,
    "loss": LossConfig,
    "rollout": core.RolloutConfig,
    "trainer": core.TrainerConfig,
    "hardware": core.HardwareConfig,
    "logger": core.LoggerConfig,
    "paths": core.PathsConfig,
    "doctor": core.DoctorConfig,
}


class ConfigError(ValueError):
    """A configuration that composes and cannot run."""


class UnknownKeyError(ConfigError):
    """A key that nothing reads."""

    def __init__(self, key: str, known: list[str]) -> None:
        super().__init__(key, known)
        self.key = key
        self.known = known


def register() -> None:
    """Make every node known to Hydra under its name."""
    store = ConfigStore.instance()
    store.store(name="schema", node=ROOT)
    for name, target in PIPELINE_NODES.items():
        module, _, attribute = target.partition(":")
        store.store(name=name, node=getattr(import_module(module), attribute))
    OmegaConf.register_new_resolver("required", required, replace=True)


def required(key: str, *, _root_: DictConfig) -> object:
    """Resolve `${required:paths.data}`: the value of `key`, an error where it is null."""
    value = OmegaConf.select(_root_, key)
    core.require(value is not None, key, value, f"a value, as in {key}=VALUE")
    return value


def validate(cfg: DictConfig, in_batch: bool = False) -> None:
    """Check what types alone cannot: missing values, keys that nothing reads, ranges.

    Args:
        cfg: the composed configuration, without Hydra's own node.
        in_batch: whether the run is one of a multirun.

    Raises:
        ConfigError: naming the field, its value and what was expected.
        omegaconf.errors.OmegaConfBaseException: an interpolation that leads nowhere.
    """
    if OmegaConf.select(cfg, "task._target_") is None:  # a part that options share: `_lever`
        raise ConfigError("nothing to run: give +exp=NAME, a name without a leading underscore")
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{key} has no value: give {key}=VALUE")
    # What the task reads, or what another key is made of.
    known = {*ROOT, *re.findall(r"\$\{(\w+)", OmegaConf.to_yaml(cfg))}
    for key in map(str, cfg):
        if key not in known:
            raise UnknownKeyError(key, sorted({*known, "exp"}))
    try:
        nodes = OmegaConf.to_object(cfg)  # every `__post_init__` runs here
        assert isinstance(nodes, dict)
        del nodes["task"]  # the same nodes once more
        _check_keys(nodes, "")
        core.require(0 <= cfg.seed < 2**32, "seed", cfg.seed, "from 0 to 2^32 - 1")
        check_objective(cfg.objective, cfg.objective_on_test)
        looks = cfg.preflight in ("off", "warn", "only")
        core.require(looks, "preflight", cfg.preflight, "off, warn or only")
        core.require(
            not in_batch or cfg.hardware.devices == 1,
            "hardware.devices",
            cfg.hardware.devices,
            "1 in a multirun: every process of a run would start the batch again",
        )
    except (OmegaConfBaseException, ConfigError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def on_test(objective: str | None) -> bool:
    """Whether a metric says something of the test set; `val/<name>` are of the validation set."""
    return objective is not None and not objective.startswith("val/")


def check_objective(objective: str | None, allowed: bool) -> None:
    """Refuse to choose between runs by the test set unless that is asked for.

    Raises:
        ValueError: `objective` is no validation figure and `objective_on_test` is false.
    """
    core.require(
        allowed or not on_test(objective),
        "objective",
        objective,
        "a figure of the validation set, such as val/reward: a sweep that is steered by the test "
        "set overstates what it finds; objective_on_test=true allows it, and the report says so",
    )


def _check_keys(node: Any, path: str) -> None:
    """Raise UnknownKeyError for a key that `+` put where a dataclass has no field."""
    if dataclasses.is_dataclass(node):
        fields = [field.name for field in dataclasses.fields(node)]
        for extra in vars(node).keys() - set(fields):
            raise UnknownKeyError(f"{path}{extra}", [f"{path}{name}" for name in fields])
        node = vars(node)
    inner: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inner:
        if isinstance(value, dict | list) or dataclasses.is_dataclass(value):
            _check_keys(value, f"{path}{key}.")
