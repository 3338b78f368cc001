"""The selectors: a metric with a few hundred parameters, and the cross-attention pointer.

Untrained, the metric is similarity search and the pointer is close to it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from lever.features.slate_features import Features
from lever.model_config import LeverModelConfig, Update
from lever.policy.slate_policy import SlatePolicy, SlatePrompt


class MetricSelector(SlatePolicy):
    """A diagonal bilinear score at each step, for features with meaningful columns.

        logit_t(c) = s sum_d (w_td q_d + r_td m_d) c_d,     m = mean of the earlier choices

    With 112 columns (56 principal components of image and text each) and two shots it has 337
    parameters.  It can learn which columns matter at which step, and that the second demonstration
    should differ from the first (r < 0).

    Args:
        features: see `lever.features.slate_features.pca_features`.
        model: `shots`, and `scale`, the initial s; s is learned and stays positive.
    """

    def __init__(self, features: Features, model: LeverModelConfig) -> None:
        super().__init__(features, model.shots)
        self.to_query_TD = nn.Parameter(torch.ones(model.shots, features.width))
        self.to_chosen_TD = nn.Parameter(torch.zeros(model.shots - 1, features.width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(model.scale)))

    def represent(self, query_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> SlatePrompt:
        return SlatePrompt(query_BD, pool_BKD, valid_BK)

    def next_logits(self, prompt: SlatePrompt, prefix_BGt: Tensor) -> Tensor:
        step = prefix_BGt.shape[-1]
        # Steps beyond those in training use the parameters of the last.
        own = min(step, len(self.to_query_TD) - 1)
        wanted_BGD = (self.to_query_TD[own] * prompt.query_BD).unsqueeze(1)
        wanted_BGD = wanted_BGD.expand(-1, prefix_BGt.shape[1], -1)
        if own > 0:
            mean_BGD = prompt.chosen(prefix_BGt).mean(dim=-2)
            wanted_BGD = wanted_BGD + self.to_chosen_TD[own - 1] * mean_BGD
        return self.log_scale.exp() * wanted_BGD @ prompt.pool_BKD.transpose(1, 2)


class PointerSelector(SlatePolicy):
    """The cross-attention pointer: the query attends to its candidates, then points at one.

    Features are projected; the query attends to the pool in `layers` blocks of one-head attention
    and a feed-forward part; the logits of a step are cosines over a temperature.  There is no
    positional code, so permuting a pool permutes the logits.  The blocks' outputs start at 0 and
    the projection is orthogonal, so the untrained pointer is close to similarity search.

    Args:
        features: see `lever.features.slate_features.mean_features`.
        model: `shots`, `width` of the projection, `layers`, `cosine_temperature` of the logits,
            `update` of the state; `diversity` subtracts softplus(lambda) times the largest cosine
            to a chosen candidate, with a learned lambda; `stop` allows a slate to end early (see
            `lever.policy.slate_policy`).
    """

    def __init__(self, features: Features, model: LeverModelConfig) -> None:
        super().__init__(features, model.shots)
        width = model.width
        self.cosine_temperature = model.cosine_temperature
        self.project = nn.Linear(features.width, width, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(model.layers))
        self.query_proj, self.pool_proj = _near_identity(width), _near_identity(width)
        self.gate = nn.Linear(2 * width, width) if model.update is Update.gate else None
        self.gru = nn.GRUCell(width, width) if model.update is Update.gru else None
        self.stops = model.stop
        self.stop = nn.Parameter(0.02 * torch.randn(width)) if model.stop else None
        # softplus(-2.25) = .1, the published initial value.
        self.diversity = nn.Parameter(torch.tensor(-2.25)) if model.diversity else None

    def represent(self, query_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> SlatePrompt:
        state_BD, pool_BKD = self.project(query_BD), self.project(pool_BKD)
        for block in self.blocks:
            state_BD = block(state_BD, pool_BKD, valid_BK)
        if self.stop is not None:
            # Added after the attention: the query attends to its pool only.
            pool_BKD = torch.cat([pool_BKD, self.stop.expand(len(pool_BKD), 1, -1)], dim=1)
            valid_BK = torch.cat([valid_BK, valid_BK.new_ones(len(valid_BK), 1)], dim=1)
        return SlatePrompt(
            normalize(self.query_proj(state_BD), dim=-1),
            normalize(self.pool_proj(pool_BKD), dim=-1),
            valid_BK,
        )

    def next_logits(self, prompt: SlatePrompt, prefix_BGt: Tensor) -> Tensor:
        chosen_BGtD = prompt.chosen(prefix_BGt)
        state_BGD = prompt.query_BD.unsqueeze(1).expand(-1, prefix_BGt.shape[1], -1)
        for chosen_BGD in chosen_BGtD.unbind(dim=-2):
            state_BGD = self._updated(state_BGD, chosen_BGD)
        cosine_BGK = state_BGD @ prompt.pool_BKD.transpose(1, 2)
        if self.diversity is not None and prefix_BGt.shape[-1] > 0:
            likeness_BGtK = chosen_BGtD @ prompt.pool_BKD.unsqueeze(1).transpose(-1, -2)
            cosine_BGK = cosine_BGK - softplus(self.diversity) * likeness_BGtK.amax(dim=-2)
        return cosine_BGK / self.cosine_temperature

    def _updated(self, state_BGD: Tensor, chosen_BGD: Tensor) -> Tensor:
        if self.gate is not None:
            keep_BGD = self.gate(torch.cat([state_BGD, chosen_BGD], dim=-1)).sigmoid()
            return normalize(keep_BGD * state_BGD + (1 - keep_BGD) * chosen_BGD, dim=-1)
        if self.gru is not None:
            state = self.gru(chosen_BGD.flatten(0, 1), state_BGD.flatten(0, 1))
            return normalize(state.view_as(state_BGD), dim=-1)
        return state_BGD


class _Block(nn.Module):
    """One-head attention of a query over its pool, and a feed-forward part, each with a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads=1, batch_first=True)
        widen, narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.feed = nn.Sequential(widen, nn.GELU(), narrow)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        for last in (self.attention.out_proj, narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, state_BD: Tensor, pool_BKD: Tensor, valid_BK: Tensor) -> Tensor:
        read_B1D, _ = self.attention(
            state_BD.unsqueeze(1),
            pool_BKD,
            pool_BKD,
            key_padding_mask=~valid_BK,
            need_weights=False,
        )
        state_BD = self.norms[0](state_BD + read_B1D.squeeze(1))
        normed: Tensor = self.norms[1](state_BD + self.feed(state_BD))
        return normed


def _near_identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width) + 0.01 * torch.randn(width, width))
    return layer
