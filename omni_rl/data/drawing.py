"""Pictures and voices of the generated clips, which stand in for real video.

A figure is a few flat shapes and a voice is one modulated tone, so that a thinker of about a
million parameters can learn to perceive them on a CPU.  All randomness comes from the generator
passed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 112  # pixels, square
FPS = 8.0
NUM_FRAMES = 8
SAMPLE_RATE = 16_000

COLOURS = {
    "red": (214, 48, 42),
    "green": (44, 160, 60),
    "blue": (48, 84, 206),
    "yellow": (232, 200, 40),
}
SKIN = (224, 176, 140)
DARK = (40, 36, 40)
GREY = (120, 120, 126)
BALL = (150, 60, 170)


@dataclass(frozen=True)
class Settings:
    """Ranges that the generator draws from.

    Attributes:
        wall: brightness of the background, 0 to 255.
        noise: standard deviation of pixel noise, in grey levels.
        scale: size of figures, relative.
        shift: largest displacement of a figure, in pixels.
        pitch: relative change of the voice's pitch.
        hiss: standard deviation of noise on the waveform, full scale 1.
    """

    wall: tuple[float, float] = (150.0, 215.0)
    noise: tuple[float, float] = (2.0, 8.0)
    scale: tuple[float, float] = (0.92, 1.08)
    shift: float = 5.0
    pitch: tuple[float, float] = (0.92, 1.08)
    hiss: tuple[float, float] = (0.002, 0.02)


# Fixed before the first policy was trained; SHIFTED is for `data_mix.shifted` only.
DEFAULT = Settings()
SHIFTED = Settings(
    wall=(95.0, 150.0),
    noise=(8.0, 14.0),
    scale=(0.84, 0.92),
    shift=8.0,
    pitch=(0.85, 0.92),
    hiss=(0.02, 0.04),
)


@dataclass(frozen=True)
class Look:
    """What varies between clips without changing their facts."""

    wall: float
    noise: float
    scale: float
    offset: tuple[float, float]
    phase: float


def draw_look(rng: np.random.Generator, settings: Settings) -> Look:
    """Draw the look of one clip."""
    dx, dy = rng.uniform(-settings.shift, settings.shift, size=2)
    return Look(
        wall=rng.uniform(*settings.wall),
        noise=rng.uniform(*settings.noise),
        scale=rng.uniform(*settings.scale),
        offset=(float(dx), float(dy) * 0.5),
        phase=rng.uniform(0, 2 * math.pi),
    )


def _limb(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: tuple[int, int, int],
    width: float,
) -> None:
    pen.line([start, end], fill=colour, width=max(2, round(width)))


def _dot(
    pen: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    x, y = centre
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _figure(
    pen: ImageDraw.ImageDraw,
    foot: tuple[float, float],
    scale: float,
    clothes: tuple[int, int, int],
    gesture: str,
    swing: float,
) -> None:
    """Draw a standing person at `foot`; `swing` in [-1, 1] moves the arm."""
    x, y = foot
    bow = gesture == "bows"
    hip = (x, y - 26 * scale)
    shoulder = (x + 20 * scale, y - 40 * scale) if bow else (x, y - 58 * scale)
    head = (x + 32 * scale, y - 38 * scale) if bow else (x, y - 70 * scale)
    for leg in (-6, 6):
        _limb(pen, hip, (x + leg * scale, y), DARK, 7 * scale)
    _limb(pen, hip, shoulder, clothes, 22 * scale)
    _dot(pen, head, 10 * scale, SKIN)
    hands = {
        "waves": (x + (16 + 5 * swing) * scale, y - 90 * scale),
        "points": (x + 36 * scale, y - (54 + 2 * swing) * scale),
    }
    hand = hands.get(gesture, (shoulder[0] + 9 * scale, shoulder[1] + 26 * scale))
    _limb(pen, (shoulder[0] + 4 * scale, shoulder[1]), hand, clothes, 9 * scale)
    _dot(pen, hand, 5.5 * scale, SKIN)


def _face(
    pen: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    scale: float,
    clothes: tuple[int, int, int],
    expression: str,
    strength: float,
) -> None:
    """Draw a close-up of a face; `strength` in [0, 1] is that of the expression."""
    x, y = centre
    radius = 36 * scale
    pen.rectangle([x - 50 * scale, y + 30 * scale, x + 50 * scale, SIZE], fill=clothes)
    _dot(pen, centre, radius, SKIN)
    for side in (-1, 1):
        eye = (x + side * 14 * scale, y - 10 * scale)
        size = 4 * scale * (1 + 0.6 * strength * (expression == "gasps"))
        _dot(pen, eye, size, DARK)
    width, mouth = 18 * scale, y + 14 * scale
    if strength < 0.3:
        _limb(pen, (x - width, mouth), (x + width, mouth), DARK, 5 * scale)
    elif expression == "gasps":
        pen.ellipse([x - 11 * scale, mouth - 9, x + 11 * scale, mouth + 12], fill=DARK)
    else:
        rise = 12 * scale * strength
        top = mouth - rise if expression == "smiles" else mouth - rise / 3
        start, end = (10, 170) if expression == "smiles" else (190, 350)
        box = [x - width, top - rise, x + width, top + 1.5 * rise]
        pen.arc(box, start, end, fill=DARK, width=max(3, round(6 * scale)))


def _balls(pen: ImageDraw.ImageDraw, count: int, look: Look, rng: np.random.Generator) -> None:
    cells = rng.permutation(4)[:count]
    for cell in cells:
        x = 66 + 30 * (cell % 2) + rng.uniform(-3, 3)
        y = 40 + 42 * (cell // 2) + rng.uniform(-4, 4)
        _dot(pen, (x, y), 13 * look.scale, BALL)


def draw_frames(
    family: str, facts: Mapping[str, str], look: Look, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw the frames of one clip.

    Args:
        family: social (two figures), emotion (a face) or general (balls beside a person).
        facts: what the clip shows; see `omni_rl.data.scenes`.

    Returns:
        Array [NUM_FRAMES, SIZE, SIZE, 3], RGB.
    """
    clothes = COLOURS[facts["colour"]]
    dx, dy = look.offset
    ball_seed = int(rng.integers(2**31))
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    for index in range(NUM_FRAMES):
        image = Image.new("RGB", (SIZE, SIZE), (round(look.wall),) * 3)
        pen = ImageDraw.Draw(image)
        pen.rectangle([0, 100, SIZE, SIZE], fill=(round(look.wall * 0.7),) * 3)
        swing = math.sin(look.phase + 2 * math.pi * index / 4)
        if family == "emotion":
            strength = min(1.0, max(0.0, (index - 1) / 3))
            _face(pen, (56 + dx, 50 + dy), look.scale, clothes, facts["expression"], strength)
        elif family == "social":
            _figure(pen, (32 + dx, 104 + dy), look.scale, clothes, facts["gesture"], swing)
            _figure(pen, (90 - dx / 2, 104 + dy), look.scale * 0.95, GREY, "", 0.0)
        else:
            _figure(pen, (26 + dx, 104 + dy), look.scale, clothes, "", 0.0)
            _balls(pen, int(facts["count"]), look, np.random.default_rng(ball_seed))
        drawn = np.asarray(image, dtype=np.float32)
        grain = rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
        pixels = drawn + look.noise * grain
        frames[index] = np.clip(pixels, 0, 255).astype(np.uint8)
    return frames


def draw_voice(
    voice: str, rng: np.random.Generator, settings: Settings = DEFAULT
) -> NDArray[np.float32]:
    """Draw one second of a voice-like tone, mono, SAMPLE_RATE samples in [-1, 1].

    calm is low and steady, cheerful is higher and swings in pitch, angry is shrill and trembles.
    """
    seconds = np.arange(round(SAMPLE_RATE * NUM_FRAMES / FPS)) / SAMPLE_RATE
    pitch = rng.uniform(*settings.pitch)
    if voice == "calm":
        phase = 2 * np.pi * 240 * pitch * seconds
        wave = np.sin(phase) + 0.3 * np.sin(2 * phase)
    elif voice == "cheerful":
        swing = 0.12 * np.sin(2 * np.pi * 5 * seconds) / (2 * np.pi * 5)
        phase = 2 * np.pi * 640 * pitch * (seconds + swing)
        wave = np.sin(phase) + 0.3 * np.sin(2 * phase)
    else:
        phase = 2 * np.pi * 1500 * pitch * seconds
        tremble = 0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 11 * seconds))
        wave = tremble * (np.sin(phase) + 0.5 * np.sin(3 * phase))
    wave = 0.4 * wave / np.abs(wave).max()
    wave = wave + rng.normal(0, rng.uniform(*settings.hiss), size=wave.shape)
    return np.clip(wave, -1, 1).astype(np.float32)
