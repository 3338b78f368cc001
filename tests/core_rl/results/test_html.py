"""Pages of reports: what a run wrote is shown as text, and a page that lacks a value is refused."""

from __future__ import annotations

import jinja2
import pytest

from core_rl.results.html import render

VALUES = {"name": "a run", "generated": False, "findings": ["rose"], "images": []}


def test_values_are_escaped() -> None:
    page = render("core_rl", "report.html.j2", **VALUES | {"findings": ["<script>x</script>"]})
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<script>" not in page


@pytest.mark.parametrize(("package", "name"), [("omni_rl", "stage4"), ("sa2va_rl", "compare")])
def test_a_package_builds_upon_the_common_page(package: str, name: str) -> None:
    more = {"text": "t", "clips": [], "configuration": [], "tables": [("table", "cells")]}
    page = render(package, f"{name}.html.j2", **VALUES | more | {"generated": True})
    assert "<h1>a run</h1>" in page and "<li>rose</li>" in page
    assert "generated" in page and "  h1 { font-size: 1.5rem; }" in page
    assert page.rstrip().endswith("</html>")


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="findings"):
        render("core_rl", "report.html.j2", name="a run", generated=False, images=[])
