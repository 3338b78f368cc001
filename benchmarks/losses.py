"""Put the same tensors through TRL's loss and ours: `python -m benchmarks.losses`.

Every reduction, token and sequence ratios, one- and two-sided clipping, KL off, on, and with TRL's
correction for steps that an older policy drew; value and gradient.  Runs itself again inside the
environment of `benchmarks.workers.trl_env`, where both are importable, and writes
`outputs/bench/losses.json`.  What differs by design is listed at the top of
`core_rl.objective.losses`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.workers.trl_env import trl_python
from core_rl.loss_config import KLKind, LossConfig, Objective, RatioLevel, Reduction
from core_rl.objective.kl import kl_per_step
from core_rl.objective.losses import importance_ratio, policy_loss, reduce_steps
from core_rl.types import StepLogProbs

FOLDER = Path("outputs/bench")
QUERIES, GROUP, STEPS, LONGEST = 3, 4, 6, 8
EPS_LOW, EPS_HIGH, BETA, SEEDS = 0.2, 0.3, 0.1, 5

LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo")
LEVELS = ("token", "sequence")
DELTAS = (None, 3.0)
KLS = ("off", "k3", "k3 corrected")


def tensors(seed: int) -> dict[str, Tensor]:
    """A ragged batch whose ratios lie on both sides of every bound."""
    torch.manual_seed(seed)
    rows = QUERIES * GROUP
    logp = -2 * torch.rand(rows, STEPS, dtype=torch.float64)
    lengths = torch.randint(1, STEPS + 1, (rows, 1))
    return {
        "logp": logp.requires_grad_(),
        "old": logp.detach() + 0.7 * torch.randn_like(logp),
        "ref": logp.detach() + 0.3 * torch.randn_like(logp),
        "advantages": torch.randn(rows, dtype=torch.float64),
        "mask": torch.arange(STEPS) < lengths,
    }


def theirs(data: dict[str, Tensor], loss: str, level: str, delta: float | None, kl: str) -> Tensor:
    """Call `GRPOTrainer._compute_loss` with a trainer that holds nothing but the settings."""
    from trl import GRPOTrainer

    args = SimpleNamespace(
        delta=delta, use_bias_correction_kl=kl == "k3 corrected", steps_per_generation=1
    )
    accelerator = SimpleNamespace(
        num_processes=1,
        sync_gradients=False,
        gather=lambda value: value,
        reduce=lambda value, reduction: value,
    )
    trainer = SimpleNamespace(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=0.0 if kl == "off" else BETA,
        loss_type=loss,
        epsilon_low=EPS_LOW,
        epsilon_high=EPS_HIGH + (loss == "cispo"),  # TRL bounds the ratio at this number itself
        args=args,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        accelerator=accelerator,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            data["logp"],
            torch.zeros_like(data["logp"]),
            None,
        ),
    )
    rows = len(data["logp"])
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1),
        "completion_ids": torch.zeros(rows, STEPS, dtype=torch.long),
        "completion_mask": data["mask"].int(),
        "advantages": data["advantages"],
        "old_per_token_logps": data["old"],
        "ref_per_token_logps": data["ref"],
        "num_items_in_batch": data["mask"].sum(),
    }
    found: Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return found


def ours(data: dict[str, Tensor], loss: str, level: str, delta: float | None, kl: str) -> Tensor:
    """The same through `core_rl`, with every group learning."""
    shape = (QUERIES, GROUP, STEPS)
    logp, old, ref, mask = (data[name].view(shape) for name in ("logp", "old", "ref", "mask"))
    cispo = loss == "cispo"
    config = LossConfig(
        objective=Objective.cispo if cispo else Objective.clip,
        ratio_level=RatioLevel(level),
        eps_low=EPS_LOW,
        eps_high=EPS_HIGH,
        dual_clip=delta,
        reduction=Reduction.dapo if cispo else Reduction(loss),
    )
    advantages = data["advantages"].view(QUERIES, GROUP, 1).expand(shape)
    per_step, _ = policy_loss(logp, old, advantages, mask, config)
    found = reduce_steps(per_step, mask, config.reduction, LONGEST)
    if kl == "off":
        return found
    ratio = importance_ratio(logp, old, mask, RatioLevel(level)) if "corrected" in kl else None
    scores = StepLogProbs(logp), StepLogProbs(ref)
    per_step = kl_per_step(*scores, KLKind.k3, mask_BGT=mask, ratio_BGT=ratio)
    reduced = reduce_steps(per_step, mask, config.reduction, LONGEST)
    return found + BETA * reduced


def compared() -> Iterator[dict[str, Any]]:
    """Largest difference of value and gradient over the seeds, for each combination."""
    for loss, level, delta, kl in itertools.product(LOSSES, LEVELS, DELTAS, KLS):
        value = slope = 0.0
        for seed in range(SEEDS):
            data = tensors(seed)
            both = [side(data, loss, level, delta, kl) for side in (ours, theirs)]
            grads = [torch.autograd.grad(found, data["logp"])[0] for found in both]
            value = max(value, (both[0] - both[1]).abs().item())
            slope = max(slope, (grads[0] - grads[1]).abs().max().item())
        yield {
            "loss": loss,
            "level": level,
            "delta": delta,
            "kl": kl,
            "value_gap": value,
            "gradient_gap": slope,
        }


def table(rows: list[dict[str, Any]]) -> str:
    """One line a loss and level: the largest gap over clipping and KL."""
    lines = ["| loss | ratio | combinations | value gap | gradient gap |", "|" + " --- |" * 5]
    for loss, level in itertools.product(LOSSES, LEVELS):
        mine = [row for row in rows if (row["loss"], row["level"]) == (loss, level)]
        gaps = [max(row[name] for row in mine) for name in ("value_gap", "gradient_gap")]
        lines.append(f"| {loss} | {level} | {len(mine)} | {gaps[0]:.1e} | {gaps[1]:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    if not parser.parse_args().inside:
        again = [str(trl_python(FOLDER)), "-m", "benchmarks.losses", "--inside"]
        raise SystemExit(subprocess.run(again, check=False).returncode)
    rows = list(compared())
    (FOLDER / "losses.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
