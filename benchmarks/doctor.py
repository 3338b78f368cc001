"""What the doctor costs, as ratios to a training step of the same run.

    python -m benchmarks.doctor [--steps 13] [--prompt 256] [--output outputs/bench/doctor.json]

A random causal model of about 6 million parameters trains by the real loop on one question a step
(8 candidates of 32 new tokens).  Each hook of the doctor is timed inside that run, and each step
without it, in processor time of one thread: a busy machine changes both alike.  A round of cheap
checks is shown as it is and spread over the `doctor.every` steps that it stands for.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from core_rl.config import (
    CurriculumConfig,
    DoctorConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    PhaseConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.doctor.callback import Doctor
from core_rl.files import write_json
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.loop.module import FreshSampler, GroupPolicyModule
from core_rl.loss_config import LossConfig
from core_rl.objective.curriculum import Curriculum, Phase
from core_rl.objective.rewards import WeightedReward
from core_rl.run.examine import examine_policy
from core_rl.run.fit import Hooks, fit
from core_rl.run.run_folder import hardware
from core_rl.settings import LoopSettings
from core_rl.types import Actions, Batch

log = logging.getLogger("benchmarks.doctor")

CANDIDATES = 8
NEW_TOKENS = 32
EVERY = DoctorConfig().every  # what a round of checks is spread over
LOOKED_AT = 3  # steps between two rounds here, so that a short run has several


class TextPolicy(HFPolicy):
    """A query is its prompt."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        return dict(self.tokenizer(list(queries), padding=True, return_tensors="pt"))


def build_policy() -> TextPolicy:
    """Build a random model over bytes; no byte ends a completion, so every one has full length."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
        )
    )
    end = tokenizer.eos_token_id
    return TextPolicy(model, tokenizer, stop_ids=[end], max_completion=NEW_TOKENS)


def vowels(queries: Sequence[str], actions: Actions) -> list[list[float]]:
    """Reward small ids: enough that groups differ."""
    return (actions.ids_BGT < 64).float().mean(-1).tolist()


class Steps(Callback):
    """Processor seconds of each step; the doctor's own are added to it by `TimedDoctor`."""

    def __init__(self) -> None:
        self.began = 0.0
        self.seconds: list[float] = []
        self.doctor = 0.0  # inside the present step

    def on_train_batch_start(self, *_: Any) -> None:
        self.began, self.doctor = time.process_time(), 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self.began - self.doctor)


class TimedDoctor(Doctor):
    """The doctor, with a clock around each of its hooks."""

    def __init__(self, steps: Steps, limits: DoctorConfig, folder: Path, spare: list[str]) -> None:
        super().__init__(limits, folder, examine_policy, spare)
        self.steps = steps
        self.gate = 0.0
        self.rounds: list[float] = []
        self.others: list[float] = []
        self._round = 0.0

    def _timed(self, hook: Callable[..., None], *args: Any) -> float:
        began = time.process_time()
        hook(*args)
        spent = time.process_time() - began
        self.steps.doctor += spent
        return spent

    def on_train_batch_start(self, *args: Any) -> None:
        self._round = 0.0
        self.gate += self._timed(super().on_train_batch_start, *args)

    def on_before_backward(self, *args: Any) -> None:
        self._round += self._timed(super().on_before_backward, *args)

    def on_before_optimizer_step(self, *args: Any) -> None:
        self._round += self._timed(super().on_before_optimizer_step, *args)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        due = self._due
        self._round += self._timed(super().on_train_batch_end, trainer, *args)
        (self.rounds if due else self.others).append(self._round)


def measure(steps: int, prompt: int) -> dict[str, float]:
    """Train for some steps with the doctor and return what it cost."""
    policy = build_policy()
    curriculum = Curriculum.resolve(CurriculumConfig([PhaseConfig(steps=steps)]), 1)
    settings = LoopSettings(
        curriculum=CurriculumConfig(),
        loss=LossConfig(),
        rollout=RolloutConfig(),
        trainer=TrainerConfig(progress=False, val_every=10**6, checkpoint_every=0),
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        paths=PathsConfig(),
        doctor=DoctorConfig(enabled=False),  # the timed one stands in for it
    )
    module = GroupPolicyModule(
        policy,
        WeightedReward({"vowels": vowels}, {"vowels": 1.0}),
        curriculum,
        settings,
        FreshSampler(CANDIDATES),
        max_completion=NEW_TOKENS,
    )
    questions = [(f"question {i} " * prompt)[:prompt] for i in range(steps + 1)]

    def stream(phase: Phase) -> Iterator[Batch]:
        yield from ([question] for question in questions)

    with tempfile.TemporaryDirectory() as folder:
        clock = Steps()
        limits = DoctorConfig(every=LOOKED_AT)
        doctor = TimedDoctor(clock, limits, Path(folder), questions[-1:])
        hooks = Hooks(
            save=lambda path, metrics: None,
            describe=lambda query: {"prompt": query},
            callbacks=[doctor, clock],
        )
        fit(module, stream, [], Path(folder), hooks)
    return summary(clock.seconds[1:], doctor)  # the first step pays for what torch sets up


def summary(steps: Sequence[float], doctor: TimedDoctor) -> dict[str, float]:
    """Ratios to the median step."""
    step = statistics.median(steps)
    later = statistics.median(doctor.rounds[1:])
    idle = statistics.median(doctor.others)
    return {
        "step_seconds": step,
        "gate_steps": doctor.gate / step,
        "first_round_share": doctor.rounds[0] / step,
        "round_share": later / step,
        "idle_share": idle / step,
        "periodic_share": (later + (EVERY - 1) * idle) / EVERY / step,
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/doctor.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    figures = measure(arguments.steps, arguments.prompt)
    log.info("gate: %.2f steps (limit 2)", figures["gate_steps"])
    log.info("cheap checks: %.2f %% of a step (limit 3)", 100 * figures["periodic_share"])
    written = {
        "prompt_tokens": arguments.prompt,
        "candidates": CANDIDATES,
        "new_tokens": NEW_TOKENS,
        "every": EVERY,
        **figures,
        "hardware": hardware(),
    }
    write_json(arguments.output, written)


if __name__ == "__main__":
    main()
