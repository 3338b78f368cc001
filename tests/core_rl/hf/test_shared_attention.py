"""Attention that shares a prompt, against the softmax over prompt and candidate in one piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core_rl.hf.decoding import GrowingCache
from core_rl.hf.shared_attention import (
    PackedRows,
    SharingUnsupported,
    _attention,
    _MergedAttention,
    attending,
    joined_attention,
)
from tests.core_rl.hf.text_policy import build_model

HEADS, KV_HEADS, WIDTH, SCALE = 4, 2, 8, 0.3


def rows_of(lengths: list[list[int]], steps: int) -> PackedRows:
    return PackedRows(torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1))


def tensors(rows: PackedRows, prompts: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Query, key, value, then keys and values of each prompt; all ask for a gradient."""
    torch.manual_seed(0)
    tokens = len(rows.slots_S)
    shapes = [(1, heads, tokens, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    shapes += [(1, KV_HEADS, length, WIDTH) for length in prompts for _ in range(2)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    ("lengths", "prompts"),
    [
        ([[5, 5, 5], [5, 5, 5]], [4, 9]),
        ([[1, 5, 3], [2, 4, 5]], [4, 9]),
        ([[0, 5, 3], [0, 0, 0]], [4, 9]),  # candidates without a token, and a whole question
        ([[3, 2]], [0]),  # a prompt of one token: nothing before the candidates
    ],
    ids=["full", "ragged", "empty", "no-prompt"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_and_joined_attention_are_one(
    lengths: list[list[int]], prompts: list[int], dtype: torch.dtype
) -> None:
    rows = rows_of(lengths, 5)
    given = tensors(rows, prompts, dtype)
    results = []
    for attention in (_MergedAttention.apply, joined_attention):
        out = attention(*given[:3], SCALE, rows, *given[3:])
        weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
        results.append((out, *torch.autograd.grad((out * weights).sum(), given)))
    exact = 1e-12 if dtype is torch.float64 else 2e-6
    for merged, joined in zip(*results, strict=True):
        torch.testing.assert_close(merged, joined, atol=exact, rtol=exact)


def test_a_candidate_sees_its_prompt_and_its_own_past_alone() -> None:
    rows = rows_of([[3, 3], [3, 3]], 3)
    query, key, value, *prompt = tensors(rows, [4, 4], torch.float32)
    out = _MergedAttention.apply(query, key, value, SCALE, rows, *prompt)
    # Token 4 is the second of the second candidate of the first question.
    grads = torch.autograd.grad(out[0, 4].sum(), [key, *prompt])
    assert grads[0][0].abs().sum(dim=(0, 2)).nonzero().flatten().tolist() == [3, 4]
    assert all(grad.abs().sum() > 0 for grad in grads[1:3])
    assert all(grad.abs().sum() == 0 for grad in grads[3:])


def test_packing_forgets_nothing() -> None:
    rows = rows_of([[1, 4], [0, 2]], 4)
    assert rows.spans == [(0, 5), (5, 7)]
    packed = torch.arange(7.0).view(7, 1)
    assert torch.equal(rows.pack(rows.pad(packed)), packed)
    assert rows.pad(packed)[..., 0].tolist()[0] == [0.0, 0.0, 0.0, 0.0]
    assert rows.pad(packed)[1, :, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


# -- decoding ------------------------------------------------------------------------------------


def softmax_of(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query [H, D] over keys [kv, S, D]."""
    repeats = HEADS // KV_HEADS
    keys, values = (part.repeat_interleave(repeats, 0) for part in (keys, values))
    weights = (torch.einsum("hd,hsd->hs", query, keys) * SCALE).softmax(-1)
    return torch.einsum("hs,hsd->hd", weights, values)


@pytest.mark.parametrize(
    "leaving",
    [
        {},
        {1: [0]},  # one question keeps two candidates, the other three
        {0: [1], 2: [0, 4]},  # unequal, then equal again
        {1: [0, 1, 2]},  # a whole question
        {0: [3, 4, 5], 2: [1]},
    ],
    ids=["nobody", "one", "several", "a-question", "the-other"],
)
def test_a_growing_cache_attends_as_separate_caches(leaving: dict[int, list[int]]) -> None:
    torch.manual_seed(0)
    prompts = [[tuple(torch.randn(1, KV_HEADS, p, WIDTH) for _ in range(2))] for p in (3, 6)]
    cache = GrowingCache(prompts, 3, 5, HEADS // KV_HEADS)
    names = list(range(6))
    own = {n: [list(part[0].unbind(1)) for part in prompts[n // 3][0]] for n in names}
    for step in range(5):
        query = torch.randn(len(names), HEADS, WIDTH)
        key, value = (torch.randn(len(names), KV_HEADS, WIDTH) for _ in range(2))
        cache.open_column()
        got = cache.attend(0, query, key, value, SCALE)
        for row, name in enumerate(names):
            own[name][0].append(key[row])
            own[name][1].append(value[row])
            wanted = softmax_of(query[row], *(torch.stack(part, 1) for part in own[name]))
            torch.testing.assert_close(got[row], wanted, atol=1e-5, rtol=1e-5)
        gone = leaving.get(step, [])
        if gone:
            alive = torch.tensor([name not in gone for name in names])
            names = [name for name in names if name not in gone]
            cache.keep(alive)


def test_the_prompt_is_not_copied_for_each_candidate() -> None:
    prompt = [tuple(torch.randn(1, KV_HEADS, 1000, WIDTH) for _ in range(2))]
    keys = GrowingCache([prompt], 16, 4, HEADS // KV_HEADS).layers[0][0]
    assert keys.shape == (1, KV_HEADS, 1000 + 16 * 4, WIDTH)


# -- in a model ----------------------------------------------------------------------------------


def test_the_models_own_attention_comes_back() -> None:
    model = build_model()
    config = model.model.layers[0].self_attn.config
    before = config._attn_implementation
    with pytest.raises(AssertionError), attending(model.get_decoder(), _never):
        model(input_ids=torch.arange(4).view(1, 4))
    assert config._attn_implementation == before != "shared_prompt"


@pytest.mark.parametrize("asked", ["softcap", "sliding_window", "s_aux"])
def test_attention_of_another_kind_is_refused(asked: str) -> None:
    part = torch.zeros(1, 1, 1, 2)
    with pytest.raises(SharingUnsupported, match=asked):
        _attention(torch.nn.Identity(), part, part, part, None, **{asked: 3})


def _never(*_: object) -> Tensor:
    raise AssertionError
