"""The embedded mix and a small thinker over it, for tests and for the doctor's selftest."""

from __future__ import annotations

from omni_rl.config import MediaConfig, OmniDataConfig, OmniModelConfig, SourceConfig
from tests.omni_rl.sizes import SMALL

FAMILIES = {"social_iq": "social", "emer": "emotion", "video_r1": "general"}
RATIOS = {"social_iq": 0.5, "emer": 0.3, "video_r1": 0.2}


def small_data(size: int = 10) -> OmniDataConfig:
    """The shares of the embedded mix."""
    sources = {name: SourceConfig(family=family) for name, family in FAMILIES.items()}
    return OmniDataConfig(sources=sources, ratios=dict(RATIOS), size=size, general=["video_r1"])


def small_model(max_completion: int = 10) -> OmniModelConfig:
    """A thinker of fewer weights than the embedded one, fed with the same clips."""
    return OmniModelConfig(
        tiny=SMALL,
        media=MediaConfig(fps=8.0, max_frames=8, min_pixels=3136, max_pixels=3136),
        max_prompt=512,
        max_completion=max_completion,
    )
