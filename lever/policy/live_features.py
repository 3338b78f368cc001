"""Features of items, computed by CLIP at every look-up, so that its adapters can be trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import normalize

from lever.data.sources import Item
from lever.features.clip import ClipEncoder


class LiveFeatures(nn.Module):
    """Features of items: the mean of CLIP's embeddings of picture and question.

    Replaces a `lever.features.slate_features.FeatureTable`.  A training step encodes every
    candidate of every query with CLIP.  A frozen copy keeps the adapters of its moment.

    Args:
        clip: usually `adapted`.
        items: by id; each with a picture.
    """

    def __init__(self, clip: ClipEncoder, items: Sequence[Item]) -> None:
        super().__init__()
        self.clip = clip
        self._items = items

    @property
    def width(self) -> int:
        return self.clip.width

    def of_query(self, query: int) -> Tensor:
        """Embed an item as a query, [D]."""
        return self.of(query, (query,), "query")[0]

    def of(self, query: int, ids: tuple[int, ...], field: str) -> Tensor:
        """Embed items, [ids, D], unit length.

        Raises:
            ValueError: there is no such item, or it has no picture; the message names the query and
                the field.
        """
        missing = [
            item
            for item in ids
            if not 0 <= item < len(self._items) or self._items[item].picture is None
        ]
        if missing:
            raise ValueError(
                f"query {query}: {field}: no picture of ids {missing[:5]}: expected items with "
                f"pictures, ids from 0 to {len(self._items) - 1}"
            )
        items = [self._items[item] for item in ids]
        paths = [item.picture for item in items if item.picture is not None]
        image_ND = self.clip.embed_pictures(paths)
        text_ND = self.clip.embed_texts([item.question.text for item in items])
        return normalize(image_ND + text_ND, dim=-1)
