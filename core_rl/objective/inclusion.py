"""Weights of candidates that were drawn without replacement, by their inclusion probability.

GRPO's mean over a group estimates the gradient of the expected reward where the candidates are
independent draws of the policy.  A group of different candidates contains improbable ones more
often than independent draws would.  Horvitz and Thompson's estimator weighs each candidate by

    pi(a) / q(a),    q(a) the probability that a is in the group

and its sum over the group is an unbiased estimate of an expectation over pi.

Gumbel-top-k keeps the G candidates whose log-probabilities with Gumbel noise are the largest.
Given the (G + 1)-th largest, kappa, a candidate is in the group with probability
q(a) = P(log pi(a) + noise > kappa) = 1 - exp(-exp(log pi(a) - kappa)); see Kool et al., arXiv
1903.06059, section 4.2.

Candidates from a store (beams, retrieval) were not drawn at all, so no weight makes their mean the
gradient of the expected reward.  Advantages compare them with each other: where the policy is
already better than its store, what is best in the store is pushed up at the cost of what the policy
does better, and the expected reward may fall.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inclusion_weights(logp_BG: Tensor, threshold_B: Tensor) -> Tensor:
    """Weigh candidates of Gumbel-top-k by pi / q.

    Args:
        logp_BG: log-probability of each candidate under the policy that drew it; -inf on padding.
        threshold_B: the largest perturbed log-probability that was not kept; -inf where every
            candidate was, and then the weights are the probabilities.

    Returns:
        BG, detached; with them as `Actions.share_BG` the advantages and their mean are weighted.
    """
    logp_BG, threshold_B1 = logp_BG.detach().double(), threshold_B.detach().double().unsqueeze(-1)
    excess_BG = logp_BG - threshold_B1
    weight_BG = logp_BG.exp() / -torch.expm1(-excess_BG.exp())
    # pi / q tends to exp(kappa) for improbable candidates, whose q is 0 in floating point.
    weight_BG = torch.where(excess_BG < -30, threshold_B1.exp(), weight_BG)
    return torch.where(logp_BG.isneginf(), 0.0, weight_BG).to(threshold_B.dtype)
