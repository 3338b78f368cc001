"""Promptable segmenters behind the call that Sa2VA made usual: `predict_forward(image, text)`.

`sa2va_rl.segmenters.vesselness` holds the one that ships with the project; here are the seam and
the adapters for models of the Hugging Face hub.  Sa2VA comes with Python code of its own that runs
on loading, so `load_sa2va` asks for an explicit `trust_remote_code=True`; CLIPSeg is part of
transformers.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core_rl.fingerprint import checkpoint_digest

IMAGE_TOKEN = "<image>"


class Prediction(TypedDict):
    """What a segmenter answers.

    `prediction` is its text.  `prediction_masks` holds one boolean array FHW for each `[SEG]` in
    that text (F frames, 1 for a picture), none when it wrote none.  `probability_maps`, where the
    model gives them, are as many arrays FHW in [0, 1].
    """

    prediction: str
    prediction_masks: list[NDArray[np.bool_]]
    probability_maps: NotRequired[list[NDArray[np.floating]]]


class Segmenter(Protocol):
    """A model that segments what a text names; the same input always gives the same mask."""

    @property
    def fingerprint(self) -> str:
        """Name of this model and its settings: masks of two fingerprints may differ."""
        ...

    def predict_forward(self, image: Image.Image, text: str) -> Prediction: ...


def digest(*parts: object) -> str:
    """Hash settings (whatever JSON can hold) into 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def weights_name(name: str) -> str:
    """Name weights so that a folder trained on in place is another one; a hub id is itself."""
    return f"{name} {checkpoint_digest(name)}" if Path(name).is_dir() else name


def single_mask(answer: Prediction, height: int, width: int) -> NDArray[np.bool_]:
    """Join the masks of an answer into one HW; without a `[SEG]` it is empty.

    Raises:
        ValueError: a mask has another size than the picture.
    """
    mask_HW = np.zeros((height, width), dtype=bool)
    for mask_FHW in answer["prediction_masks"]:
        if mask_FHW.shape[-2:] != (height, width):
            raise ValueError(
                f"the segmenter's mask is {mask_FHW.shape[-1]} x {mask_FHW.shape[-2]} pixels, the "
                f"picture {width} x {height}: give the segmenter the picture at its full size"
            )
        mask_HW |= mask_FHW.reshape(-1, height, width)[0].astype(bool)
    return mask_HW


@dataclass(frozen=True)
class MapSegmenter(ABC):
    """A model of transformers that gives one map of logits for a picture and a text.

    Attributes:
        model: put into evaluation mode.
        reader: its processor or tokenizer.
        name: of the weights: a hub id, or a folder, whose files the fingerprint knows.
        threshold: probability above which a pixel is in the mask, in (0, 1).
    """

    kind: ClassVar[str]

    model: Any
    reader: Any
    name: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold!r}: expected a number between 0 and 1")
        self.model.eval()

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.kind, weights_name(self.name), self.threshold)

    @abstractmethod
    def logits(self, image: Image.Image, text: str) -> Tensor:
        """Map of what the text names, of any size; text beyond the model's longest is cut."""

    @torch.no_grad()
    def predict_forward(self, image: Image.Image, text: str) -> Prediction:
        """Bring the map to the picture's size and cut it off."""
        logits = self.logits(image.convert("RGB"), text)
        full_11HW = torch.nn.functional.interpolate(
            logits.reshape(1, 1, *logits.shape[-2:]).float(),
            (image.height, image.width),
            mode="bilinear",
            align_corners=False,
        )
        map_HW = full_11HW.sigmoid()[0, 0].cpu().numpy()
        return Prediction(
            prediction="[SEG]",
            prediction_masks=[(map_HW > self.threshold)[None]],
            probability_maps=[map_HW[None]],
        )


class CLIPSegSegmenter(MapSegmenter):
    """CLIPSeg (Lueddecke and Ecker, 2022): a `CLIPSegForImageSegmentation`, its processor."""

    kind = "clipseg"

    def logits(self, image: Image.Image, text: str) -> Tensor:
        inputs = self.reader(
            text=[text], images=[image], return_tensors="pt", padding=True, truncation=True
        )
        found: Tensor = self.model(**inputs.to(self.model.device)).logits
        return found


def load_clipseg(
    name: str = "CIDAS/clipseg-rd64-refined", threshold: float = 0.5, device: str = "cpu"
) -> CLIPSegSegmenter:
    """Load CLIPSeg from the hub or a folder; it needs no code but that of transformers."""
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    model: torch.nn.Module = CLIPSegForImageSegmentation.from_pretrained(name)
    return CLIPSegSegmenter(
        model.to(device), CLIPSegProcessor.from_pretrained(name), name, threshold
    )


class Sam3Segmenter(MapSegmenter):
    """SAM 3 (Carion et al., 2025) by its map of all that a text names: a `Sam3Model`, a tokenizer.

    Pictures are brought to the model's size here: its own processor needs torchvision.
    """

    kind = "sam3"

    def logits(self, image: Image.Image, text: str) -> Tensor:
        config, device = self.model.config, self.model.device
        small = image.resize((config.image_size,) * 2, Image.Resampling.BILINEAR)
        pixels_HWC = torch.from_numpy(np.array(small)).to(device, self.model.dtype)
        words = self.reader(
            text,
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
        )
        found: Tensor = self.model(
            pixel_values=(pixels_HWC.permute(2, 0, 1)[None] / 127.5 - 1),
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
        ).semantic_seg
        return found


def load_sam3(
    name: str = "facebook/sam3", threshold: float = 0.5, device: str = "cpu"
) -> Sam3Segmenter:
    """Load SAM 3 from the hub or a folder; it needs no code but that of transformers.

    Raises:
        ImportError: a release of transformers without it.
    """
    from transformers import AutoTokenizer, Sam3Model

    model: torch.nn.Module = Sam3Model.from_pretrained(name)
    return Sam3Segmenter(model.to(device), AutoTokenizer.from_pretrained(name), name, threshold)


@dataclass(frozen=True)
class Sa2VASegmenter:
    """Sa2VA (Yuan et al., 2025), in both of its Hugging Face classes.

    The class on InternVL reads a tokenizer and demands `<image>` in the text; the class on Qwen-VL
    reads a processor and places the picture itself.  Decoding is greedy, so masks may be stored.

    Attributes:
        model: with the `predict_forward` of the published code.
        name: of the weights: a hub id, or a folder, whose files the fingerprint knows.
        tokenizer: of the InternVL class; give this or `processor`.
        processor: of the Qwen class.
        threshold: above which a pixel is in the mask, for releases that return probability maps;
            None = the mask the model made, which is at .5.
    """

    model: Any
    name: str
    tokenizer: Any = None
    processor: Any = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.tokenizer is None) == (self.processor is None):
            raise ValueError(
                "Sa2VASegmenter: expected a tokenizer (InternVL class) or a processor (Qwen class)"
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold!r}: expected null or between 0 and 1")

    @cached_property
    def fingerprint(self) -> str:
        return digest("sa2va", weights_name(self.name), self.threshold)

    @torch.no_grad()
    def predict_forward(self, image: Image.Image, text: str) -> Prediction:
        """Segment what the text names; an answer without `[SEG]` has no mask."""
        plain = text.replace(IMAGE_TOKEN, "").strip()
        answer = self.model.predict_forward(
            image=image.convert("RGB"),
            text=plain if self.processor is not None else f"{IMAGE_TOKEN}{plain}",
            tokenizer=self.tokenizer,
            processor=self.processor,
        )
        maps = [_array(values, np.float32) for values in answer.get("probability_maps") or ()]
        masks = [_array(values, np.bool_) for values in answer["prediction_masks"]]
        if self.threshold is not None:
            if masks and not maps:
                raise ValueError(
                    f"threshold={self.threshold}: {self.name} returns hard masks, whose threshold "
                    "is fixed at .5; set it to null"
                )
            masks = [map_FHW > self.threshold for map_FHW in maps]
        found = Prediction(prediction=str(answer["prediction"]), prediction_masks=masks)
        if maps:
            found["probability_maps"] = maps
        return found


def _array(values: Any, kind: type) -> NDArray[Any]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values).astype(kind)


def load_sa2va(
    name: str, trust_remote_code: bool, device: str = "cuda", threshold: float | None = None
) -> Sa2VASegmenter:
    """Load Sa2VA from the hub or a folder, with its own code.

    Args:
        name: such as `ByteDance/Sa2VA-4B`.
        trust_remote_code: must be True: the checkpoint's Python files are executed.
        device: the InternVL class moves its inputs to CUDA by itself and has no other way.
        threshold: as of `Sa2VASegmenter`.

    Raises:
        ValueError: `trust_remote_code` is not True.
    """
    if trust_remote_code is not True:
        raise ValueError(
            f"{name} runs Python code of its own on loading; read it, then set "
            "trust_remote_code=true"
        )
    from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

    kinds: Sequence[str] = AutoConfig.from_pretrained(name, trust_remote_code=True).architectures
    model = AutoModel.from_pretrained(name, dtype="auto", trust_remote_code=True)
    model = model.eval().to(device)
    if "Qwen" in str(kinds):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
        return Sa2VASegmenter(model, name, processor=processor, threshold=threshold)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True, use_fast=False)
    return Sa2VASegmenter(model, name, tokenizer=tokenizer, threshold=threshold)
