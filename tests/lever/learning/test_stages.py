from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core_rl.config import CurriculumConfig, PhaseConfig, PhaseKind, Subset
from core_rl.sealed import seal
from lever.candidates.stored_sampler import StoredSampler
from lever.generation_config import BeamsFrom, Split
from lever.learning import stages as steps
from lever.learning import trained_methods as arms
from lever.learning.stages import JUDGED, Training, Workshop
from lever.model_config import Best, LearnConfig, SelectorKind
from lever.results import choose
from tests.lever.workshop import OFFLINE, SFT, small_settings


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop.open(small_settings(tmp_path_factory.mktemp("cache")), seed=0) as made:
        yield made


def test_a_stage_is_done_once(shop: Workshop) -> None:
    first = shop.rce()
    calls = shop.setup.answerer.calls
    assert shop.rce() == first and (first / "policy.safetensors").is_file()
    assert shop.setup.answerer.calls == calls


def test_other_settings_are_another_stage(shop: Workshop) -> None:
    other = CurriculumConfig([PhaseConfig(PhaseKind.rce, epochs=1, data="beams")])
    assert shop.train_selector(Training("sft", other)) != shop.sft()
    assert shop.train_selector(Training("sft", SFT)) == shop.sft()


def test_what_a_stage_learns_from_is_part_of_its_name(tmp_path: Path) -> None:
    """Beams, whole candidates and the weights it starts from; not where those weights lie."""
    settings = small_settings(tmp_path / "cache")
    smaller = replace(settings, beams=replace(settings.beams, beam_size=1))
    with Workshop.open(settings, seed=0) as first, Workshop.open(smaller, seed=0) as other:
        start = first.sft()
        assert other.sft() != start
        copied = tmp_path / "elsewhere"
        shutil.copytree(start, copied)
        records = first.rl_data(start)
        made = first.train_selector(Training("offline", OFFLINE, start, records=records))
        assert first.train_selector(Training("offline", OFFLINE, copied, records=records)) == made
        query, record = next(iter(records.items()))
        surer = replace(record.candidates[0], vqa_gt_prob=0.5)
        changed = {**records, query: replace(record, candidates=(surer, *record.candidates[1:]))}
        assert first.train_selector(Training("offline", OFFLINE, start, records=changed)) != made
        weights = load_file(copied / "policy.safetensors")
        save_file({name: 1.1 * one for name, one in weights.items()}, copied / "policy.safetensors")
        seal(copied)  # the change is meant
        assert first.train_selector(Training("offline", OFFLINE, copied, records=records)) != made


def test_offline_grpo_asks_the_answerer_nothing_about_training_queries(shop: Workshop) -> None:
    start = shop.sft()
    records = shop.rl_data(start)
    before = {(query, one.pointer) for query, r in records.items() for one in r.candidates}
    made = shop.train_selector(Training("offline", OFFLINE, start, records=records))
    judged = json.loads((made.parents[1] / JUDGED).read_text())
    assert {query for query, _ in judged} == {one.query for one in shop.train}
    places = {
        (query, tuple(records[query].pool.index(shot) for shot in shots)) for query, shots in judged
    }
    assert places <= before


def test_equal_offline_data_hold_as_many_slates_as_the_refresh_judged(shop: Workshop) -> None:
    policy = arms.offline_equal(shop)
    assert policy.shots == 2
    [refresh] = shop.root.glob("grpo-*")
    [equal] = shop.root.glob("offline_equal-*")
    counted = [json.loads((folder / JUDGED).read_text()) for folder in (refresh, equal)]
    per_query = [np.bincount([query - 60 for query, _ in rows], minlength=6) for rows in counted]
    # A query whose every draw was the same slate still needs two to compare.
    assert np.array_equal(np.maximum(per_query[0], 2), per_query[1])


def test_slates_drawn_once_are_independent_draws_of_the_policy_that_drew_them(
    shop: Workshop,
) -> None:
    counts = {one.query: 6 for one in shop.train}
    records = arms.draws_of(shop, shop.rce(), counts)
    policy = shop.selector(shop.rce())
    for one in shop.train:
        record = records[one.query]
        assert len(record.candidates) == len(record.times) == 6
        assert min(record.times) >= 1
        drawn = StoredSampler([record])(policy, policy.encode([one]), [one], 1.0)
        assert drawn.share_BG is not None and drawn.logp_BGT is not None
        # The policy has not moved yet: the weights are the numbers of draws.
        share = drawn.share_BG[0] / drawn.share_BG[0].max()
        times = torch.tensor(record.times) / max(record.times)
        assert torch.allclose(share, times, atol=1e-4)


def test_slates_that_end_early_are_left_out_of_equal_offline_data(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    model = replace(settings.model, kind=SelectorKind.pointer, width=8, stop=True)
    with Workshop.open(replace(settings, model=model), seed=0) as made:
        assert arms.offline_equal(made).stops


def test_max_samples_draws_queries_and_more_than_there_are_is_an_error(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    for wanted, ok in ((4, True), (7, False)):
        with Workshop.open(
            replace(settings, learn=LearnConfig(max_samples=wanted)), seed=0
        ) as made:
            if ok:
                assert len(made.train) == 4
                ours = {one.query for one in made.train}
                assert made.beams(Split.train).keys() == ours
                assert made.rl_data(None).keys() == ours
            else:
                with pytest.raises(ValueError, match=r"learn\.max_samples=7: expected at most"):
                    _ = made.train


def test_a_draw_of_beams_is_of_the_training_queries_alone(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    with Workshop.open(
        replace(settings, beams=replace(settings.beams, sample_num=2)), seed=0
    ) as made:
        sizes = [len(made.beams(split)) for split in (Split.train, Split.val, Split.test)]
        assert sizes == [2, len(made.data.val), len(made.data.test)]


def test_beams_are_made_only_where_something_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("beams were made")

    settings = small_settings(tmp_path)
    own = replace(settings.rl_data, beams_from=BeamsFrom.selector)
    with Workshop.open(replace(settings, rl_data=own), seed=0) as made:
        monkeypatch.setattr(steps, "generate_beams", refuse)
        records = made.rl_data(None)
        made.train_selector(Training("refresh", settings.pipeline.refresh))
        made.train_selector(Training("offline", OFFLINE, records=records))
        assert made.lessons_of(OFFLINE).train == made.train
        with pytest.raises(AssertionError, match="beams were made"):
            made.lessons_of(SFT)


def test_beams_of_another_length_are_refused(shop: Workshop) -> None:
    longer = replace(shop.settings.model, shots=3)
    with pytest.raises(ValueError, match=r"beams\.few_shot=2, but model\.shots=3"):
        shop.train_selector(Training("longer", SFT, model=longer))


def test_stages_before_the_resumed_training_resume_nothing(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    trainer = replace(settings.trainer, resume=str(tmp_path / "missing.ckpt"))
    with Workshop.open(replace(settings, trainer=trainer), seed=0) as made:
        assert (made.sft() / "policy.safetensors").is_file()


def test_a_phase_without_its_data_is_named(shop: Workshop) -> None:
    with pytest.raises(ValueError, match=r"query 60: curriculum\.phases\.data=stored: no such"):
        shop.train_selector(Training("bare", OFFLINE))
    odd = CurriculumConfig([PhaseConfig(PhaseKind.grpo, data="yesterday")])
    with pytest.raises(ValueError, match=r"data='yesterday': expected one of"):
        shop.train_selector(Training("odd", odd))


def test_the_literal_top_k_warns_where_it_kills_contrast(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    start = shop.sft()
    records = shop.rl_data(start)
    top = PhaseConfig(PhaseKind.grpo, epochs=1, subset=Subset.top_k, top_k=2, data="stored")
    with caplog.at_level(logging.WARNING):
        shop.train_selector(Training("top", CurriculumConfig([top]), start, records=records))
    lost = any("all alike" in record.message for record in caplog.records)
    values = [
        sorted((one.vqa_acc_score or 0.0 for one in record.candidates), reverse=True)
        for record in records.values()
    ]
    expected = any(one[0] == one[1] and one[0] > one[-1] for one in values)
    assert lost == expected


def test_the_published_choice_by_kl_is_kept_where_asked(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    with Workshop.open(replace(settings, learn=LearnConfig(best=Best.kl)), seed=0) as made:
        final = made.train_selector(Training("grpo", settings.pipeline.refresh))
        assert (final.parent / "lowest_kl" / "policy.safetensors").is_file()


def test_rules_choose_different_demonstrations_of_the_pool(shop: Workshop) -> None:
    data, test = shop.data, shop.data.test
    found = {
        "text": choose.by_similarity(data, test, 2, 0.0, 1.0),
        "both": choose.by_both(data, test, 2),
        "random": choose.at_random(test, 2, 0),
        "beams": choose.by_beams(shop.beams(Split.test), test),
        "selector": choose.by_selector(shop.selector(), test, 4),
    }
    for name, slates in found.items():
        for one in test:
            shots = slates[one.query]
            assert set(shots) <= set(one.pool), name
            assert len(set(shots)) == len(shots) == (4 if name == "selector" else 2)
    one = test[0]
    near = max(one.pool, key=lambda shot: float(data.text_ND[shot] @ data.text_ND[one.query]))
    assert found["text"][one.query][-1] == near == found["both"][one.query][-1]


def test_fewer_shots_are_the_first_choices(shop: Workshop) -> None:
    policy = shop.selector()
    two, one = (choose.by_selector(policy, shop.data.test, shots) for shots in (2, 1))
    assert all(two[query][:1] == one[query] for query in two)


def test_expected_reward_agrees_with_sampling_and_scores_with_the_table(shop: Workshop) -> None:
    torch.manual_seed(0)
    test, policy = shop.data.test, shop.selector()
    table = choose.pair_rewards(shop.data, shop.setup.answerer.answerer, test)
    exact = choose.expected_rewards(policy, test, table)
    drawn = policy.sample(policy.encode(test), 4000).ids_BGT
    sampled = [table[row][ids[:, 0], ids[:, 1]].mean() for row, ids in enumerate(drawn.numpy())]
    assert np.allclose(exact, sampled, atol=0.05)
    slates = choose.by_selector(policy, test)
    scores = choose.scores_of(shop.data, shop.setup.answerer, slates)
    greedy = [
        table[row][tuple(one.pool.index(shot) for shot in slates[one.query])]
        for row, one in enumerate(test)
    ]
    assert np.allclose(scores, greedy)
