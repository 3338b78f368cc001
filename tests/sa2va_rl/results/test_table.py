"""From rows to a table: means, shares of the gap, intervals, on numbers that are easy to check."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from sa2va_rl.data.files import Sample
from sa2va_rl.results.methods import LEARNED, NOTHING, STOPPED, TEST, TRUTH, Found
from sa2va_rl.results.table import (
    METHODS,
    by_seed,
    grouped,
    histogram,
    name_of,
    rows_of,
    summarise,
    text_table,
    told_of,
)

PICTURES = 20


def found(method: str, told: str, dice: np.ndarray, choices: np.ndarray | None = None) -> Found:
    measures = {"dice": dice, "iou": dice / 2, "precision": dice, "recall": dice - 0.1}
    chosen = None if choices is None else {TEST: choices}
    return Found(method, told, 1, 2.0, {TEST: measures}, chosen)


def seed_rows(seed: int, policy: float) -> pd.DataFrame:
    """Fixed prompt .5, oracle .7, a policy at a given Dice; pictures differ by up to .1."""
    base = np.linspace(0, 0.1, PICTURES)
    zeros, half = np.zeros(PICTURES, dtype=np.int64), np.arange(PICTURES) % 2
    rows = rows_of(
        [
            found("fixed", TRUTH, base + 0.5, zeros),
            found("oracle", TRUTH, base + 0.7, half),
            found("random", NOTHING, base + 0.4),
            found("ppo_tuned", LEARNED, base + policy, half),
        ]
    )
    return grouped(rows, {TEST: samples_of(PICTURES, f"{seed}-")}).assign(size=20, seed=seed)


def samples_of(groups: int, name: str = "") -> list[Sample]:
    """Twenty test pictures of so many patients."""
    image_HWC = np.zeros((2, 2, 3), dtype=np.uint8)
    places = [n * groups // PICTURES for n in range(PICTURES)]
    return [Sample(f"{n}", image_HWC, None, f"{name}{place}") for n, place in enumerate(places)]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat([seed_rows(1, 0.6), seed_rows(2, 0.65)], ignore_index=True)


def test_measures_and_shares_of_the_gap(rows: pd.DataFrame) -> None:
    table = summarise(rows)
    assert table["dice/fixed"] == pytest.approx(0.55)
    assert table["iou/oracle"] == pytest.approx(0.375)
    assert table["gap_closed/fixed"] == 0 and table["gap_closed/oracle"] == pytest.approx(1)
    assert table["gap_closed/random"] == pytest.approx(-0.5)
    assert table["gap_closed/ppo_tuned"] == pytest.approx((0.5 + 0.75) / 2)
    assert table["cpu_seconds/ppo_tuned"] == 2 and table["calls/ppo_tuned"] == 1


def test_differences_are_taken_picture_by_picture(rows: pd.DataFrame) -> None:
    table = summarise(rows)
    # Pictures differ among each other and the difference does not: only seeds spread it.
    assert table["diff/ppo_tuned_vs_fixed"] == pytest.approx(0.125)
    half = student.ppf(0.975, 1) * 0.025  # two seeds, .025 from their mean
    assert table["diff/ppo_tuned_vs_fixed_low"] == pytest.approx(0.125 - half)
    assert table["diff/ppo_tuned_vs_fixed_high"] == pytest.approx(0.125 + half)
    assert table["diff/ppo_tuned_vs_fixed/seed1"] == pytest.approx(0.15)
    assert table["diff_recall/random_vs_fixed"] == pytest.approx(-0.1)
    assert "diff/fixed_vs_fixed" not in table


def test_frames_of_one_film_are_drawn_together() -> None:
    """Twenty copies of four values say no more than the four."""
    rows = seed_rows(1, 0.6)
    own = rows["method"] == "ppo_tuned"
    rows.loc[own, "dice"] += np.repeat([-0.1, 0.0, 0.1, 0.2], 5)

    def width(groups: int) -> float:
        table = summarise(grouped(rows, {TEST: samples_of(groups)}))
        assert table["diff/ppo_tuned_vs_fixed"] == pytest.approx(0.15)
        ends = [table[f"diff/ppo_tuned_vs_fixed_{end}"] for end in ("low", "high")]
        return ends[1] - ends[0]

    # The variance is divided by n - 1, whose degrees of freedom give the factor of the error.
    factor = np.sqrt(19 / 3) * student.ppf(0.975, 3) / student.ppf(0.975, 19)
    assert width(4) == pytest.approx(factor * width(PICTURES))


def test_a_film_that_several_seeds_tested_is_one_film() -> None:
    """Five seeds that deal the same films out say of other films what one of them says."""
    one = grouped(seed_rows(1, 0.6), {TEST: samples_of(4)})
    own = one["method"] == "ppo_tuned"
    one.loc[own, "dice"] += np.repeat([-0.1, 0.0, 0.1, 0.2], 5)
    # A shorter film in the first seed.
    short = one[one["picture"] < 18]
    more = [one.assign(seed=seed) for seed in (2, 3, 4, 5)]
    several = summarise(pd.concat([short, *more], ignore_index=True))
    single = summarise(one)
    key = "diff/ppo_tuned_vs_fixed"
    for end in ("", "_low", "_high"):
        assert several[key + end] == pytest.approx(single[key + end], abs=0.01)
    gain = several["dice/ppo_tuned"] - several["dice/fixed"]
    assert several[key] == pytest.approx(gain)
    assert several["gap_closed/ppo_tuned"] == pytest.approx(gain / 0.2)


def test_choices_are_spread_or_not_there(rows: pd.DataFrame) -> None:
    table = summarise(rows)
    assert table["entropy/fixed"] == 0 and table["top_share/fixed"] == 1
    assert table["entropy/oracle"] == pytest.approx(np.log(2))
    assert np.isnan(table["top_share/random"])
    shares = histogram(rows, num_prompts=3)
    assert shares.loc["oracle"].tolist() == [0.5, 0.5, 0.0]
    assert "random" not in shares.index


def test_each_seed_is_shown(rows: pd.DataFrame) -> None:
    assert by_seed(rows)["ppo_tuned"].tolist() == [pytest.approx(0.5), pytest.approx(0.75)]


def test_a_set_without_a_way_has_no_share() -> None:
    rows = seed_rows(1, 0.6)
    rows.loc[rows["method"] == "oracle", "dice"] = rows.loc[
        rows["method"] == "fixed", "dice"
    ].to_numpy()
    assert np.isnan(summarise(rows)["gap_closed/ppo_tuned"])


def test_the_text_names_every_method_once_and_who_told_it(rows: pd.DataFrame) -> None:
    told = told_of(rows)
    assert list(told) == ["random", "fixed", "oracle", "ppo_tuned"]  # the order of METHODS
    text = text_table(summarise(rows), told)
    lines = {line[:32].strip(): line for line in text.splitlines()[1:]}
    assert list(lines) == [METHODS[name] for name in told]
    assert "learned reward" in lines[METHODS["ppo_tuned"]]
    assert "+12.5" in lines[METHODS["ppo_tuned"]] and "100%" in lines[METHODS["fixed"]]
    assert name_of("fixed", told) == "best fixed prompt, by truth"
    assert name_of("ppo_tuned", told) == METHODS["ppo_tuned"]
    stopped = {**told, "finetune": STOPPED}
    assert name_of("finetune", stopped) == "fine-tuned, anchor (3b), stop by truth"
    numbers = summarise(rows)
    numbers |= {k.replace("ppo_tuned", "finetune"): v for k, v in numbers.items()}
    lines = text_table(numbers, stopped).splitlines()
    assert f"{STOPPED}  " in lines[-1]
    assert len({line.index(" 0.", 40) for line in lines[1:]}) == 1, "columns stand under each other"
