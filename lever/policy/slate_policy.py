"""A policy over slates: ordered sets of demonstrations, chosen one by one without replacement.

    log pi(a | q) = sum_t log softmax(logits_t)[a_t],    logits_t = -inf for earlier choices

This is the Plackett-Luce model if logits do not depend on the prefix; here they may.  It is
normalised exactly: the probabilities of all K (K - 1) .. (K - S + 1) slates sum to 1.  For small S
they can be enumerated, which gives exact expectations and gradients.

A policy that `stops` has one more option, the last, which ends the slate from the second step on.
A slate then has 1 to S demonstrations; the steps after the stop are padding of probability 1.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from core_rl.objective.inclusion import inclusion_weights
from core_rl.types import Actions, Policy, StepLogProbs
from lever.features.slate_features import Features, SlateQuery


@dataclass(frozen=True)
class SlatePrompt:
    """B encoded queries with their pools.

    Attributes:
        query_BD: state of each query before the first choice.
        pool_BKD: its candidates; any value where `valid_BK` is False.
        valid_BK: False beyond the end of a shorter pool.
    """

    query_BD: Tensor
    pool_BKD: Tensor
    valid_BK: Tensor

    def chosen(self, ids_BGt: Tensor) -> Tensor:
        """Candidates at places, [B, G, t, D]."""
        query_B11 = torch.arange(len(ids_BGt), device=ids_BGt.device).view(-1, 1, 1)
        return self.pool_BKD[query_B11, ids_BGt]


class SlatePolicy(Policy[SlatePrompt]):
    """Chooses S = `shots` demonstrations; a subclass encodes queries and scores the next choice."""

    # Whether `represent` appends the option to stop to every pool.
    stops = False

    def __init__(self, features: Features, shots: int) -> None:
        super().__init__()
        self.features = features
        self.shots = shots

    @abstractmethod
    def represent(self, query_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> SlatePrompt:
        """Encode features; the result must not depend on the order of a pool."""

    @abstractmethod
    def next_logits(self, prompt: SlatePrompt, prefix_BGt: Tensor) -> Tensor:
        """Score every candidate as the next choice after a prefix, [B, G, K], without a mask."""

    def encode(self, queries: Sequence[SlateQuery]) -> SlatePrompt:
        """Look up and encode queries.

        Raises:
            ValueError: a pool has fewer candidates than a slate, or an id has no features.
        """
        device = next(self.parameters()).device
        for item in queries:
            if len(item.pool) < self.shots:
                raise ValueError(
                    f"query {item.query}: pool of {len(item.pool)}: expected at least the "
                    f"{self.shots} shots of a slate"
                )
        query = [self.features.of_query(item.query) for item in queries]
        pools = [self.features.of(item.query, item.pool, "pool") for item in queries]
        pool_BKD = nn.utils.rnn.pad_sequence(pools, batch_first=True).to(device)
        sizes_B1 = torch.tensor([[len(item.pool)] for item in queries], device=device)
        valid_BK = torch.arange(pool_BKD.shape[1], device=device) < sizes_B1
        return self.represent(torch.stack(query).to(device), pool_BKD, valid_BK)

    @torch.no_grad()
    def sample(self, prompt: SlatePrompt, num_candidates: int, temperature: float = 1.0) -> Actions:
        """Draw slates independently; temperature 0 takes the most probable choice at each step.

        The log-probabilities at temperature 0 are those at 1.
        """
        shape = (len(prompt.query_BD), num_candidates)
        ids_BGT = prompt.valid_BK.new_zeros((*shape, 0), dtype=torch.long)
        steps = []
        for _ in range(self.shots):
            logp_BGK = self._step(prompt, ids_BGT, temperature or 1.0)
            if temperature == 0:
                pick_BG = logp_BGK.argmax(dim=-1)
            else:
                pick_BG = torch.multinomial(logp_BGK.exp().flatten(0, 1), 1).view(shape)
            steps.append(logp_BGK.gather(-1, pick_BG.unsqueeze(-1)))
            ids_BGT = torch.cat([ids_BGT, pick_BG.unsqueeze(-1)], dim=-1)
        return Actions(ids_BGT, self._real(prompt, ids_BGT), torch.cat(steps, dim=-1))

    @torch.no_grad()
    def sample_distinct(
        self, prompt: SlatePrompt, num_candidates: int, temperature: float = 1.0
    ) -> Actions:
        """Draw different slates, in decreasing order of their perturbed log-probability.

        Gumbel-top-k over all slates without enumerating them: stochastic beam search (Kool et al.
        2019, arXiv 1903.06059, algorithm 1).  Log-probabilities are those of single draws.
        `share_BG` weighs each slate by its inclusion probability: without it improbable slates
        would count too much (`core_rl.objective.inclusion`).
        """
        found, rank_BW = self._search(prompt, num_candidates + 1, temperature, perturb=True)
        assert found.logp_BGT is not None
        ids_BGT, mask_BGT, logp_BGT = (
            part[:, :num_candidates] for part in (found.ids_BGT, found.mask_BGT, found.logp_BGT)
        )
        real_BG = mask_BGT.any(dim=-1)
        logp_BG = logp_BGT.sum(dim=-1).masked_fill(~real_BG, -torch.inf)
        threshold_B = torch.full_like(rank_BW[:, 0], -torch.inf)
        if rank_BW.shape[1] > num_candidates:
            threshold_B = rank_BW[:, -1]
        return Actions(
            ids_BGT, mask_BGT, logp_BGT, share_BG=inclusion_weights(logp_BG, threshold_B)
        )

    @torch.no_grad()
    def beam_search(self, prompt: SlatePrompt, width: int) -> Actions:
        """Return the `width` best slates found by beam search of that width, best first."""
        return self._search(prompt, width, temperature=1.0, perturb=False)[0]

    def log_probs(
        self, prompt: SlatePrompt, actions: Actions, temperature: float = 1.0
    ) -> StepLogProbs:
        """Score slates step by step, with the distribution over candidates at each step."""
        ids_BGT = actions.ids_BGT
        steps = [
            self._step(prompt, ids_BGT[..., :step], temperature)
            for step in range(ids_BGT.shape[-1])
        ]
        all_BGTK = torch.stack(steps, dim=-2)
        logp_BGT = all_BGTK.gather(-1, ids_BGT.unsqueeze(-1)).squeeze(-1)
        return StepLogProbs(torch.where(actions.mask_BGT, logp_BGT, 0.0), all_BGTK)

    def enumerate(self, prompt: SlatePrompt, temperature: float = 1.0) -> Tensor:
        """Return the log-probability of every slate, [B, K, .., K] with S axes; -inf for repeats.

        Differentiable, so `(table.exp() * rewards).sum()` is the exact expected reward.  The size
        grows as K ** S.
        """
        size = prompt.valid_BK.shape[1]
        table = prompt.query_BD.new_zeros(len(prompt.query_BD), 1)
        prefix_GT = torch.zeros(1, 0, dtype=torch.long, device=table.device)
        for step in range(self.shots):
            prefix_BGT = prefix_GT.expand(len(table), -1, -1)
            table = (table.unsqueeze(-1) + self._step(prompt, prefix_BGT, temperature)).flatten(1)
            place_GT = torch.arange(size, device=table.device).repeat(len(prefix_GT)).unsqueeze(-1)
            prefix_GT = torch.cat([prefix_GT.repeat_interleave(size, dim=0), place_GT], dim=-1)
            assert table.shape[1] == len(prefix_GT) == size ** (step + 1)
        return table.view(-1, *[size] * self.shots)

    def frozen_copy(self) -> Self:
        """Return a copy that never trains; the features are shared."""
        return copy.deepcopy(self).requires_grad_(False).eval()

    def _step(self, prompt: SlatePrompt, prefix_BGt: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities of the next choice, [B, G, K]; -inf where it is barred.

        The mask is applied after the temperature: with a large negative number in place of -inf a
        chosen candidate would keep some probability at a high temperature.
        """
        logits_BGK = self.next_logits(prompt, prefix_BGt) / temperature
        barred_BGK = ~prompt.valid_BK.unsqueeze(1).expand_as(logits_BGK)
        if prefix_BGt.shape[-1] > 0:
            barred_BGK = barred_BGK.scatter(-1, prefix_BGt, True)
        if self.stops:
            barred_BGK = self._with_stop(prompt, prefix_BGt, barred_BGK)
        return logits_BGK.masked_fill(barred_BGK, -torch.inf).log_softmax(dim=-1)

    def _with_stop(self, prompt: SlatePrompt, prefix_BGt: Tensor, barred_BGK: Tensor) -> Tensor:
        """Bar the stop at the first step, and everything but the stop after a stop."""
        stop = prompt.valid_BK.shape[1] - 1
        is_stop_K = torch.arange(stop + 1, device=barred_BGK.device) == stop
        if prefix_BGt.shape[-1] == 0:
            return barred_BGK | is_stop_K
        stopped_BG1 = (prefix_BGt == stop).any(dim=-1, keepdim=True)
        return torch.where(stopped_BG1, ~is_stop_K, barred_BGK & ~is_stop_K)

    def _real(self, prompt: SlatePrompt, ids_BGT: Tensor) -> Tensor:
        """Return the mask of the steps up to and including the stop."""
        if not self.stops:
            return torch.ones_like(ids_BGT, dtype=torch.bool)
        stops_BGT = (ids_BGT == prompt.valid_BK.shape[1] - 1).long()
        return stops_BGT.cumsum(dim=-1) - stops_BGT == 0

    def _search(
        self, prompt: SlatePrompt, width: int, temperature: float, perturb: bool
    ) -> tuple[Actions, Tensor]:
        """Keep the `width` best prefixes of each query by (perturbed) log-probability.

        If there are fewer slates than `width`, the rest is padding (mask False).

        Returns:
            The slates, and what they are ordered by, [B, W].
        """
        batch, size = prompt.valid_BK.shape
        ids_BWT = prompt.valid_BK.new_zeros((batch, 1, 0), dtype=torch.long)
        logp_BW1 = prompt.query_BD.new_zeros(batch, 1, 1)
        # The largest perturbed log-probability of all slates.  Which slates are drawn does not
        # depend on it, but the threshold of `sample_distinct` does.
        rank_BW1 = _gumbel(logp_BW1) if perturb else torch.zeros_like(logp_BW1)
        for _ in range(self.shots):
            step_BWK = self._step(prompt, ids_BWT, temperature)
            logp_BWK = logp_BW1 + step_BWK
            rank_BWK = _perturbed(logp_BWK, rank_BW1) if perturb else logp_BWK
            rank_BW, flat_BW = rank_BWK.flatten(1).topk(min(width, rank_BWK[0].numel()))
            parent_BW, pick_BW = flat_BW // size, flat_BW % size
            kept_BWt = ids_BWT.gather(1, parent_BW.unsqueeze(-1).expand(-1, -1, ids_BWT.shape[-1]))
            ids_BWT = torch.cat([kept_BWt, pick_BW.unsqueeze(-1)], dim=-1)
            logp_BW1 = logp_BWK.flatten(1).gather(1, flat_BW).unsqueeze(-1)
            rank_BW1 = rank_BW.unsqueeze(-1)
        found = Actions(ids_BWT, logp_BW1.isfinite() & self._real(prompt, ids_BWT))
        scored = replace(found, logp_BGT=self.log_probs(prompt, found, temperature).logp_BGT)
        return scored, rank_BW1.squeeze(-1)


def _gumbel(like: Tensor) -> Tensor:
    uniform = torch.rand_like(like).clamp(min=1e-20, max=1 - 1e-7)
    return -(-uniform.log()).log()


def _perturbed(logp_BWK: Tensor, parent_BW1: Tensor) -> Tensor:
    """Add Gumbel noise to log-probabilities, given that the maximum over children is the parent's.

    arXiv 1903.06059, section 4.1 and appendix B.3 (the stable form).
    """
    noisy_BWK = logp_BWK + _gumbel(logp_BWK)
    top_BW1 = noisy_BWK.amax(dim=-1, keepdim=True)
    # log(1 - exp(noisy - top)); -inf at the top itself, which then gets its parent's value.
    gap_BWK = torch.log1p(-(noisy_BWK - top_BW1).exp())
    shift_BWK = parent_BW1 - noisy_BWK + gap_BWK
    moved_BWK = parent_BW1 - shift_BWK.clamp(min=0) - torch.log1p((-shift_BWK.abs()).exp())
    barred_BWK = logp_BWK.isneginf() | parent_BW1.isneginf()
    return moved_BWK.masked_fill(barred_BWK, -torch.inf)
