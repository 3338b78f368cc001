"""A thinker smaller than the one that is trained, for tests of everything around it."""

from __future__ import annotations

from dataclasses import asdict

from omni_rl.config import TinyConfig

SMALL = TinyConfig(
    hidden=64, layers=2, intermediate=96, vision_hidden=32, audio_hidden=32, vocab_size=500
)
# The same as overrides of a command, and short completions.
SMALL_MODEL = (
    *(
        f"model.tiny.{name}={value}"
        for name, value in asdict(SMALL).items()
        if value != asdict(TinyConfig())[name]
    ),
    "model.max_completion=16",
)
