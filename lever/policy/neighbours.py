"""Features in which items with similar answers are near: neighbourhood components of the bank.

The answers of the bank are known, since prompts show them.  Before any selector is trained, one
linear map a modality is learned, under which neighbours share words of their answers:

    L = mean_i -log sum_j p_ij o_ij,    p_ij = softmax_j (s z_i . z_j, j != i),    z = W x / |W x|

o_ij in [0, 1] is the overlap (F1) of the words of the two answers.  This is neighbourhood
components analysis (Goldberger et al., NeurIPS 2004) with graded labels.  No answerer is asked.
The bank is small, so W needs a strong weight decay against overfitting.

Training queries of file data are items of the bank.  Their answers are left out: an item whose
answer was used has neighbours that share more of it than those of a new question will, and a
selector would learn to trust features that are worse at inference.  On 2,000 questions of OK-VQA
the mean overlap with the ten nearest was .028 for training queries and .015 for test queries; with
their answers left out it is .013 for both.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from core_rl.loop.step_guard import leave_out_non_finite
from lever.data.vqa_accuracy import normalise
from lever.features.slate_features import pca_features
from lever.model_config import FeatureConfig

log = logging.getLogger(__name__)

NEIGHBOURS_VERSION = 2  # raise when a feature changes
_SHARPNESS = 10.0  # s at the start; it is learned


def neighbour_rows(
    rows: tuple[Tensor, Tensor],
    answers: Sequence[str],
    config: FeatureConfig,
    held_out: Collection[int] = (),
    seed: int = 0,
) -> Tensor:
    """Return neighbourhood components of each modality side by side, [N, 2 * directions].

    The part of each modality has unit length.

    Args:
        rows: embeddings of pictures and of questions, each [N, D].
        answers: of the bank, whose items have the ids from 0.
        config: numbers of principal components and directions, and how these are learned.
        held_out: ids of the bank whose answers are not used: the training queries.
        seed: of the sample of items and their order.

    Raises:
        ValueError: fewer than two items of the bank are left.
    """
    bank = range(len(answers))
    components = pca_features(*rows, bank, config.dims, config.power).rows_ND
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(bank), generator=generator).tolist()
    taught = [item for item in order if item not in held_out][: config.items]
    if len(taught) < 2:
        raise ValueError(
            f"data_mix.split.train: of the {len(bank)} demonstrations {len(held_out)} are training "
            "queries, so none are left to learn model.features.kind=answers from: expected fewer "
            "training queries, more of data_mix.split.demos, or model.features.kind=pca"
        )
    overlap_MM = word_overlap([answers[item] for item in taught])
    parts = [
        normalize(rows_ND @ learn_directions(rows_ND[taught], overlap_MM, config, seed), dim=-1)
        for rows_ND in components.split(config.dims, dim=1)
    ]
    return torch.cat(parts, dim=-1)


def word_overlap(answers: Sequence[str]) -> Tensor:
    """Return the F1 of the words of every two normalised answers, [M, M], in [0, 1]."""
    bags = [Counter(normalise(answer).split()) for answer in answers]
    vocabulary = {word: column for column, word in enumerate(sorted({w for b in bags for w in b}))}
    counts_MV = torch.zeros(len(bags), len(vocabulary))
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            counts_MV[row, vocabulary[word]] = count
    shared_MM = torch.zeros(len(bags), len(bags))
    # Column by column: most words are rare, and M x M x V would not fit into memory.
    for column in range(len(vocabulary)):
        rows = counts_MV[:, column].nonzero().flatten()
        some = counts_MV[rows, column]
        shared_MM[rows.unsqueeze(1), rows] += torch.minimum(some.unsqueeze(1), some)
    length_M = counts_MV.sum(dim=1)
    return 2 * shared_MM / (length_M.unsqueeze(1) + length_M).clamp(min=1)


def learn_directions(
    rows_MD: Tensor, overlap_MM: Tensor, config: FeatureConfig, seed: int
) -> Tensor:
    """Learn a map [D, directions] under which items with overlapping answers are near.

    The map starts at the first principal components, so few answers change it little.
    """
    generator = torch.Generator().manual_seed(seed)
    map_DE = torch.eye(rows_MD.shape[1])[:, : config.directions].clone().requires_grad_()
    log_scale = torch.tensor(math.log(_SHARPNESS), requires_grad=True)
    groups = [
        {"params": [map_DE], "weight_decay": config.weight_decay},
        {"params": [log_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    leave_out_non_finite(optimizer)
    batches = math.ceil(len(rows_MD) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * batches)
    loss = torch.zeros(())
    for _ in range(config.epochs):
        order = torch.randperm(len(rows_MD), generator=generator)
        for index_B in order.split(config.batch_size):
            loss = _neighbour_loss(rows_MD @ map_DE, log_scale.exp(), overlap_MM, index_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    log.info("neighbourhood components: final loss %.3f", loss.item())
    return map_DE.detach()


def _neighbour_loss(
    mapped_ME: Tensor, scale: Tensor, overlap_MM: Tensor, index_B: Tensor
) -> Tensor:
    """Compute the loss of a batch; items whose answer overlaps with no other do not count."""
    unit_ME = normalize(mapped_ME, dim=-1)
    near_BM = scale * unit_ME[index_B] @ unit_ME.T
    itself_BM = index_B.unsqueeze(1) == torch.arange(len(mapped_ME))
    share_BM = near_BM.masked_fill(itself_BM, -torch.inf).softmax(dim=-1)
    mass_B = (share_BM * overlap_MM[index_B]).sum(dim=-1)
    some_B = overlap_MM[index_B].masked_fill(itself_BM, 0.0).amax(dim=-1) > 0
    loss_B = -mass_B.clamp(min=1e-9).log()
    return loss_B.where(some_B, 0.0).sum() / some_B.sum().clamp(min=1)
