"""The answerer that a configuration names, asked through its cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_rl.config import HardwareConfig, PathsConfig
from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import Answerer, KernelICLAnswerer
from lever.answerers.templates import FLAMINGO, IDEFICS, ChatTemplate, Show, Shown, Template
from lever.answerers.text_kernel import TextKernelAnswerer
from lever.data.datasets import LeverData, Prompted
from lever.generation_config import AnswererConfig, AnswererKind, TemplateKind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """Who answers and how it is asked.

    Attributes:
        answerer: asked for nothing twice; close it at the end.
        template: how prompts are written.
        show: item id -> what the model is shown.
        generation: settings that decide an answer.
    """

    answerer: CachedAnswerer
    template: Template
    show: Show
    generation: dict[str, Any]

    def spell(self, prompt: Prompted) -> str:
        """Write a prompt as one text, for people."""
        return self.template.text(list(map(self.show, prompt.shots)), self.show(prompt.query))


def build_answerer(
    config: AnswererConfig, data: LeverData, paths: PathsConfig, hardware: HardwareConfig
) -> Setup:
    """Make the answerer.

    Args:
        config: who and how.
        data: whose items are asked about and shown.
        paths: of the cache, unless `answerer.cache` names it.
        hardware: where a model runs.
    """
    template, show = template_of(config), show_of(data)
    generation: dict[str, Any] = {}
    batch_size = config.batch_size
    answerer: Answerer
    if config.kind is AnswererKind.kernel:
        answerer, batch_size = _kernel(data), 4096
    elif config.kind is AnswererKind.hf:
        answerer = _hf(config, data, template, show, hardware)
        generation = _generation(config)
    else:
        answerer = _api(config, data, template, show)
        generation = {"max_new_tokens": config.max_new_tokens}
        # What a kill or a failing server can lose is what is under way.
        batch_size = config.concurrency
    # The stand-in writes no prompt, so that a template does not change its answers.
    key = "" if config.kind is AnswererKind.kernel else template.key
    path = Path(config.cache or Path(paths.cache) / "lever" / "answers.sqlite")
    log.info("answers of %s are kept in %s", answerer.fingerprint, path)
    cached = CachedAnswerer(answerer, path, key, generation, batch_size)
    return Setup(cached, template, show, generation)


def template_of(config: AnswererConfig) -> Template:
    """Pick the template a configuration names."""
    if config.template is TemplateKind.flamingo:
        return FLAMINGO
    if config.template is TemplateKind.idefics:
        return IDEFICS
    return ChatTemplate(config.system_prompt, config.instruction)


def show_of(data: LeverData) -> Show:
    """Say how items of a data set are shown: tags stand in where there is no picture."""

    def show(item: int) -> Shown:
        one = data.items[item]
        seen = f"In the picture: {', '.join(one.tags)}." if one.tags and not one.picture else ""
        return Shown(one.question.text, one.answer, one.picture, seen)

    return show


def _kernel(data: LeverData) -> Answerer:
    log.warning("the answerer is a stand-in, not a vision-language model: %s", data.name)
    return TextKernelAnswerer(data) if data.world is None else KernelICLAnswerer(data.world)


def _hf(
    config: AnswererConfig,
    data: LeverData,
    template: Template,
    show: Show,
    hardware: HardwareConfig,
) -> Answerer:
    from lever.answerers.huggingface import GenerationSettings, HFAnswerer, load_hf

    assert config.path is not None
    device = "cpu" if hardware.accelerator == "cpu" else "cuda"
    pixels = config.min_pixels, config.max_pixels
    model, processor = load_hf(config.path, config.dtype, pixels, device)
    settings = GenerationSettings(**_generation(config))
    name = f"{data.items_fingerprint}|{pixels}"
    return HFAnswerer(model, processor, show, template, settings, config.batch_size, name)


def _api(config: AnswererConfig, data: LeverData, template: Template, show: Show) -> Answerer:
    from core_rl.servers.endpoint import Endpoint
    from lever.answerers.api import ApiAnswerer

    assert config.url is not None and config.model is not None
    endpoint = Endpoint(
        name="answerer.url",
        url=config.url,
        cure="what was answered before is kept: run again to go on",
        key_env=config.key_env,
        concurrency=config.concurrency,
        timeout=config.timeout,
        retries=config.retries,
        backoff=config.backoff,
    )
    items = data.items_fingerprint
    return ApiAnswerer(endpoint, config.model, show, template, config.max_new_tokens, items)


def _generation(config: AnswererConfig) -> dict[str, Any]:
    names = ("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty")
    return {name: getattr(config, name) for name in names}
