"""What a selector sees of items: one row an item, looked up by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class SlateQuery:
    """A question and the demonstrations to choose from.

    Attributes:
        query: id of the question.
        pool: ids of the K candidates, in an order that carries no meaning.
    """

    query: int
    pool: tuple[int, ...]


class FeatureTable:
    """Rows of features by item id, shared by a policy and its frozen copies.

    Args:
        rows_ND: one row an item.  It stays where it is; what is looked up goes to the policy.

    Raises:
        ValueError: a row holds NaN or an infinite number.
    """

    def __init__(self, rows_ND: Tensor) -> None:
        bad = (~rows_ND.isfinite().all(dim=-1)).nonzero().flatten()
        if len(bad) > 0:
            raise ValueError(f"features: rows {bad[:5].tolist()} hold NaN or infinite numbers")
        self.rows_ND = rows_ND

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureTable:
        return self

    @property
    def width(self) -> int:
        return self.rows_ND.shape[1]

    def of(self, query: int, ids: tuple[int, ...], field: str) -> Tensor:
        """Look up rows.

        Raises:
            ValueError: an id has no row; the message names the query and the field.
        """
        missing = [item for item in ids if not 0 <= item < len(self.rows_ND)]
        if missing:
            raise ValueError(
                f"query {query}: {field}: no embedding for ids {missing[:5]}: expected ids from 0 "
                f"to {len(self.rows_ND) - 1}"
            )
        return self.rows_ND[list(ids)]


def mean_features(image_ND: Tensor, text_ND: Tensor) -> FeatureTable:
    """Mean of the two unit vectors, of unit length: one point an item, as published."""
    return FeatureTable(normalize(normalize(image_ND, dim=-1) + normalize(text_ND, dim=-1), dim=-1))


def pca_features(
    image_ND: Tensor, text_ND: Tensor, fit_on: range, dims: int = 56, power: float = 0.5
) -> FeatureTable:
    """Principal components of each modality side by side, 2 * dims columns.

    Nothing but the embeddings is used, so it may be fitted on all demonstrations.

    Args:
        image_ND: embeddings of pictures.
        text_ND: embeddings of questions.
        fit_on: rows the components are found from.
        dims: components a modality.
        power: each component is scaled to its singular value to this power; 1 is plain PCA, 0
            whitens.  Each modality's row is then of unit length.
    """
    parts = [_components(part_ND, fit_on, dims, power) for part_ND in (image_ND, text_ND)]
    return FeatureTable(torch.cat(parts, dim=-1))


def _components(rows_ND: Tensor, fit_on: range, dims: int, power: float) -> Tensor:
    known = rows_ND[fit_on.start : fit_on.stop]
    mean_D = known.mean(dim=0)
    _, singular, axes = torch.linalg.svd(known - mean_D, full_matrices=False)
    if dims > len(singular):
        raise ValueError(f"dims={dims}: expected at most {len(singular)}, what the rows span")
    scale = singular[:dims].clamp(min=1e-6) ** (power - 1)
    return normalize((rows_ND - mean_D) @ axes[:dims].T * scale, dim=-1)
