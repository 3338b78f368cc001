"""Features of items for a selector: one row an item, looked up by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lever.config import EncodingConfig

BOTH = EncodingConfig()


@dataclass(frozen=True)
class SlateQuery:
    """A question and its pool of demonstrations.

    Attributes:
        query: id of the question.
        pool: ids of the K candidates, in an order without meaning.
    """

    query: int
    pool: tuple[int, ...]


class Features(Protocol):
    """Features that a selector can use: a `FeatureTable` or `lever.policy.live_features`.

    `width` is D, `of_query` gives the row of an item as a query, [D], and `of` the rows of
    demonstrations, [ids, D]; its `query` and `field` are for messages.
    """

    @property
    def width(self) -> int: ...

    def of_query(self, query: int) -> Tensor: ...

    def of(self, query: int, ids: tuple[int, ...], field: str) -> Tensor: ...


class FeatureTable:
    """Rows of features by item id, shared by a policy and its frozen copies.

    Args:
        rows_ND: one row an item.  The table stays on its device; rows move to the policy's.
        query_ND: rows of items as queries, if they differ.

    Raises:
        ValueError: a row has a NaN or infinite number, or the two tables differ in shape.
    """

    def __init__(self, rows_ND: Tensor, query_ND: Tensor | None = None) -> None:
        self.rows_ND = rows_ND
        self.query_ND = rows_ND if query_ND is None else query_ND
        if self.query_ND.shape != rows_ND.shape:
            raise ValueError(
                f"features: queries {tuple(self.query_ND.shape)}: expected the shape of the items, "
                f"{tuple(rows_ND.shape)}"
            )
        for rows in (self.rows_ND, self.query_ND):
            bad = (~rows.isfinite().all(dim=-1)).nonzero().flatten()
            if len(bad) > 0:
                raise ValueError(f"features: rows {bad[:5].tolist()} hold NaN or infinite numbers")

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureTable:
        return self

    @property
    def width(self) -> int:
        return self.rows_ND.shape[1]

    def of_query(self, query: int) -> Tensor:
        """Look up the row of an item as a query, [D].

        Raises:
            ValueError: it has none.
        """
        self._check(query, (query,), "query")
        return self.query_ND[query]

    def of(self, query: int, ids: tuple[int, ...], field: str) -> Tensor:
        """Look up rows of demonstrations, [ids, D].

        Raises:
            ValueError: an id has no row; the message names the query and the field.
        """
        self._check(query, ids, field)
        return self.rows_ND[list(ids)]

    def _check(self, query: int, ids: tuple[int, ...], field: str) -> None:
        missing = [item for item in ids if not 0 <= item < len(self.rows_ND)]
        if missing:
            raise ValueError(
                f"query {query}: {field}: no embedding for ids {missing[:5]}: expected ids from 0 "
                f"to {len(self.rows_ND) - 1}"
            )


def mean_features(
    image_ND: Tensor, text_ND: Tensor, encoding: EncodingConfig = BOTH
) -> FeatureTable:
    """Mean of the two unit vectors, scaled to unit length, as published.

    Both embeddings must be in one space.

    Raises:
        ValueError: the two differ in width.
    """
    if image_ND.shape != text_ND.shape:
        raise ValueError(
            f"data_mix.image_encoder: {image_ND.shape[1]} columns, the text encoder gives "
            f"{text_ND.shape[1]}: their mean needs one width; take features side by side instead"
        )
    parts = normalize(image_ND, dim=-1), normalize(text_ND, dim=-1)

    def mean(image: bool, text: bool) -> Tensor:
        return normalize(image * parts[0] + text * parts[1], dim=-1)

    return FeatureTable(
        mean(encoding.demo_image, encoding.demo_text),
        mean(encoding.query_image, encoding.query_text),
    )


def pca_features(
    image_ND: Tensor,
    text_ND: Tensor,
    fit_on: range,
    dims: int = 56,
    power: float = 0.5,
    encoding: EncodingConfig = BOTH,
) -> FeatureTable:
    """Principal components of each modality side by side, 2 * dims columns.

    Only embeddings are used, so all demonstrations may be used to fit them.

    Args:
        image_ND: embeddings of pictures.
        text_ND: embeddings of questions.
        fit_on: rows to fit on.
        dims: components a modality.
        power: each component is scaled to its singular value to this power; 1 is plain PCA, 0
            whitens.  Each modality's part is then scaled to unit length.
        encoding: whether picture and question are used; unused columns are 0.
    """
    image, text = (_components(part_ND, fit_on, dims, power) for part_ND in (image_ND, text_ND))
    return side_by_side(image, text, encoding)


def side_by_side(image_ND: Tensor, text_ND: Tensor, encoding: EncodingConfig) -> FeatureTable:
    """Concatenate the features of picture and question; those not used are 0."""
    return FeatureTable(
        torch.cat([encoding.demo_image * image_ND, encoding.demo_text * text_ND], dim=-1),
        torch.cat([encoding.query_image * image_ND, encoding.query_text * text_ND], dim=-1),
    )


def _components(rows_ND: Tensor, fit_on: range, dims: int, power: float) -> Tensor:
    known = rows_ND[fit_on.start : fit_on.stop]
    mean_D = known.mean(dim=0)
    _, singular, axes = torch.linalg.svd(known - mean_D, full_matrices=False)
    if dims > len(singular):
        raise ValueError(f"dims={dims}: expected at most {len(singular)}, what the rows span")
    scale = singular[:dims].clamp(min=1e-6) ** (power - 1)
    return normalize((rows_ND - mean_D) @ axes[:dims].T * scale, dim=-1)
