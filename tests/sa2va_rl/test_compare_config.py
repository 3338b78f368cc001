"""Settings of the comparison name the field that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from sa2va_rl.compare_config import CompareConfig, FinetuneConfig, PostprocessConfig


@pytest.mark.parametrize(
    ("config", "given", "named"),
    [
        (CompareConfig, {"sizes": [20, 1]}, "compare.sizes"),
        (CompareConfig, {"pulls": 0}, "compare.pulls"),
        (PostprocessConfig, {"recipes": 0}, "compare.postprocess.recipes"),
        (PostprocessConfig, {"recipes": 4081}, "compare.postprocess.recipes=4081.*at most 4080"),
        (FinetuneConfig, {"width": 6}, "compare.finetune.width"),
        (FinetuneConfig, {"lr": 0.0}, "compare.finetune.lr"),
        (FinetuneConfig, {"anchor": -1.0}, "compare.finetune.anchor"),
        (FinetuneConfig, {"patience": 0}, "compare.finetune.patience"),
    ],
)
def test_a_value_out_of_range_is_refused(config: Any, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        config(**given)


def test_no_smaller_table_is_a_choice() -> None:
    assert CompareConfig(sizes=[]).sizes == []
