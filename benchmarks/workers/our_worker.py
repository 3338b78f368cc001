"""Train with our loop, a step for each line on standard input; see `benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.clips import clip_records, omni_policy
from benchmarks.text_model import prompts
from benchmarks.workers.worker import Gate, vowels
from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.hardware import prepare
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.loop.batches import PhaseBatches, shuffled_batches
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import KLConfig, LossConfig, Reduction
from core_rl.objective.curriculum import Curriculum
from core_rl.objective.rewards import WeightedReward
from core_rl.run.fit import quieten_lightning
from core_rl.run.strategies import trainer_kwargs
from core_rl.settings import LoopSettings
from core_rl.types import Actions, Query

STEPS = 1000  # more than anybody asks for


class TextPolicy(HFPolicy):
    """A query is its prompt."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        return dict(self.tokenizer(list(queries), padding=True, return_tensors="pt"))


class Steps(Callback):
    """A step begins when asked for and is reported when done."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_train_batch_start(self, *_: Any) -> None:
        self.gate.wait()

    def on_train_batch_end(self, *_: Any) -> None:
        self.gate.report()


def text_policy(settings: dict[str, Any]) -> HFPolicy:
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    return TextPolicy(
        model,
        tokenizer,
        stop_ids=[tokenizer.eos_token_id],
        suppress_ids=[tokenizer.eos_token_id],
        max_completion=settings["completion"],
    )


def reward(queries: Sequence[Query], actions: Actions) -> list[list[float]]:
    return [[vowels(text) for text in group] for group in actions.texts]


def build(
    settings: dict[str, Any], hardware: HardwareConfig
) -> tuple[GroupPolicyModule, PhaseBatches]:
    """The loop as every experiment runs it, without files."""
    policy: HFPolicy
    queries: Sequence[Query]
    if "seconds" in settings:
        policy = omni_policy(settings["completion"], settings["together"])
        queries = clip_records(Path(settings["folder"]), settings["seconds"])
    else:
        policy, queries = text_policy(settings), prompts(settings["prompt"])
    policy.shared_prompt = settings["shared"]
    policy.fused_decode = settings["fused"]
    policy.recompute = settings["recompute"]
    policy.rows_per_pass = settings["group"]
    curriculum = Curriculum.resolve(CurriculumConfig(), STEPS, STEPS)
    module = GroupPolicyModule(
        policy,
        WeightedReward({"vowels": reward}, {"vowels": 1.0}),
        curriculum,
        LoopSettings(
            curriculum=CurriculumConfig(),
            loss=LossConfig(reduction=Reduction.bnpo, kl=KLConfig(weight=settings["kl"])),
            rollout=RolloutConfig(),
            trainer=TrainerConfig(lr=1e-5, max_steps=STEPS, schedule="constant"),
            hardware=hardware,
            logger=LoggerConfig(kind="none"),
            paths=PathsConfig(),
        ),
        FreshSampler(settings["group"]),
        max_completion=settings["completion"],
    )
    stream = shuffled_batches(queries, 1, 0)
    return module, PhaseBatches(module, curriculum, lambda _: stream)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=json.loads)
    settings = parser.parse_args().settings
    on_gpu = settings["device"] == "cuda"
    hardware = HardwareConfig(accelerator="gpu" if on_gpu else "cpu", threads=settings["threads"])
    prepare(hardware, seed=0)
    quieten_lightning()
    gate = Gate(settings["device"])
    module, batches = build(settings, hardware)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            **trainer_kwargs(hardware),
            max_steps=STEPS,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Steps(gate)],
            default_root_dir=folder,
        )
        trainer.fit(module, train_dataloaders=batches)


if __name__ == "__main__":
    main()
