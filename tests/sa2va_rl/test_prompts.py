"""The eleven prompts and what their words set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa2va_rl.prompts import BASE, BASE_PROMPT, PROMPTS, SCALES, check_prompts, controls_of


def test_eleven_prompts_ask_for_eleven_different_things() -> None:
    assert len(PROMPTS) == 11
    assert len({controls_of(prompt) for prompt in PROMPTS}) == 11


def test_the_plain_prompt_sets_nothing() -> None:
    assert controls_of(PROMPTS[BASE_PROMPT]) == BASE
    assert controls_of("") == BASE


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("thin vessels", "thin"),
        ("WIDE vessels", "wide"),
        ("thin and wide vessels", "all"),
        ("the whole tree", "all"),
        ("all thin vessels", "thin"),  # of the thin ones, all
        ("the wall", ""),  # a word is read from its beginning
    ],
)
def test_widths(text: str, scales: str) -> None:
    assert controls_of(text).scales == SCALES[scales]


def test_each_word_moves_its_own_number() -> None:
    assert controls_of("faint vessels").threshold < BASE.threshold
    assert controls_of("where the contrast is low").threshold < BASE.threshold
    assert controls_of("low-contrast vessels") == controls_of("faint vessels")
    assert controls_of("clear vessels").threshold > BASE.threshold
    assert controls_of("a noisy picture").denoise > BASE.denoise
    assert controls_of("one connected tree").low_ratio < BASE.low_ratio
    assert controls_of("precise").low_ratio > BASE.low_ratio
    assert controls_of("ignore specks").min_size > BASE.min_size
    assert controls_of("noise, noise and noise") == controls_of("noise")


@given(text=st.text(max_size=80))
def test_any_text_gives_usable_numbers(text: str) -> None:
    controls = controls_of(text)
    assert controls.scales
    assert controls.threshold > 0
    assert 0 < controls.low_ratio <= 1


@pytest.mark.parametrize(
    ("prompts", "expected", "message"),
    [
        (["one"], None, "at least two"),
        (["one", " "], None, "number 1 is empty"),
        (["one", "two", "one"], None, r"\['one'\] occur more than once"),
        (["one", "two"], 11, "2 given, the policy chooses among 11"),
    ],
)
def test_lists_that_cannot_be_actions(
    prompts: list[str], expected: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_prompts(prompts, expected)


def test_a_list_of_actions_is_kept_in_order() -> None:
    assert check_prompts(list(PROMPTS), 11) == PROMPTS
