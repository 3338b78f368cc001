"""What a user is told about each kind of mistake in a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from core_rl.doctor.findings import Finding, UnhealthyError, Verdict
from experiments import errors, schema

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def told(*overrides: str) -> str:
    """Compose and check a wrong configuration; return the line."""
    with pytest.raises(errors.CONFIG_ERRORS) as caught:
        schema.validate(compose("config", overrides=list(overrides)))
    return errors.explain(caught.value)


@pytest.mark.parametrize(
    ("mistake", "named", "cure"),
    [
        # misspelt keys
        ("trainer.lrr=1", "trainer.lrr", "did you mean trainer.lr?"),
        ("trainer.learning_rate=1", "trainer.learning_rate", "did you mean trainer.lr?"),
        ("rollout.group_size=4", "rollout.group_size", "did you mean rollout.num_generations?"),
        ("lr=1", "lr", "did you mean trainer.lr?"),
        ("gpus=8", "gpus", "did you mean hardware.devices?"),
        ("loss.kl.wieght=1", "loss.kl.wieght", "did you mean loss.kl.weight?"),
        ("reward.weights.acuracy=1", "reward.weights.acuracy", "did you mean reward.weights.acc"),
        ("model.tiny.hiden=64", "model.tiny.hiden", "did you mean model.tiny.hidden?"),
        ("trainr.lr=1", "trainr", "did you mean trainer?"),
        ("hardwar=cpu", "hardwar", "did you mean hardware?"),
        ("+expp=probe", "expp", "did you mean exp?"),
        ("+trainer.lrr=1", "key trainer.lrr", "did you mean trainer.lr?"),
        ("+loss.kl.wieght=1", "key loss.kl.wieght", "did you mean loss.kl.weight?"),
        ("curriculum.phases=[{epoch: 2}]", "in curriculum.phases: epoch", "did you mean epochs?"),
        # wrong types
        ("trainer.lr=fast", "trainer.lr", "could not be converted to Float"),
        ("trainer.max_steps=1.5", "trainer.max_steps", "could not be converted to Integer"),
        ("trainer.seeds=[a]", "trainer.seeds[0]", "could not be converted to Integer"),
        ("seed=one", "seed", "could not be converted to Integer"),
        ("loss.kl.kind=k9", "loss.kl.kind", "expected one of [k1, k2, k3, exact]"),
        # out of range
        ("trainer.lr=-1", "trainer.lr=-1.0", "expected above 0"),
        ("rollout.num_generations=1", "rollout.num_generations=1", "at least 2"),
        ("seed=-1", "seed=-1", "expected from 0"),
        ("trainer.log_every=0", "trainer.log_every=0", "expected at least 1"),
        ("trainer.val_size=-1", "trainer.val_size=-1", "expected 0 or more"),
        ("trainer.test_size=-1", "trainer.test_size=-1", "expected 0 or more"),
        ("trainer.seeds=[0,0]", "trainer.seeds=[0, 0]", "none of them twice"),
        ("hardware.precision=fp8", "hardware.precision='fp8'", "one of 32-true, bf16-mixed"),
        ("hardware.accelerator=tpu", "hardware.accelerator='tpu'", "one of cpu, gpu, cuda, mps"),
        ("data_mix.ratios.social_iq=.9", "data_mix.ratios", "they sum to 1.4"),
        # unknown options
        ("hardware=gpu3", "hardware: gpu3", "did you mean gpu1? There are: cpu, gpu1"),
        ("model=gpt", "model: gpt", "There are: humanomni_v2, lever_gpt2"),
        ("+exp=stage4", "exp: stage4", "did you mean stage4_people_focus?"),
        ("+exp=_lever", "nothing to run", "a name without a leading underscore"),
        ("+exp=_lever_data", "nothing to run", "a name without a leading underscore"),
        ("task=_omni", "nothing to run", "a name without a leading underscore"),
        ("~task", "nothing to run", "give +exp=NAME"),
        ("exp=stage4_people_focus", "exp", "write +exp=stage4_people_focus"),
        ("ratios=social70", "ratios", "write +ratios=social70"),
        # what the user has to give
        ("+exp=omni_demo", "has no value", "give video=VALUE"),
        ("data_mix=stage4_people_focus", "paths.data", "paths.data=VALUE"),
        # what a shell makes of a slip
        ("trainer.lr=1e-3,1e-4", "trainer.lr=1e-3,1e-4", "put -m first"),
        ("trainer.lr=choice(1,2)", "trainer.lr=choice(1,2)", "put -m first"),
        ("trainer.lr==1e-3[", "trainer.lr==1e-3[", "write KEY=VALUE"),
        # interpolations
        ("trainer.lr=${model.rate}", "trainer.lr", "'model.rate' not found"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key_and_the_cure(
    mistake: str, named: str, cure: str
) -> None:
    line = told(mistake)
    assert "\n" not in line
    assert named in line
    assert cure in line


def test_a_missing_task_names_the_module() -> None:
    from hydra.utils import instantiate

    with pytest.raises(errors.CONFIG_ERRORS) as caught:
        instantiate({"_target_": "omni_rl.tasks.nothing.nothing"}, _partial_=True)
    line = errors.explain(caught.value)
    assert "\n" not in line
    assert "omni_rl.tasks.nothing" in line


def test_the_default_passes() -> None:
    schema.validate(compose("config"))


def test_a_batch_takes_one_device_a_job() -> None:
    cfg = compose("config", overrides=["hardware.devices=2"])
    schema.validate(cfg)
    with pytest.raises(schema.ConfigError, match="1 in a multirun"):
        schema.validate(cfg, in_batch=True)


def test_an_unhealthy_run_names_cause_and_cure_and_leaves_with_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "SHOW_TRACEBACKS", False)
    bad = Finding("cache/length", 0.0, "157", Verdict.fail, "the cache was lost", "model.eval()")
    good = Finding("prompts/own", 1.0, "1", Verdict.ok)
    with pytest.raises(SystemExit) as left, errors.reported_job(tmp_path, in_batch=False):
        raise UnhealthyError([good, bad])
    assert left.value.code == 3
    said = capsys.readouterr().err
    assert "cache/length: the cache was lost" in said and "cure: model.eval()" in said
    assert "prompts/own" not in said and "Traceback" not in said
    assert "UnhealthyError" in (tmp_path / "train.log").read_text()


def test_the_settings_that_other_names_lead_to_exist() -> None:
    config = compose("config", overrides=[])
    for ours in set(errors.OTHER_NAMES.values()) - {"exp"}:
        group, _, name = ours.rpartition(".")
        assert name in OmegaConf.select(config, group), ours
