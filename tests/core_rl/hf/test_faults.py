"""Faults planted one at a time in drawing and scoring: the checks name each, and clear the healthy.

Every fault is one line away from what trainers do.  A policy or a bare model is spoiled, the same
checks run over it, and the failing line must hold a word of the true cause.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from core_rl.health import Finding, Verdict
from core_rl.hf.checks import check_policy
from core_rl.hf.parity import Inputs
from core_rl.hf.policy import EncodedPrompt, HFPolicy
from core_rl.types import Actions, StepLogProbs
from tests.core_rl.hf.text_policy import (
    QUERIES,
    STOPS,
    SUPPRESSED,
    TextPolicy,
    build_model,
    byte_tokenizer,
)

TEMPERATURE = 0.8


def bad(findings: Sequence[Finding]) -> dict[str, str]:
    return {one.check: one.cause for one in findings if one.verdict is Verdict.fail}


def examined(policy: HFPolicy, seed: int = 0) -> dict[str, str]:
    torch.manual_seed(seed)
    return bad(check_policy(policy, QUERIES, temperature=TEMPERATURE, max_new=9))


# -- policies with a fault -----------------------------------------------------------------------


class Generates(TextPolicy):
    """Draws with plain `generate()`, in whatever mode the model is."""

    warps: ClassVar[dict[str, Any]] = {"top_k": 0, "top_p": 1.0}
    from_scores = False

    def fed(self, queries: Sequence[str]) -> Inputs:
        return self.collate(queries)

    @torch.no_grad()
    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        inputs = {
            name: value.repeat_interleave(num_candidates, 0)
            for name, value in self.fed(prompt.queries).items()
        }
        out = self.model.generate(
            **inputs,
            **self.warps,
            do_sample=True,
            temperature=temperature,
            suppress_tokens=self.suppress_ids.tolist(),
            eos_token_id=self.stop_ids.tolist(),
            pad_token_id=257,
            max_new_tokens=self.max_completion,
            output_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
        )
        ids = out.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(out.scores if self.from_scores else out.logits, 1)
        if not self.from_scores:
            logits = logits / temperature
            logits[..., self.suppress_ids] = -torch.inf
        logp = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        ended = torch.isin(ids, self.stop_ids).int()
        mask = (ended.cumsum(-1) - ended) == 0
        shape = (len(prompt.queries), num_candidates, -1)
        return Actions(ids.view(shape), mask.view(shape), (logp * mask).view(shape))


class Warped(Generates):
    """Log-probs of the warped scores, top-k 20."""

    warps: ClassVar = {"top_k": 20}
    from_scores = True


class NucleusWarped(Generates):
    """Log-probs of the warped scores, top-p 0.7."""

    warps: ClassVar = {"top_k": 0, "top_p": 0.7}
    from_scores = True


class FirstPromptForAll(TextPolicy):
    """The `[0]` fault: the first prompt of a batch is everyone's."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        return super().collate([queries[0]] * len(queries))


class FirstCacheForAll(TextPolicy):
    """Prompts are right, but decoding goes on from the first one's."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        first = self.encode([prompt.queries[0]] * len(prompt.queries))
        return super().sample(first, num_candidates, temperature)


class MixedUpRows(TextPolicy):
    """`repeat` where `repeat_interleave` was meant: candidates change hands in training."""

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        turned = prompt.queries[1:] + prompt.queries[:1]
        return super().log_probs(self.encode(turned), actions, temperature)


class PadsRight(TextPolicy):
    """Prompts are padded on the right."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        self.tokenizer.padding_side = "right"
        return super().collate(queries)


class IgnoresMask(Generates):
    """Padding is attended to in drawing."""

    def fed(self, queries: Sequence[str]) -> Inputs:
        inputs = self.collate(queries)
        return inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}


class OffByOne(TextPolicy):
    """Completions start one position too far."""

    def positions(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        position_ids, following = super().positions(inputs)
        return position_ids, following + 1


class CountsPads(TextPolicy):
    """Completions start after the padded width, prompts are numbered without padding."""

    def positions(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        position_ids, following = super().positions(inputs)
        return position_ids, torch.full_like(following, inputs["input_ids"].shape[1])


class ScoresCold(TextPolicy):
    """Training forgets to divide by the temperature."""

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        return super().log_probs(prompt, actions, 1.0)


class DrawsHot(TextPolicy):
    """Decoding is warmer than the settings say."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        return super().sample(prompt, num_candidates, 1.7 * temperature)


class Unmasked(TextPolicy):
    """Training spreads log-probs over ids that are never drawn."""

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        kept, self.suppress_ids = self.suppress_ids, self.suppress_ids[:0]
        try:
            return super().log_probs(prompt, actions, temperature)
        finally:
            self.suppress_ids = kept


class DrawsForbidden(TextPolicy):
    """Decoding does not suppress anything."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        kept, self.suppress_ids = self.suppress_ids, self.suppress_ids[:0]
        try:
            return super().sample(prompt, num_candidates, temperature)
        finally:
            self.suppress_ids = kept


class ShiftsLabels(TextPolicy):
    """Token t is scored by the logits of token t + 1."""

    def log_probs(
        self, prompt: EncodedPrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        queries, candidates, _ = actions.ids_BGT.shape
        padded = torch.cat([actions.ids_BGT, actions.ids_BGT[..., -1:]], -1)
        ahead = torch.ones(queries, candidates, 1, dtype=torch.bool)
        longer = Actions(padded, torch.cat([ahead, actions.mask_BGT], -1))
        logits = self._logits(prompt, longer)[..., 1:, :] / temperature
        logits[..., self.suppress_ids] = -torch.inf
        logp = logits.log_softmax(-1).gather(-1, actions.ids_BGT.unsqueeze(-1)).squeeze(-1)
        return StepLogProbs(torch.where(actions.mask_BGT, logp, 0.0))

    def _logits(self, prompt: EncodedPrompt, actions: Actions) -> Tensor:
        rows = []
        for b, query in enumerate(prompt.queries):
            ids = self.collate([query])["input_ids"]
            for completion in actions.ids_BGT[b]:
                whole = torch.cat([ids[0], completion]).unsqueeze(0)
                rows.append(self.model(whole, use_cache=False).logits[0, -len(completion) - 1 : -1])
        return torch.stack(rows).view(*actions.ids_BGT.shape, -1)


class CutsPrompt(TextPolicy):
    """In a batch prompts are truncated to the shortest."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        encoded = super().collate(queries)
        shortest = int(encoded["attention_mask"].sum(-1).min())
        return {name: value[:, -shortest:] for name, value in encoded.items()}


class StaleSampler(TextPolicy):
    """Decoding runs on a copy whose weights are some steps old."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old = [copy.deepcopy(self.model)]
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        present, self.model = self.model, self.old[0]
        try:
            return super().sample(self.encode(prompt.queries), num_candidates, temperature)
        finally:
            self.model = present


class HalfPrecisionRollout(TextPolicy):
    """Decoding in bfloat16, training in float32."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        with torch.autocast("cpu", torch.bfloat16):
            return super().sample(self.encode(prompt.queries), num_candidates, temperature)


class Drops(TextPolicy):
    """Dropout comes back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for module in self.model.modules():
            if module.__class__.__name__.endswith("Attention"):
                module.attention_dropout = 0.2  # type: ignore[assignment]

    def train(self, mode: bool = True) -> HFPolicy:
        return nn.Module.train(self, mode)  # type: ignore[return-value]


class ScoresAfresh(TextPolicy):
    """Draws in some way of its own and scores that as if it had drawn rightly."""

    drawn_at: Callable[[float], float]

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        actions = super().sample(prompt, num_candidates, type(self).drawn_at(temperature))
        return replace(actions, logp_BGT=self.log_probs(prompt, actions, temperature).logp_BGT)


class Greedy(ScoresAfresh):
    """Takes the most probable token."""

    drawn_at = staticmethod(lambda temperature: 0.0)


class Feverish(ScoresAfresh):
    """Draws three times as hot as it scores."""

    drawn_at = staticmethod(lambda temperature: 3 * temperature)


class SeedsEachCandidate(TextPolicy):
    """Every candidate of a prompt is drawn from the same seed."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        one = super().sample(prompt, 1, temperature)
        assert one.logp_BGT is not None
        return Actions(
            one.ids_BGT.repeat(1, num_candidates, 1),
            one.mask_BGT.repeat(1, num_candidates, 1),
            one.logp_BGT.repeat(1, num_candidates, 1),
            texts=tuple(group * num_candidates for group in one.texts),
        )


class MixesTexts(TextPolicy):
    """Texts of one candidate stand beside tokens of another."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        actions = super().sample(prompt, num_candidates, temperature)
        return replace(actions, texts=actions.texts[1:] + actions.texts[:1])


class MasksTheEnd(TextPolicy):
    """The end token is left out of the loss."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        actions = super().sample(prompt, num_candidates, temperature)
        ends = torch.isin(actions.ids_BGT, self.stop_ids)
        return replace(actions, mask_BGT=actions.mask_BGT & ~ends)


class LearnsPadding(TextPolicy):
    """What follows the end is learned from as well."""

    def sample(
        self, prompt: EncodedPrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        actions = super().sample(prompt, num_candidates, temperature)
        return replace(actions, mask_BGT=torch.ones_like(actions.mask_BGT))


class OnePromptForEver(TextPolicy):
    """The query never reaches the prompt."""

    def collate(self, queries: Sequence[str]) -> Inputs:
        return super().collate(["describe it"] * len(queries))


def built(kind: type[TextPolicy], reentrant: bool | None = None, **changes: Any) -> TextPolicy:
    model = build_model(changes.pop("family", "qwen2"))
    if reentrant is not None:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    settings: dict[str, Any] = {
        "stop_ids": [tokenizer.eos_token_id],
        "suppress_ids": SUPPRESSED,
        "max_completion": 12,
    }
    return kind(model, tokenizer, **(settings | changes))


@dataclass(frozen=True)
class Planted:
    """A fault, the check that must fail over it and words of the cause it must give."""

    name: str
    make: Callable[[], TextPolicy]
    check: str
    says: str


def stop_suppressed() -> TextPolicy:
    return built(TextPolicy, suppress_ids=[256, 258])


def not_finite() -> TextPolicy:
    policy = built(TextPolicy)
    policy.model.lm_head.weight.data[:5, 0] = torch.inf
    return policy


FAULTS = [
    Planted(
        "train mode + reentrant checkpointing",
        lambda: built(Generates, reentrant=True),
        "parity/decoding_max",
        "lost cache",
    ),
    Planted(
        "train mode + checkpointing without reentrant",
        lambda: built(Generates, reentrant=False),
        "cache/length",
        "lost cache",
    ),
    Planted(
        "first prompt for the batch",
        lambda: built(FirstPromptForAll),
        "prompts/own",
        "first sample",
    ),
    Planted(
        "first cache for the batch",
        lambda: built(FirstCacheForAll),
        "parity/decoding_max",
        "first prompt was reused",
    ),
    Planted(
        "candidates change hands", lambda: built(MixedUpRows), "parity/training_max", "mixed up"
    ),
    Planted("right padding", lambda: built(PadsRight), "prompts/padding_left", "right padding"),
    Planted(
        "mask ignored",
        lambda: built(IgnoresMask),
        "parity/decoding_max",
        "attention mask is ignored",
    ),
    Planted(
        "positions off by one",
        lambda: built(OffByOne, shared_prompt=False),
        "parity/training_max",
        "off by +1",
    ),
    Planted(
        "positions count pads",
        lambda: built(CountsPads, shared_prompt=False),
        "parity/decoding_max",
        "by the padding",
    ),
    Planted(
        "scored without temperature",
        lambda: built(ScoresCold),
        "parity/training_max",
        "temperature mismatch: log-probs are those of temperature 1 ",
    ),
    Planted("drawn too hot", lambda: built(DrawsHot), "parity/decoding_max", "of temperature 1.36"),
    Planted("warped by top-k", lambda: built(Warped), "parity/decoding_max", "top_k=20"),
    Planted(
        "warped by top-p", lambda: built(NucleusWarped), "parity/decoding_max", "warped scores"
    ),
    Planted(
        "suppressed ids in training",
        lambda: built(Unmasked),
        "parity/training_max",
        "suppressed ids",
    ),
    Planted(
        "suppressed ids drawn", lambda: built(DrawsForbidden), "sampling/suppressed", "was sampled"
    ),
    Planted("labels shifted", lambda: built(ShiftsLabels), "parity/training_max", "shifted"),
    Planted("prompt truncated", lambda: built(CutsPrompt), "prompts/own", "truncated"),
    Planted(
        "stale rollout weights",
        lambda: built(StaleSampler),
        "parity/decoding_max",
        "stale rollout weights",
    ),
    Planted(
        "rollout in bfloat16",
        lambda: built(HalfPrecisionRollout),
        "parity/decoding_max",
        "lower precision",
    ),
    Planted("dropout", lambda: built(Drops, shared_prompt=False), "parity/repeatable", "dropout"),
    Planted("stop id suppressed", stop_suppressed, "tokens/stop_reachable", "no stop id"),
    Planted("greedy", lambda: built(Greedy), "sampling/from_distribution", "greedy decoding"),
    Planted(
        "drawn hotter than scored",
        lambda: built(Feverish),
        "sampling/from_distribution",
        "a higher temperature",
    ),
    Planted(
        "one seed for all candidates",
        lambda: built(SeedsEachCandidate),
        "sampling/copies",
        "copies of each other",
    ),
    Planted("texts mixed up", lambda: built(MixesTexts), "sampling/texts", "other candidates"),
    Planted(
        "end token masked",
        lambda: built(MasksTheEnd, stop_ids=[256, *STOPS]),
        "sampling/ends",
        "never learns to stop",
    ),
    Planted(
        "padding learned from",
        lambda: built(LearnsPadding, stop_ids=[256, *STOPS]),
        "sampling/ends",
        "after the end",
    ),
    Planted("weights not finite", not_finite, "weights/not_finite", "lm_head"),
]


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: planted.name)
def test_the_cause_of_a_planted_fault_is_named(planted: Planted) -> None:
    found = examined(planted.make())
    assert planted.says in found.get(planted.check, ""), found


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_healthy_policy_is_cleared(family: str, reentrant: bool | None) -> None:
    policy = built(TextPolicy, reentrant, family=family)
    for seed in range(4):
        assert examined(policy, seed) == {}
    assert examined(built(TextPolicy, reentrant, family=family, shared_prompt=False)) == {}


def test_a_prompt_that_the_query_never_reaches_is_warned_of() -> None:
    """A warning only: data may hold a question twice."""
    found = {one.check: one for one in check_policy(built(OnePromptForEver), QUERIES, max_new=4)}
    assert found["prompts/differ"].verdict is Verdict.warn
    assert "one and the same input" in found["prompts/differ"].cause


def test_ragged_completions_are_cleared() -> None:
    for seed in range(4):
        assert examined(built(TextPolicy, stop_ids=[256, *STOPS]), seed) == {}
        assert examined(built(Generates, stop_ids=[256, *STOPS]), seed) == {}


def test_plain_generate_in_eval_mode_is_healthy() -> None:
    policy = built(Generates)
    for seed in range(4):
        assert examined(policy, seed) == {}
