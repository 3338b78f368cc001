"""How often a training step runs the towers and the prompt, as the large presets run it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import DoctorConfig, HardwareConfig
from core_rl.loss_config import KLConfig, LossConfig
from core_rl.objective.rewards import WeightedReward
from core_rl.types import Actions
from omni_rl.config import LoraConfig
from omni_rl.data.record import Record
from omni_rl.data.splits import Splits
from omni_rl.learning.fit_policy import Training
from omni_rl.policy.policy import OmniPolicy, adapted
from omni_rl.settings import Settings

STEPS, ACCUMULATION, QUESTIONS = 2, 2, 2
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed here"
)


def by_length(queries: Sequence[Record], actions: Actions) -> list[list[float]]:
    return [[float(len(text)) for text in group] for group in actions.texts]


def counted(model: Any) -> dict[str, int]:
    """Count calls of the towers, and those of the decoder that carry a prompt with its media."""
    parts = {
        "visual": model.model.visual,
        "audio": model.model.audio_tower,
        "prompt": model.get_decoder(),
    }
    calls = dict.fromkeys(parts, 0)
    for name, part in parts.items():

        def note(module: object, args: object, given: dict[str, Any], name: str = name) -> None:
            calls[name] += name != "prompt" or given.get("inputs_embeds") is not None

        part.register_forward_pre_hook(note, with_kwargs=True)
    return calls


@pytest.mark.filterwarnings("ignore")  # Lightning on a run this short
@pytest.mark.parametrize("rank", [0, 4], ids=["full", "adapters"])
@pytest.mark.parametrize(
    ("strategy", "precision"),
    [
        ("auto", "32-true"),
        ("auto", "bf16-mixed"),
        pytest.param("deepspeed", "bf16-true", marks=needs_deepspeed),
        pytest.param("deepspeed", "bf16-mixed", marks=needs_deepspeed),
    ],
)
def test_towers_and_prompt_run_once_a_question_and_step(
    strategy: str,
    precision: str,
    rank: int,
    settings: Settings,
    splits: Splits,
    fresh_policy: Callable[..., OmniPolicy],
    tmp_path: Path,
) -> None:
    fresh = fresh_policy()
    config = replace(settings.model, recompute="layers", lora=LoraConfig(r=rank))
    policy = OmniPolicy(adapted(fresh.model, config), fresh.processor, config)
    policy.compare = False  # the comparison before the first step runs everything twice more
    calls = counted(fresh.model)
    run = replace(
        settings,
        model=config,
        hardware=HardwareConfig(strategy=strategy, precision=precision),
        trainer=replace(
            settings.trainer, max_steps=STEPS, accumulation=ACCUMULATION, batch_size=QUESTIONS
        ),
        loss=LossConfig(kl=KLConfig(weight=0.0)),
        doctor=DoctorConfig(enabled=False),
    )
    seen = [record for record in splits.train if record.videos]
    Training(policy, run, Splits(seen, [], []), tmp_path, 0).by_reward(
        WeightedReward({"length": by_length}, {"length": 1.0})
    )
    asked = STEPS * ACCUMULATION * QUESTIONS
    assert calls == {"visual": asked, "audio": asked, "prompt": asked}
    assert policy.shared_prompt
