"""What a run will need, said before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from core_rl.preflight.memory import Plan
from core_rl.preflight.plan import GPUS, before_run, describe, fitting, plan_of, step_cost
from core_rl.preflight.shapes import PUBLISHED, Shapes
from experiments import schema

CONF = Path(__file__).parents[3] / "conf"
REAL = (
    "+exp=stage4_people_focus",
    "model=humanomni_v2",
    "data_mix=stage4_people_focus",
    "paths.data=FOLDER",
    "plan=true",
)


def composed(*overrides: str) -> dict[str, Any]:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(
            compose("config", overrides=[*REAL, *overrides]), resolve=True, enum_to_str=True
        )
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize("hardware", ["gpu8_zero2", "gpu4_zero2", "gpu1", "cpu"])
def test_the_7b_plan_is_printed_for_every_preset(hardware: str, tmp_path: Path) -> None:
    config = composed(f"hardware={hardware}")
    assert before_run(config, tmp_path)
    text = (tmp_path / "plan.txt").read_text()
    assert "8.93 billion parameters (7.62 language, 1.32 towers)" in text
    assert "together" in text and "1500 questions" in text


def test_eight_gpus_hold_the_published_run_and_one_needs_a_cure() -> None:
    assert "fits" in describe(composed("hardware=gpu8_zero2"))
    text = describe(composed("hardware=gpu1"))
    assert "it does with model.lora.r=16" in text
    cured = describe(composed("hardware=gpu1", "model.lora.r=16"))
    assert "GiB to spare" in cured


def test_settings_reach_the_plan() -> None:
    shapes = PUBLISHED["Qwen/Qwen2.5-Omni-7B"]
    plan = plan_of(composed("hardware=gpu8_zero2"), shapes)
    assert plan == Plan(
        weight_bytes=2,
        compute_bytes=2,
        masters=True,
        zero_stage=2,
        devices=8,
        accumulates=True,
        reference=True,
        candidates=8,
        prompt=4096,
        completion=1024,
        recompute="layers",
        patches=4096,
    )
    adapted = plan_of(composed("hardware=gpu1", "model.lora.r=16"), shapes)
    assert adapted.trainable == shapes.adapters(16, ["q_proj", "k_proj", "v_proj", "o_proj"])
    assert not adapted.reference


def test_cures_are_tried_from_the_cheapest() -> None:
    shapes = PUBLISHED["Qwen/Qwen2.5-Omni-7B"]
    config = composed("hardware=gpu8_zero2")
    assert fitting(config, shapes, 1000.0) == ["model.recompute=layers"]
    assert fitting(config, shapes, 1.0) == []
    assert fitting(config, shapes, 20.0) == [
        "rollout=g4",
        "hardware.offload=true",
        "model.lora.r=16",
        "rollout.max_completion=512",
    ]


def test_products_are_counted_by_hand() -> None:
    """One layer of width 2: 2 products for each weight and token, 4 for each pair attended to."""
    shapes = Shapes(
        100, layers=1, hidden=2, intermediate=3, heads=1, kv_heads=1, head_width=2, vocabulary=10
    )
    plan = Plan(candidates=2, prompt=4, completion=6, recompute="never")
    weights = 100 - 20
    encode = 4 * (2 * weights + 8 * 2)
    draw = 12 * (2 * weights + 8 * (4 + 3))
    cost = step_cost(shapes, plan)
    assert cost.drawing_flops == draw
    assert cost.flops == 3 * (encode + draw)
    again = step_cost(shapes, replace(plan, recompute="layers"))
    assert again.flops == 4 * (encode + draw)
    copies = step_cost(shapes, replace(plan, shared=False))
    assert copies.flops == 3 * (2 * encode + draw)
    compared = step_cost(shapes, replace(plan, reference=True))
    assert compared.flops == 4 * (encode + draw)
    assert cost.seconds(GPUS["H100"], 1, 6) >= 6e-3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hardware.gpu=H1000", "hardware.gpu=H1000: expected one of A100-40"),
        ("model.path=somebody/something", "the sizes of model.path=somebody/something are not"),
    ],
)
def test_what_is_not_known_is_said(override: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(composed(override))


def test_the_embedded_model_has_a_plan(tmp_path: Path) -> None:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["+exp=stage4_people_focus", "plan=true"])
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    assert "parameters" in describe(config)
    assert not before_run({**config, "plan": False}, tmp_path)
