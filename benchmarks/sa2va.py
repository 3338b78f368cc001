"""What choosing prompts costs: environment steps, PPO, the reward network, with and without cache.

    python -m benchmarks.sa2va [--ppo-steps 10000] [--output outputs/bench/sa2va.json]

The same environment is stepped in four ways: asking segmenter and judge at every step, as the
published script does; with mask cache and store of verdicts, empty at first; with stored masks that
are judged anew; and with both full.  PPO of the source's settings then trains on the full stores,
and for fewer steps without any, for a ratio from one run.  The segmenter is the embedded one, a
hundredth of a second a mask; with a real one the ratio is larger.  Seconds are processor time of
this process and one thread, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core_rl.config import (
    CurriculumConfig,
    HardwareConfig,
    LoggerConfig,
    PathsConfig,
    RolloutConfig,
    TrainerConfig,
)
from core_rl.files import write_json
from core_rl.loss_config import LossConfig
from core_rl.run.run_folder import hardware
from sa2va_rl.config import (
    EnvConfig,
    PPOConfig,
    RewardFitConfig,
    RewardNetConfig,
    Sa2VADataConfig,
    Sa2VAModelConfig,
    SelectorConfig,
)
from sa2va_rl.data.angiograms import DEFAULT, draw_samples
from sa2va_rl.data.features import Standardiser
from sa2va_rl.data.files import Sample
from sa2va_rl.data.splits import FIRST_SEED
from sa2va_rl.learning.policy_run import PolicyRun
from sa2va_rl.learning.ppo import fit_ppo
from sa2va_rl.learning.prompt_env import PromptEnv
from sa2va_rl.prompts import PROMPTS
from sa2va_rl.rewards.reward_net import RewardNet, RewardNetJudge, inputs_of
from sa2va_rl.rewards.verdicts import Verdict, Verdicts
from sa2va_rl.segmenters.mask_cache import MaskCache
from sa2va_rl.segmenters.models import Segmenter, single_mask
from sa2va_rl.segmenters.vesselness import VesselnessSegmenter
from sa2va_rl.settings import Settings

log = logging.getLogger(__name__)

BATCH = 32
ROLLOUT = 256  # steps of PPO without a store: one rollout of two environments


class Anew(Verdicts):
    """Verdicts that are made at every step: no cache, no store."""

    last = (-1, -1)

    def __call__(self, picture: int, prompt: int) -> Verdict:
        # One step asks twice for the same pair, once for the reward and once for `info`.
        if (picture, prompt) != self.last:
            self._known.pop((picture, prompt), None)
            self.last = picture, prompt
        return super().__call__(picture, prompt)


class Uncached:
    """Masks without a cache; counts calls as `MaskCache` does."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.calls = 0

    def __call__(self, image_HWC: np.ndarray, prompt: str) -> np.ndarray:
        self.calls += 1
        answer = self.segmenter.predict_forward(Image.fromarray(image_HWC), prompt)
        return single_mask(answer, *image_HWC.shape[:2])


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Measure, print a table, keep JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=20, help="training pictures (default 20)")
    parser.add_argument("--cold-steps", type=int, default=220, help="steps without cache")
    parser.add_argument("--ppo-steps", type=int, default=10_000, help="of PPO on the warm cache")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/sa2va.json"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.pictures, given.cold_steps, given.ppo_steps, Path(folder))
    for name, value in found.items():
        log.info("%-48s %12.1f", name, value)
    write_json(given.output, {**found, "hardware": hardware()})
    log.info("kept in %s", given.output)
    return found


def measure(pictures: int, cold_steps: int, ppo_steps: int, folder: Path) -> dict[str, float]:
    """Measure everything on generated pictures and an untrained reward network.

    Args:
        pictures: of training.
        cold_steps: environment steps without any store.
        ppo_steps: of PPO on the warm environment.
        folder: for masks and PPO's files.
    """
    samples = draw_samples(DEFAULT, range(pictures), seed=FIRST_SEED)
    torch.manual_seed(0)
    judge = RewardNetJudge(RewardNet(RewardNetConfig()))
    segmenter, cache = VesselnessSegmenter(), MaskCache(VesselnessSegmenter(), folder / "masks")
    uncached = Uncached(segmenter)
    anew = Anew(samples, PROMPTS, uncached, judge)
    stored = Verdicts(samples, PROMPTS, cache, judge)
    pairs = pictures * len(PROMPTS)
    found = {
        "environment steps/s, nothing stored": _steps_a_second(anew, cold_steps),
        "environment steps/s, stores empty at first": _every_pair(stored, pairs),
        "environment steps/s, masks stored, judged anew": _steps_a_second(
            Anew(samples, PROMPTS, cache, judge), cold_steps
        ),
        "environment steps/s, masks and verdicts stored": _steps_a_second(stored, 20 * cold_steps),
    }
    before = uncached.calls
    plain = _ppo_seconds(anew, stored, ROLLOUT, folder / "plain") / ROLLOUT
    warm = _ppo_seconds(stored, stored, ppo_steps, folder / "warm") / ppo_steps
    calls = (uncached.calls - before) / ROLLOUT
    found |= {
        f"PPO, {ppo_steps} steps, all stored: CPU seconds": warm * ppo_steps,
        f"PPO, {ppo_steps} steps, nothing stored: CPU seconds (of {ROLLOUT})": plain * ppo_steps,
        "PPO, nothing stored over all stored": plain / warm,
        f"segmenter calls of {ppo_steps} steps, nothing stored": calls * ppo_steps,
        f"segmenter calls of {ppo_steps} steps, all stored": float(cache.calls),
    }
    return found | _judging(judge.net, samples)


def _environment(verdicts: Verdicts) -> PromptEnv:
    return PromptEnv(verdicts, Standardiser.fit(verdicts.features_BD), EnvConfig())


def _steps_a_second(verdicts: Verdicts, steps: int) -> float:
    """Take random actions, a picture an episode."""
    env = _environment(verdicts)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(len(PROMPTS), size=steps)
    began = time.process_time()
    for action in actions:
        env.step(action)
        env.reset()
    return steps / (time.process_time() - began)


def _every_pair(verdicts: Verdicts, pairs: int) -> float:
    """Take every action of every picture once, as a first pass does."""
    env = _environment(verdicts)
    began = time.process_time()
    for pair in range(pairs):
        picture, prompt = divmod(pair, len(PROMPTS))
        env.reset(options={"picture": picture})
        env.step(np.int64(prompt))
    return pairs / (time.process_time() - began)


def _ppo_seconds(verdicts: Verdicts, held_out: Verdicts, steps: int, folder: Path) -> float:
    """Train the source's PPO without curves or checkpoints."""
    config = PPOConfig(total_steps=steps, envs=2, checkpoint_every=10**9)
    seen = Standardiser.fit(verdicts.features_BD)
    run = PolicyRun(_settings(config, folder), verdicts, held_out, seen, 0, folder)
    began = time.process_time()
    fit_ppo(run)
    return time.process_time() - began


def _settings(ppo: PPOConfig, folder: Path) -> Settings:
    """Give every other group its defaults."""
    return Settings(
        model=Sa2VAModelConfig(),
        data_mix=Sa2VADataConfig(),
        reward_net=RewardNetConfig(),
        reward_fit=RewardFitConfig(),
        ppo=ppo,
        selector=SelectorConfig(),
        curriculum=CurriculumConfig(),
        loss=LossConfig(),
        rollout=RolloutConfig(),
        trainer=TrainerConfig(progress=False),
        hardware=HardwareConfig(),
        logger=LoggerConfig(kind="none"),
        paths=PathsConfig(cache=str(folder)),
    )


def _judging(net: RewardNet, samples: Sequence[Sample]) -> dict[str, float]:
    """Pictures a second of the reward network, judging and learning, in batches of `BATCH`."""
    pairs = [
        inputs_of(sample.image_HWC, [sample.truth_HW], net.config.side)
        for sample in samples
        if sample.truth_HW is not None
    ]
    batch_N2SS = torch.cat(pairs).repeat(-(-BATCH // len(pairs)), 1, 1, 1)[:BATCH]
    speeds = {}
    with torch.no_grad():
        speeds["judging"] = _speed(lambda: net.quality(batch_N2SS))
    net.requires_grad_(True)
    speeds["learning"] = _speed(lambda: net(batch_N2SS).mean().backward())
    return {f"reward network, {name}: pictures/s": speed for name, speed in speeds.items()}


def _speed(work: Callable[[], object], rounds: int = 8) -> float:
    work()  # the first call reserves memory
    began = time.process_time()
    for _ in range(rounds):
        work()
    return rounds * BATCH / (time.process_time() - began)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
