"""The steps that experiments share, each done once: masks, reward network, policies.

A finished step is found again by a fingerprint of the pictures it learnt from and the settings it
used (`core_rl.run.stages`), so that experiments may name the same step and pay for it once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core_rl.config import TrainerConfig
from core_rl.fingerprint import fingerprint
from core_rl.run.stages import run_stage
from sa2va_rl.config import Sa2VAModelConfig, SegmenterKind, Source
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.rewards import reward_net
from sa2va_rl.rewards.prompt_table import PromptTable, measure_prompts
from sa2va_rl.rewards.reward_fit import evaluate_reward_net, fit_reward_net
from sa2va_rl.rewards.reward_net import RewardNet, RewardNetJudge, load_reward_net, save_reward_net
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.segmenters.models import Segmenter, load_clipseg, load_sa2va, load_sam3
from sa2va_rl.segmenters.vesselness import VesselnessSegmenter
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)


def load_segmenter(config: Sa2VAModelConfig) -> Segmenter:
    """Make the segmenter that the `model` group names.

    Raises:
        ValueError: Sa2VA without `model.trust_remote_code=true`, or a setting that the embedded
            segmenter has no use for.
    """
    if config.kind is SegmenterKind.vesselness:
        for name, value, kept in (
            ("threshold", config.threshold, None),
            ("device", config.device, "cpu"),
            ("path", config.path, None),
        ):
            if value != kept:
                raise ValueError(
                    f"model.{name}={value} does nothing for model.kind=vesselness, whose prompts "
                    f"set its thresholds and which runs on the CPU: leave it {kept or 'null'}"
                )
        return VesselnessSegmenter()
    assert config.path is not None
    if config.kind is SegmenterKind.clipseg:
        return load_clipseg(config.path, config.threshold or 0.5, config.device)
    if config.kind is SegmenterKind.sam3:
        return load_sam3(config.path, config.threshold or 0.5, config.device)
    return load_sa2va(config.path, config.trust_remote_code, config.device, config.threshold)


def open_masks(settings: Settings) -> MaskCache:
    """Open the store of masks; its `calls` counts how often the segmenter had to be asked."""
    return MaskCache(load_segmenter(settings.model), settings.cache / "masks")


def digest_samples(samples: Sequence[Sample]) -> str:
    """Digest pictures and their truths, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        truth = b"" if sample.truth_HW is None else np.packbits(sample.truth_HW).tobytes()
        for part in (str(sample.image_HWC.shape).encode(), sample.image_HWC.tobytes(), truth):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class JudgedBy:
    """A reward network and what it is known to do.

    Attributes:
        net: the network.
        key: changes whenever it may have changed.
        figures: `val/<metric>` and `test/<metric>` of `reward_fit.evaluate_reward_net`; empty for a
            network that was brought along.
    """

    net: RewardNet
    key: str
    figures: dict[str, float]

    @property
    def judge(self) -> RewardNetJudge:
        return RewardNetJudge(self.net)

    @property
    def test_figures(self) -> dict[str, float]:
        """The figures on test pictures as `reward_net/<metric>`."""
        return {
            f"reward_net/{name.removeprefix('test/')}": value
            for name, value in self.figures.items()
            if name.startswith("test/")
        }


def learn_reward_net(
    settings: Settings, splits: Splits, masks: MaskCache, seed: int, folder: Path | None = None
) -> JudgedBy:
    """Train the reward network, take the one that is there, or open `reward_fit.path`.

    Args:
        settings: of the run.
        splits: the training pictures teach, validation chooses the epoch, test reports.
        masks: where masks come from.
        seed: of weights, order and spoiled masks.
        folder: of the curves; None = the stage's own.

    Raises:
        FileNotFoundError: `reward_fit.path` holds no network.
        ValueError: pictures without masks and no `reward_fit.path`.
    """
    fit = settings.reward_fit
    if fit.path is not None:
        return _brought_along(Path(fit.path), settings)
    bare = [s.name for part in (splits.train, splits.val) for s in part if s.truth_HW is None]
    if bare:
        raise ValueError(
            f"no reward network: {len(bare)} pictures have no mask to train one on, the first "
            f"{bare[0]}; train one elsewhere by +exp=sa2va_reward_net and give "
            "reward_fit.path=RUN/checkpoints/final"
        )
    key = fingerprint(
        [digest_samples(part) for part in (splits.train, splits.val, splits.test)],
        masks.segmenter.fingerprint,
        settings.prompts,
        settings.reward_net,
        replace(fit, path=None),
        settings.trainer.grad_clip,
        seed,
        reward_net.REWARD_NET_VERSION,
    )

    def make(into: Path) -> dict[str, float]:
        prompts = settings.prompts
        fitted = fit_reward_net(
            splits.train,
            splits.val,
            prompts,
            masks,
            settings.reward_net,
            _reward_trainer(settings),
            settings.hardware,
            seed,
            folder or into,
            settings.logger,
        )
        save_reward_net(fitted.net, into)
        test = evaluate_reward_net(fitted.net, splits.test, prompts, masks, seed)
        named = {f"val/{name}": value for name, value in fitted.metrics.items()}
        return named | {f"test/{name}": value for name, value in test.items()}

    found, figures = run_stage("reward_net", settings.cache, key, make)
    return JudgedBy(load_reward_net(found), key, figures)


def _brought_along(path: Path, settings: Settings) -> JudgedBy:
    """Open the network of `reward_fit.path`."""
    if len(settings.trainer.seeds) > 1 and settings.data_mix.source is not Source.generated:
        log.warning(
            "reward_fit.path=%s judges all of trainer.seeds=%s: each deals the files anew, so "
            "test pictures of one seed may be what it was trained on; give the one seed it was "
            "trained with, or leave reward_fit.path null",
            *(path, list(settings.trainer.seeds)),
        )
    net = load_reward_net(path)
    files = [path / name for name in (reward_net.WEIGHTS, reward_net.SETTINGS)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return JudgedBy(net, fingerprint(digests, reward_net.REWARD_NET_VERSION), {})


def _reward_trainer(settings: Settings) -> TrainerConfig:
    fit = settings.reward_fit
    return replace(
        settings.trainer,
        lr=fit.lr,
        epochs=float(fit.epochs),
        max_steps=None,
        batch_size=fit.batch_size,
        weight_decay=fit.weight_decay,
    )


def measure(
    settings: Settings, samples: Sequence[Sample], masks: MaskCache, judged: JudgedBy | None
) -> PromptTable:
    """Measure every prompt of every picture."""
    judge = None if judged is None else judged.judge
    return measure_prompts(samples, settings.prompts, masks, judge)
