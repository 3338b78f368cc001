"""Estimate the memory and disk that a run needs, by a sum that can be checked by hand.

    memory of a device = weights + gradients + optimiser + reference + cache + logits

with P parameters of which T train, b bytes each, over N devices:

    weights     P b                 and P b / N more under ZeRO 3: a part beside the whole
    gradients   T b                 divided by N under ZeRO 2 and 3
    optimiser   8 T, and 4 T more where weights are in half precision with fp32 masters (DeepSpeed);
                divided by N under any ZeRO stage, in the machine's memory with offload
    reference   P b where KL is weighed and there are no adapters, divided by N under ZeRO 3
    cache       2 * layers * key-value width * b * sequences * tokens of a sequence
    logits      6 * vocabulary * tokens that are scored at once (half precision, and fp32 for the
                softmax)

Activations come on top; with checkpointing they are small beside these, without they are not: the
sum is a lower bound and says so.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        parameters: P.
        layers: of the language model; 0 where nobody knows.
        kv_width: key-value heads times their width.
        vocabulary: of the output head.
    """

    parameters: int
    layers: int = 0
    kv_width: int = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class Plan:
    """What a run does with a model.

    Attributes:
        trainable: T; None = all.
        weight_bytes: b.
        masters: fp32 copies of half-precision weights in the optimiser.
        zero_stage: 0 without DeepSpeed.
        devices: N.
        offload: optimiser in the machine's memory.
        reference: a second copy of the weights.
        sequences: drawn side by side on a device.
        tokens: of a sequence, prompt and completion.
        scored: tokens whose logits stand at once.
    """

    trainable: int | None = None
    weight_bytes: int = 4
    masters: bool = False
    zero_stage: int = 0
    devices: int = 1
    offload: bool = False
    reference: bool = False
    sequences: int = 1
    tokens: int = 0
    scored: int = 0


def device_bytes(sizes: Sizes, plan: Plan) -> dict[str, float]:
    """Bytes on one device, by what they hold; see the head of this file."""
    total, trained = sizes.parameters, plan.trainable
    trained = total if trained is None else trained
    share = {stage: plan.devices if plan.zero_stage >= stage else 1 for stage in (1, 2, 3)}
    optimiser = (12 if plan.masters else 8) * trained / share[1]
    return {
        "weights": total * plan.weight_bytes * (1 + (plan.zero_stage == 3) / plan.devices),
        "gradients": trained * plan.weight_bytes / share[2],
        "optimiser": 0.0 if plan.offload else optimiser,
        "reference": total * plan.weight_bytes / share[3] if plan.reference else 0.0,
        "cache": 2.0
        * sizes.layers
        * sizes.kv_width
        * plan.weight_bytes
        * plan.sequences
        * plan.tokens,
        "logits": 6.0 * sizes.vocabulary * plan.scored,
    }


def host_bytes(sizes: Sizes, plan: Plan) -> float:
    """Bytes in the machine's memory for offloaded optimisers of all its devices."""
    trained = sizes.parameters if plan.trainable is None else plan.trainable
    return 12.0 * trained if plan.offload else 0.0


def checkpoint_bytes(sizes: Sizes, plan: Plan, kept: int) -> float:
    """Bytes on disk: kept policies, the best, the last, and one point to resume from."""
    trained = sizes.parameters if plan.trainable is None else plan.trainable
    policies = (kept + 2) * sizes.parameters * plan.weight_bytes
    resume = sizes.parameters * plan.weight_bytes + (12 if plan.masters else 8) * trained
    return float(policies + resume)


def sizes_of(path: str) -> Sizes | None:
    """Read a checkpoint's sizes: from its files, or from a hub id such as `Qwen2.5-Omni-7B`.

    Returns:
        None where neither tells.
    """
    folder = Path(path).expanduser()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        match = re.search(r"(\d+(?:\.\d+)?)[bB]\b", path.replace("_", "-"))
        return Sizes(int(float(match[1]) * 1e9)) if match else None
    parameters = sum(_elements(file) for file in files)
    config = folder / "config.json"
    if not config.is_file():
        return Sizes(parameters)
    text = text_config(json.loads(config.read_text(encoding="utf-8")))
    heads = int(text.get("num_attention_heads", 0))
    width = int(text.get("head_dim") or (text.get("hidden_size", 0) // max(heads, 1)))
    kv_heads = int(text.get("num_key_value_heads") or heads)
    return Sizes(
        parameters,
        int(text.get("num_hidden_layers", 0)),
        kv_heads * width,
        int(text.get("vocab_size", 0)),
    )


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Find the language model's part of a checkpoint's config.json."""
    for name in ("thinker_config", "text_config", "llm_config"):
        if isinstance(config.get(name), dict):
            return text_config(config[name])
    return config


def _elements(file: Path) -> int:
    """Count a safetensors file's elements from its header."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
