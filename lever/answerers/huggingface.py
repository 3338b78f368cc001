"""Answers from a Hugging Face image-text-to-text model, and the probability of given answers.

A score covers the tokens of the answer and no others.  The prompt's ids come from the processor,
pictures expanded to as many tokens as the model sees, and the answer's own ids are put behind them,
so where the answer stands is known by construction; every other label is `IGNORED`.  (Counting
tokens of the plain text instead would miss chat layout and picture tokens.)
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
    Qwen2_5_VLProcessor,
)
from transformers.processing_utils import ProcessorMixin

from core_rl.hf.generation import generation_mode, log_softmax_masked
from lever.answerers.templates import IMAGE, Show, Shown, Template, pictures_of
from lever.data.datasets import Prompted

log = logging.getLogger(__name__)

HF_VERSION = 1  # raise when what is answered changes
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"  # as its chat layout writes it
IGNORED = -100  # label of every token that is not of the answer

Inputs = dict[str, Any]


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is written; the defaults are those of the published evaluation.

    Attributes:
        max_new_tokens: longest answer.
        min_new_tokens: shortest.
        num_beams: of beam search; 1 is greedy.
        length_penalty: exponent of the length a beam's score is divided by.
    """

    max_new_tokens: int = 5
    min_new_tokens: int = 0
    num_beams: int = 3
    length_penalty: float = 0.0


class PicturesOnly(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its half for videos, which cannot be had without torchvision.

    Args:
        image_processor: as in the checkpoint.
        tokenizer: likewise.
        chat_template: likewise.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class HFAnswerer:
    """A vision-language model that answers in context.

    Args:
        model: an image-text-to-text model.
        processor: of the model.
        show: item id -> what the model is shown.
        template: how prompts are written.
        generation: how answers are written.
        batch_size: prompts a forward.
        data: name of the data set behind `show`, for the fingerprint.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        show: Show,
        template: Template,
        generation: GenerationSettings = GenerationSettings(),
        batch_size: int = 8,
        data: str = "",
    ) -> None:
        if template.messages([], Shown("", "")) is not None and not _has_chat(processor):
            raise ValueError(
                "answerer.template=chat: the checkpoint has no chat template; choose "
                "answerer.template=flamingo or idefics"
            )
        self.model: Any = model  # `generate` of a pretrained model is untyped
        self.processor = processor
        self.show = show
        self.template = template
        self.generation = generation
        self.batch_size = batch_size
        self._pad = _pad_id(processor.tokenizer)
        digest = hashlib.sha256(f"{data}|{weights_digest(model)}".encode()).hexdigest()
        self._fingerprint = f"hf-{HF_VERSION}-{model.config.model_type}-{digest[:16]}"

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def generate(self, prompts: Sequence[Prompted]) -> list[str]:
        said: list[str] = []
        for start in range(0, len(prompts), self.batch_size):
            inputs = self.prompt_inputs(prompts[start : start + self.batch_size], "left")
            with generation_mode(self.model):
                ids = self.model.generate(**inputs, generation_config=self._generation_config())
            new = ids[:, inputs["input_ids"].shape[1] :]
            said += self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [self.template.cut(text) for text in said]

    def answer_logprob(self, prompts: Sequence[Prompted], answers: Sequence[str]) -> list[float]:
        """Log-probability of each answer, mean a token, in nats.

        Raises:
            ValueError: an answer has no token.
        """
        assert len(prompts) == len(answers)
        scores: list[float] = []
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            inputs, labels_BT = self.scored_inputs(prompts[part], answers[part])
            scores += self._mean_logprob(inputs, labels_BT)
        return scores

    def prompt_inputs(self, prompts: Sequence[Prompted], padding_side: str) -> Inputs:
        """Turn prompts into a batch for the model, padded on the given side."""
        texts, pictures = [], []
        for prompt in prompts:
            shots, query = [self.show(shot) for shot in prompt.shots], self.show(prompt.query)
            messages = self.template.messages(shots, query)
            texts.append(
                self._plain(self.template.text(shots, query))
                if messages is None
                else self.processor.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
            pictures.append(pictures_of(shots, query))
        inputs = self.processor(
            text=texts,
            images=pictures if any(pictures) else None,
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
        )
        return {name: _to(value, self.model.device) for name, value in inputs.items()}

    def scored_inputs(
        self, prompts: Sequence[Prompted], answers: Sequence[str]
    ) -> tuple[Inputs, Tensor]:
        """Put each answer's ids behind its prompt's.

        Returns:
            The batch, padded on the right so that places count from the prompt's first token, and
            labels [B, T]: the answer's ids where they stand, `IGNORED` elsewhere.
        """
        inputs = self.prompt_inputs(prompts, "right")
        prompt_ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        assert mask[:, 0].all(), "the processor padded on the left although told otherwise"
        tails = [self._answer_ids(answer) for answer in answers]
        lengths = mask.sum(dim=1).tolist()
        total = max(length + len(tail) for length, tail in zip(lengths, tails, strict=True))
        # Whatever else has a value a token (kinds of tokens, say) is 0 on text.
        by_token = [
            name
            for name, value in inputs.items()
            if isinstance(value, Tensor) and value.shape == prompt_ids.shape
        ]
        longer = {name: _widen(inputs[name], total, 0) for name in by_token}
        ids_BT = _widen(prompt_ids.masked_fill(~mask, self._pad), total, self._pad)
        mask_BT = _widen(inputs["attention_mask"], total, 0)
        labels_BT = torch.full_like(ids_BT, IGNORED)
        for row, (length, tail) in enumerate(zip(lengths, tails, strict=True)):
            place = slice(length, length + len(tail))
            ids_BT[row, place] = labels_BT[row, place] = torch.tensor(tail, device=ids_BT.device)
            mask_BT[row, place] = 1
        return {**inputs, **longer, "input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT

    def _mean_logprob(self, inputs: Inputs, labels_BT: Tensor) -> list[float]:
        # The token at t is foretold at t - 1; the longest answer sets how many places are read.
        target_BT = labels_BT.roll(-1, dims=1)
        target_BT[:, -1] = IGNORED
        scored_BT = target_BT != IGNORED
        width = int(scored_BT.sum(dim=1).max())
        # Stable: the places of an answer stay in order, others fill up behind them.
        places_BA = scored_BT.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        with generation_mode(self.model), _head_at(self.model, places_BA):
            logits_BAK = self.model(**inputs, use_cache=False).logits
        logp_BAK = log_softmax_masked(logits_BAK, 1.0, None)
        kept_BA = scored_BT.gather(1, places_BA)
        chosen_BA = target_BT.gather(1, places_BA).masked_fill(~kept_BA, 0)
        logp_BA = logp_BAK.gather(-1, chosen_BA.unsqueeze(-1)).squeeze(-1)
        mean_B = logp_BA.masked_fill(~kept_BA, 0).sum(dim=1) / kept_BA.sum(dim=1)
        return [float(value) for value in mean_B]

    def _answer_ids(self, answer: str) -> list[int]:
        text = f"{self.template.answer_prefix}{answer}"
        ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(f"answer {answer!r}: expected at least one token to score")
        return list(ids)

    def _plain(self, text: str) -> str:
        if isinstance(self.processor, PicturesOnly):
            return text.replace(IMAGE, QWEN_PICTURE)
        return text.replace(IMAGE, getattr(self.processor, "image_token", IMAGE))

    def _generation_config(self) -> GenerationConfig:
        """The checkpoint's own ends and paddings, without its sampling."""
        config = copy.deepcopy(self.model.generation_config)
        assert config is not None
        config.update(
            **asdict(self.generation),
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
            repetition_penalty=None,
            pad_token_id=self._pad,
        )
        return config


def load_hf(
    path: str, dtype: str = "auto", pixels: tuple[int, int] | None = None, device: str = "cpu"
) -> tuple[PreTrainedModel, Any]:
    """Load model and processor from a local folder or a hub id; no code of theirs is run.

    Args:
        path: the folder or id.
        dtype: of the weights; `auto` as they were saved.
        pixels: least and most pixels of a picture, for processors that resize by area.
        device: to put the model on.

    Returns:
        The model, in eval mode, and its processor.
    """
    kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    cls = PicturesOnly if kind == "qwen2_5_vl" else AutoProcessor
    processor = cls.from_pretrained(path, trust_remote_code=False)
    # Two keys say that a processor resizes by area; others have sides, which stay as they are.
    resized = dict(getattr(processor.image_processor, "size", None) or {})
    if pixels is not None and {"shortest_edge", "longest_edge"} <= resized.keys():
        processor.image_processor.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, trust_remote_code=False
    )
    return model.to(device).eval(), processor


def weights_digest(model: nn.Module) -> str:
    """Digest every byte of the weights: about a second for a gigabyte, paid once a run."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype} ".encode())
        flat = weight.detach().contiguous().flatten().cpu()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _head_at(model: PreTrainedModel, places_BA: Tensor) -> Iterator[None]:
    """Feed the output head the given places of each row alone: no other logits are read."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)

    def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = args[0]
        index = places_BA.unsqueeze(-1).expand(-1, -1, hidden_BTD.shape[-1])
        return (hidden_BTD.gather(1, index.to(hidden_BTD.device)), *args[1:])

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def _widen(values_BT: Tensor, total: int, fill: int) -> Tensor:
    extra = values_BT.new_full((len(values_BT), total - values_BT.shape[1]), fill)
    return torch.cat([values_BT, extra], dim=1)


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _has_chat(processor: Any) -> bool:
    return bool(processor.chat_template or processor.tokenizer.chat_template)


def _pad_id(tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)
