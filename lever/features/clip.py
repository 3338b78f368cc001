"""CLIP as an encoder of questions and pictures, frozen or with trainable adapters.

`load_clip` reads a local folder or a hub id.  `adapted` adds low-rank adapters (LoRA, Hu et al.
2021, arXiv 2106.09685) to the attention layers of both towers; `lever.policy.live_features` lets a
selector train them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lever.features.pictures import open_picture
from lever.features.pretrained import device_of_choice, load_or_say

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

Value = TypeVar("Value")
FIELD = "data_mix.image_encoder.path"
TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
_NEEDS_PEFT = "adapters need peft: pip install 'people-focus-rl[hf]'"


class ClipEncoder(nn.Module):
    """Both towers of CLIP, a `CLIPModel` or one wrapped by peft, and what prepares their input."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        processor: BaseImageProcessor,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.processor = processor

    @property
    def width(self) -> int:
        return int(self.model.config.projection_dim)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts in one forward pass, [N, D], unit length; differentiable."""
        inputs = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        out = self.model.get_text_features(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        return normalize(out.pooler_output.float(), dim=-1)

    def embed_pictures(self, paths: Sequence[Path]) -> Tensor:
        """Embed pictures in one forward pass, as `embed_texts`."""
        pictures = [open_picture(path) for path in paths]
        inputs = self.processor(images=pictures, return_tensors="pt").to(self.device)
        return normalize(self.model.get_image_features(**inputs).pooler_output.float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], batch_size: int) -> Tensor:
        """Embed any number of texts, [N, D], on the CPU, without a graph."""
        return _batched(texts, batch_size, self.embed_texts)

    @torch.no_grad()
    def pictures(self, paths: Sequence[Path], batch_size: int) -> Tensor:
        """Embed any number of pictures, as `texts`."""
        return _batched(paths, batch_size, self.embed_pictures)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def adapted(self, rank: int = 16, alpha: int = 32) -> ClipEncoder:
        """Add new adapters to the attention layers of both towers and freeze the rest.

        Raises:
            ImportError: peft is not installed.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError(_NEEDS_PEFT) from error
        # No dropout: the log-probabilities of a slate must be the same in every call.
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))
        return ClipEncoder(get_peft_model(self.model, config), self.tokenizer, self.processor)

    def save_adapters(self, folder: str | Path) -> None:
        """Write only the adapters, in the format that `data_mix.image_encoder.adapters` reads."""
        self.model.save_pretrained(str(folder))


def load_clip(path: str, adapters: str | None = None) -> ClipEncoder:
    """Load CLIP, frozen, with the adapters of a folder if one is given.

    Raises:
        FileNotFoundError: the path has no CLIP, or the folder no adapters.
        ImportError: adapters are given and peft is not installed.
    """
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    model = load_or_say(FIELD, path, CLIPModel.from_pretrained)
    if adapters is not None:
        model = _with_adapters(model, adapters)
    model.requires_grad_(False).eval().to(device_of_choice())
    tokenizer = load_or_say(FIELD, path, AutoTokenizer.from_pretrained)
    # This processor needs no torchvision; its output differs from the other's by rounding only.
    processor = load_or_say(FIELD, path, CLIPImageProcessorPil.from_pretrained)
    return ClipEncoder(model, tokenizer, processor)


def _with_adapters(model: nn.Module, folder: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ImportError(_NEEDS_PEFT) from error
    if not (Path(folder) / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"data_mix.image_encoder.adapters={folder}: no adapter_config.json there: give a "
            "folder that save_adapters wrote"
        )
    return PeftModel.from_pretrained(model, folder)


def _batched(
    values: Sequence[Value], size: int, embed: Callable[[Sequence[Value]], Tensor]
) -> Tensor:
    parts = [embed(values[start : start + size]) for start in range(0, len(values), size)]
    return torch.cat([part.cpu() for part in parts])
