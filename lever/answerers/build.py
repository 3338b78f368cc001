"""Build the answerer of a configuration, with its cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from core_rl.config import HardwareConfig, PathsConfig
from lever.answerers.cache import CachedAnswerer
from lever.answerers.protocol import Answerer, KernelICLAnswerer
from lever.answerers.templates import (
    FLAMINGO,
    IDEFICS,
    ChatTemplate,
    Prompts,
    Show,
    Shown,
    Template,
)
from lever.answerers.text_kernel import TextKernelAnswerer
from lever.data.datasets import LeverData
from lever.generation_config import AnswererConfig, AnswererKind, TemplateKind

log = logging.getLogger(__name__)

GENERATION = ("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty")


@dataclass(frozen=True)
class Setup:
    """An answerer and the way it is asked.

    Attributes:
        answerer: with its cache; close it at the end.
        prompts: about the items of the data.
        generation: the generation settings.
    """

    answerer: CachedAnswerer
    prompts: Prompts
    generation: dict[str, float]


def build_answerer(
    config: AnswererConfig, data: LeverData, paths: PathsConfig, hardware: HardwareConfig
) -> Setup:
    """Build the answerer for a data set; its cache is in `paths` unless `answerer.cache` is set."""
    prompts = Prompts(template_of(config), show_of(data))
    generation: dict[str, float] = {}
    batch_size, key = config.batch_size, prompts.template.key
    answerer: Answerer
    if config.kind is AnswererKind.kernel:
        # The stand-ins read no prompt, so the template is no part of the key.
        answerer, batch_size, key = _kernel(data), 4096, ""
    elif config.kind is AnswererKind.hf:
        generation = {name: getattr(config, name) for name in GENERATION}
        answerer = _hf(config, data, prompts, generation, hardware)
    else:
        generation = {"max_new_tokens": config.max_new_tokens}
        answerer = _api(config, data, prompts)
        # A kill or a failing server loses at most the requests in progress.
        batch_size = config.concurrency
    path = Path(config.cache or Path(paths.cache) / "lever" / "answers.sqlite")
    log.info("answers of %s are kept in %s", answerer.fingerprint, path)
    cached = CachedAnswerer(answerer, path, key, generation, batch_size)
    return Setup(cached, prompts, generation)


def template_of(config: AnswererConfig) -> Template:
    """Return the template of a configuration."""
    if config.template is TemplateKind.flamingo:
        return FLAMINGO
    if config.template is TemplateKind.idefics:
        return IDEFICS
    return ChatTemplate(config.system_prompt, config.instruction)


def show_of(data: LeverData) -> Show:
    """Return the function that shows items of a data set: tags replace a missing picture."""

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
    prompts: Prompts,
    generation: dict[str, float],
    hardware: HardwareConfig,
) -> Answerer:
    from lever.answerers.huggingface import HFAnswerer, load_hf

    assert config.path is not None
    device = "cpu" if hardware.accelerator == "cpu" else "cuda"
    pixels = config.min_pixels, config.max_pixels
    model, processor = load_hf(config.path, config.dtype, pixels, device)
    name = f"{data.items_fingerprint}|{pixels}"
    return HFAnswerer(model, processor, prompts, generation, config.batch_size, name)


def _api(config: AnswererConfig, data: LeverData, prompts: Prompts) -> Answerer:
    from core_rl.servers.endpoint import Endpoint
    from lever.answerers.api import ApiAnswerer

    assert config.url is not None and config.model is not None
    endpoint = Endpoint(
        name="answerer.url",
        url=config.url,
        cure="finished answers are kept: run again to continue",
        key_env=config.key_env,
        concurrency=config.concurrency,
        timeout=config.timeout,
        retries=config.retries,
        backoff=config.backoff,
    )
    items = data.items_fingerprint
    return ApiAnswerer(endpoint, config.model, prompts, config.max_new_tokens, items)
