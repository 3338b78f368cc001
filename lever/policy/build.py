"""Selectors by configuration: their features, their construction, their files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor

from core_rl.config import PathsConfig
from core_rl.files import write_json
from core_rl.fingerprint import fingerprint
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
from lever.model_config import FeatureConfig, FeatureKind, LeverModelConfig, SelectorKind
from lever.policy.earlier_selectors import Gpt2Selector, TwoTowerSelector
from lever.policy.live_features import LiveFeatures
from lever.policy.neighbours import NEIGHBOURS_VERSION, neighbour_rows
from lever.policy.selectors import MetricSelector, PointerSelector
from lever.policy.slate_policy import SlatePolicy

WEIGHTS, ABOUT = "policy.safetensors", "policy.json"


def build_features(data: LeverData, config: LeverModelConfig, paths: PathsConfig) -> Features:
    """Make what a selector sees of the items of a data set; what was learned is kept in the cache.

    Raises:
        FileNotFoundError: there is no CLIP at `features.path`.
        ValueError: an embedding is not finite, or fewer rows than principal components.
    """
    features, image, text = config.features, data.image_ND, data.text_ND
    encoding = data.encoding
    if features.kind is FeatureKind.clip:
        return _live_features(data, features)
    if features.kind is FeatureKind.mean:
        return mean_features(image, text, encoding)
    if features.kind is FeatureKind.pca:
        return pca_features(image, text, data.demos, features.dims, features.power, encoding)
    rows_ND = cached_rows(
        Path(paths.cache) / "lever" / "features",
        fingerprint(data.fingerprint, features, NEIGHBOURS_VERSION),
        lambda: neighbour_rows(
            image, text, [data.items[item].answer for item in data.demos], features
        ),
    )
    image_rows_ND, text_rows_ND = rows_ND.chunk(2, dim=-1)
    return side_by_side(image_rows_ND, text_rows_ND, encoding)


def build_policy(config: LeverModelConfig, features: Features) -> SlatePolicy:
    """Make an untrained selector; its random parts follow torch's seed.

    Raises:
        ValueError: `gpt2`, which has a code for each id, on features without a table of ids.
    """
    if config.kind is SelectorKind.metric:
        return MetricSelector(features, config.shots, config.scale)
    if config.kind is SelectorKind.pointer:
        return PointerSelector(
            features,
            config.shots,
            config.width,
            config.layers,
            config.cosine_temperature,
            config.update,
            config.diversity,
            config.stop,
        )
    if config.kind is SelectorKind.gpt2:
        if not isinstance(features, FeatureTable):
            raise ValueError(
                f"model.features.kind={config.features.kind.value}: expected another kind for "
                "model.kind=gpt2, or model=lever_pointer_lora"
            )
        return Gpt2Selector(features, config.shots, config.width, config.layers, config.heads)
    return TwoTowerSelector(features, config.shots, config.width, config.cosine_temperature)


def save_policy(
    policy: SlatePolicy, config: LeverModelConfig, folder: Path, metrics: dict[str, float]
) -> None:
    """Write weights and what they belong to; the features are made again from the data."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in _learned(policy).items()}
    save_file(weights, folder / WEIGHTS)
    write_json(folder / ABOUT, {"model": plain(config), "metrics": metrics})


def load_weights(policy: SlatePolicy, config: LeverModelConfig, folder: str | Path) -> SlatePolicy:
    """Fill a selector from a checkpoint folder.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of another selector, or of one with other settings.
    """
    folder = Path(folder)
    weights = load_file(_weights_file(folder))
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    made, wanted = about["model"], plain(config)
    # How it learned may differ; what it is may not.
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
        raise ValueError(
            f"checkpoint={folder}: its weights have other shapes ({_last_line(error)}): expected "
            "those of the same data_mix and model.features as now; name another checkpoint, or set "
            "them as it was trained"
        ) from error
    return policy


def weights_digest(folder: str | Path) -> str:
    """Name the weights of a checkpoint folder by what they are, wherever they lie.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    return hashlib.sha256(_weights_file(Path(folder)).read_bytes()).hexdigest()


def plain(config: LeverModelConfig) -> dict[str, Any]:
    """Spell a configuration with JSON's own types."""
    return cast("dict[str, Any]", json.loads(json.dumps(asdict(config), default=lambda e: e.value)))


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _weights_file(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint={folder}: no {WEIGHTS} in it; name a folder under checkpoints/, such as "
            "RUN/checkpoints/final"
        )
    return path


def _live_features(data: LeverData, config: FeatureConfig) -> Features:
    assert config.path is not None
    clip = load_clip(config.path).adapted(config.lora_rank, config.lora_alpha)
    return LiveFeatures(clip, data.items)


def _learned(policy: SlatePolicy) -> dict[str, Tensor]:
    """Weights without those of a frozen encoder, which has a checkpoint of its own."""
    return {
        name: value
        for name, value in policy.state_dict().items()
        if not name.startswith("features.") or "lora_" in name
    }
