"""The report of a run: `report.html`, a self-contained page, and `report.png`.

All numbers are those of `metrics.json`.  Parts without data (samples, frames of a missing clip,
facts of a real one) are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core_rl.files import write_text
from core_rl.results.html import render
from core_rl.results.plotting import save_png, style, svg_uri
from core_rl.results.stats import Interval
from core_rl.run.run_folder import git_revision
from omni_rl.data.record import Record
from omni_rl.results import plots as figures
from omni_rl.results.clip_views import clip_views, jpeg_uri, one_a_source
from omni_rl.results.plots import Gain, Pair
from omni_rl.results.seed_run import SeedResult
from omni_rl.rewards.rules import PeopleFocus
from omni_rl.settings import Settings

log = logging.getLogger(__name__)

HEADLINE = (
    "people_focus",
    "grounded_focus",
    "format",
    "accuracy",
    "general_accuracy",
    "instruction_following",
)
COMPARED = {
    "start": "the start model",
    "majority": "the most frequent answer",
    "blind": "the start model without media",
    "sft": "supervision on right solutions",
    "sft_habit": "supervision on the habit",
    "last": "the policy after the last step",
    "shuffled_rewards": "training on shuffled rewards",
    "blank_media": "training without media",
}
REWARD = "reward/"


def write_report(
    folder: Path, settings: Settings, shown: SeedResult, metrics: Mapping[str, float], text: str
) -> None:
    """Write `report.html` and `report.png` of a run.

    Args:
        folder: of the run; `samples.parquet` is read there, or in its `seed*` folders.
        settings: of the run.
        shown: one seed, of which a few records are shown.
        metrics: what `metrics.json` holds.
        text: the before/after table as text.
    """
    pairs, gains = headline_pairs(metrics), accuracy_gains(metrics)
    curves = reward_curves(folder)
    clips = clip_views(shown.records, shown.before, shown.after)
    with style():
        drawn = [
            ("before and after training", figures.bars_figure(pairs)),
            ("accuracy gain of the trained policy over others", figures.gains_figure(gains)),
        ]
        if curves:
            drawn.append(("mean reward by training step", figures.curves_figure(curves)))
        images = [(alt, svg_uri(figure)) for alt, figure in drawn]
        overview = figures.overview(pairs, gains, curves, one_a_source(clips))
        save_png(overview, folder / "report.png")
    page = render(
        "omni_rl",
        "stage4.html.j2",
        name=f"{settings.model.name} on {settings.data_mix.name}",
        generated=settings.data_mix.generated,
        findings=findings(settings, metrics, shown.records),
        images=images,
        text=text,
        clips=[(clip, jpeg_uri(clip.strip_HWC)) for clip in clips],
        configuration=configuration(settings),
    )
    write_text(folder / "report.html", page)
    log.info("report written to %s", folder / "report.html")


def headline_pairs(metrics: Mapping[str, float]) -> list[Pair]:
    """List the headline metrics that were measured before and after."""
    return [
        Pair(name, _interval(metrics, f"before/{name}"), _interval(metrics, f"after/{name}"))
        for name in HEADLINE
        if f"before/{name}" in metrics and f"after/{name}" in metrics
    ]


def accuracy_gains(metrics: Mapping[str, float]) -> list[Gain]:
    """List the differences of the trained policy to start, baselines and controls."""
    gains = [
        Gain(COMPARED["start"], metrics["before/accuracy"], _interval(metrics, "diff/accuracy"))
    ]
    for key in metrics:
        name = key.removeprefix("after_vs_").removesuffix("/accuracy")
        if key == f"after_vs_{name}/accuracy" and name != "last":
            level = metrics[f"{name}/accuracy"]
            gains.append(Gain(COMPARED.get(name, name), level, _interval(metrics, key)))
    return gains


def reward_curves(folder: Path) -> dict[str, list[pd.Series]]:
    """Average each reward by step, for every seed of a run.

    Args:
        folder: of the run; of a single seed, or with one `seed*` folder each.

    Returns:
        Reward name -> series by optimiser step, `total` last; empty without samples.
    """
    curves: dict[str, list[pd.Series]] = {}
    for place in (folder, *sorted(folder.glob("seed*"))):
        # Part by part, because an interrupted run may leave an unfinished file.
        parts = [_rewards(part) for part in sorted(place.glob("samples.parquet/part-*.parquet"))]
        if not parts:
            continue
        means = pd.concat(parts).groupby("step").mean()
        for column in means:
            series = means[column].dropna()
            if len(series):
                curves.setdefault(str(column).removeprefix(REWARD), []).append(series)
    return dict(sorted(curves.items(), key=lambda item: item[0] == "total"))


def _rewards(part: Path) -> pd.DataFrame:
    table = pd.read_parquet(part)
    return table[["step", *(name for name in table if str(name).startswith(REWARD))]]


def findings(
    settings: Settings, metrics: Mapping[str, float], records: Sequence[Record]
) -> list[str]:
    """State the results of a run in sentences."""
    seeds = len(settings.trainer.seeds)
    said = [_accuracy_sentence(metrics, seeds), *_people_sentences(metrics, records)]
    gains = accuracy_gains(metrics)[1:]
    above = [gain.name for gain in gains if gain.gain.low > 0]
    level = [gain.name for gain in gains if gain.gain.low <= 0]
    if above:
        said.append(f"The trained policy is more accurate than: {', '.join(above)}.")
    if level:
        said.append(f"Not shown to be more accurate than: {', '.join(level)}.")
    if "last/accuracy" in metrics:
        said.append(
            "The policy with the best held-out reward was kept; after the last step accuracy was "
            f"{metrics['last/accuracy']:.3f}."
        )
    said.append(_kind_of_gain(settings, metrics))
    if seeds == 1:
        said.append("One seed: the intervals cover other test clips, not other training runs.")
    else:
        said.append(
            f"The intervals are t intervals over {seeds} seeds: they cover other test clips and "
            "other training runs."
        )
    return said


def _accuracy_sentence(metrics: Mapping[str, float], seeds: int) -> str:
    gain = _interval(metrics, "diff/accuracy")
    if gain.low > 0:
        verdict = "the interval lies above 0."
    elif gain.high < 0:
        verdict = "the interval lies below 0: it became worse."
    else:
        verdict = "the interval contains 0: no change is shown."
    return (
        f"{metrics['before/items']:.0f} held-out records, {seeds} seed{'s' if seeds > 1 else ''}: "
        f"accuracy {metrics['before/accuracy']:.3f} before, {metrics['after/accuracy']:.3f} after, "
        f"change {gain.mean:+.3f}, 95 % interval [{gain.low:+.3f}, {gain.high:+.3f}]; {verdict}"
    )


def _people_sentences(metrics: Mapping[str, float], records: Sequence[Record]) -> list[str]:
    if "after/people_focus" not in metrics or "before/people_focus" not in metrics:
        return []
    scores = [PeopleFocus().score(record, record.solution) for record in records if record.solution]
    earned = [score for score in scores if score is not None]
    said = (
        f"People focus (a rule over <context>, 0 to 1): {metrics['before/people_focus']:.3f} "
        f"before, {metrics['after/people_focus']:.3f} after"
    )
    if earned:
        said += f"; the records' own reference solutions earn {np.mean(earned):.3f}"
    return [f"{said}.  It reads words, not the clip; grounded_focus says how much of them is true."]


def _kind_of_gain(settings: Settings, metrics: Mapping[str, float]) -> str:
    if not settings.data_mix.generated:
        return (
            "Real clips carry no known facts, so this run cannot tell whether a gain is better use "
            "of what the start model perceives or better perception."
        )
    seen = {
        name.rpartition("/")[2]: share
        for name, share in metrics.items()
        if name.startswith("start/perceived/")
    }
    if not seen:
        return "The start model was not tested for what it perceives (model.warm_start or a path)."
    shares = ", ".join(f"{name} {share:.2f}" for name, share in seen.items())
    return (
        f"Before training the start model already told the facts of a clip apart ({shares} in a "
        "forced choice).  What training adds is the use of it, elicitation; it is no evidence of "
        "new perception."
    )


def configuration(settings: Settings) -> list[tuple[str, str]]:
    """List the main settings of a run as name and value."""
    model, trainer, rollout = settings.model, settings.trainer, settings.rollout
    loss, hardware = settings.loss, settings.hardware
    shares = ", ".join(f"{name} {share:g}" for name, share in settings.data_mix.ratios.items())
    weights = ", ".join(f"{name} {weight:g}" for name, weight in settings.reward.weights.items())
    phases = ", ".join(phase.kind.value for phase in settings.curriculum.phases)
    length = f"{trainer.epochs:g} epochs" if trainer.max_steps is None else str(trainer.max_steps)
    return [
        ("model", f"{model.name}, from {model.path or f'warm start ({model.warm_start})'}"),
        ("data", f"{settings.data_mix.name}: {shares}"),
        ("reward weights", weights),
        ("phases", phases),
        ("learning rate", f"{trainer.lr:g}, {trainer.schedule}"),
        ("steps", length),
        ("questions a step", f"{trainer.batch_size * trainer.accumulation * hardware.devices}"),
        (
            "candidates a question",
            f"{rollout.num_generations} at temperature {rollout.temperature:g}",
        ),
        ("limits", f"{rollout.max_prompt} prompt, {rollout.max_completion} completion tokens"),
        ("loss", f"{loss.objective.value}, {loss.reduction.value}, KL weight {loss.kl.weight:g}"),
        ("hardware", f"{hardware.devices} x {hardware.accelerator}, {hardware.precision}"),
        ("seeds", ", ".join(map(str, trainer.seeds))),
        ("code", git_revision()),
    ]


def _interval(metrics: Mapping[str, float], name: str) -> Interval:
    return Interval(metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"])
