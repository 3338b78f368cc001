"""Rows of the comparison that need a training of their own."""

from __future__ import annotations

import pytest

from lever.config import DataKind
from lever.learning.trained_methods import ARMS, check_arms


def test_every_arm_may_be_asked_of_a_generated_world() -> None:
    check_arms(list(ARMS), DataKind.synthetic)


def test_an_unknown_arm_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"pipeline.arms=\['pointr'\].*pointer_mean"):
        check_arms(["pointr", "mlp"], DataKind.synthetic)


def test_facts_of_real_questions_are_not_known() -> None:
    check_arms(["mlp"], DataKind.files)
    with pytest.raises(ValueError, match=r"data_mix\.kind=files does not have"):
        check_arms(["mlp", "knows_latents"], DataKind.files)
