"""A policy's metrics on held-out pictures, as numbers, as text and as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core_rl.files import write_json
from sa2va_rl.policy.baselines import Choices
from sa2va_rl.policy.saved import PromptPolicy
from sa2va_rl.results.choice_metrics import choice_metrics, ignores_picture, worth
from sa2va_rl.rewards.prompt_table import MEASURES, PromptTable


def evaluate_policy(
    name: str, policy: PromptPolicy, table: PromptTable, fixed: int, path: Path | None = None
) -> dict[str, float]:
    """Evaluate a policy on held-out pictures; warn if its choices do not depend on the picture.

    Args:
        name: of the policy, for the warning.
        policy: chooses one prompt a picture.
        table: of the held-out pictures.
        fixed: the prompt that is best on average on training pictures.
        path: of `evaluation_results.json`; None = no file.

    Returns:
        Means over pictures of `prompt_table.MEASURES` and `reward_net_score`, those of
        `choice_metrics`, `fixed/<measure>`, `oracle/dice`, and `ignores_picture` (0 or 1).  Without
        true masks: `reward_net_score`, `fixed/reward_net_score` and the shares of choices.
    """
    chosen_B = policy.choose(table.features_BD)
    figures = {"reward_net_score": float(worth(table.score_BK, chosen_B).mean())}
    figures["fixed/reward_net_score"] = float(table.score_BK[:, fixed].mean())
    figures |= {f"choice/{place}": share for place, share in enumerate(_shares(chosen_B, table))}
    if table.has_truth:
        for measure in MEASURES:
            values_BK = table.measures_BK[measure]
            figures[measure] = float(worth(values_BK, chosen_B).mean())
            figures[f"fixed/{measure}"] = float(values_BK[:, fixed].mean())
        figures["oracle/dice"] = float(table.dice_BK.max(axis=1).mean())
        figures |= choice_metrics(table.dice_BK, chosen_B, fixed)
        figures["ignores_picture"] = float(ignores_picture(name, chosen_B, table.dice_BK))
    if path is not None:
        write_json(path, _results(policy, table, chosen_B, figures))
    return figures


def validate_policy(policy: PromptPolicy, table: PromptTable) -> dict[str, float]:
    """Measure a policy on validation pictures: figures that may choose between runs.

    Returns:
        `reward_net_score` and, with truths, the means of `tables.MEASURES`.
    """
    chosen_B = policy.choose(table.features_BD)
    figures = {"reward_net_score": float(worth(table.score_BK, chosen_B).mean())}
    for measure in MEASURES if table.has_truth else ():
        figures[measure] = float(worth(table.measures_BK[measure], chosen_B).mean())
    return figures


def best_fixed(table: PromptTable) -> int:
    """Return the prompt with the best mean Dice, or the best mean score without true masks."""
    values_BK = table.dice_BK if table.has_truth else table.score_BK
    return int(values_BK.mean(axis=0).argmax())


def policy_report(name: str, figures: Mapping[str, float], prompts: Sequence[str]) -> str:
    """Format a policy's figures beside those of the best fixed prompt."""
    width = max(10, len(name) + 2)
    lines = [f"{'':<18}{name:>{width}}{'fixed':>10}"]
    for measure in (*MEASURES, "reward_net_score"):
        if measure in figures:
            own, fixed = figures[measure], figures[f"fixed/{measure}"]
            lines.append(f"{measure:<18}{own:>{width}.3f}{fixed:>10.3f}")
    if "gap_closed" in figures:
        lines.append(f"share of the gap to the oracle closed: {figures['gap_closed']:.2f}")
    lines += ["share of pictures by prompt"]
    shares = [(figures[f"choice/{place}"], text) for place, text in enumerate(prompts)]
    lines += [f"{share:6.2f}  {text}" for share, text in sorted(shares, reverse=True) if share]
    return "\n".join(lines)


def _shares(chosen_B: Choices, table: PromptTable) -> list[float]:
    counts = np.bincount(chosen_B, minlength=table.score_BK.shape[1])
    return [float(count) / len(chosen_B) for count in counts]


def _results(
    policy: PromptPolicy, table: PromptTable, chosen_B: Choices, figures: dict[str, float]
) -> dict[str, Any]:
    """Return results in the format of the published run's evaluation."""
    averages = {name: figures[name] for name in (*MEASURES, "reward_net_score") if name in figures}
    rows = []
    for place, (sample, prompt) in enumerate(zip(table.samples, chosen_B.tolist(), strict=True)):
        measured = {name: float(table.measures_BK[name][place, prompt]) for name in MEASURES}
        score = float(table.score_BK[place, prompt])
        rows.append(
            {
                "image": sample.name,
                "action": prompt,
                "prompt": policy.prompts[prompt],
                **measured,
                "reward_net_score": score,
            }
        )
    shares = {policy.prompts[place]: share for place, share in enumerate(_shares(chosen_B, table))}
    return {"average_metrics": averages, "action_distribution": shares, "per_sample_results": rows}
