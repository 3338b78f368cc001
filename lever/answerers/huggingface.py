"""Answers from a Hugging Face image-text-to-text model, and the probability of given answers.

A score covers exactly the tokens of the answer.  The processor makes the prompt's ids, with
pictures expanded to their number of tokens, and the answer's ids are appended; all other labels are
`IGNORED`.  (Counting the tokens of the plain text would miss the chat layout and picture tokens.)
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BaseImageProcessor,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLProcessor,
)
from transformers.processing_utils import ProcessorMixin

from core_rl.hf.generation import generation_mode, log_softmax_masked
from core_rl.hf.loading import load_whole
from lever.answerers.templates import IMAGE, Prompts, Shown, pictures_of
from lever.data.datasets import Prompted

log = logging.getLogger(__name__)

HF_VERSION = 1  # raise when a change of this file changes an answer
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"  # a picture in its chat template
IGNORED = -100  # label of every token outside the answer
PUBLISHED = {"max_new_tokens": 5, "min_new_tokens": 0, "num_beams": 3, "length_penalty": 0.0}

Inputs = dict[str, Any]


class PicturesOnly(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without the part for videos, which needs torchvision."""

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class HFAnswerer:
    """A vision-language model that answers in context.

    Args:
        model: an image-text-to-text model.
        processor: of the model.
        prompts: about the items.
        generation: arguments of the model's `generate`; beam search with `num_beams` above 1.
        batch_size: prompts a forward pass.
        data: name of the data set, for the fingerprint.

    Raises:
        ValueError: a chat is asked for and the checkpoint has no chat template.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        prompts: Prompts,
        generation: Mapping[str, float] = PUBLISHED,
        batch_size: int = 8,
        data: str = "",
    ) -> None:
        template = prompts.template
        tokenizer = processor.tokenizer
        has_chat = bool(processor.chat_template or tokenizer.chat_template)
        if template.messages([], Shown("", "")) is not None and not has_chat:
            raise ValueError(
                "answerer.template=chat: the checkpoint has no chat template; choose "
                "answerer.template=flamingo or idefics"
            )
        self.model: Any = model  # `generate` of a pretrained model is untyped
        self.processor = processor
        self.prompts = prompts
        self.template = template
        self.generation = generation
        self.batch_size = batch_size
        pad = tokenizer.pad_token_id
        self._pad = int(tokenizer.eos_token_id if pad is None else pad)
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
        """Return the log-probability of each answer, in nats, averaged over its tokens.

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
        """Make a batch for the model from prompts, padded on the given side."""
        texts, pictures = [], []
        for prompt in prompts:
            shots, query = self.prompts.shown(prompt)
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
        return dict(inputs.to(self.model.device))

    def scored_inputs(
        self, prompts: Sequence[Prompted], answers: Sequence[str]
    ) -> tuple[Inputs, Tensor]:
        """Append each answer's ids to those of its prompt.

        Returns:
            The batch, padded on the right so that positions count from the prompt's first token,
            and labels [B, T]: the answer's ids at their positions, `IGNORED` elsewhere.
        """
        inputs = self.prompt_inputs(prompts, "right")
        prompt_ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        assert mask[:, 0].all(), "the processor padded on the left although told otherwise"
        tails = [self._answer_ids(answer) for answer in answers]
        lengths = mask.sum(dim=1).tolist()
        total = max(length + len(tail) for length, tail in zip(lengths, tails, strict=True))
        # Other inputs with a value for each token (token types, say) are 0 on text.
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
        # The token at t is predicted at t - 1.
        target_BT = labels_BT.roll(-1, dims=1)
        target_BT[:, -1] = IGNORED
        scored_BT = target_BT != IGNORED
        width = int(scored_BT.sum(dim=1).max())
        # A stable sort keeps the places of an answer in order; other places fill up the row.
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
        """Return the checkpoint's configuration (end and padding tokens) without its sampling."""
        config = copy.deepcopy(self.model.generation_config)
        assert config is not None
        config.update(
            **self.generation,
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
    """Load model and processor from a local folder or a hub id, without running code from it.

    Args:
        path: the folder or id.
        dtype: of the weights; `auto` = as saved.
        pixels: smallest and largest number of pixels, for processors that resize by area.
        device: of the model.

    Returns:
        The model, in evaluation mode, and its processor.
    """
    kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    cls = PicturesOnly if kind == "qwen2_5_vl" else AutoProcessor
    processor = cls.from_pretrained(path, trust_remote_code=False)
    # These two keys mark a processor that resizes by area; the sides of others are kept.
    resized = dict(getattr(processor.image_processor, "size", None) or {})
    if pixels is not None and {"shortest_edge", "longest_edge"} <= resized.keys():
        processor.image_processor.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    model = load_whole(
        AutoModelForImageTextToText, path, "answerer.model", dtype=dtype, trust_remote_code=False
    )
    return model.to(device).eval(), processor


def weights_digest(model: nn.Module) -> str:
    """Digest all bytes of the weights: about a second for a gigabyte, once a run."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(weight.shape)} {weight.dtype} ".encode())
        flat = weight.detach().contiguous().flatten().cpu()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _head_at(model: PreTrainedModel, places_BA: Tensor) -> Iterator[None]:
    """Apply the output head only at the given places of each row; no other logits are needed."""
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
