"""One seed of the comparison at one size, in parts that are each made once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from core_rl.fingerprint import fingerprint
from core_rl.hardware import prepare
from core_rl.run.stages import run_stage
from sa2va_rl.compare_config import CompareConfig
from sa2va_rl.config import PPOConfig, RewardMode, Source
from sa2va_rl.data.features import Standardiser
from sa2va_rl.data.files import Sample
from sa2va_rl.data.splits import load_shifted, load_splits, smaller
from sa2va_rl.learning.finetune import Curve
from sa2va_rl.learning.policy_stages import (
    PolicyInputs,
    TrainedPolicy,
    learn_ppo,
    learn_selector,
)
from sa2va_rl.learning.stages import digest_samples, learn_reward_net, open_masks
from sa2va_rl.results.mask_methods import (
    MASK_METHODS_VERSION,
    finetune_segmenter,
    postprocess_masks,
)
from sa2va_rl.results.methods import METHODS_VERSION, SHIFTED, TEST, Arena, choose_prompts
from sa2va_rl.results.table import grouped, rows_of
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

ROWS, CURVES = "rows.parquet", "curves.parquet"
ASKED = "asked"  # figure of a part: segmenter calls outside the mask cache


@dataclass(frozen=True)
class SeedResult:
    """The results of one seed at one size.

    Attributes:
        rows: of `results.table.rows_of`, with each picture's group.
        curves: of fine-tuning: `run`, `steps`, `reward`, `dice`, `distance`; empty at small sizes.
        numbers: `reward_net/<metric>` on test pictures, `segmenter_calls` that were made, and
            `segmenter_calls_train`, the number of masks of training pictures.
    """

    rows: pd.DataFrame
    curves: pd.DataFrame
    numbers: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """One seed at one size before any policy is trained; `key` is its fingerprint."""

    inputs: PolicyInputs
    config: CompareConfig
    shifted: tuple[Sample, ...]
    key: str


def run_seed(
    settings: Settings, config: CompareConfig, seed: int, size: int, main: bool
) -> SeedResult:
    """Run every method with `size` training pictures of one seed, or reuse finished parts.

    Validation has at most as many pictures as training, so that a small table needs few masks.
    Experiments 2 and 3b are run for the main table only.

    Args:
        settings: of the run.
        config: of the comparison.
        seed: of the patients and of everything random.
        size: training pictures; a seed of files may have fewer, as films differ in length.
        main: whether this is the table of all training pictures.
    """
    prepare(settings.hardware, seed)
    splits = smaller(load_splits(settings.data_mix, seed), settings.data_mix.source, size)
    masks, shifted = open_masks(settings), load_shifted(settings.data_mix, seed)
    judged = learn_reward_net(settings, splits, masks, seed)
    inputs = PolicyInputs(settings, splits, masks, judged, seed)
    entry = Entry(inputs, config, shifted, _key(inputs, shifted))
    arena = cache(lambda: _arena(entry))  # measured only if a part is still missing
    parts = [_prompts_part(entry, arena)]
    curves = pd.DataFrame()
    if main:
        parts += [_postprocess_part(entry, arena), _finetune_part(entry, arena)]
        curves = pd.read_parquet(parts[-1][0] / CURVES)
    numbers = judged.test_figures | {
        "segmenter_calls": masks.calls + sum(figures[ASKED] for _, figures in parts),
        "segmenter_calls_train": float(len(splits.train) * len(settings.prompts)),
    }
    rows = pd.concat([pd.read_parquet(folder / ROWS) for folder, _ in parts], ignore_index=True)
    rows = grouped(rows, {TEST: splits.test, SHIFTED: shifted})
    rows.insert(0, "seed", seed)
    rows.insert(0, "size", size)
    return SeedResult(rows, curves.assign(seed=seed), numbers)


Part = tuple[Path, dict[str, float]]


def _prompts_part(entry: Entry, arena: Callable[[], Arena]) -> Part:
    learnt = _policies(entry.inputs)

    def make(into: Path) -> dict[str, float]:
        policies = {name: (one.policy, one.figures["cpu_seconds"]) for name, one in learnt.items()}
        rows_of(choose_prompts(arena(), policies)).to_parquet(into / ROWS)
        return {ASKED: 0.0}

    own = fingerprint(entry.key, [one.folder.name for one in learnt.values()], entry.config.pulls)
    return run_stage("compare-prompts", entry.inputs.settings.cache, own, make)


def source_ppo(tuned: PPOConfig) -> PPOConfig:
    """Return the published run's PPO with as many steps as the tuned one."""
    return PPOConfig(total_steps=tuned.total_steps, envs=tuned.envs)


def check_comparison(settings: Settings, seed: int) -> None:
    """Refuse settings and pictures with which the comparison would fail at its end.

    Args:
        settings: of the run.
        seed: whose pictures are checked; those of other seeds are the same files.

    Raises:
        ValueError: the tuned PPO is the published run's, a picture has no mask, or pictures differ
            in size.
    """
    source = source_ppo(settings.ppo)
    reward = replace(settings.ppo.env, reward=source.env.reward)
    if replace(settings.ppo, name=source.name, env=reward) == source:
        raise ValueError(
            f"ppo={settings.ppo.name}: these are the published run's settings, which the "
            "comparison trains anyway (ppo_seed); name others for the tuned row, as in ppo=tuned"
        )
    if settings.data_mix.source is Source.generated:
        return
    splits = load_splits(settings.data_mix, seed)
    pictures = (*splits.train, *splits.val, *splits.test)
    for sample in pictures:
        if sample.truth_HW is None:
            raise ValueError(
                f"data_mix.masks={settings.data_mix.masks}: {sample.name} has no mask, and a "
                "comparison needs the truth of every picture; give the folder of masks, or train "
                "without any by +exp=sa2va_ppo or +exp=sa2va_grpo"
            )
    sizes = {sample.image_HWC.shape[:2]: sample.name for sample in pictures}
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = list(sizes)[:2]
        first, second = list(sizes.values())[:2]
        raise ValueError(
            f"{first} is {width} x {height} pixels, {second} {other_width} x {other_height}: "
            "experiment 3b learns on batches of pictures; bring pictures and masks to one size"
        )


def _policies(inputs: PolicyInputs) -> dict[str, TrainedPolicy]:
    """Train the policies on the reward network's scores alone, or reuse finished ones."""
    settings, learned = inputs.settings, RewardMode.reward_net
    tuned = replace(settings.ppo, env=replace(settings.ppo.env, reward=learned))
    selector = replace(settings.selector, reward=learned)
    inputs = replace(inputs, settings=replace(settings, selector=selector))
    return {
        "ppo_seed": learn_ppo(inputs, source_ppo(settings.ppo)),
        "ppo_tuned": learn_ppo(inputs, tuned),
        "grpo": learn_selector(inputs),
    }


def _postprocess_part(entry: Entry, arena: Callable[[], Arena]) -> Part:
    def make(into: Path) -> dict[str, float]:
        found, asked = postprocess_masks(arena())
        rows_of(found).to_parquet(into / ROWS)
        return {ASKED: float(asked)}

    own = fingerprint(entry.key, entry.config.postprocess, MASK_METHODS_VERSION)
    return run_stage("compare-postprocess", entry.inputs.settings.cache, own, make)


def _finetune_part(entry: Entry, arena: Callable[[], Arena]) -> Part:
    def make(into: Path) -> dict[str, float]:
        found, curves = finetune_segmenter(arena())
        rows_of(found).to_parquet(into / ROWS)
        curve_table(curves).to_parquet(into / CURVES)
        return {ASKED: 0.0}

    own = fingerprint(entry.key, entry.config.finetune, MASK_METHODS_VERSION)
    return run_stage("compare-finetune", entry.inputs.settings.cache, own, make)


def curve_table(curves: Mapping[str, Curve]) -> pd.DataFrame:
    """Return a table of fine-tuning runs: a row for each evaluation, with the run's name."""
    parts = [pd.DataFrame(asdict(curve)).assign(run=name) for name, curve in curves.items()]
    return pd.concat(parts, ignore_index=True)


def _key(inputs: PolicyInputs, shifted: Sequence[Sample]) -> str:
    """Digest everything that all parts depend on."""
    splits = inputs.splits
    assert inputs.judged is not None
    return fingerprint(
        [digest_samples(part) for part in (splits.train, splits.val, splits.test, shifted)],
        inputs.masks.segmenter.fingerprint,
        inputs.settings.prompts,
        inputs.judged.key,
        inputs.seed,
        METHODS_VERSION,
    )


def _arena(entry: Entry) -> Arena:
    """Measure every prompt on every picture."""
    inputs = entry.inputs
    train, held = inputs.measure(inputs.splits.train), {TEST: inputs.measure(inputs.splits.test)}
    if entry.shifted:
        held[SHIFTED] = inputs.measure(entry.shifted)
    return Arena(inputs, entry.config, train, held, Standardiser.fit(train.features_BD))
