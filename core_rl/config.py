"""Settings that every pipeline shares, as plain dataclasses.

No torch here: `experiments` builds the schema from these before anything heavy is imported, so a
misspelt key, a wrong type or a value out of range is reported in about a second.  Types are checked
while Hydra composes; ranges in `__post_init__`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard


def require(ok: bool, name: str, value: object, expected: str) -> None:
    """Raise ValueError naming the field, its value and what was expected unless `ok`."""
    if not ok:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def require_least(node: str, settings: object, least: float, *names: str) -> None:
    """Require that fields of `settings`, the node `node`, are at least `least`."""
    expected = f"at least {least:g}" if least else "0 or more"
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{node}.{name}", value, expected)


def require_positive(node: str, settings: object, *names: str) -> None:
    """Require that fields of `settings`, the node `node`, are above 0."""
    for name in names:
        value = getattr(settings, name)
        require(value > 0, f"{node}.{name}", value, "above 0")


def require_one_of(node: str, settings: object, name: str, *known: str) -> None:
    """Require that a field of `settings`, the node `node`, is one of some names."""
    value = getattr(settings, name)
    require(value in known, f"{node}.{name}", value, f"one of {', '.join(known)}")


def require_share(node: str, settings: object, *names: str) -> None:
    """Require that fields of `settings`, the node `node`, are from 0 to 1."""
    for name in names:
        value = getattr(settings, name)
        require(0 <= value <= 1, f"{node}.{name}", value, "from 0 to 1")


def is_address(text: str | None) -> bool:
    """Whether a text is the base of a server, such as http://localhost:8000/v1."""
    return re.match(r"https?://[^\s/]+(?:/\S*)?$", text or "") is not None


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value read from JSON is a finite number that a float can hold; no boolean is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


ACCELERATORS = ("cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


class OnBadRecord(Enum):
    """What a record that cannot be used does to a run."""

    error = "error"
    skip = "skip"


class OnNan(Enum):
    """What an optimiser step whose loss or gradient is not finite does to a run."""

    skip = "skip"  # it is not applied, and counted in train/skipped
    stop = "stop"


class PhaseKind(Enum):
    """Which objective a phase of the curriculum optimises."""

    rce = "rce"  # reward-weighted cross entropy
    grpo = "grpo"  # clipped policy gradient with group advantages


class Subset(Enum):
    """Which of a query's stored candidates a phase learns from."""

    all = "all"
    top_k = "top_k"  # the k best by reward: the published early stage; may kill the contrast
    contrast = "contrast"  # best, median and worst: keeps a spread of rewards


class EngineKind(Enum):
    """Who draws fresh candidates."""

    policy = "policy"  # the policy itself, in this process
    vllm = "vllm"  # a vLLM server that is given the policy's weights


@dataclass
class PhaseConfig:
    """One stretch of training with one objective.

    `steps` (optimiser steps) wins over `epochs` where both are given.
    """

    kind: PhaseKind = PhaseKind.grpo
    epochs: float = 1.0
    steps: int | None = None
    lr_scale: float = 1.0
    # RCE: softmax temperature over scores, linear from start to end of the phase.
    tau_start: float = 2.0
    tau_end: float = 0.5
    zscore_scores: bool = True
    # Stored candidates: which of them, and how many for `top_k`.
    subset: Subset = Subset.all
    top_k: int = 3
    # Updates made from one rollout; above 1 the rollout is reused against its own log-probs.
    num_iterations: int = 1
    minibatches: int = 1  # a reused rollout is that many optimiser steps wide
    # Which data the phase reads, for pipelines that have several; empty = the default.
    data: str = ""

    def __post_init__(self) -> None:
        node, steps, expected = "curriculum.phases", self.steps, "null or a whole number above 0"
        require(steps is None or steps > 0, f"{node}.steps", steps, expected)
        require_positive(node, self, "epochs", "lr_scale", "tau_start", "tau_end")
        require_least(node, self, 2, "top_k")
        require_least(node, self, 1, "num_iterations", "minibatches")


@dataclass
class CurriculumConfig:
    """Phases in order; log-probs of the old and the reference policy are taken at each start."""

    phases: list[PhaseConfig] = field(default_factory=lambda: [PhaseConfig()])

    def __post_init__(self) -> None:
        require(len(self.phases) > 0, "curriculum.phases", self.phases, "at least one phase")


@dataclass
class EngineConfig:
    """Who draws fresh candidates; the fields below `kind` are those of a server."""

    kind: EngineKind = EngineKind.policy
    url: str = "http://localhost:8000"
    model: str | None = None  # as the server names it; null = the first it lists
    weights: str = "outputs/engine"  # folder both sides can read: weights go through it
    concurrency: int = 32  # requests at a time
    timeout: float = 600.0  # seconds a request
    retries: int = 3

    def __post_init__(self) -> None:
        expected = "an address such as http://localhost:8000"
        require(is_address(self.url), "rollout.engine.url", self.url, expected)
        require_positive("rollout.engine", self, "timeout")
        require_least("rollout.engine", self, 0, "retries")
        require_least("rollout.engine", self, 1, "concurrency")


@dataclass
class RolloutConfig:
    """How fresh candidates are drawn."""

    num_generations: int = 8
    temperature: float = 1.0
    max_prompt: int = 2048
    max_completion: int = 1024
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        count, expected = self.num_generations, "at least 2: an advantage needs a group"
        require(count >= 2, "rollout.num_generations", count, expected)
        require_positive("rollout", self, "temperature", "max_prompt", "max_completion")


@dataclass
class TrainerConfig:
    """How long and how often; what `smoke`, `quick` and `full` set."""

    name: str = "epoch"  # of the preset, for sizes that go with it: ${scale.${trainer.name}.train}
    lr: float = 1e-4
    epochs: float = 1.0
    max_steps: int | None = None  # optimiser steps over all phases; null = the curriculum decides
    batch_size: int = 1  # queries a device and micro-step
    accumulation: int = 1
    grad_clip: float = 1.0
    warmup: float = 0.1  # share of a phase's steps
    weight_decay: float = 0.0
    schedule: str = "cosine"  # cosine | constant
    seeds: list[int] = field(default_factory=lambda: [0])
    controls: list[str] = field(default_factory=list)
    reseed: bool = False  # make the start model anew for each seed, too
    workers: int = 1  # seeds trained side by side, each in its own process
    val_every: int = 50
    val_size: int = 64
    test_size: int | None = None  # null = all held-out records, or what the generator draws
    checkpoint_every: int = 100  # optimiser steps; a run keeps one at its end, too; 0 = none
    keep_checkpoints: int = 2
    # A run folder, a checkpoint, or `auto`: the newest unfinished run of these settings, if any.
    resume: str | None = None
    on_nan: OnNan = OnNan.skip  # a step whose loss or gradient is not finite is never applied
    progress: bool = True
    log_every: int = 1

    def __post_init__(self) -> None:
        require_positive("trainer", self, "lr", "epochs", "grad_clip")
        steps, size, seeds = self.max_steps, self.test_size, self.seeds
        require(steps is None or steps > 0, "trainer.max_steps", steps, "null or above 0")
        require(size is None or size >= 0, "trainer.test_size", size, "0 or more")
        require_least("trainer", self, 1, "batch_size", "accumulation", "workers", "val_every")
        require_least("trainer", self, 1, "keep_checkpoints", "log_every")
        require_least("trainer", self, 0, "val_size", "checkpoint_every")
        require(0 <= self.warmup < 1, "trainer.warmup", self.warmup, "from 0 to below 1")
        require_one_of("trainer", self, "schedule", "cosine", "constant")
        expected = "at least one seed, none of them twice"
        require(len(seeds) == len(set(seeds)) > 0, "trainer.seeds", seeds, expected)


@dataclass
class HardwareConfig:
    """The machine: what Lightning's Trainer is built with."""

    accelerator: str = "cpu"  # cpu | gpu | cuda | mps
    devices: int = 1  # processes on each node
    num_nodes: int = 1
    strategy: str = "auto"  # auto | ddp | deepspeed
    zero_stage: int = 2
    offload: bool = False
    precision: str = "32-true"  # or bf16-mixed, 16-mixed, bf16-true, 16-true, 64-true
    threads: int = 1  # torch threads a process on CPU; 0 = leave as it is
    accumulation: int = 1
    activation_checkpointing: bool = False
    gpu: str = "H100"  # which plan=true plans for: a name in core_rl/preflight/plan.py
    one_process: bool = False  # set by experiments that use one device, whatever is asked for
    # Run this preset's strategy, precision and accumulation on CPU, with two processes where it
    # asks for more than one: a rehearsal of a GPU run on any machine.
    rehearse: bool = False
    timeout_minutes: float = 30.0  # how long the processes of a run wait for each other

    def __post_init__(self) -> None:
        if self.rehearse:
            self.accelerator, self.num_nodes, self.threads = "cpu", 1, 1
            self.devices = min(self.devices, 2)
        if self.one_process:
            self.devices = self.num_nodes = 1
        require_one_of("hardware", self, "accelerator", *ACCELERATORS)
        require_one_of("hardware", self, "precision", *PRECISIONS)
        require_one_of("hardware", self, "strategy", "auto", "ddp", "deepspeed")
        require_least("hardware", self, 1, "devices", "num_nodes")
        require_positive("hardware", self, "timeout_minutes")
        require(self.zero_stage in (1, 2, 3), "hardware.zero_stage", self.zero_stage, "1, 2 or 3")
        require_least("hardware", self, 0, "threads")

    @property
    def world_size(self) -> int:
        """Processes of the whole run."""
        return self.devices * self.num_nodes

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled for fp16; steps whose scaled gradient overflows are part."""
        fp16 = self.precision.startswith("16")
        return fp16 and (self.precision == "16-mixed" or self.strategy == "deepspeed")


@dataclass
class LoggerConfig:
    """Where metrics go beside `metrics.json` and `train.log`."""

    kind: str = "tensorboard"  # tensorboard | csv | wandb | none
    project: str = "people-focus"
    debug: bool = False  # also write prompts, completions and rewards as readable text
    log_path: str | None = None  # where that text goes; null = the run folder

    def __post_init__(self) -> None:
        require_one_of("logger", self, "kind", "tensorboard", "csv", "wandb", "none")


@dataclass
class PathsConfig:
    """Folders; relative ones are taken from where the command was typed."""

    output: str = "outputs"
    cache: str = "outputs/cache"
    data: str | None = None


@dataclass
class RewardConfig:
    """Named reward functions (each a `_target_`), their weights and the span each may steer."""

    functions: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    spans: dict[str, str] = field(default_factory=dict)
    max_unjudged: float = 0.5  # share of None above which the run warns loudly
    # Lowest and highest value of a function; one outside ends the run.  Others: -1e6 and 1e6.
    ranges: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(self.functions))
        expected = f"names of reward functions, which are {sorted(self.functions)}"
        require(not unknown, "reward.weights", unknown, expected)
        share = self.max_unjudged
        require(0 < share <= 1, "reward.max_unjudged", share, "between 0 and 1")
        for name, ends in self.ranges.items():
            good = name in self.functions and len(ends) == 2 and ends[0] <= ends[1]
            require(good, f"reward.ranges.{name}", ends, "[lowest, highest] of a reward function")


class OnFailure(Enum):
    """What a failed check of the doctor does to a run."""

    auto = "auto"  # stop at the first steps of a phase, warn later on
    abort = "abort"
    warn = "warn"


@dataclass
class DoctorConfig:
    """Checks of a run's health: a gate before its first step and cheap ones on the way."""

    enabled: bool = True
    on_failure: OnFailure = OnFailure.auto
    every: int = 50  # optimiser steps between two rounds of cheap checks
    # What the gate draws: so many queries, completions of each, tokens of those.
    queries: int = 2
    candidates: int = 2
    max_new: int = 16
    # Groups without contrast in a row before "nothing is learned" is a verdict.
    flat_groups: int = 16
    # Repetition of a completion: share of its most frequent token, distinct pairs, repeated runs.
    max_top_share: float = 0.5
    min_distinct_2: float = 0.2
    max_repeated: float = 0.5
    max_foreign: float = 0.3  # share of letters of a script that the prompts do not use

    def __post_init__(self) -> None:
        require_least("doctor", self, 1, "every", "queries", "candidates", "flat_groups")
        require(2 <= self.max_new <= 32, "doctor.max_new", self.max_new, "from 2 to 32")
        require_share("doctor", self, "max_top_share", "min_distinct_2", "max_repeated")
        require_share("doctor", self, "max_foreign")
