"""The doctor for any causal language model of Hugging Face, as a command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from core_rl.config import DoctorConfig, HardwareConfig, OnFailure
from core_rl.doctor.findings import UnhealthyError, failed
from core_rl.doctor.hf.checks import Score, Trainer, diagnose
from core_rl.doctor.known_warnings import recorded_warnings
from core_rl.doctor.report import write_findings
from core_rl.doctor.weights import weight_findings
from core_rl.hf.encoded_prompt import Inputs, followed_by
from core_rl.hf.loading import load_whole, switch_dropout_off
from core_rl.hf.recompute import checkpoint_activations

log = logging.getLogger(__name__)

STATES = ("eval", "train", "train_checkpointing", "train_checkpointing_reentrant")


def doctor(
    folder: Path,
    seed: int,
    path: str,
    dtype: str,
    attention: str,
    prompts: Sequence[str],
    state: str,
    temperature: float,
    doctor: DoctorConfig,
    hardware: HardwareConfig,
) -> dict[str, float]:
    """Draw by `generate` in a given state, and hold that against one plain forward.

    Args:
        folder: of the run; the table goes there.
        seed: of the draws.
        path: folder or hub id of a causal language model.
        dtype: of its weights.
        attention: implementation to load it with.
        prompts: what to ask; rendered by the chat template where there is one.
        state: among `STATES`: what the trainer leaves the model in when it draws.
        temperature: of the draws.
        doctor: how much to draw and what a failure does.
        hardware: the machine.

    Returns:
        `health/<check>` and the number of checks that failed.

    Raises:
        UnhealthyError: a check failed, unless `doctor.on_failure=warn`.
        ValueError: an unknown state.
    """
    if state not in STATES:
        raise ValueError(f"state={state!r}: expected one of {', '.join(STATES)}")
    model, tokenizer = loaded(path, dtype, attention)
    if hardware.accelerator != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    put_into(model, state)
    batch = tokenizer(rendered(tokenizer, prompts), padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    with recorded_warnings() as warned:
        found = weight_findings(model)
        found += diagnose(
            model,
            tokenizer,
            {name: value.to(model.device) for name, value in batch.items()},
            Trainer(temperature, max_new=doctor.max_new, score=scorer(temperature)),
        )
    found += warned.findings()
    metrics = write_findings(folder, found, f"doctor: {path}, {state}")
    if failed(found) and doctor.on_failure is not OnFailure.warn:
        raise UnhealthyError(found)
    return metrics


def loaded(path: str, dtype: str, attention: str) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer, which pads on the left."""
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = load_whole(
        AutoModelForCausalLM,
        path,
        "model.path",
        dtype=getattr(torch, dtype),
        attn_implementation=attention,
    )
    return model, tokenizer


def put_into(model: PreTrainedModel, state: str) -> None:
    """Leave a model as a trainer would when it draws; dropout is off in any case."""
    switch_dropout_off(model)
    model.train(state != "eval")
    if state.startswith("train_checkpointing"):
        checkpoint_activations(model, reentrant=state.endswith("reentrant"))


def rendered(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """Render prompts as user turns where the tokenizer has a chat template."""
    if not tokenizer.chat_template:
        return list(prompts)
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    return [str(text) for text in texts]


def scorer(temperature: float) -> Score:
    """Score as trainers do: one forward over the padded batch, logits / temperature."""
    return partial(_score, temperature=temperature)


def _score(
    model: nn.Module, inputs: Inputs, ids_NT: Tensor, mask_NT: Tensor, temperature: float
) -> Tensor:
    whole = followed_by(inputs, ids_NT, mask_NT)
    places = (whole["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    out = model(**whole, position_ids=places, use_cache=False)
    logits_NTK = out.logits[:, -ids_NT.shape[1] - 1 : -1].float()
    logp_NTK = (logits_NTK / temperature).log_softmax(-1)
    return logp_NTK.gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1)
