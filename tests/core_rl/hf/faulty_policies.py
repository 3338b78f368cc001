"""Policies with one fault each in drawing or scoring, a line away from what trainers do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from core_rl.hf.encoded_prompt import EncodedPrompt, Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.types import Actions, StepLogProbs
from tests.core_rl.hf.lost_cache import checkpointed
from tests.core_rl.hf.text_policy import SUPPRESSED, TextPolicy, build_model, byte_tokenizer


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
        checkpointed(model, reentrant)
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    settings: dict[str, Any] = {
        "stop_ids": [tokenizer.eos_token_id],
        "suppress_ids": SUPPRESSED,
        "max_completion": 12,
    }
    return kind(model, tokenizer, **(settings | changes))
