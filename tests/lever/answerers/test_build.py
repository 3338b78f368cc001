"""The answerer that a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core_rl.config import HardwareConfig, PathsConfig
from lever.answerers.build import Setup, build_answerer, show_of, template_of
from lever.answerers.templates import FLAMINGO, IDEFICS, ChatTemplate
from lever.data.datasets import LeverData, Prompted
from lever.generation_config import AnswererConfig, AnswererKind, TemplateKind
from tests.lever.data.test_datasets import load, small_config
from tests.lever.tiny_vlm import save_tiny

DATA = load(small_config())


def build(folder: Path, data: LeverData = DATA, **changes: Any) -> Setup:
    config = AnswererConfig(**changes)
    return build_answerer(config, data, PathsConfig(cache=str(folder)), HardwareConfig())


def test_the_stand_in_follows_the_data(tmp_path: Path) -> None:
    generated = build(tmp_path)
    assert generated.answerer.fingerprint.startswith("kernel-")
    assert (tmp_path / "lever" / "answers.sqlite").is_file()
    other = build(tmp_path, replace(DATA, world=None), cache=str(tmp_path / "own.sqlite"))
    assert other.answerer.fingerprint.startswith("text-kernel-")
    assert (tmp_path / "own.sqlite").is_file()


def test_a_template_changes_no_answer_of_the_stand_in(tmp_path: Path) -> None:
    prompts = [Prompted(one.query, one.pool[:2]) for one in DATA.train]
    first = build(tmp_path)
    first.answerer.generate(prompts)
    second = build(tmp_path, template=TemplateKind.flamingo)
    second.answerer.generate(prompts)
    assert (first.answerer.calls, second.answerer.calls) == (len(prompts), 0)


def test_templates_by_name() -> None:
    assert template_of(AnswererConfig(template=TemplateKind.flamingo)) is FLAMINGO
    assert template_of(AnswererConfig(template=TemplateKind.idefics)) is IDEFICS
    config = AnswererConfig(system_prompt="Be brief.", instruction="One word.")
    assert template_of(config) == ChatTemplate("Be brief.", "One word.")


def test_tags_stand_in_where_there_is_no_picture(tmp_path: Path) -> None:
    shown = show_of(DATA)(0)
    assert shown.picture is None and shown.context.startswith("In the picture: entity ")
    seen = replace(DATA, items=(replace(DATA.items[0], picture=tmp_path / "0.png"),))
    assert show_of(seen)(0).context == "" and show_of(seen)(0).picture == tmp_path / "0.png"
    query = DATA.train[0]
    text = build(tmp_path).prompts.text(Prompted(query.query, query.pool[:1]))
    assert DATA.items[query.pool[0]].answer in text
    assert DATA.items[query.query].answer not in text


def test_a_model_and_a_server_are_asked_with_their_settings(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    model = build(
        tmp_path,
        kind=AnswererKind.hf,
        path=str(tmp_path / "model"),
        dtype="float32",
        num_beams=1,
    )
    assert model.answerer.fingerprint.startswith("hf-")
    assert model.generation["num_beams"] == 1
    query = DATA.train[0]
    prompts = [Prompted(query.query, query.pool[:2])] * 2
    assert len(model.answerer.generate(prompts)) == 2 and model.answerer.calls == 1
    server = build(tmp_path, kind=AnswererKind.api, url="http://a/v1", model="m", concurrency=3)
    assert server.answerer.fingerprint.startswith("api-")
    assert server.answerer.batch_size == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": AnswererKind.hf}, "answerer.path=None"),
        ({"kind": AnswererKind.api, "url": "http://a/v1"}, "answerer.model=None"),
        ({"kind": AnswererKind.api, "url": "localhost:8000", "model": "m"}, "answerer.url="),
        ({"concurrency": 0}, "answerer.concurrency=0"),
        ({"retries": -1}, "answerer.retries=-1"),
        ({"timeout": 0}, "answerer.timeout=0"),
        ({"num_beams": 0}, "answerer.num_beams=0"),
        ({"min_new_tokens": 9}, "answerer.min_new_tokens=9"),
        ({"min_pixels": 0}, "answerer.min_pixels=0"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnswererConfig(**changes)
