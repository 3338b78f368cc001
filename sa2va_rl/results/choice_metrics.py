"""What choices are worth on held-out pictures, and whether they look at the picture at all."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Choices = NDArray[np.int64]

log = logging.getLogger(__name__)

ONE_PROMPT = 0.95  # share of pictures beyond which one prompt is all there is


def worth(values_BK: Floats, choices_B: Choices) -> Floats:
    """Pick each picture's value under its chosen prompt, B."""
    return values_BK[np.arange(len(choices_B)), choices_B]


def gap_closed(dice_BK: Floats, choices_B: Choices, fixed: int) -> float:
    """Share of the way from a fixed prompt to the best prompt of each picture; NaN without a way.

    Args:
        dice_BK: of every prompt on held-out pictures.
        choices_B: what is measured.
        fixed: the prompt chosen on training pictures.
    """
    start = float(dice_BK[:, fixed].mean())
    way = float(dice_BK.max(axis=1).mean()) - start
    return (float(worth(dice_BK, choices_B).mean()) - start) / way if way > 0 else float("nan")


def choice_metrics(dice_BK: Floats, choices_B: Choices, fixed: int) -> dict[str, float]:
    """Measure choices.

    Returns:
        `dice`, `gap_closed`, `regret` (Dice short of each picture's best prompt), `entropy` of the
        choices in nats, `distinct_prompts`, and `choice/<place>`, the share of each prompt.
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
    name: str,
    choose: Callable[[Floats], Choices],
    features_BD: Floats,
    dice_BK: Floats,
    shuffles: int = 20,
    seed: int = 0,
) -> bool:
    """Warn when a policy does not look at the picture.

    It does not when one prompt answers nearly all of them, or when it does as well with the
    features of another picture.

    Args:
        name: of the policy, for the warning.
        choose: the policy.
        features_BD: held-out pictures.
        dice_BK: of every prompt on them.
        shuffles: random exchanges of features; the policy has to beat nine in ten.
        seed: of the exchanges.
    """
    choices_B = choose(features_BD)
    common = int(np.bincount(choices_B).argmax())
    share = float((choices_B == common).mean())
    if share > ONE_PROMPT:
        log.warning(
            "%s ignores the picture: prompt %d for %.0f %% of them", name, common, 100 * share
        )
        return True
    rng = np.random.default_rng(seed)
    own = float(worth(dice_BK, choices_B).mean())
    # A policy sees one picture at a time, so exchanged features exchange its choices.
    exchanged = [worth(dice_BK, rng.permutation(choices_B)).mean() for _ in range(shuffles)]
    if own > float(np.quantile(exchanged, 0.9)):
        return False
    log.warning(
        "%s ignores the picture: Dice %.3f, with other pictures' features %.3f",
        name,
        own,
        float(np.mean(exchanged)),
    )
    return True
