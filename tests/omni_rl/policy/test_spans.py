"""Spans of a completion: which tokens a reward may steer."""

from __future__ import annotations

import pytest
import torch

from omni_rl.policy.policy import OmniPolicy

TELLING = "<context>a person in red waves</context><think>so it is</think><answer>A</answer>"


@pytest.fixture(scope="module")
def spanned(fresh_policy) -> OmniPolicy:
    return fresh_policy(early=False, spans=("context", "think"))


def spans_of(policy: OmniPolicy, text: str) -> dict[str, str]:
    """Decoded tokens of every span."""
    given = policy.actions_from_texts([[text]])
    marked = policy.annotate([], given)
    return {
        name: policy.tokenizer.decode(given.ids_BGT[0, 0][span_BGT[0, 0]])
        for name, span_BGT in marked.spans.items()
    }


def test_a_span_ends_with_the_token_that_closes_its_tag(spanned) -> None:
    found = spans_of(spanned, TELLING)
    for name in ("context", "think"):
        closing = f"</{name}>"
        head, _, rest = found[name].partition(closing)
        assert TELLING.startswith(head + closing)
        assert len(rest) <= 2  # what shares a token with the tag's end, as in `><`


@pytest.mark.parametrize("text", ["", "no tags at all", "<context>never closed", "</contex"])
def test_a_tag_that_never_closes_spans_everything(spanned, text: str) -> None:
    given = spanned.actions_from_texts([[text]])
    marked = spanned.annotate([], given)
    assert torch.equal(marked.spans["context"], given.mask_BGT)


def test_only_the_first_closing_counts_and_padding_never_does(spanned) -> None:
    texts = [["<context>a</context><context>b</context>", TELLING * 2]]
    given = spanned.actions_from_texts(texts)
    context = spanned.annotate([], given).spans["context"]
    assert not (context & ~given.mask_BGT).any()
    first = spanned.tokenizer.decode(given.ids_BGT[0, 0][context[0, 0]])
    assert first.count("</context>") == 1


def test_fresh_completions_carry_the_spans_asked_for(spanned, fresh_policy, records) -> None:
    drawn = spanned.sample(spanned.encode(records[:1]), 2)
    assert drawn.spans.keys() == {"context", "think"}
    assert torch.equal(drawn.spans["context"], drawn.mask_BGT)  # untrained: nothing closes
    bare = fresh_policy()
    assert bare.sample(bare.encode(records[:1]), 2).spans == {}
