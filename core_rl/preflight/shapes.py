"""Sizes of a model, without its weights.

They come from a checkpoint's own files, from a small table of published models, or from the
settings of a model that is built here.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

# Names of tensors beside the language model that a training run loads, and those it does not.
_TOWERS = re.compile(r"visual|vision|audio_tower|image|mm_projector|multi_modal_projector")
_NOT_LOADED = re.compile(r"^(talker|token2wav)\.")


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model; 0 where nobody knows.

    Attributes:
        language: parameters of the language model, embeddings and head included.
        towers: parameters of media towers.
        layers: of the language model.
        hidden: width of its hidden states.
        intermediate: width of its feed-forward part.
        heads: of its attention.
        kv_heads: heads of keys and values.
        head_width: numbers a head.
        vocabulary: of its output head.
    """

    language: int
    towers: int = 0
    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_width: int = 0
    vocabulary: int = 0

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.language + self.towers

    @property
    def query_width(self) -> int:
        """Numbers a token in the queries of a layer."""
        return self.heads * self.head_width

    @property
    def kv_width(self) -> int:
        """Numbers a token in the keys of a layer; as many in its values."""
        return self.kv_heads * self.head_width

    def adapters(self, rank: int, modules: list[str]) -> int:
        """Parameters of low-rank adapters on some projections of every layer."""
        hidden, wide = self.hidden, self.intermediate
        ends = {
            "q_proj": hidden + self.query_width,
            "k_proj": hidden + self.kv_width,
            "v_proj": hidden + self.kv_width,
            "o_proj": self.query_width + hidden,
            "gate_proj": hidden + wide,
            "up_proj": hidden + wide,
            "down_proj": wide + hidden,
        }
        return rank * self.layers * sum(ends.get(name, 2 * hidden) for name in modules)


def decoder(config: Mapping[str, Any], towers: int = 0) -> Shapes:
    """Sizes of a decoder as Llama and Qwen build it: gated feed-forward, grouped queries.

    Args:
        config: the language model's part of a config.json.
        towers: parameters of media towers.
    """
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, wide = int(config["num_attention_heads"]), int(config["intermediate_size"])
    kv_heads, vocabulary = (
        int(config.get("num_key_value_heads") or heads),
        int(config["vocab_size"]),
    )
    width = int(config.get("head_dim") or hidden // heads)
    biases = (heads + 2 * kv_heads) * width  # Qwen2's; too few to matter where there are none
    attention = hidden * (2 * heads + 2 * kv_heads) * width + biases
    layer = attention + 3 * hidden * wide + 2 * hidden
    tables = (1 if config.get("tie_word_embeddings") else 2) * vocabulary * hidden
    return Shapes(
        language=layers * layer + hidden + tables,
        towers=towers,
        layers=layers,
        hidden=hidden,
        intermediate=wide,
        heads=heads,
        kv_heads=kv_heads,
        head_width=width,
        vocabulary=vocabulary,
    )


def _qwen2(*sizes: int, towers: int) -> Shapes:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    more = ("num_key_value_heads", "vocab_size")
    return decoder(dict(zip((*names, *more), sizes, strict=True)), towers)


# Published shapes of hub ids; the towers' parameters as transformers' classes have them.
PUBLISHED = {
    "Qwen/Qwen2.5-Omni-3B": _qwen2(2048, 11008, 36, 16, 2, 151936, towers=1_306_360_832),
    "Qwen/Qwen2.5-Omni-7B": _qwen2(3584, 18944, 28, 28, 4, 152064, towers=1_316_197_376),
}
PUBLISHED["PhilipC/HumanOmniV2"] = PUBLISHED["Qwen/Qwen2.5-Omni-7B"]


def shapes_of(model: Mapping[str, Any]) -> Shapes | None:
    """Find the sizes of the model that a configuration names.

    Args:
        model: the group `model`, plain values.

    Returns:
        None where neither files, the table nor the settings tell.
    """
    if model.get("path"):
        return _of_path(str(model["path"]))
    tiny = model.get("tiny")
    if not isinstance(tiny, Mapping):
        return None
    names = {
        "hidden_size": "hidden",
        "intermediate_size": "intermediate",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "num_key_value_heads": "kv_heads",
        "vocab_size": "vocab_size",
    }
    return decoder({name: tiny[ours] for name, ours in names.items()})


def _of_path(path: str) -> Shapes | None:
    folder = Path(path).expanduser()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        if path in PUBLISHED:
            return PUBLISHED[path]
        billions = re.search(r"(\d+(?:\.\d+)?)[bB]\b", path.replace("_", "-"))
        return Shapes(int(float(billions[1]) * 1e9)) if billions else None
    sizes = {name: size for file in files for name, size in _elements(file).items()}
    loaded = {name: size for name, size in sizes.items() if not _NOT_LOADED.match(name)}
    towers = sum(size for name, size in loaded.items() if _TOWERS.search(name))
    language = sum(loaded.values()) - towers
    config = folder / "config.json"
    if not config.is_file():
        return Shapes(language, towers)
    try:
        found = decoder(text_config(json.loads(config.read_text(encoding="utf-8-sig"))), towers)
    except (KeyError, TypeError, ValueError):  # another kind of model
        return Shapes(language, towers)
    return Shapes(**{**vars(found), "language": language})


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Find the language model's part of a checkpoint's config.json."""
    for name in ("thinker_config", "text_config", "llm_config"):
        if isinstance(config.get(name), dict):
            return text_config(config[name])
    return config


def _elements(file: Path) -> dict[str, int]:
    """Count the elements of each tensor in a safetensors file from its header."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {name: prod(one["shape"]) for name, one in header.items() if name != "__metadata__"}
