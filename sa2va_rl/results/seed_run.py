"""One seed of the comparison at one size, in parts that are each done once."""

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
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.data.splits import load_shifted, load_splits, smaller
from sa2va_rl.learning.finetune import Curve
from sa2va_rl.learning.policy_stages import Learnt, Task, learn_ppo, learn_selector
from sa2va_rl.learning.stages import JudgedBy, digest_samples, learn_reward_net, measure, open_masks
from sa2va_rl.results.mask_methods import (
    MASK_METHODS_VERSION,
    finetune_segmenter,
    postprocess_masks,
)
from sa2va_rl.results.methods import METHODS_VERSION, SHIFTED, TEST, Arena, choose_prompts
from sa2va_rl.results.table import grouped, rows_of
from sa2va_rl.rewards.prompt_table import PromptTable
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

ROWS, CURVES = "rows.parquet", "curves.parquet"
ASKED = "asked"  # figure of a part: segmenter calls that the mask cache does not count


@dataclass(frozen=True)
class SeedResult:
    """Everything that one seed at one size found.

    Attributes:
        rows: of `compare_table.rows_of`, with each picture's group.
        curves: of fine-tuning: `run`, `steps`, `reward`, `dice`, `distance`; empty at small sizes.
        numbers: `reward_net/<metric>` on test pictures, `segmenter_calls` that were made, and
            `segmenter_calls_train`, the masks that learning asks for.
    """

    rows: pd.DataFrame
    curves: pd.DataFrame
    numbers: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """One seed at one size before anything is learnt."""

    settings: Settings
    config: CompareConfig
    seed: int
    splits: Splits
    shifted: tuple[Sample, ...]
    masks: MaskCache


def run_seed(
    settings: Settings, config: CompareConfig, seed: int, size: int, main: bool
) -> SeedResult:
    """Run every method with `size` training pictures of one seed, or take what was done before.

    Validation has at most as many pictures as training, so that a small table means few masks.
    Experiments 2 and 3b are in the main table alone.

    Args:
        settings: of the run.
        config: of the comparison.
        seed: of the patients and of everything drawn.
        size: training pictures; of files a seed may have fewer, as films differ in length.
        main: whether this is the table of all training pictures.
    """
    prepare(settings.hardware, seed)
    whole = load_splits(settings.data_mix, seed)
    shifted = load_shifted(settings.data_mix, seed)
    splits = smaller(whole, settings.data_mix.source, size)
    entry = Entry(settings, config, seed, splits, shifted, open_masks(settings))
    judged = learn_reward_net(settings, splits, entry.masks, seed)
    arena = cache(lambda: _arena(entry, judged))  # measured only where a part is still to be done
    key = _key(entry, judged)
    parts = [_prompts_part(entry, arena, key, judged)]
    curves = pd.DataFrame()
    if main:
        parts += [_postprocess_part(entry, arena, key), _finetune_part(entry, arena, key)]
        curves = pd.read_parquet(parts[-1][0] / CURVES)
    numbers = judged.test_figures | {
        "segmenter_calls": entry.masks.calls + sum(figures[ASKED] for _, figures in parts),
        "segmenter_calls_train": float(len(splits.train) * len(settings.prompts)),
    }
    rows = pd.concat([pd.read_parquet(folder / ROWS) for folder, _ in parts], ignore_index=True)
    rows = grouped(rows, {TEST: splits.test, SHIFTED: shifted})
    rows.insert(0, "seed", seed)
    rows.insert(0, "size", size)
    return SeedResult(rows, curves.assign(seed=seed), numbers)


Part = tuple[Path, dict[str, float]]


def _prompts_part(entry: Entry, arena: Callable[[], Arena], key: str, judged: JudgedBy) -> Part:
    learnt = _learnt(entry, judged)

    def make(into: Path) -> dict[str, float]:
        policies = {name: (one.policy, one.figures["cpu_seconds"]) for name, one in learnt.items()}
        rows_of(choose_prompts(arena(), policies)).to_parquet(into / ROWS)
        return {ASKED: 0.0}

    own = fingerprint(key, [one.folder.name for one in learnt.values()], entry.config.pulls)
    return run_stage("compare-prompts", entry.settings.cache, own, make)


def source_ppo(tuned: PPOConfig) -> PPOConfig:
    """The published run's PPO, for as many steps as the tuned one."""
    return PPOConfig(total_steps=tuned.total_steps, envs=tuned.envs)


def check_comparison(settings: Settings, seed: int) -> None:
    """Refuse before anything is learnt what could not be compared in the end.

    Args:
        settings: of the run.
        seed: whose pictures are looked at, held-out ones too: another seed may train on them.

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


def _learnt(entry: Entry, judged: JudgedBy) -> dict[str, Learnt]:
    """Train policies on the reward network's scores, or take them; no truth reaches them."""
    learned = RewardMode.reward_net
    settings = entry.settings
    source = source_ppo(settings.ppo)
    tuned = replace(settings.ppo, env=replace(settings.ppo.env, reward=learned))
    settings = replace(settings, selector=replace(settings.selector, reward=learned))
    task = Task(settings, entry.splits, entry.masks, judged, entry.seed)
    return {
        "ppo_seed": learn_ppo(task, source),
        "ppo_tuned": learn_ppo(task, tuned),
        "grpo": learn_selector(task),
    }


def _postprocess_part(entry: Entry, arena: Callable[[], Arena], key: str) -> Part:
    def make(into: Path) -> dict[str, float]:
        found, asked = postprocess_masks(arena())
        rows_of(found).to_parquet(into / ROWS)
        return {ASKED: float(asked)}

    own = fingerprint(key, entry.config.postprocess, MASK_METHODS_VERSION)
    return run_stage("compare-postprocess", entry.settings.cache, own, make)


def _finetune_part(entry: Entry, arena: Callable[[], Arena], key: str) -> Part:
    def make(into: Path) -> dict[str, float]:
        found, curves = finetune_segmenter(arena())
        rows_of(found).to_parquet(into / ROWS)
        curve_table(curves).to_parquet(into / CURVES)
        return {ASKED: 0.0}

    own = fingerprint(key, entry.config.finetune, MASK_METHODS_VERSION)
    return run_stage("compare-finetune", entry.settings.cache, own, make)


def curve_table(curves: Mapping[str, Curve]) -> pd.DataFrame:
    """Lay fine-tuning runs out: a row for each look, with the run's name."""
    parts = [pd.DataFrame(asdict(curve)).assign(run=name) for name, curve in curves.items()]
    return pd.concat(parts, ignore_index=True)


def _key(entry: Entry, judged: JudgedBy) -> str:
    """Digest what every part depends on."""
    splits = entry.splits
    return fingerprint(
        [digest_samples(part) for part in (splits.train, splits.val, splits.test, entry.shifted)],
        entry.masks.segmenter.fingerprint,
        entry.settings.prompts,
        judged.key,
        entry.seed,
        METHODS_VERSION,
    )


def _arena(entry: Entry, judged: JudgedBy) -> Arena:
    """Measure every prompt on every picture."""

    def measured(samples: Sequence[Sample]) -> PromptTable:
        return measure(entry.settings, samples, entry.masks, judged)

    train, held = measured(entry.splits.train), {TEST: measured(entry.splits.test)}
    if entry.shifted:
        held[SHIFTED] = measured(entry.shifted)
    return Arena(
        prompts=entry.settings.prompts,
        config=entry.config,
        seed=entry.seed,
        splits=entry.splits,
        judged=judged,
        masks=entry.masks,
        train=train,
        held=held,
        standardiser=Standardiser.fit(train.features_BD),
    )
