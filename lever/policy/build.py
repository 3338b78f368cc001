"""Build a selector and its features from a configuration; save and load its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor

from core_rl.config import PathsConfig
from core_rl.files import write_json
from core_rl.fingerprint import fingerprint
from core_rl.sealed import check_whole
from lever.data.datasets import LeverData
from lever.features.clip import load_clip
from lever.features.embeddings import cached_rows
from lever.features.slate_features import (
    Features,
    FeatureTable,
    mean_features,
    pca_features,
    side_by_side,
)
from lever.model_config import FeatureKind, LeverModelConfig, SelectorKind
from lever.policy.earlier_selectors import Gpt2Selector, TwoTowerSelector
from lever.policy.live_features import LiveFeatures
from lever.policy.neighbours import NEIGHBOURS_VERSION, neighbour_rows
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.policy.slate_policy import SlatePolicy

WEIGHTS, ABOUT = "policy.safetensors", "policy.json"
SELECTORS: Mapping[SelectorKind, Callable[[Features, LeverModelConfig], SlatePolicy]] = {
    SelectorKind.metric: MetricSelector,
    SelectorKind.pointer: PointerSelector,
    SelectorKind.mlp: TwoTowerSelector,
}


def build_features(data: LeverData, config: LeverModelConfig, paths: PathsConfig) -> Features:
    """Make the features of the items of a data set; learned ones are cached."""
    features, image, text = config.features, data.image_ND, data.text_ND
    encoding = data.encoding
    if features.kind is FeatureKind.clip:
        assert features.path is not None
        clip = load_clip(features.path).adapted(features.lora_rank, features.lora_alpha)
        return LiveFeatures(clip, data.items)
    if features.kind is FeatureKind.mean:
        return mean_features(image, text, encoding)
    if features.kind is FeatureKind.pca:
        return pca_features(image, text, data.demos, features.dims, features.power, encoding)
    rows_ND = cached_rows(
        Path(paths.cache) / "lever" / "features",
        fingerprint(data.fingerprint, features, NEIGHBOURS_VERSION),
        lambda: neighbour_rows(
            (image, text),
            [data.items[item].answer for item in data.demos],
            features,
            held_out={one.query for one in data.train},
        ),
    )
    image_rows_ND, text_rows_ND = rows_ND.chunk(2, dim=-1)
    return side_by_side(image_rows_ND, text_rows_ND, encoding)


def build_policy(config: LeverModelConfig, features: Features) -> SlatePolicy:
    """Make an untrained selector; its random parts depend on torch's seed.

    Raises:
        ValueError: `gpt2`, which needs a table of ids, with features of another kind.
    """
    if config.kind is SelectorKind.gpt2:
        if not isinstance(features, FeatureTable):
            raise ValueError(
                f"model.features.kind={config.features.kind.value}: expected another kind for "
                "model.kind=gpt2, or model=lever_pointer_lora"
            )
        return Gpt2Selector(features, config)
    return SELECTORS[config.kind](features, config)


def save_policy(
    policy: SlatePolicy, config: LeverModelConfig, folder: Path, metrics: dict[str, float]
) -> None:
    """Write the weights, with model settings and metrics; features are not saved."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in _learned(policy).items()}
    save_file(weights, folder / WEIGHTS)
    write_json(folder / ABOUT, {"model": plain(config), "metrics": metrics})


def load_weights(policy: SlatePolicy, config: LeverModelConfig, folder: str | Path) -> SlatePolicy:
    """Load the weights of a checkpoint folder into a selector.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it belongs to another selector, or to one with other settings.
    """
    folder = Path(folder)
    file = _weights_file(folder)
    check_whole(folder, "checkpoint")
    weights = load_file(file)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8-sig"))
    made, wanted = about["model"], plain(config)
    # Settings of the training may differ.
    names = [name for name in wanted if name not in ("name", "lr", "batch_size")]
    other = [name for name in names if made.get(name) != wanted[name]]
    if other:
        raise ValueError(
            f"checkpoint={folder}: its model.{other[0]} is {made.get(other[0])!r}, not "
            f"{wanted[other[0]]!r}: choose the model it was trained as"
        )
    missing = sorted(_learned(policy).keys() - weights.keys())
    if missing:
        raise ValueError(f"checkpoint={folder}: {WEIGHTS} lacks {missing[:3]}: it is not whole")
    try:
        policy.load_state_dict({**policy.state_dict(), **weights})
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"checkpoint={folder}: its weights have other shapes ({said}): expected "
            "those of the same data_mix and model.features as now; name another checkpoint, or set "
            "them as it was trained"
        ) from error
    return policy


def weights_digest(folder: str | Path) -> str:
    """Digest the weights of a checkpoint folder; the digest does not depend on its path."""
    return hashlib.sha256(_weights_file(Path(folder)).read_bytes()).hexdigest()


def plain(config: LeverModelConfig) -> dict[str, Any]:
    """Convert a configuration to JSON types."""
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config), default=lambda e: e.value)))


def _weights_file(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint={folder}: no {WEIGHTS} in it; name a folder under checkpoints/, such as "
            "RUN/checkpoints/final"
        )
    return path


def _learned(policy: SlatePolicy) -> dict[str, Tensor]:
    """Return the weights without those of a frozen encoder, which has its own checkpoint."""
    return {
        name: value
        for name, value in policy.state_dict().items()
        if not name.startswith("features.") or "lora_" in name
    }
