"""Metrics of a reward network: errors over all pairs, and rank correlation within each picture.

A policy chooses between masks of one picture, so only their order matters to it.  The correlation
over all pairs can be high (easy pictures score high) while the order within a picture is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

TIE = 0.005  # labels that differ by less than this are ties
BINS = 10


def judge_metrics(scores_BK: Floats, labels_BK: Floats) -> dict[str, float]:
    """Compare scores with labels, of the masks of K prompts and B pictures.

    Returns:
        `mae`, `r2`, `pearson`, `spearman` and `calibration_error` over all pairs;
        `within_image_spearman` and `ranked_images`, the pictures whose labels are not all ties;
        `argmax_regret`, the mean label of the best mask minus that of the mask with the best score.
        A correlation with a constant is NaN.
    """
    if scores_BK.shape != labels_BK.shape or scores_BK.ndim != 2 or not scores_BK.size:
        raise ValueError(
            f"scores {scores_BK.shape}, labels {labels_BK.shape}: expected equal, of two axes"
        )
    scores, labels = scores_BK.ravel(), labels_BK.ravel()
    variance = float(((labels - labels.mean()) ** 2).sum())
    within, ranked = within_image_spearman(scores_BK, labels_BK)
    chosen = scores_BK.argmax(axis=1)
    regret_B = labels_BK.max(axis=1) - labels_BK[np.arange(len(chosen)), chosen]
    return {
        "mae": float(np.abs(scores - labels).mean()),
        "r2": 1 - float(((scores - labels) ** 2).sum()) / variance if variance else float("nan"),
        "pearson": _pearson(scores, labels),
        "spearman": _pearson(stats.rankdata(scores), stats.rankdata(labels)),
        "calibration_error": calibration_error(scores, labels),
        "within_image_spearman": within,
        "ranked_images": float(ranked),
        "argmax_regret": float(regret_B.mean()),
    }


def within_image_spearman(scores_BK: Floats, labels_BK: Floats) -> tuple[float, int]:
    """Mean over pictures of the rank correlation over prompts, and the number of those pictures.

    Pictures whose labels are all ties are left out; one with constant scores counts as 0.
    """
    found = []
    for scores_K, labels_K in zip(scores_BK, labels_BK, strict=True):
        tiers_K = tiers(labels_K)
        if tiers_K.max() == 0:
            continue
        correlation = _pearson(stats.rankdata(scores_K), stats.rankdata(tiers_K))
        found.append(0.0 if np.isnan(correlation) else correlation)
    return (float(np.mean(found)) if found else float("nan")), len(found)


def tiers(labels_K: Floats) -> NDArray[np.int64]:
    """Number labels from the worst up; labels less than `TIE` above a tier's worst share it."""
    order = np.argsort(labels_K, kind="stable")
    numbers = np.zeros(len(labels_K), dtype=np.int64)
    worst, tier = labels_K[order[0]], 0
    for place in order:
        if labels_K[place] - worst >= TIE:
            worst, tier = labels_K[place], tier + 1
        numbers[place] = tier
    return numbers


def calibration_error(scores: Floats, labels: Floats) -> float:
    """Mean difference of score and label over ten bins of the score, weighted by their size."""
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    gaps = np.bincount(bins, weights=scores - labels, minlength=BINS)
    return float(np.abs(gaps).sum() / len(scores))


def probe_table(
    scores: Sequence[float], labels: Sequence[float], kinds: Sequence[str]
) -> Mapping[str, tuple[float, float]]:
    """Mean score and mean label of each kind of mask, such as `truth` and `full`."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for kind, score, label in zip(kinds, scores, labels, strict=True):
        rows.setdefault(kind, []).append((score, label))
    means = {kind: np.mean(pairs, axis=0) for kind, pairs in rows.items()}
    return {kind: (float(mean[0]), float(mean[1])) for kind, mean in means.items()}


def _pearson(left: Floats, right: Floats) -> float:
    left, right = left - left.mean(), right - right.mean()
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / size if size > 1e-12 else float("nan")
