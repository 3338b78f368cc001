"""The snippet on docs/garbled-completions.md does what the page says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.core_rl.hf.lost_cache import checkpointed
from tests.core_rl.hf.text_policy import build_model

PAGE = Path(__file__).parents[2] / "docs" / "garbled-completions.md"


def snippet() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def answered(model: PreTrainedModel) -> dict[str, Any]:
    """Run the block as a reader would, and return what it printed."""
    torch.manual_seed(0)
    said: list[dict[str, Any]] = []
    inputs = {"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    exec(snippet(), {"model": model, "inputs": inputs, "print": said.append})
    return said[0]


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model()


@pytest.mark.parametrize("training", [False, True])
def test_a_healthy_model_is_called_so(model: PreTrainedModel, training: bool) -> None:
    found = answered(model.train(training))
    assert found["first token"] < 1e-4 and found["later tokens"] < 1e-4
    assert found["cache length"] == found["cache should be"] == 6 + 16 - 1
    assert model.training is training


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_lost_cache_has_the_signature_of_the_first_row(
    model: PreTrainedModel, reentrant: bool
) -> None:
    found = answered(checkpointed(model, reentrant).train())
    assert found["first token"] < 1e-4
    assert found["later tokens"] > 0.1
    assert found["cache length"] == 0


def test_checkpointing_in_evaluation_mode_is_harmless(model: PreTrainedModel) -> None:
    found = answered(checkpointed(model).eval())
    assert found["later tokens"] < 1e-4
