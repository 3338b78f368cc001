"""The steps' figures over seeds."""

from __future__ import annotations

import pytest

from sa2va_rl.tasks.run import means


def test_figures_are_means_over_the_seeds_that_have_them() -> None:
    """A test split of one film has no foreign mask to probe with."""
    found = means([{"dice": 0.5, "probe/foreign": 0.2}, {"dice": 0.7}])
    assert found == {"steps/dice": pytest.approx(0.6), "steps/probe/foreign": 0.2}
    assert means([{"dice": 0.5}, {"dice": 0.7, "probe/foreign": 0.2}]).keys() == found.keys()
