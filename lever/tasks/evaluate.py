"""Inference: choose demonstrations with a checkpoint, answer, score."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from lever.data.datasets import Prompted
from lever.data.vqa_accuracy import Scores
from lever.data.vqa_accuracy import evaluate as vqa_scores
from lever.data.vqa_files import write_results
from lever.features.slate_features import SlateQuery
from lever.generation_config import Matching
from lever.learning.stages import Workshop
from lever.model_config import ChooseConfig
from lever.results import choose
from lever.results.result_files import score_results, stem_all
from lever.settings import Settings

log = logging.getLogger(__name__)


def evaluate(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Score a selector on held-out queries with 1 to 4 demonstrations, or score a results file.

    Args:
        folder: of the run; gets `results_<shots>shots.json` in the official format.
        seed: of the generated world and of the random baseline.
        groups: the fields of `lever.settings.Settings`, `choose` among them.

    Returns:
        For each number of shots `selector/<shots>/overall`, `.../<answer type>`,
        `.../question_type/<type>` and `random/<shots>/overall` in percent, and
        `selector/<shots>/latency_ms`, the mean time of a choice.  Of a results file the same under
        `file/`.
    """
    settings = Settings(**groups)
    if settings.choose.results is not None:
        scores = score_results(settings, seed, _rule(settings.choose))
        return _reported(folder, {"file": scores})
    with Workshop.open(settings, seed) as shop:
        return _score_selector(folder, shop, settings.choose)


def pick(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Show the demonstrations chosen for one question, its prompt and the answer.

    Args:
        folder: of the run; gets the text as `prompt.txt`.
        seed: of the generated world.
        groups: the fields of `lever.settings.Settings`; `choose.query` is the question's id.

    Returns:
        `accuracy` of the answer.

    Raises:
        ValueError: no such query in the split.
    """
    settings = Settings(**groups)
    with Workshop.open(settings, seed) as shop:
        one = _query(shop.data.split(settings.choose.split), settings.choose.query)
        policy = shop.selector(settings.choose.checkpoint)
        slates = choose.by_selector(policy, [one])
        [said] = choose.answered(shop.setup.answerer, slates).values()
        rule = _rule(settings.choose)
        [accuracy] = choose.scores_of(shop.data, shop.setup.answerer, slates, rule)
        text = _shown(shop, one, slates[one.query], said, float(accuracy))
    log.info("%s", text)
    write_text(folder / "prompt.txt", text + "\n")
    return {"accuracy": float(accuracy)}


def _query(queries: Sequence[SlateQuery], wanted: int | None) -> SlateQuery:
    if wanted is None:
        return queries[0]
    found = [one for one in queries if one.query == wanted]
    if not found:
        raise ValueError(
            f"choose.query={wanted}: not a query of the split, whose ids begin with "
            f"{[one.query for one in queries[:3]]}"
        )
    return found[0]


def _shown(
    shop: Workshop, one: SlateQuery, shots: tuple[int, ...], said: str, accuracy: float
) -> str:
    lines = [f"query {one.query}: {shop.data.question_of(one.query).text}"]
    for shot in shots:
        item = shop.data.items[shot]
        lines.append(f"demonstration {shot}: {item.question.text} -> {item.answer}")
    lines.append(f"prompt:\n{shop.setup.prompts.text(Prompted(one.query, shots))}")
    lines.append(f"answer: {said} (accuracy {accuracy:.2f})")
    return "\n".join(lines)


def _score_selector(folder: Path, shop: Workshop, config: ChooseConfig) -> dict[str, float]:
    queries = shop.data.split(config.split)
    policy = shop.selector(config.checkpoint)
    metrics: dict[str, float] = {}
    tables: dict[str, Scores] = {}
    for shots in config.shots:
        began = time.perf_counter()
        chosen = choose.by_selector(policy, queries, shots)
        elapsed = time.perf_counter() - began
        metrics[f"selector/{shots}/latency_ms"] = 1000 * elapsed / len(queries)
        by_chance = choose.at_random(queries, shots, shop.seed)
        for name, slates in (("selector", chosen), ("random", by_chance)):
            said = choose.answered(shop.setup.answerer, slates)
            asked = [shop.data.question_of(query) for query in slates]
            results = {one.question_id: said[query] for one, query in zip(asked, said, strict=True)}
            judged = stem_all(shop.settings, results) if config.stem_predictions else results
            tables[f"{name}/{shots}"] = vqa_scores(asked, judged, _rule(config))
            if slates is chosen:
                write_results(folder / f"results_{shots}shots.json", results)
    return metrics | _reported(folder, tables)


def _rule(config: ChooseConfig) -> Matching:
    return Matching.simple if config.simple_match else Matching.official


def _reported(folder: Path, tables: Mapping[str, Scores]) -> dict[str, float]:
    """Write a table with a line for each method and a column for each answer type.

    Below it stands a line for each question type, where the data has any.
    """
    kinds = sorted({kind for scores in tables.values() for kind in scores.by_answer_type})
    metrics: dict[str, float] = {}
    lines = [f"{'method/shots':<14}" + "".join(f"{kind:>9}" for kind in ["overall", *kinds])]
    for name, scores in tables.items():
        found = {"overall": scores.overall, **scores.by_answer_type}
        values = [found.get(kind, float("nan")) for kind in ["overall", *kinds]]
        lines.append(f"{name:<14}" + "".join(f"{value:>9.2f}" for value in values))
        metrics |= {f"{name}/{kind}": value for kind, value in found.items()}
        named = {kind: value for kind, value in scores.by_question_type.items() if kind}
        metrics |= {f"{name}/question_type/{kind}": value for kind, value in named.items()}
    asked = sorted({kind for scores in tables.values() for kind in scores.by_question_type} - {""})
    if asked:
        lines += ["", f"{'question type':<28}" + "".join(f"{name:>14}" for name in tables)]
    for kind in asked:
        values = [scores.by_question_type.get(kind, float("nan")) for scores in tables.values()]
        lines.append(f"{kind:<28}" + "".join(f"{value:>14.2f}" for value in values))
    text = "\n".join(lines)
    log.info("accuracy in percent\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    return metrics
