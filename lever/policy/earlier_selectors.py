"""Two earlier selectors, for comparison with the pointer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lever.features.slate_features import Features, FeatureTable, SlateQuery
from lever.model_config import LeverModelConfig
from lever.policy.slate_policy import SlatePolicy, SlatePrompt

MAX_SHOTS = 8  # largest slate, which may be longer than those in training


class Gpt2Selector(SlatePolicy):
    """A small GPT-2 over [start, query, first demonstration, ..], as in Lever-LM.

    The embedding of a demonstration is a learned embedding of its id plus a projection of its
    features.  The logits of the next demonstration are the dot products of the last state with the
    embeddings of the query's pool.  Ids that do not occur in training keep their small random
    embedding.

    Args:
        features: of the items, whose ids are the vocabulary.
        model: `shots`, `width`, `layers` and `heads`.
    """

    def __init__(self, features: FeatureTable, model: LeverModelConfig) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__(features, model.shots)
        width = model.width
        config = GPT2Config(
            vocab_size=1,  # inputs are embeddings
            n_positions=MAX_SHOTS + 2,
            n_embd=width,
            n_layer=model.layers,
            n_head=model.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
        self.transformer = GPT2Model(config)
        # Its own table of embeddings is unused: keep it out of the optimiser.
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

    A choice c updates the query's state to s(w) q + (1 - s(w)) c, scaled to unit length; w is one
    learned number and s the sigmoid.  The published temperature is .5.

    Args:
        features: see `lever.features.slate_features`.
        model: `shots`, `width` of both towers, `cosine_temperature` of the logits.
    """

    def __init__(self, features: Features, model: LeverModelConfig) -> None:
        super().__init__(features, model.shots)
        self.cosine_temperature = model.cosine_temperature
        self.query_tower = _tower(features.width, model.width)
        self.pool_tower = _tower(features.width, model.width)
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
