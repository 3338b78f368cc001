"""A Hugging Face model behind the policy's seams: one distribution on every path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.hf.recompute import checkpoint_activations
from core_rl.types import Actions
from tests.core_rl.hf.text_policy import (
    QUERIES,
    STOPS,
    SUPPRESSED,
    TextPolicy,
    build_model,
    build_policy,
    gradients,
    ragged,
    weighted_sum,
)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def policy(request: pytest.FixtureRequest) -> TextPolicy:
    return build_policy(request.param).train()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def score(policy: HFPolicy, actions: Actions, shared: bool = True, t: float = 1.0) -> Tensor:
    policy.shared_prompt = shared
    try:
        return policy.log_probs(policy.encode(QUERIES), actions, t).logp_BGT
    finally:
        policy.shared_prompt = True


# -- one distribution on every path --------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_sampler_and_learner_agree(policy: TextPolicy, temperature: float) -> None:
    prompt = policy.encode(QUERIES)
    actions = policy.sample(prompt, 5, temperature)
    assert ragged(actions)
    scored = policy.log_probs(prompt, actions, temperature).logp_BGT
    assert (scored - actions.logp_BGT).exp().sub(1).abs().max() <= 1e-4
    assert scored.requires_grad and not actions.logp_BGT.requires_grad
    assert (scored[~actions.mask_BGT] == 0).all()


def test_another_temperature_gives_other_log_probs(policy: TextPolicy) -> None:
    actions = policy.sample(policy.encode(QUERIES), 4, 0.6)
    assert (score(policy, actions, t=1.0) - actions.logp_BGT).abs().max() > 0.1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_shared_prompt_changes_neither_log_probs_nor_gradients(
    policy: TextPolicy, temperature: float
) -> None:
    actions = policy.sample(policy.encode(QUERIES), 4)
    shared, again = (score(policy, actions, way, temperature) for way in (True, False))
    torch.testing.assert_close(shared, again, atol=1e-5, rtol=0)
    one, other = gradients(policy, weighted_sum(shared)), gradients(policy, weighted_sum(again))
    assert (one - other).norm() <= 1e-4 * other.norm()
    assert other.norm() > 0


@pytest.mark.parametrize("recompute", ["auto", "layers"])
@pytest.mark.parametrize("mixed", [True, False], ids=["autocast", "weights"])
def test_a_shared_prompt_in_half_precision(mixed: bool, recompute: str) -> None:
    model = build_model()
    if not mixed:
        model = model.to(torch.bfloat16)
    policy = build_policy(model=model, recompute=recompute).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        actions = policy.sample(policy.encode(QUERIES), 4)
        shared, again = (score(policy, actions, way) for way in (True, False))
    assert shared.dtype is torch.float32
    # Log-probs go down to -10; bfloat16 keeps eight bits of a logit.
    torch.testing.assert_close(shared, again, atol=0.1, rtol=0)
    torch.testing.assert_close(shared, actions.logp_BGT, atol=0.1, rtol=0)
    one, other = gradients(policy, weighted_sum(shared)), gradients(policy, weighted_sum(again))
    assert (one - other).norm() <= 0.05 * other.norm()
    assert other.norm() > 0


def test_queries_are_made_ready_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = build_policy()
    collate, products = policy.collate, []

    def with_a_product(queries: list[str]) -> Inputs:
        products.append(torch.eye(2) @ torch.eye(2))
        return collate(queries)

    monkeypatch.setattr(policy, "collate", with_a_product)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        policy.encode(QUERIES[:1])
    assert [product.dtype for product in products] == [torch.float32]


def test_neighbours_and_padding_change_nothing(policy: TextPolicy) -> None:
    """A query alone, without left padding and with its own candidates, is scored the same."""
    actions = policy.sample(policy.encode(QUERIES), 3)
    together = score(policy, actions)
    for b, query in enumerate(QUERIES):
        alone = Actions(actions.ids_BGT[b : b + 1], actions.mask_BGT[b : b + 1])
        got = policy.log_probs(policy.encode([query]), alone).logp_BGT
        torch.testing.assert_close(got[0], together[b], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_what_stands_in_the_padding_does_not_matter(policy: TextPolicy, shared: bool) -> None:
    actions = policy.sample(policy.encode(QUERIES), 4)
    noise = torch.where(actions.mask_BGT, actions.ids_BGT, 11)
    changed = Actions(noise, actions.mask_BGT)
    torch.testing.assert_close(
        score(policy, changed, shared), score(policy, actions, shared), atol=1e-6, rtol=0
    )


def test_rows_may_be_passed_in_any_portion() -> None:
    one, many = build_policy(rows_per_pass=1), build_policy(rows_per_pass=100)
    actions = many.sample(many.encode(QUERIES), 3)
    torch.testing.assert_close(
        score(one, actions, False), score(many, actions, False), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shared", [True, False])
def test_candidates_of_one_step(shared: bool) -> None:
    policy = build_policy(max_completion=1)
    actions = policy.sample(policy.encode(QUERIES), 4)
    assert actions.ids_BGT.shape == (3, 4, 1)
    torch.testing.assert_close(score(policy, actions, shared), actions.logp_BGT, atol=1e-4, rtol=0)


def test_checkpointed_activations_give_the_same_log_probs_and_gradients() -> None:
    plain, saving = build_policy().train(), build_policy()
    checkpoint_activations(saving.model)
    saving.train()
    assert saving.checkpoints_activations and not plain.checkpoints_activations
    actions = plain.sample(plain.encode(QUERIES), 4)
    both = [score(policy, actions) for policy in (plain, saving)]
    torch.testing.assert_close(*both, atol=1e-5, rtol=0)
    one, other = (
        gradients(policy, weighted_sum(logp))
        for policy, logp in zip((plain, saving), both, strict=True)
    )
    assert (one - other).norm() <= 1e-4 * one.norm()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_never_shows(checkpointing: bool) -> None:
    policy = build_policy(model=build_model(attention_dropout=0.5))
    if checkpointing:
        checkpoint_activations(policy.model)
    policy.train()
    actions = policy.sample(policy.encode(QUERIES), 3)
    torch.testing.assert_close(score(policy, actions), actions.logp_BGT, atol=1e-4, rtol=0)


# -- drawing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suppressed", [[], SUPPRESSED])
def test_greedy_is_what_generate_does(policy: TextPolicy, suppressed: list[int]) -> None:
    policy = TextPolicy(
        policy.model,
        policy.tokenizer,
        stop_ids=policy.stop_ids.tolist(),
        suppress_ids=suppressed,
        max_completion=9,
    )
    actions = policy.sample(policy.encode(QUERIES), 1, temperature=0.0)
    wanted = policy.model.eval().generate(
        **policy.collate(QUERIES),
        do_sample=False,
        max_new_tokens=9,
        eos_token_id=policy.stop_ids.tolist(),
        pad_token_id=policy.tokenizer.pad_token_id,
        suppress_tokens=suppressed or None,
    )
    for b in range(len(QUERIES)):
        kept = actions.ids_BGT[b, 0][actions.mask_BGT[b, 0]].tolist()
        assert wanted[b, -actions.ids_BGT.shape[-1] :].tolist()[: len(kept)] == kept


def test_greedy_does_not_depend_on_the_seed(policy: TextPolicy) -> None:
    first, second = (policy.sample(policy.encode(QUERIES), 2, temperature=0.0) for _ in range(2))
    assert torch.equal(first.ids_BGT, second.ids_BGT)
    assert torch.equal(first.ids_BGT[:, 0], first.ids_BGT[:, 1])


def test_suppressed_ids_are_never_drawn_and_have_no_probability() -> None:
    policy = build_policy(suppress_ids=[i for i in range(259) if i not in (3, 4, 7)])
    actions = policy.sample(policy.encode(QUERIES), 40, temperature=3.0)
    assert set(actions.ids_BGT[actions.mask_BGT].tolist()) == {3, 4, 7}
    banned = Actions(torch.full((3, 1, 1), 50), torch.ones(3, 1, 1, dtype=torch.bool))
    assert (score(policy, banned) == float("-inf")).all()


def test_draws_follow_the_distribution() -> None:
    """First tokens of many draws, against the exact probabilities of three options."""
    policy = build_policy(suppress_ids=[i for i in range(259) if i not in (3, 4, 7)])
    policy.max_completion = 1
    prompt = policy.encode(QUERIES[:1])
    ids = policy.sample(prompt, 4000, temperature=2.0).ids_BGT
    options = Actions(torch.tensor([[[3], [4], [7]]]), torch.ones(1, 3, 1, dtype=torch.bool))
    exact = policy.log_probs(prompt, options, 2.0).logp_BGT.exp().flatten()
    assert exact.sum().item() == pytest.approx(1.0, abs=1e-5)
    counted = torch.stack([(ids == i).float().mean() for i in (3, 4, 7)])
    torch.testing.assert_close(counted, exact, atol=0.03, rtol=0)


def test_a_candidate_ends_with_its_stop_token_or_is_truncated(policy: TextPolicy) -> None:
    actions = policy.sample(policy.encode(QUERIES), 12)
    lengths = actions.mask_BGT.sum(-1, keepdim=True)
    last_BG = actions.ids_BGT.gather(-1, lengths - 1)[..., 0]
    stopped_BG = torch.isin(last_BG, policy.stop_ids)
    assert torch.equal(actions.truncated_BG, ~stopped_BG)
    assert stopped_BG.any() and not stopped_BG.all()
    assert (lengths[..., 0][~stopped_BG] == policy.max_completion).all()
    inner = actions.mask_BGT.clone().scatter_(-1, lengths - 1, False)
    assert not torch.isin(actions.ids_BGT[inner], policy.stop_ids).any()
    # A mask is a run of True from the first step on.
    assert torch.equal(actions.mask_BGT, torch.arange(lengths.max()) < lengths)


def test_decoding_ends_when_all_have_stopped() -> None:
    policy = build_policy(stop_ids=list(range(259)), suppress_ids=[])
    assert policy.sample(policy.encode(QUERIES), 3).ids_BGT.shape[-1] == 1


def test_texts_leave_special_tokens_out() -> None:
    policy = build_policy()
    actions = policy.actions_from_texts([["yes", "no way"], ["<media>", ""]])
    assert actions.mask_BGT.sum(-1).tolist() == [[4, 7], [2, 1]]
    assert policy.with_texts(actions).texts == (("yes", "no way"), ("", ""))
    drawn = policy.sample(policy.encode(QUERIES), 2)
    assert [len(group) for group in drawn.texts] == [2, 2, 2]


def test_given_texts_end_with_the_tokenizers_own_stop_token() -> None:
    """Not with the smallest of the stop ids."""
    policy = build_policy(stop_ids=sorted([*STOPS, 256]))
    assert (policy.end_id, build_policy(stop_ids=[3, 8]).end_id) == (256, 3)
    actions = policy.actions_from_texts([["ab", "c"]])
    assert actions.ids_BGT[0, 0].tolist() == [*policy.tokenizer("ab")["input_ids"], 256]
    assert actions.mask_BGT.tolist() == [[[True, True, True], [True, True, False]]]
    assert actions.logp_BGT is None
    assert not actions.truncated_BG.any()


# -- the reference -------------------------------------------------------------------------------


def test_a_frozen_copy_stays_and_takes_no_gradient() -> None:
    policy = build_policy().train()
    reference = policy.frozen_copy()
    actions = policy.sample(policy.encode(QUERIES), 3)
    before = score(reference, actions)
    torch.testing.assert_close(before, score(policy, actions))
    assert not before.requires_grad
    assert not set(map(id, reference.parameters())) & set(map(id, policy.parameters()))

    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    (-score(policy, actions).sum()).backward()
    optimizer.step()
    assert (score(policy, actions) - before).abs().max() > 1e-3
    assert torch.equal(score(reference, actions), before)
    assert all(p.grad is None for p in reference.parameters())
    assert all(p.requires_grad for p in policy.parameters())


# -- modes and files -----------------------------------------------------------------------------


def test_the_model_trains_in_eval_mode_unless_checkpointing_needs_train_mode() -> None:
    policy = build_policy()
    assert policy.train().training and not policy.model.training
    checkpoint_activations(policy.model)
    assert policy.train().model.training
    assert not policy.eval().model.training


def test_saved_weights_open_with_from_pretrained(tmp_path: Path) -> None:
    policy = build_policy()
    policy.model.save_pretrained(tmp_path)
    opened = build_policy(model=type(policy.model).from_pretrained(tmp_path))
    actions = policy.sample(policy.encode(QUERIES), 3)
    assert torch.equal(score(opened, actions), score(policy, actions))
