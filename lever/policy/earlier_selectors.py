"""The two selectors that came before the pointer, as options to measure it against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lever.features.slate_features import Features, FeatureTable, SlateQuery
from lever.policy.slate_policy import SlatePolicy, SlatePrompt

MAX_SHOTS = 8  # in a slate, also of one longer than those it learned from


class Gpt2Selector(SlatePolicy):
    """A small GPT-2 over [start, query, first demonstration, ..], as in Lever-LM.

    A demonstration is a word of the vocabulary: a learned embedding of its id plus a projection of
    its features.  The next word's logits are the dot products of the last state with the words of
    the query's pool; what is outside the pool cannot be said.  Ids never seen while learning keep
    the small random embedding they started with.

    Args:
        features: of the items, whose ids are the vocabulary.
        shots: demonstrations in a slate.
        width: of the embeddings.
        layers: of the transformer.
        heads: of its attention.
    """

    def __init__(
        self,
        features: FeatureTable,
        shots: int = 2,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__(features, shots)
        config = GPT2Config(
            vocab_size=1,  # words are given as embeddings
            n_positions=MAX_SHOTS + 2,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
        self.transformer = GPT2Model(config)
        # Its own word table is never read: out of the optimiser and of the parameter count.
        self.transformer.wte.requires_grad_(False)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.ids = nn.Embedding(len(features.rows_ND), width)
        nn.init.normal_(self.ids.weight, std=0.02)
        self.project = nn.Linear(features.width, width, bias=False)
        nn.init.orthogonal_(self.project.weight)

    def represent(self, query_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> SlatePrompt:
        return SlatePrompt(self.project(query_BD), self.project(pool_BKD), valid_BK)

    def encode(self, queries: Sequence[SlateQuery]) -> SlatePrompt:
        prompt = super().encode(queries)
        pools = [torch.tensor(item.pool, device=prompt.pool_BKD.device) for item in queries]
        ids_BK = nn.utils.rnn.pad_sequence(pools, batch_first=True)
        return replace(prompt, pool_BKD=prompt.pool_BKD + self.ids(ids_BK))

    def next_logits(self, prompt: SlatePrompt, prefix_BGt: Tensor) -> Tensor:
        batch, group, _ = prefix_BGt.shape
        width = prompt.query_BD.shape[-1]
        start = self.start.expand(batch, group, 1, -1)
        query = prompt.query_BD.view(batch, 1, 1, width).expand(-1, group, -1, -1)
        words = torch.cat([start, query, prompt.chosen(prefix_BGt)], dim=2)
        read = self.transformer(inputs_embeds=words.flatten(0, 1)).last_hidden_state[:, -1]
        state_BGD = read.view(batch, group, width)
        return state_BGD @ prompt.pool_BKD.transpose(1, 2) / math.sqrt(width)


class TwoTowerSelector(SlatePolicy):
    """Two perceptrons, one for the query and one for candidates, compared by cosine.

    A choice moves the query's state by a fixed, learned mixture: q <- s(w) q + (1 - s(w)) c, of
    unit length.  The published temperature is .5.

    Args:
        features: see `lever.features.slate_features`.
        shots: demonstrations in a slate.
        width: of both towers.
        cosine_temperature: of the logits.
    """

    def __init__(
        self,
        features: Features,
        shots: int = 2,
        width: int = 256,
        cosine_temperature: float = 0.5,
    ) -> None:
        super().__init__(features, shots)
        self.cosine_temperature = cosine_temperature
        self.query_tower = _tower(features.width, width)
        self.pool_tower = _tower(features.width, width)
        self.keep = nn.Parameter(torch.tensor(0.6))

    def represent(self, query_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> SlatePrompt:
        return SlatePrompt(
            normalize(self.query_tower(query_BD), dim=-1),
            normalize(self.pool_tower(pool_BKD), dim=-1),
            valid_BK,
        )

    def next_logits(self, prompt: SlatePrompt, prefix_BGt: Tensor) -> Tensor:
        state_BGD = prompt.query_BD.unsqueeze(1).expand(-1, prefix_BGt.shape[1], -1)
        keep = self.keep.sigmoid()
        for chosen_BGD in prompt.chosen(prefix_BGt).unbind(dim=-2):
            state_BGD = normalize(keep * state_BGD + (1 - keep) * chosen_BGD, dim=-1)
        return state_BGD @ prompt.pool_BKD.transpose(1, 2) / self.cosine_temperature


def _tower(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
    )
