"""Qwen2.5-Omni's thinker as a policy: a tiny one built here, or a checkpoint."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.utils import cached_file

from core_rl.config import HardwareConfig
from core_rl.files import write_text
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.loading import load_whole, refuse_missing
from core_rl.hf.policy import HFPolicy
from core_rl.sealed import check_whole
from core_rl.types import Actions
from omni_rl.config import Blank, MediaConfig, OmniModelConfig
from omni_rl.data import scenes
from omni_rl.data.record import Record
from omni_rl.policy.processor import Processor, load_processor, save_processor
from omni_rl.policy.prompts import (
    TURN_END,
    PromptBuilder,
    fixed_texts,
    stop_token_ids,
    suppressed_token_ids,
)
from omni_rl.policy.tiny import build_feature_extractor, build_model, build_tokenizer
from omni_rl.policy.tower_init import whiten_towers

log = logging.getLogger(__name__)

ADAPTERS = "adapter_config.json"  # marks a folder of adapters
# Parts of a completion, with the tag that ends them; a reward may act on one part only.
SPANS = {"context": "</context>", "think": "</think>"}


class OmniPolicy(HFPolicy):
    """A thinker that completes the prompts of records.

    Args:
        model: a thinker.
        processor: tokenizer, mel front end and patch sizes.
        config: media settings, system prompt and limits.
        spans: names among `SPANS` that are marked in new completions.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        config: OmniModelConfig,
        spans: Sequence[str] = (),
    ) -> None:
        tokenizer: Any = processor.tokenizer
        super().__init__(
            model,
            tokenizer,
            stop_ids=stop_token_ids(tokenizer),
            suppress_ids=suppressed_token_ids(tokenizer),
            max_completion=config.max_completion,
            shared_prompt=config.shared_prompt,
            recompute=config.recompute,
        )
        self.processor = processor
        self.config = config
        self.spans = tuple(spans)
        self.builder = PromptBuilder(processor, config)
        _freeze_unread(model)

    def blank(self, blank: Blank) -> OmniPolicy:
        """Blank media from now on, for blind baselines and controls."""
        self.builder = PromptBuilder(self.processor, self.config, blank=blank)
        return self

    @property
    def end_id(self) -> int:
        """The end of the chat's turn, which is not always the tokenizer's end of text."""
        turn = self.tokenizer.get_vocab().get(TURN_END)
        return super().end_id if turn is None else int(turn)

    def never_drawn(self, text: str) -> list[str]:
        """List the tokens of a text that sampling suppresses."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        never = set(self.suppress_ids.tolist()).intersection(ids)
        return [str(self.tokenizer.convert_ids_to_tokens(one)) for one in sorted(never)]

    def collate(self, queries: Sequence[Record]) -> Inputs:
        return self.builder(queries)

    def positions(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Rotary positions in time, height and width, [3, B, P], and the next one, [B]."""
        mask = inputs["attention_mask"]
        audio_mask = inputs.get("feature_attention_mask")
        position_ids, deltas_B1 = self.model.get_rope_index(
            inputs["input_ids"],
            inputs.get("image_grid_thw"),
            inputs.get("video_grid_thw"),
            mask,
            inputs["use_audio_in_video"],
            None if audio_mask is None else audio_mask.sum(-1),
            inputs.get("video_second_per_grid"),
        )
        return position_ids.long(), (mask.sum(-1) + deltas_B1.view(-1)).long()

    def sometimes_unread(self) -> Sequence[nn.Parameter]:
        """What trains in the towers: a record may lack sound, pictures or both."""
        parameters = self.model.named_parameters()
        return [p for name, p in parameters if p.requires_grad and _in_towers(name)]

    def annotate(self, queries: Sequence[Record], actions: Actions) -> Actions:
        masks = {name: self._span(actions, SPANS[name]) for name in self.spans}
        return replace(actions, spans=masks)

    def _span(self, actions: Actions, closing: str) -> Tensor:
        """Mark the tokens up to the end of a closing tag, or all of them without that tag."""
        mask_BGT = actions.mask_BGT.clone()
        for b, g in torch.cartesian_prod(
            torch.arange(actions.num_queries), torch.arange(actions.num_candidates)
        ).tolist():
            ids = actions.ids_BGT[b, g].tolist()
            low, high = 0, int(actions.mask_BGT[b, g].sum())
            if closing not in self.tokenizer.decode(ids[:high]):
                continue
            while low < high:  # the shortest prefix whose text holds the tag
                middle = (low + high) // 2
                if closing in self.tokenizer.decode(ids[:middle]):
                    high = middle
                else:
                    low = middle + 1
            mask_BGT[b, g, high:] = False
        return mask_BGT

    def save(self, folder: Path, name: str, metrics: Mapping[str, float]) -> None:
        """Write model, processor and a model card in the form of `from_pretrained`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._complete_generation()
        self.model.save_pretrained(folder)
        save_processor(self.processor, folder)
        write_text(folder / "README.md", model_card(name, metrics, self.config.media))

    def _complete_generation(self) -> None:
        """Say in the saved settings where a completion ends: stock `generate` reads only these."""
        generation = self.model.generation_config
        if generation.eos_token_id is None:
            generation.eos_token_id = self.stop_ids.tolist()
        if generation.pad_token_id is None:
            generation.pad_token_id = self.tokenizer.pad_token_id

    def restore(self, folder: Path) -> None:
        """Load the weights that `save` wrote."""
        if self.has_adapters:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model, _adapter_weights(self.model, folder))
            return
        saved = load_whole(type(self.model), folder, "checkpoint", dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def whiten_towers(self, records: Sequence[Record]) -> None:
        """Initialise new towers from these records; see `omni_rl.policy.tower_init`."""
        whiten_towers(self.model, self.collate(records))


def model_card(name: str, metrics: Mapping[str, float], media: MediaConfig) -> str:
    """Write the README of a checkpoint, with the media limits it was trained on."""
    lines = [
        f"# {name}, trained by reinforcement learning towards people",
        "",
        "Open it with `Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained`.",
        "How it was trained stands in `config.yaml` and `run.json` of its run folder.",
        "",
        "Media in training (`preprocessor_config.json` has those of the start): "
        + ", ".join(
            f"{key} {value}" for key, value in asdict(media).items() if key != "cache_clips"
        ),
        "",
        *(f"- {key}: {value:.4g}" for key, value in sorted(metrics.items())),
    ]
    return "\n".join(lines) + "\n"


def tiny_processor(config: OmniModelConfig) -> Processor:
    """Build tokenizer and mel front end of the embedded thinker."""
    # Repeated so that every fixed word becomes one token.
    corpus = [*fixed_texts(config.system_prompt) * 100, *scenes.corpus()]
    tokenizer = build_tokenizer(corpus, config.tiny.vocab_size)
    return Processor(tokenizer, build_feature_extractor(config.tiny))


def untrained_policy(config: OmniModelConfig, seed: int, spans: Sequence[str] = ()) -> OmniPolicy:
    """Build the embedded thinker with fresh weights."""
    processor = tiny_processor(config)
    model = build_model(config.tiny, processor.tokenizer, seed)
    return OmniPolicy(model, processor, config, spans)


def load_policy(config: OmniModelConfig, path: str | Path, spans: Sequence[str] = ()) -> OmniPolicy:
    """Load a checkpoint folder, a folder of adapters that training saved, or a hub id.

    Adapters are put on the checkpoint that their folder names, and can be trained further.

    Raises:
        FileNotFoundError: there is no `path`, or not the checkpoint under its adapters.
        ValueError: a checkpoint is damaged, or lacks tensors.
    """
    path = known_checkpoint(str(path), "model.path")
    processor = load_processor(path)
    adapters = Path(path, ADAPTERS)
    base = path
    if adapters.exists():
        saved = json.loads(adapters.read_text(encoding="utf-8-sig"))
        named, rank = saved["base_model_name_or_path"], saved.get("r")
        if config.lora.r not in (0, rank):
            raise ValueError(
                f"model.lora.r={config.lora.r}: the adapters in {path} have r={rank}: expected "
                f"{rank}, or 0 to take theirs"
            )
        base = known_checkpoint(str(named), f"base_model_name_or_path of {adapters}")
    model = load_whole(
        Qwen2_5OmniThinkerForConditionalGeneration,
        base,
        "model.path",
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
    )
    if not adapters.exists():
        return OmniPolicy(adapted(model, config), processor, config, spans)
    peft = _peft()
    trained = peft.PeftModel.from_pretrained(model, path, is_trainable=True)
    _adapter_weights(trained, Path(path))  # peft leaves what it does not find at its start
    if config.freeze_towers:
        freeze_towers(trained)
    return OmniPolicy(trained, processor, config, spans)


def _adapter_weights(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Read the adapters of a folder; ValueError if some of the model's are not there."""
    from peft import get_peft_model_state_dict, load_peft_weights

    check_whole(folder, "adapters")
    weights: dict[str, torch.Tensor] = load_peft_weights(str(folder), device="cpu")
    refuse_missing(get_peft_model_state_dict(model).keys() - weights.keys(), folder, "adapters")
    return weights


def known_checkpoint(path: str, field: str) -> str:
    """Expand the path of a folder and check that it, or the hub, has a checkpoint.

    Raises:
        FileNotFoundError: there is none; the message names the field.
    """
    folder = Path(path).expanduser()
    if folder.is_dir() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        if not any((folder / name).exists() for name in ("config.json", ADAPTERS)):
            raise FileNotFoundError(
                f"{field}={folder}: no config.json there; give a checkpoint folder or a hub id"
            )
        return str(folder)
    try:
        cached_file(path, "config.json")
    except OSError as error:
        raise FileNotFoundError(
            f"{field}={path}: no such folder here, and no config.json of that id on the hub or in "
            f"its cache; give a checkpoint folder or a hub id ({error})"
        ) from error
    return path


def placed(policy: OmniPolicy, hardware: HardwareConfig) -> OmniPolicy:
    """Move a policy to the device on which this process trains."""
    if hardware.accelerator != "cpu" and torch.cuda.is_available():
        policy.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    return policy


def adapted(model: PreTrainedModel, config: OmniModelConfig) -> Any:
    """Freeze the towers and add adapters to the language model, as configured."""
    if config.freeze_towers:
        freeze_towers(model)
    if config.lora.r == 0:
        return model
    lora = config.lora
    peft = _peft()
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=_in_decoder(model, lora.target_modules),
        ),
    )


def _in_decoder(model: PreTrainedModel, names: Sequence[str]) -> str:
    """Pattern of these modules of the language model: the audio tower has the same names."""
    decoder = model.get_decoder()
    path = next(path for path, module in model.named_modules() if module is decoder)
    return rf"{re.escape(path)}\..*\.({'|'.join(map(re.escape, names))})"


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("model.lora needs peft: pip install 'people-focus-rl[hf]'") from error
    return peft


def freeze_towers(model: PreTrainedModel) -> None:
    """Exclude the vision and audio encoders from training."""
    for name, parameter in model.named_parameters():
        if _in_towers(name):
            parameter.requires_grad_(False)


def _in_towers(name: str) -> bool:
    return "visual." in name or "audio_tower." in name


def _freeze_unread(model: PreTrainedModel) -> None:
    """Freeze parameters of the audio encoder that no forward uses.

    Processes that average their gradients would fail where such a gradient is missing.
    """
    for name, parameter in model.named_parameters():
        if "audio_bos_eos_token." in name:
            parameter.requires_grad_(False)
