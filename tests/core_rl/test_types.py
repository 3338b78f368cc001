"""The shared vocabulary: selection of queries and the masked mean."""

from __future__ import annotations

import torch

from core_rl.types import Actions, masked_mean


def test_select_keeps_every_field_of_the_chosen_queries() -> None:
    ids_BGT = torch.arange(12).view(3, 2, 2)
    actions = Actions(
        ids_BGT=ids_BGT,
        mask_BGT=ids_BGT % 2 == 0,
        logp_BGT=-ids_BGT.float(),
        truncated_BG=torch.tensor([[True, False], [False, False], [False, True]]),
        texts=(("a", "b"), ("c", "d"), ("e", "f")),
        spans={"context": ids_BGT > 5},
    )
    kept = actions.select(torch.tensor([2, 0]))
    assert (kept.num_queries, kept.num_candidates) == (2, 2)
    assert kept.ids_BGT.tolist() == [[[8, 9], [10, 11]], [[0, 1], [2, 3]]]
    assert kept.mask_BGT.equal(kept.ids_BGT % 2 == 0)
    assert kept.logp_BGT is not None and kept.logp_BGT.equal(-kept.ids_BGT.float())
    assert kept.truncated_BG is not None
    assert kept.truncated_BG.tolist() == [[False, True], [True, False]]
    assert kept.texts == (("e", "f"), ("a", "b"))
    assert kept.spans["context"].equal(kept.ids_BGT > 5)


def test_select_leaves_absent_fields_absent() -> None:
    bare = Actions(torch.zeros(2, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool))
    kept = bare.select(torch.tensor([1]))
    assert kept.logp_BGT is None
    assert kept.truncated_BG is None
    assert kept.texts == ()


def test_masked_mean_ignores_what_is_masked_even_if_it_is_not_a_number() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf")], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True, False]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad is not None and values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_masked_mean_of_nothing_is_zero_with_a_graph() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0.0
    assert values.grad is not None and values.grad.tolist() == [0.0, 0.0, 0.0]
