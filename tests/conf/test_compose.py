"""Every experiment and every option of a group composes, passes its checks, means what it says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from core_rl.config import HardwareConfig, RewardConfig
from core_rl.run.strategies import build_strategy
from experiments import schema
from omni_rl.config import OmniDataConfig, OmniModelConfig

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "exp").glob("[!_]*.yaml"))
OPTIONS = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/[!_]*.yaml")
    if path.parent.name not in ("exp", "model")  # of models see OF_ONE_PIPELINE
)
# What an experiment or option asks the user for.
NEEDS = {
    "omni_demo": ["video=clip.mp4", "question='Who waves?'"],
    "hf_doctor": ["path=folder"],
    "sa2va_segment": ["image=picture.png"],
    "prepare_data": ["dataset=emer", "raw=download", "out=data"],
    "stage4_people_focus": ["paths.data=data"],
    "sa2va_annotations": ["paths.data=data"],
    "sa2va_folders": ["paths.data=data"],
}
# Groups that only some experiments have.
INSIDE = {
    "answerer": "lever_beams",
    "dataset": "prepare_data",
    "ppo": "sa2va_reward_net",
    "scale": "sa2va_reward_net",
    "worlds": "lever",
}


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str) -> DictConfig:
    cfg = compose("config", overrides=list(overrides))
    schema.validate(cfg)
    return cfg


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    cfg = composed(f"+exp={name}", *NEEDS.get(name, []))
    assert "_target_" in cfg.task


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_task_is_called_as_it_is_written(name: str) -> None:
    cfg = composed(f"+exp={name}", *NEEDS.get(name, []))
    arguments = {str(key): None for key in cfg.task if key != "_target_"}
    task = inspect.signature(get_method(cfg.task._target_))
    bound = task.bind(folder=Path(), **arguments)
    if "groups" in bound.arguments:
        package = cfg.task._target_.partition(".")[0]
        known = vars(import_module(f"{package}.settings")).values()
        kinds = [fields(kind) for kind in known if is_dataclass(kind)]
        given = bound.arguments["groups"].keys()
        assert any(needed(kind) <= given <= {one.name for one in kind} for kind in kinds)


def needed(kind: tuple[Field[Any], ...]) -> set[str]:
    """Names of the fields without a default."""
    return {one.name for one in kind if one.default is MISSING and one.default_factory is MISSING}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    if group == "task":
        experiment = next(name for name in EXPERIMENTS if _task_of(name) == option)
        composed(f"+exp={experiment}", *NEEDS.get(experiment, []))
        return
    plus = "+" if group == "ratios" else ""
    inside = [f"+exp={INSIDE[group]}"] if group in INSIDE else []
    inside += NEEDS.get(INSIDE.get(group, ""), [])
    composed(*inside, f"{plus}{group}={option}", *NEEDS.get(option, []))


def _task_of(experiment: str) -> str:
    return _default(experiment, "task")


def _default(name: str, group: str) -> str:
    """What an experiment overrides a group with; else what the main job has."""
    main_job = OmegaConf.load(CONF / "config.yaml").defaults
    for entry in (*_entries(name), *main_job):
        if not isinstance(entry, str):
            found = entry.get(f"override /{group}", entry.get(group))
            if found:
                return str(found)
    raise AssertionError(f"{name}: no {group}")


def _entries(experiment: str) -> Iterator[str | DictConfig]:
    """Yield the defaults of an experiment, then those of the parts that it names."""
    own = OmegaConf.load(CONF / "exp" / f"{experiment}.yaml").get("defaults", [])
    yield from own
    for entry in own:
        if isinstance(entry, str) and entry.startswith("_") and entry != "_self_":
            yield from _entries(entry)


def _node(model: str) -> str:
    """The pipeline's own node that an option of `model` starts from."""
    first = str(OmegaConf.load(CONF / "model" / f"{model}.yaml").defaults[0])
    return first if first.startswith("/") else _node(first)


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
OF_ONE_PIPELINE = [
    (name, model)
    for name in EXPERIMENTS
    for model in MODELS
    if _node(model) == _node(_default(name, "model"))
]


@pytest.mark.parametrize(("experiment", "model"), OF_ONE_PIPELINE)
def test_every_experiment_takes_every_model_of_its_pipeline(experiment: str, model: str) -> None:
    cfg = composed(f"+exp={experiment}", f"model={model}", *NEEDS.get(experiment, []))
    assert cfg.trainer.lr == cfg.model.lr


def test_the_real_world_is_three_overrides_away() -> None:
    cfg = composed(
        "+exp=stage4_people_focus",
        "model=humanomni_v2",
        "data_mix=stage4_people_focus",
        "hardware=gpu8_zero2",
        "paths.data=data",
    )
    assert cfg.trainer.lr == 5e-7
    assert cfg.trainer.batch_size == 1
    assert cfg.trainer.accumulation == 8
    assert cfg.trainer.epochs == 1
    assert cfg.rollout.num_generations == 8
    assert cfg.data_mix.sources.social_iq.path.startswith("data/")


def test_both_worlds_share_the_ratios() -> None:
    embedded = composed("data_mix=stage4_embedded")
    real = composed("data_mix=stage4_people_focus", "paths.data=data")
    assert embedded.data_mix.ratios == real.data_mix.ratios
    assert embedded.data_mix.ratios == {"social_iq": 0.5, "emer": 0.3, "video_r1": 0.2}


@pytest.mark.parametrize(
    ("name", "general", "social"),
    [("people90", 0.1, None), ("social70", 0.1, 0.7), ("general30", 0.3, None)],
)
def test_a_rebalancing_lies_over_either_mix(name: str, general: float, social: float) -> None:
    for mix in ("stage4_embedded", "stage4_people_focus"):
        ratios = composed(f"data_mix={mix}", f"+ratios={name}", "paths.data=data").data_mix.ratios
        assert ratios.video_r1 == general
        assert social is None or ratios.social_iq == social


def test_an_override_beats_the_experiment_and_the_hardware_preset() -> None:
    preset = composed("+exp=stage4_people_focus", "hardware=gpu4_zero2")
    assert preset.rollout.num_generations == 2
    assert (preset.rollout.max_prompt, preset.rollout.max_completion) == (2048, 1024)
    assert (preset.hardware.devices, preset.trainer.accumulation) == (4, 12)
    assert composed("hardware=gpu4_zero2", "rollout=g4").rollout.num_generations == 4
    assert composed("reward=humanomni", "+exp=stage4_people_focus").reward.weights.context == 1
    assert composed("reward.weights.accuracy=.3").reward.weights.accuracy == 0.3
    assert composed("trainer.lr=1e-3").trainer.lr == 1e-3


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "hardware").glob("*.yaml")))
def test_every_hardware_builds_its_strategy(name: str) -> None:
    machine = OmegaConf.to_object(composed(f"hardware={name}").hardware)
    assert isinstance(machine, HardwareConfig)
    if machine.strategy == "deepspeed":
        pytest.importorskip("deepspeed", reason="DeepSpeed is an extra, not installed here")
    assert build_strategy(machine) is not None


def test_nodes_arrive_as_the_packages_own_dataclasses() -> None:
    cfg = composed()
    for node, kind in ((cfg.model, OmniModelConfig), (cfg.data_mix, OmniDataConfig)):
        assert isinstance(OmegaConf.to_object(node), kind)
    reward = OmegaConf.to_object(cfg.reward)
    assert isinstance(reward, RewardConfig)
    assert set(reward.weights) == set(reward.functions)
