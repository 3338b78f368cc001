"""Metrics of chosen prompts on held-out pictures, and a test whether they depend on the picture."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Choices = NDArray[np.int64]

log = logging.getLogger(__name__)

ONE_PROMPT = 0.95  # share of pictures above which one prompt counts as a constant choice


def worth(values_BK: Floats, choices_B: Choices) -> Floats:
    """Return each picture's value under its chosen prompt, B."""
    return values_BK[np.arange(len(choices_B)), choices_B]


def gap_closed(dice_BK: Floats, choices_B: Choices, fixed: int) -> float:
    """(Dice - fixed) / (oracle - fixed): the share of the possible gain; NaN if none is possible.

    Args:
        dice_BK: of every prompt on held-out pictures.
        choices_B: the prompts to evaluate.
        fixed: the prompt that is best on training pictures.
    """
    start = float(dice_BK[:, fixed].mean())
    way = float(dice_BK.max(axis=1).mean()) - start
    return (float(worth(dice_BK, choices_B).mean()) - start) / way if way > 0 else float("nan")


def choice_metrics(dice_BK: Floats, choices_B: Choices, fixed: int) -> dict[str, float]:
    """Evaluate chosen prompts.

    Returns:
        `dice`, `gap_closed`, `regret` (mean difference to each picture's best prompt), `entropy` of
        the choices in nats, `distinct_prompts`, and `choice/<index>`, the share of each prompt.
    """
    share_K = np.bincount(choices_B, minlength=dice_BK.shape[1]) / len(choices_B)
    used = share_K[share_K > 0]
    return {
        "dice": float(worth(dice_BK, choices_B).mean()),
        "gap_closed": gap_closed(dice_BK, choices_B, fixed),
        "regret": float((dice_BK.max(axis=1) - worth(dice_BK, choices_B)).mean()),
        "entropy": float(-(used * np.log(used)).sum()),
        "distinct_prompts": float(len(used)),
        **{f"choice/{place}": float(share) for place, share in enumerate(share_K)},
    }


def ignores_picture(
    name: str, choices_B: Choices, dice_BK: Floats, shuffles: int = 20, seed: int = 0
) -> bool:
    """Warn if a policy's choices do not depend on the picture.

    This is so if one prompt is chosen for nearly all pictures, or if choices that are permuted
    among the pictures are as good.

    Args:
        name: of the policy, for the warning.
        choices_B: its choices on held-out pictures.
        dice_BK: of every prompt on them.
        shuffles: number of permutations; the policy has to beat nine in ten.
        seed: of the permutations.
    """
    common = int(np.bincount(choices_B).argmax())
    share = float((choices_B == common).mean())
    if share > ONE_PROMPT:
        log.warning(
            "%s ignores the picture: prompt %d for %.0f %% of them", name, common, 100 * share
        )
        return True
    rng = np.random.default_rng(seed)
    own = float(worth(dice_BK, choices_B).mean())
    permuted = [worth(dice_BK, rng.permutation(choices_B)).mean() for _ in range(shuffles)]
    if own > float(np.quantile(permuted, 0.9)):
        return False
    log.warning(
        "%s ignores the picture: Dice %.3f, with permuted choices %.3f",
        *(name, own, float(np.mean(permuted))),
    )
    return True
