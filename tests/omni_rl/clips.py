"""Small real media files for the tests of this package."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from omni_rl.data.media import write_clip

FPS = 8.0
SAMPLE_RATE = 16000


def moving_square(frames: int = 8, height: int = 112, width: int = 112) -> np.ndarray:
    """Return uint8 (T, H, W, 3): a red square that walks down a grey ground, a step a frame."""
    clip = np.full((frames, height, width, 3), 128, np.uint8)
    for t in range(frames):
        top = (height - 40) * t // max(frames - 1, 1)
        clip[t, top : top + 40, width // 4 : width // 4 + 40] = (220, 20, 20)
    return clip


def tone(seconds: float = 1.0, hertz: float = 220.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return a float32 sine (S,) whose middle half sounds."""
    time = np.arange(round(seconds * rate)) / rate
    sounding = (time >= seconds / 4) & (time < seconds * 3 / 4)
    return (0.3 * np.sin(2 * np.pi * hertz * time) * sounding).astype(np.float32)


def clip_file(path: Path, sound: bool = True, frames: int = 8) -> Path:
    """Write a clip of 112 x 112 at 8 fps and return its path."""
    write_clip(path, moving_square(frames), FPS, tone(frames / FPS) if sound else None)
    return path


def sound_file(path: Path, rate: int = 44100, seconds: float = 1.0) -> Path:
    """Write a stereo WAV: the tone left, silence right."""
    left = np.round(tone(seconds, rate=rate) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(
        np.stack([left, np.zeros_like(left)], axis=1).reshape(1, -1), format="s16", layout="stereo"
    )
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def uneven_file(path: Path, times_ms: list[int], rotation: int = 0) -> Path:
    """Write a clip whose frames are shown at given times, each one shade brighter than the last.

    With a rotation the frames are stored lying down, as phones do.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1000, options={"crf": "10", "bf": "0"})
        video.width, video.height, video.pix_fmt = 112, 56, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        for index, time in enumerate(times_ms):
            picture = np.full((56, 112, 3), 10 + 10 * index, np.uint8)
            picture[:, :28] = 250  # a bright bar along the stored left edge
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def faststart(source: Path, path: Path) -> Path:
    """Copy a clip with its index in front, so that a cut file still opens."""
    with (
        av.open(str(source)) as old,
        av.open(str(path), "w", options={"movflags": "+faststart"}) as new,
    ):
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


def matroska_file(path: Path, seconds: int, cover: bool = False) -> Path:
    """Write a moving square at 8 fps as Matroska or WebM; a cover picture may come first."""
    frames = moving_square(8 * seconds)
    with av.open(str(path), "w") as container:
        if cover:
            front = container.add_stream("mjpeg", rate=1)
            front.width = front.height = 112
            front.pix_fmt = "yuvj420p"
        codec = "libvpx" if path.suffix == ".webm" else "libx264"
        video = container.add_stream(codec, rate=8, options={"g": "4"})
        video.width, video.height, video.pix_fmt = 112, 112, "yuv420p"
        if cover:
            still = np.full((112, 112, 3), 255, np.uint8)
            frame = av.VideoFrame.from_ndarray(still, format="rgb24").reformat(format="yuvj420p")
            container.mux(front.encode(frame))
            container.mux(front.encode(None))
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path
