"""The interface of promptable segmenters, and adapters for models of the Hugging Face hub.

The interface is Sa2VA's `predict_forward(image, text)`.  The segmenter that ships with the project
is in `sa2va_rl.segmenters.vesselness`.  A Sa2VA checkpoint contains Python code that runs on
loading, so `load_sa2va` requires `trust_remote_code=True`; CLIPSeg and SAM 3 are part of
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
    """A segmenter's answer.

    `prediction` is its text.  `prediction_masks` holds one boolean array FHW for each `[SEG]` in
    the text (F frames, 1 for a picture).  `probability_maps`, if the model returns them, holds as
    many arrays FHW in [0, 1].
    """

    prediction: str
    prediction_masks: list[NDArray[np.bool_]]
    probability_maps: NotRequired[list[NDArray[np.floating]]]


class Segmenter(Protocol):
    """A model that segments what a text names; equal inputs give equal masks."""

    @property
    def fingerprint(self) -> str:
        """Digest of the model and of every setting that a mask depends on."""
        ...

    def predict_forward(self, image: Image.Image, text: str) -> Prediction: ...


def digest(*parts: object) -> str:
    """Hash settings, any values that JSON can hold, into 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def weights_name(name: str) -> str:
    """Name weights: a hub id by itself, a folder with a digest of its files."""
    return f"{name} {checkpoint_digest(name)}" if Path(name).is_dir() else name


def single_mask(answer: Prediction, height: int, width: int) -> NDArray[np.bool_]:
    """Unite the masks of an answer into one mask HW, empty without a `[SEG]`.

    Raises:
        ValueError: a mask differs in size from the picture.
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
    """A model of transformers that returns one map of logits for a picture and a text.

    Attributes:
        model: the model; it is switched to evaluation mode.
        reader: its processor or tokenizer.
        name: hub id or folder of the weights; the fingerprint contains a digest of the folder.
        threshold: probability above which a pixel belongs to the mask, in (0, 1).
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
        """Return a map of logits of any size; a text that is too long for the model is cut."""

    @torch.no_grad()
    def predict_forward(self, image: Image.Image, text: str) -> Prediction:
        """Resize the map to the picture's size and apply the threshold."""
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
    """CLIPSeg (Lueddecke and Ecker, 2022): a `CLIPSegForImageSegmentation` and its processor."""

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
    """Load CLIPSeg from the hub or a folder."""
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    model: torch.nn.Module = CLIPSegForImageSegmentation.from_pretrained(name)
    return CLIPSegSegmenter(
        model.to(device), CLIPSegProcessor.from_pretrained(name), name, threshold
    )


class Sam3Segmenter(MapSegmenter):
    """SAM 3 (Carion et al., 2025): a `Sam3Model` and a tokenizer; the mask is its semantic map.

    Pictures are resized here, because the model's own processor needs torchvision.
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
    """Load SAM 3 from the hub or a folder.

    Raises:
        ImportError: this release of transformers does not contain it.
    """
    from transformers import AutoTokenizer, Sam3Model

    model: torch.nn.Module = Sam3Model.from_pretrained(name)
    return Sam3Segmenter(model.to(device), AutoTokenizer.from_pretrained(name), name, threshold)


@dataclass(frozen=True)
class Sa2VASegmenter:
    """Sa2VA (Yuan et al., 2025), in both of its Hugging Face classes.

    The class on InternVL takes a tokenizer and requires `<image>` in the text.  The class on
    Qwen-VL takes a processor and inserts the picture itself.  Decoding is greedy, so masks can be
    stored.

    Attributes:
        model: has the `predict_forward` of the published code.
        name: hub id or folder of the weights; the fingerprint contains a digest of the folder.
        tokenizer: of the InternVL class; give this or `processor`.
        processor: of the Qwen class.
        threshold: probability above which a pixel belongs to the mask, for releases that return
            probability maps; None = the model's own mask, whose threshold is .5.
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
        """Segment what the text names; an answer without `[SEG]` has no masks."""
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
        name: hub id or folder, such as `ByteDance/Sa2VA-4B`.
        trust_remote_code: must be True, because the checkpoint's Python files are executed.
        device: of the model; the InternVL class works on CUDA only.
        threshold: see `Sa2VASegmenter`.

    Raises:
        ValueError: `trust_remote_code` is not True.
    """
    if trust_remote_code is not True:
        raise ValueError(
            f"{name} contains Python code that runs on loading; read it, then set "
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
