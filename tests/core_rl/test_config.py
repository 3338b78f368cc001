"""What settings and files are checked with."""

from __future__ import annotations

import math

import pytest

from core_rl.config import is_number


@pytest.mark.parametrize("value", [0, -3, 0.5, 1e300])
def test_a_finite_number_is_a_number(value: object) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [True, "1", None, [1], math.nan, math.inf, 10**400])
def test_what_no_float_holds_is_not(value: object) -> None:
    assert not is_number(value)
