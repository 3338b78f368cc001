"""The comparison's report: plain sentences, one page, one picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lever.results.report import findings, write_report
from lever.results.table import compare
from tests.lever.results.test_table import world


def test_findings_say_what_is_shown_and_what_is_not() -> None:
    metrics, _ = compare([world(0.0)])
    said = " ".join(findings(metrics))
    assert "closes 80% of the way" in said
    assert "wanted" not in said
    assert "It is above sft" in said
    worse = metrics | {"gap_closed/grpo": 0.5, "diff/grpo_vs_sft_low": -0.01}
    said = " ".join(findings(worse))
    assert "short of the 70% wanted" in said
    assert "not shown to be above sft" in said


@pytest.mark.parametrize("oracle", [True, False])
def test_page_and_picture_show_every_method(tmp_path: Path, oracle: bool) -> None:
    one = world(0.0)
    if not oracle:
        scores = {name: values for name, values in one.scores.items() if name != "oracle"}
        one = replace(one, scores=scores, expected={})
    metrics, table = compare([one])
    write_report(tmp_path, "metric on made data", metrics, ["sft", "rce", "grpo"], table)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in one.scores)
    assert ("stand-in" in page) == oracle
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > picture.height > 100
