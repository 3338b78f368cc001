"""From every method's measures on every picture to a table with intervals.

Methods are compared picture by picture; means are over seeds.  Seeds of generated data are whole
replications (other patients, another reward network, other policies).  Seeds of files split the
same films anew: several seeds may test one film, so intervals also include the variance between
films, see `core_rl.results.stats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core_rl.results.stats import Interval, as_metrics, paired_interval
from sa2va_rl.data.files import Sample
from sa2va_rl.results.methods import FIXED, MEASURES, STOPPED, TRUTH, Found

Floats = NDArray[np.float64]

# Names of the rows, in the order of the table.
METHODS = {
    "base": "base prompt",
    "random": "random prompt (mean)",
    "fixed": "best fixed prompt",
    "fixed_learned": "best fixed prompt",
    "oracle": "oracle: each picture's best",
    "threshold": "tuned threshold",
    "threshold_truth": "tuned threshold",
    "linucb": "LinUCB",
    "ridge": "ridge",
    "ridge_truth": "ridge",
    "forest": "random forest",
    "forest_truth": "random forest",
    "rerank": "re-rank by reward network",
    "ppo_seed": "PPO, source's settings",
    "ppo_tuned": "PPO, tuned (3a)",
    "grpo": "GRPO, shared loop (1)",
    "postprocess": "post-processing (2)",
    "postprocess_truth": "post-processing (2)",
    "postprocess_each": "post-processing, by picture (2)",
    "postprocess_each_truth": "post-processing, by picture (2)",
    "small": "small segmenter, few masks",
    "finetune": "fine-tuned, anchor (3b)",
    "finetune_free": "fine-tuned, no anchor (3b)",
    "small_truth": "small segmenter, all masks",
}
RIVALS = (FIXED, "threshold_truth")  # methods that all others are compared with


def rows_of(found: Iterable[Found]) -> pd.DataFrame:
    """Return a table with a row for each test set, picture and method."""
    parts = []
    for one in found:
        for test_set, measures in one.measures.items():
            chosen = None if one.choices is None else one.choices[test_set]
            part = pd.DataFrame({name: measures[name] for name in MEASURES})
            part["choice"] = -1 if chosen is None else chosen
            part.insert(0, "picture", np.arange(len(part)))
            for name, value in (("method", one.method), ("set", test_set)):
                part.insert(0, name, value)
            parts.append(part.assign(told=one.told, calls=one.calls, cpu_seconds=one.cpu_seconds))
    return pd.concat(parts, ignore_index=True)


def grouped(rows: pd.DataFrame, held: Mapping[str, Sequence[Sample]]) -> pd.DataFrame:
    """Add a column with each picture's group (patient or film); `held` is the test sets by name."""
    groups = {name: [sample.group for sample in samples] for name, samples in held.items()}
    pictures = zip(rows["set"], rows["picture"], strict=True)
    return rows.assign(group=[groups[name][place] for name, place in pictures])


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """Compute the metrics of one test set at one size.

    Args:
        rows: of `rows_of` with `grouped`, of one size and test set, any number of seeds.

    Returns:
        `<measure>/<method>`, `gap_closed/<method>` ((Dice - best fixed) / (oracle - best fixed)),
        `entropy/<method>` in nats and `top_share/<method>` of its prompts, `calls/<method>` a
        picture, `cpu_seconds/<method>` of training, and for each of `RIVALS`
        `diff/<method>_vs_<rival>` with `_low`, `_high` and `_detectable`, `diff_recall/` likewise.
    """
    found: dict[str, float] = {}
    for method, own in rows.groupby("method", sort=False):
        for name in (*MEASURES, "calls", "cpu_seconds"):
            found[f"{name}/{method}"] = float(own.groupby("seed")[name].mean().mean())
        found |= {f"{name}/{method}": value for name, value in _spread(own).items()}
        found[f"gap_closed/{method}"] = _gap_closed(rows, str(method))
        for rival in RIVALS:
            if method == rival or rival not in set(rows["method"]):
                continue
            for prefix, measure in (("diff", "dice"), ("diff_recall", "recall")):
                gain = _gain(rows, str(method), rival, measure)
                found |= as_metrics(f"{prefix}/{method}_vs_{rival}", gain)
    return found


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the gap closed, a row for each seed and a column for each method."""
    seeds = sorted(rows["seed"].unique())
    methods = [str(method) for method in rows["method"].unique()]
    shares = {
        method: [_gap_closed(rows[rows["seed"] == seed], method) for seed in seeds]
        for method in methods
    }
    return pd.DataFrame(shares, index=pd.Index(seeds, name="seed"))


def histogram(rows: pd.DataFrame, num_prompts: int) -> pd.DataFrame:
    """Return the share of each prompt, a row for each method that chooses prompts."""
    chosen = rows[rows["choice"] >= 0]
    shares = {
        str(method): np.bincount(own["choice"], minlength=num_prompts) / len(own)
        for method, own in chosen.groupby("method", sort=False)
    }
    return pd.DataFrame(shares, index=pd.Index(range(num_prompts), name="prompt")).T


def text_table(found: Mapping[str, float], told: Mapping[str, str]) -> str:
    """Format metrics as text; `least` is the detectable difference in Dice points.

    Args:
        found: of `summarise`.
        told: what each method learns from.
    """
    wide = max([16, *(len(one) + 2 for one in told.values())])
    lines = [
        f"{'method':<32}{'told':<{wide}}{'Dice':>6}{'IoU':>6}{'prec':>6}{'rec':>6}{'gap':>7}"
        f"  {'Dice - best fixed, 95 %':<25}{'least':>6}{'top':>5}{'calls':>6}{'cpu s':>7}"
    ]
    for method in told:
        numbers = "".join(f"{found[f'{name}/{method}']:6.3f}" for name in MEASURES)
        key = f"diff/{method}_vs_{FIXED}"
        gain = least = ""
        if key in found:
            ends = [100 * found[f"{key}{end}"] for end in ("", "_low", "_high")]
            gain = "{:+5.1f} [{:+5.1f}, {:+5.1f}]".format(*ends)
            least = f"{100 * found[f'{key}_detectable']:.1f}"
        top = found[f"top_share/{method}"]
        lines.append(
            f"{METHODS[method]:<32}{told[method]:<{wide}}{numbers}"
            f"{100 * found[f'gap_closed/{method}']:6.0f}%  {gain:<25}{least:>6}"
            f"{'' if np.isnan(top) else f'{100 * top:4.0f}%':>5}"
            f"{found[f'calls/{method}']:6.0f}{found[f'cpu_seconds/{method}']:7.1f}"
        )
    return "\n".join(lines)


def told_of(rows: pd.DataFrame) -> dict[str, str]:
    """Return what each method of a table learns from, in the order of `METHODS`."""
    told = dict(rows.groupby("method", sort=False)["told"].first())
    return {method: told[method] for method in METHODS if method in told}


def name_of(method: str, told: Mapping[str, str]) -> str:
    """Return a method's name, with a note if it learns from or stops by true masks."""
    said = {TRUTH: ", by truth", STOPPED: ", stop by truth"}
    return METHODS[method] + said.get(told[method], "")


def _spread(own: pd.DataFrame) -> dict[str, float]:
    """Return entropy and largest share of a method's prompts, as means over seeds."""
    values = []
    for _, part in own.groupby("seed"):
        counts = np.bincount(part["choice"]) if (part["choice"] >= 0).all() else np.array([])
        share = counts[counts > 0] / max(len(part), 1)
        if share.size:
            values.append((float(-(share * np.log(share)).sum()), float(share.max())))
    entropy, top = np.mean(values, axis=0) if values else (np.nan, np.nan)
    return {"entropy": float(entropy), "top_share": float(top)}


def _gap_closed(rows: pd.DataFrame, method: str) -> float:
    means = rows.groupby(["seed", "method"])["dice"].mean().unstack("method")
    way = means["oracle"] - means[FIXED]
    return float(((means[method] - means[FIXED]) / way.where(way > 0)).mean())


def _gain(rows: pd.DataFrame, method: str, rival: str, measure: str) -> Interval:
    after, before = _per_seed(rows, method), _per_seed(rows, rival)
    return paired_interval(
        [part[measure].to_numpy(dtype=np.float64) for part in after],
        [part[measure].to_numpy(dtype=np.float64) for part in before],
        [part["group"].tolist() for part in after],
        shared=bool((rows.groupby("group")["seed"].nunique() > 1).any()),
    )


def _per_seed(rows: pd.DataFrame, method: str) -> Sequence[pd.DataFrame]:
    own = rows[rows["method"] == method].sort_values(["seed", "picture"])
    return [part for _, part in own.groupby("seed")]
