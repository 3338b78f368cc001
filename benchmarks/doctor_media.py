"""What the doctor's gate costs a multimodal run, as a ratio to its training step.

    python -m benchmarks.doctor_media [--repeats 5]

The embedded thinker, untrained, with one clip and one question: a step draws 8 candidates of 32 new
tokens, scores them under policy and reference and takes one update; the gate asks what it asks of
every run.  Processor time of one thread, medians.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from core_rl.config import DoctorConfig, PathsConfig
from omni_rl.config import Blank, MediaConfig, OmniDataConfig, OmniModelConfig, SourceConfig
from omni_rl.data.splits import generated_split
from omni_rl.doctor.gate import gate
from omni_rl.policy.policy import untrained_policy

log = logging.getLogger("benchmarks.doctor_media")

CANDIDATES = 8
NEW_TOKENS = 32


def spent(work: Callable[[], object], repeats: int) -> float:
    """Median processor seconds of a call, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def measure(repeats: int) -> dict[str, float]:
    """Time a step and the gate on one question."""
    media = MediaConfig(fps=8.0, max_frames=8, min_pixels=3136, max_pixels=3136)
    config = OmniModelConfig(media=media, max_prompt=512, max_completion=NEW_TOKENS)
    data = OmniDataConfig(sources={"social": SourceConfig(family="social")}, ratios={"social": 1.0})
    with tempfile.TemporaryDirectory() as folder:
        records = generated_split(data, "train", 1, PathsConfig(cache=folder), 0)["social"]
        policy = untrained_policy(config, seed=0).train()
        reference = policy.frozen_copy()
        optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)

        def step() -> None:
            prompt = policy.encode(records)
            actions = policy.sample(prompt, CANDIDATES)
            logp = policy.log_probs(prompt, actions).logp_BGT
            with torch.no_grad():
                other = reference.log_probs(reference.encode(records), actions).logp_BGT
            (logp - other).square().mean().add(logp.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()

        check, limits = gate(Blank.none), DoctorConfig()
        step_seconds = spent(step, repeats)
        gate_seconds = spent(lambda: check(policy, records, 1.0, limits), repeats)
    return {
        "step_seconds": step_seconds,
        "gate_seconds": gate_seconds,
        "gate_steps": gate_seconds / step_seconds,
    }


def main() -> None:
    """Answer the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    torch.set_num_threads(1)
    for name, value in measure(parser.parse_args().repeats).items():
        log.info("%s %.3f", name, value)


if __name__ == "__main__":
    main()
