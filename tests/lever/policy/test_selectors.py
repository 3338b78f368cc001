from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core_rl.types import Actions
from lever.features.slate_features import FeatureTable, SlateQuery
from lever.model_config import LeverModelConfig, SelectorKind, Update
from lever.policy.earlier_selectors import Gpt2Selector, TwoTowerSelector
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.policy.slate_policy import SlatePolicy, SlatePrompt
from lever.rewards.functions import slates_of

ITEMS, WIDTH, K = 20, 8, 5
SMALL = LeverModelConfig(width=8, cosine_temperature=0.5)
QUERIES = [SlateQuery(18, (3, 7, 1, 12, 9)), SlateQuery(19, (0, 5, 2, 7, 11))]


def table() -> FeatureTable:
    rows = torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0))
    return FeatureTable(torch.nn.functional.normalize(rows, dim=-1))


def roughen(policy: SlatePolicy) -> SlatePolicy:
    """Move every parameter off its start, so that every part of the model has a say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in policy.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return policy


def metric(shots: int) -> SlatePolicy:
    return roughen(MetricSelector(table(), LeverModelConfig(shots=shots, scale=3.0)))


def pointer(update: Update, diversity: bool = False) -> Callable[[int], SlatePolicy]:
    def make(shots: int) -> SlatePolicy:
        torch.manual_seed(0)
        config = replace(SMALL, shots=shots, update=update, diversity=diversity)
        return roughen(PointerSelector(table(), config))

    return make


def gpt2(shots: int) -> SlatePolicy:
    torch.manual_seed(0)
    return roughen(Gpt2Selector(table(), LeverModelConfig(shots=shots, width=16, heads=2)))


def two_tower(shots: int) -> SlatePolicy:
    torch.manual_seed(0)
    return roughen(
        TwoTowerSelector(table(), LeverModelConfig(shots=shots, width=16, cosine_temperature=0.5))
    )


MAKERS = {
    "metric": metric,
    "pointer": pointer(Update.none),
    "gate": pointer(Update.gate),
    "gru": pointer(Update.gru),
    "diverse": pointer(Update.gate, diversity=True),
    "gpt2": gpt2,
    "two_tower": two_tower,
}
every_selector = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def slates(shots: int, size: int = K) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(size), shots)))


def score(policy: SlatePolicy, prompt: SlatePrompt, ids_NT: Tensor) -> Tensor:
    """Log-probabilities [B, N] of the same slates for each query."""
    ids = ids_NT.expand(len(prompt.query_BD), -1, -1)
    actions = Actions(ids, torch.ones_like(ids, dtype=torch.bool))
    return policy.log_probs(prompt, actions).logp_BGT.sum(-1)


@every_selector
def test_probabilities_of_all_slates_sum_to_one(make: Callable[[int], SlatePolicy]) -> None:
    policy = make(3)
    prompt = policy.encode(QUERIES)
    logp = score(policy, prompt, slates(3))
    assert logp.shape == (2, 60)
    assert torch.allclose(logp.exp().sum(-1), torch.ones(2), atol=1e-6)
    every = policy.enumerate(prompt)
    assert every.shape == (2, K, K, K)
    assert torch.allclose(every[:, *slates(3).T], logp, atol=1e-5)
    assert torch.allclose(every.exp().sum((1, 2, 3)), torch.ones(2), atol=1e-6)


@every_selector
def test_permuting_a_pool_permutes_the_choice(make: Callable[[int], SlatePolicy]) -> None:
    policy, order = make(3), [4, 2, 0, 1, 3]
    moved = [replace(item, pool=tuple(item.pool[i] for i in order)) for item in QUERIES]
    before = policy.enumerate(policy.encode(QUERIES))
    after = policy.enumerate(policy.encode(moved))
    assert torch.allclose(before[:, order][:, :, order][:, :, :, order], after, atol=1e-5)


@every_selector
def test_a_longer_pool_in_the_batch_changes_nothing(make: Callable[[int], SlatePolicy]) -> None:
    policy = make(2)
    long = SlateQuery(17, (4, 6, 8, 10, 13, 14, 15))
    alone = policy.enumerate(policy.encode(QUERIES[:1]))
    beside = policy.enumerate(policy.encode([QUERIES[0], long]))
    assert torch.allclose(beside[:1, :K, :K], alone, atol=1e-5)
    assert beside[0, K:].isneginf().all()
    drawn = policy.sample(policy.encode([QUERIES[0], long]), 200)
    assert int(drawn.ids_BGT[0].max()) < K


@every_selector
@pytest.mark.parametrize("temperature", [0.0, 0.5, 50.0])
def test_nothing_is_chosen_twice(make: Callable[[int], SlatePolicy], temperature: float) -> None:
    policy = make(4)
    drawn = policy.sample(policy.encode(QUERIES), 300, temperature)
    ordered = drawn.ids_BGT.sort(dim=-1).values
    assert (ordered[..., 1:] > ordered[..., :-1]).all()


@every_selector
def test_the_sampler_and_the_training_pass_agree(make: Callable[[int], SlatePolicy]) -> None:
    policy = make(3)
    prompt = policy.encode(QUERIES)
    for temperature in (0.7, 1.0, 1.3):
        for draw in (policy.sample, policy.sample_distinct):
            drawn = draw(prompt, 16, temperature)
            again = policy.log_probs(prompt, drawn, temperature).logp_BGT
            assert drawn.logp_BGT is not None
            assert torch.allclose(drawn.logp_BGT, again, atol=1e-5)


def test_every_step_is_a_distribution_without_what_was_chosen() -> None:
    policy = metric(3)
    prompt = policy.encode(QUERIES)
    drawn = policy.sample(prompt, 6)
    every = policy.log_probs(prompt, drawn).all_logp_BGTK
    assert every is not None and every.shape == (2, 6, 3, K)
    assert torch.allclose(every.exp().sum(-1), torch.ones(2, 6, 3), atol=1e-6)
    second = every[:, :, 1].gather(-1, drawn.ids_BGT[..., :1])
    assert second.isneginf().all()


def test_sampled_frequencies_are_the_probabilities() -> None:
    torch.manual_seed(0)
    policy = metric(2)
    prompt = policy.encode(QUERIES[:1])
    ids = policy.sample(prompt, 20_000, temperature=1.3).ids_BGT[0]
    seen = torch.bincount(ids[:, 0] * K + ids[:, 1], minlength=K * K) / len(ids)
    expected = policy.enumerate(prompt, temperature=1.3)[0].exp().flatten()
    assert torch.allclose(seen, expected, atol=0.015)


def test_weighted_distinct_samples_estimate_the_expected_reward() -> None:
    torch.manual_seed(0)
    policy, count = metric(2), 20_000
    prompt = policy.encode(QUERIES[:1] * count)
    chance = policy.enumerate(policy.encode(QUERIES[:1]))[0].exp().detach()
    worth = torch.rand(K, K, generator=torch.Generator().manual_seed(3)) * (chance < 0.04)
    exact = (chance * worth).sum().item()
    drawn = policy.sample_distinct(prompt, 5)
    assert drawn.share_BG is not None
    reward_BG = worth[drawn.ids_BGT[..., 0], drawn.ids_BGT[..., 1]]
    found_B = (drawn.share_BG * reward_BG).sum(dim=-1)
    error = (found_B.std() / count**0.5).item()
    assert found_B.mean().item() == pytest.approx(exact, abs=4 * error)
    # The plain mean counts improbable slates too much.
    assert reward_BG.mean().item() > exact + 20 * error
    every = policy.sample_distinct(policy.encode(QUERIES[:1]), K * (K - 1))
    assert every.share_BG is not None
    assert every.share_BG.sum().item() == pytest.approx(1, abs=1e-5)


def test_distinct_samples_start_as_plain_samples_and_never_repeat() -> None:
    torch.manual_seed(0)
    policy = metric(2)
    prompt = policy.encode(QUERIES[:1] * 10_000)
    drawn = policy.sample_distinct(prompt, 3)
    index = drawn.ids_BGT[..., 0] * K + drawn.ids_BGT[..., 1]
    assert (index[:, 0] != index[:, 1]).all() and (index[:, 1] != index[:, 2]).all()
    assert (index[:, 0] != index[:, 2]).all()
    chance = policy.enumerate(policy.encode(QUERIES[:1]))[0].exp().flatten().detach()
    first = torch.bincount(index[:, 0], minlength=K * K) / len(index)
    assert torch.allclose(first, chance, atol=0.02)
    # The second is drawn from what the first has left.
    left = chance.clone()
    top = int(chance.argmax())
    left[top] = 0
    second = torch.bincount(index[index[:, 0] == top, 1], minlength=K * K).float()
    assert torch.allclose(second / second.sum(), left / left.sum(), atol=0.05)


@every_selector
def test_a_wide_beam_finds_the_best_slates(make: Callable[[int], SlatePolicy]) -> None:
    policy = make(3)
    prompt = policy.encode(QUERIES)
    logp = score(policy, prompt, slates(3))
    beams = policy.beam_search(prompt, width=60)
    best = logp.sort(descending=True, dim=-1)
    assert beams.logp_BGT is not None and beams.mask_BGT.all()
    assert torch.allclose(beams.logp_BGT.sum(-1), best.values, atol=1e-5)
    assert torch.equal(beams.ids_BGT[:, 0], slates(3)[best.indices[:, 0]])


def test_a_beam_wider_than_there_are_slates_is_padded() -> None:
    policy = metric(2)
    prompt = policy.encode([SlateQuery(18, (3, 7)), QUERIES[1]])
    beams = policy.beam_search(prompt, width=30)
    assert beams.mask_BGT.all(-1).sum(-1).tolist() == [2, 20]
    assert beams.logp_BGT is not None and beams.logp_BGT.isfinite().all()


def test_reinforce_has_the_exact_gradient_in_expectation() -> None:
    policy = metric(2)
    reward = torch.rand(2, K, K, generator=torch.Generator().manual_seed(2))
    names = dict(policy.named_parameters())
    exact = (policy.enumerate(policy.encode(QUERIES)).exp() * reward).sum()
    expected = torch.autograd.grad(exact, list(names.values()))

    # REINFORCE over all slates, each weighted by how often it would be drawn.
    prompt, every = policy.encode(QUERIES), slates(2)
    logp = score(policy, prompt, every)
    credit = reward[:, *every.T] - 0.5
    surrogate = (logp.exp().detach() * credit * logp).sum()
    for one, other in zip(
        torch.autograd.grad(surrogate, list(names.values())), expected, strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_padding_candidates_have_no_gradient_and_no_nan() -> None:
    policy = metric(2)
    prompt = policy.encode(QUERIES)
    ids = torch.tensor([[[0, 1], [0, 0]], [[2, 3], [0, 0]]])
    mask = torch.tensor([[[True, True], [False, False]]] * 2)
    logp = policy.log_probs(prompt, Actions(ids, mask)).logp_BGT
    assert torch.equal(logp[:, 1], torch.zeros(2, 2))
    logp.sum().backward()
    assert all(value.grad.isfinite().all() for value in policy.parameters())


def test_the_metric_has_337_parameters_and_starts_as_similarity_search() -> None:
    policy = MetricSelector(FeatureTable(torch.eye(112)), LeverModelConfig())
    assert sum(value.numel() for value in policy.parameters()) == 337
    plain = MetricSelector(table(), LeverModelConfig())
    likeness = table().rows_ND[list(QUERIES[0].pool)] @ table().rows_ND[18]
    greedy = plain.sample(plain.encode(QUERIES[:1]), 1, temperature=0.0).ids_BGT[0, 0]
    assert greedy.tolist() == likeness.topk(2).indices.tolist()


def test_the_pointer_has_the_published_size() -> None:
    policy = PointerSelector(FeatureTable(torch.randn(3, 512)), LeverModelConfig())
    assert sum(value.numel() for value in policy.parameters()) == pytest.approx(0.92e6, rel=0.02)


def test_the_untrained_pointer_is_close_to_similarity_search() -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(41, 32), dim=-1)
    policy = PointerSelector(FeatureTable(rows), LeverModelConfig(shots=1, width=32))
    prompt = policy.encode([SlateQuery(40, tuple(range(40)))])
    logits = policy.next_logits(prompt, torch.zeros(1, 1, 0, dtype=torch.long)).flatten()
    assert torch.corrcoef(torch.stack([logits, rows[:40] @ rows[40]]))[0, 1] > 0.85


def test_a_frozen_copy_stays_and_shares_the_features() -> None:
    policy = metric(2)
    frozen = policy.frozen_copy()
    before = frozen.enumerate(frozen.encode(QUERIES))
    with torch.no_grad():
        for value in policy.parameters():
            value += 1.0
    assert torch.equal(frozen.enumerate(frozen.encode(QUERIES)), before)
    assert frozen.features is policy.features
    assert not any(value.requires_grad for value in frozen.parameters())
    assert "features" not in str(policy.state_dict().keys())


def test_bad_queries_are_named() -> None:
    policy = metric(3)
    with pytest.raises(ValueError, match="query 18: pool of 2: expected at least the 3 shots"):
        policy.encode([SlateQuery(18, (3, 7))])
    with pytest.raises(ValueError, match=r"query 18: pool: no embedding for ids \[99\]"):
        policy.encode([SlateQuery(18, (3, 7, 99))])
    with pytest.raises(ValueError, match="query 77: query: no embedding"):
        policy.encode([SlateQuery(77, (3, 7, 1))])
    with pytest.raises(ValueError, match="cosine_temperature=0: expected"):
        PointerSelector(table(), LeverModelConfig(cosine_temperature=0))
    with pytest.raises(ValueError, match=r"model\.shots=0"):
        MetricSelector(table(), LeverModelConfig(shots=0))


def stopping(shots: int) -> SlatePolicy:
    torch.manual_seed(0)
    return roughen(
        PointerSelector(table(), replace(SMALL, shots=shots, kind=SelectorKind.pointer, stop=True))
    )


def test_with_a_stop_the_slates_of_every_length_sum_to_one() -> None:
    policy = stopping(3)
    prompt = policy.encode(QUERIES)
    every = policy.enumerate(prompt).exp()
    assert every.shape == (2, K + 1, K + 1, K + 1)
    assert torch.allclose(every.sum((1, 2, 3)), torch.ones(2), atol=1e-6)
    assert not every[:, K].any()  # nothing stops before its first demonstration
    assert not every[:, :, K, :K].any()  # or goes on after it stopped
    assert (every[:, :K, K, K] > 0).all()
    counted = 5 + 5 * 4 + 5 * 4 * 3
    assert int((every[0] > 0).sum()) == counted


def test_a_stop_ends_the_slate_for_sampler_training_pass_and_reward() -> None:
    torch.manual_seed(0)
    policy = stopping(3)
    queries = [QUERIES[0], SlateQuery(17, (4, 6, 8, 10, 13, 14, 15))]
    prompt = policy.encode(queries)
    stop = prompt.valid_BK.shape[1] - 1
    for drawn in (policy.sample(prompt, 64), policy.sample_distinct(prompt, 20)):
        assert drawn.logp_BGT is not None
        again = policy.log_probs(prompt, drawn).logp_BGT
        assert torch.allclose(again, drawn.logp_BGT, atol=1e-5)
        for query, ids, mask, slates_G in zip(
            queries, drawn.ids_BGT, drawn.mask_BGT, slates_of(queries, drawn), strict=True
        ):
            for row, real, slate in zip(ids.tolist(), mask.tolist(), slates_G, strict=True):
                assert slate is not None
                before = row[: row.index(stop)] if stop in row else row
                assert slate[1] == tuple(query.pool[place] for place in before)
                assert sum(real) == len(before) + (stop in row)
    lengths = {
        len(slate[1]) for slate in slates_of(queries, policy.sample(prompt, 200))[0] if slate
    }
    assert lengths == {1, 2, 3}


def test_permuting_a_pool_permutes_the_choice_of_a_pointer_that_stops() -> None:
    policy, order = stopping(2), [4, 2, 0, 1, 3]
    moved = [replace(item, pool=tuple(item.pool[i] for i in order)) for item in QUERIES]
    before = policy.enumerate(policy.encode(QUERIES))
    after = policy.enumerate(policy.encode(moved))
    places = [*order, K]
    assert torch.allclose(before[:, places][:, :, places], after, atol=1e-5)
