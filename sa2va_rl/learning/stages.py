"""Parts that experiments share, each made once: the segmenter's masks and the reward network.

A finished part is found again by a fingerprint of its pictures and settings
(`core_rl.run.stages`), so experiments that need the same part pay for it once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core_rl.fingerprint import fingerprint
from core_rl.run.stages import run_stage
from sa2va_rl.config import Sa2VAModelConfig, SegmenterKind, Source
from sa2va_rl.data.files import Sample, Splits
from sa2va_rl.rewards import reward_net
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
            segmenter does not use.
    """
    if config.kind is SegmenterKind.vesselness:
        for name, unused in (("threshold", None), ("device", "cpu"), ("path", None)):
            value = getattr(config, name)
            if value != unused:
                raise ValueError(
                    f"model.{name}={value} does nothing for model.kind=vesselness, whose prompts "
                    f"set its thresholds and which runs on the CPU: leave it {unused or 'null'}"
                )
        return VesselnessSegmenter()
    assert config.path is not None
    if config.kind is SegmenterKind.sa2va:
        return load_sa2va(config.path, config.trust_remote_code, config.device, config.threshold)
    load = load_clipseg if config.kind is SegmenterKind.clipseg else load_sam3
    return load(config.path, config.threshold or 0.5, config.device)


def open_masks(settings: Settings) -> MaskCache:
    """Open the mask cache of the configured segmenter."""
    return MaskCache(load_segmenter(settings.model), settings.cache / "masks")


def digest_samples(samples: Sequence[Sample]) -> str:
    """Digest pictures and their true masks, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        truth = b"" if sample.truth_HW is None else np.packbits(sample.truth_HW).tobytes()
        for part in (str(sample.image_HWC.shape).encode(), sample.image_HWC.tobytes(), truth):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TrainedJudge:
    """A trained reward network.

    Attributes:
        net: the network.
        key: digest of everything that its scores depend on.
        figures: `val/<metric>` and `test/<metric>` of `reward_fit.evaluate_reward_net`; empty for a
            network from `reward_fit.path`.
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
) -> TrainedJudge:
    """Train the reward network, reuse a finished one, or load that of `reward_fit.path`.

    Args:
        settings: of the run.
        splits: training pictures to learn from, validation pictures to choose the epoch by, test
            pictures to measure on.
        masks: makes or reads the masks.
        seed: of weights, order and corrupted masks.
        folder: of the curves; None = the stage's own.

    Raises:
        FileNotFoundError: `reward_fit.path` holds no network.
        ValueError: pictures without masks and no `reward_fit.path`.
    """
    fit = settings.reward_fit
    if fit.path is not None:
        return _load_judge(Path(fit.path), settings)
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
        fitted = fit_reward_net(settings, splits, masks, seed, folder or into)
        save_reward_net(fitted.net, into)
        test = evaluate_reward_net(fitted.net, splits.test, settings.prompts, masks, seed)
        named = {f"val/{name}": value for name, value in fitted.metrics.items()}
        return named | {f"test/{name}": value for name, value in test.items()}

    found, figures = run_stage("reward_net", settings.cache, key, make)
    return TrainedJudge(load_reward_net(found), key, figures)


def _load_judge(path: Path, settings: Settings) -> TrainedJudge:
    """Load the network of `reward_fit.path`."""
    if len(settings.trainer.seeds) > 1 and settings.data_mix.source is not Source.generated:
        log.warning(
            "reward_fit.path=%s judges all of trainer.seeds=%s: each seed splits the files anew, "
            "so test pictures of one seed may be what it was trained on; give the one seed it was "
            "trained with, or leave reward_fit.path null",
            *(path, list(settings.trainer.seeds)),
        )
    net = load_reward_net(path)
    files = [path / name for name in (reward_net.WEIGHTS, reward_net.SETTINGS)]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return TrainedJudge(net, fingerprint(digests, reward_net.REWARD_NET_VERSION), {})
