"""Inference: choose demonstrations with a checkpoint, answer, score."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_rl.files import write_text
from lever.data.datasets import LeverData, Prompted
from lever.data.vqa_accuracy import Scores, check_coverage
from lever.data.vqa_accuracy import evaluate as vqa_scores
from lever.data.vqa_files import read_results, write_results
from lever.features.slate_features import SlateQuery
from lever.generation_config import Matching
from lever.learning.stages import Workshop
from lever.model_config import ChooseConfig, ChooseFrom
from lever.results import choose
from lever.settings import Settings

log = logging.getLogger(__name__)


def evaluate(folder: Path, seed: int, **groups: Any) -> dict[str, float]:
    """Score a selector on held-out queries with 1 to 4 demonstrations, or score a results file.

    Args:
        folder: of the run; gets `results_<shots>shots.json` in the official format.
        seed: of the generated world and of the random baseline.
        groups: the fields of `lever.settings.Settings`, `choose` among them.

    Returns:
        For each number of shots `selector/<shots>/overall`, `.../<answer type>` and
        `random/<shots>/overall` in percent, and `selector/<shots>/latency_ms`, the mean time of a
        choice.
    """
    settings = Settings(**groups)
    with Workshop.open(settings, seed) as shop:
        score = _score_selector if settings.choose.results is None else _score_file
        return score(folder, shop, settings.choose)


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
        one = _query(queries_of(shop.data, settings.choose.split), settings.choose.query)
        policy = shop.selector(settings.choose.checkpoint)
        slates = choose.by_selector(policy, [one])
        [said] = choose.answered(shop.setup.answerer, slates).values()
        rule = _rule(settings.choose)
        [accuracy] = choose.scores_of(shop.data, shop.setup.answerer, slates, rule)
        text = _shown(shop, one, slates[one.query], said, float(accuracy))
    log.info("%s", text)
    write_text(folder / "prompt.txt", text + "\n")
    return {"accuracy": float(accuracy)}


def queries_of(data: LeverData, split: ChooseFrom) -> tuple[SlateQuery, ...]:
    """Return the queries of a split."""
    return data.test if split is ChooseFrom.test else data.val


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
    queries = queries_of(shop.data, config.split)
    policy = shop.selector(config.checkpoint)
    metrics: dict[str, float] = {}
    tables: dict[str, Scores] = {}
    for shots in config.shots:
        began = time.perf_counter()
        chosen = choose.by_selector(policy, queries, shots)
        elapsed = time.perf_counter() - began
        metrics[f"selector/{shots}/latency_ms"] = 1000 * elapsed / len(queries)
        said = choose.answered(shop.setup.answerer, chosen)
        by_chance = choose.at_random(queries, shots, shop.seed)
        others = choose.answered(shop.setup.answerer, by_chance)
        tables[f"selector/{shots}"] = _scored(shop.data, queries, said, config)
        tables[f"random/{shots}"] = _scored(shop.data, queries, others, config)
        ids = {query: shop.data.question_of(query).question_id for query in said}
        results = {ids[query]: text for query, text in said.items()}
        write_results(folder / f"results_{shots}shots.json", results)
    for name, scores in tables.items():
        metrics |= _figures(name, scores)
    text = by_type_table(tables)
    log.info("accuracy in percent by answer type\n%s", text)
    write_text(folder / "report.txt", text + "\n")
    return metrics


def _score_file(folder: Path, shop: Workshop, config: ChooseConfig) -> dict[str, float]:
    assert config.results is not None
    queries = queries_of(shop.data, config.split)
    by_question = {shop.data.question_of(one.query).question_id: one.query for one in queries}
    said = read_results(config.results)
    check_coverage(by_question, said)
    answers = {by_question[key]: text for key, text in said.items()}
    scores = _scored(shop.data, queries, answers, config)
    text = by_type_table({"file": scores})
    log.info("%s: accuracy in percent by answer type\n%s", config.results, text)
    write_text(folder / "report.txt", text + "\n")
    return _figures("file", scores)


def _scored(
    data: LeverData,
    queries: Sequence[SlateQuery],
    said: Mapping[int, str],
    config: ChooseConfig,
) -> Scores:
    questions = [data.question_of(one.query) for one in queries]
    predictions = {data.question_of(query).question_id: text for query, text in said.items()}
    return vqa_scores(questions, predictions, _rule(config))


def _rule(config: ChooseConfig) -> Matching:
    return Matching.simple if config.simple_match else Matching.official


def _figures(name: str, scores: Scores) -> dict[str, float]:
    by_type = {f"{name}/{kind}": value for kind, value in scores.by_answer_type.items()}
    return {f"{name}/overall": scores.overall, **by_type}


def by_type_table(tables: Mapping[str, Scores]) -> str:
    """Return a table with a line for each method and a column for each answer type."""
    kinds = sorted({kind for scores in tables.values() for kind in scores.by_answer_type})
    lines = [f"{'method/shots':<14}" + "".join(f"{kind:>9}" for kind in ["overall", *kinds])]
    for name, scores in tables.items():
        values = [
            scores.overall,
            *(scores.by_answer_type.get(kind, float("nan")) for kind in kinds),
        ]
        lines.append(f"{name:<14}" + "".join(f"{value:>9.2f}" for value in values))
    return "\n".join(lines)
