from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments import schema

CONF = Path(__file__).parents[3] / "conf"


@pytest.mark.parametrize("name", ["lever", "lever_sft", "lever_rce_grpo"])
def test_a_machine_for_large_models_does_not_shorten_a_selectors_phases(name: str) -> None:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for asked, steps in (("seed=0", 1), ("hardware.accumulation=4", 4)):
            cfg = compose("config", [f"+exp={name}", "hardware=gpu1", "trainer=quick", asked])
            assert cfg.hardware.precision == "bf16-mixed"
            assert cfg.trainer.accumulation == cfg.hardware.accumulation == steps
