"""Decoding of video, sound and picture files; `omni_rl.data.media` is what others use.

A file that ends too early is an error, not a shorter clip: the demuxer marks a packet that is cut,
or returns fewer packets than the container's index lists.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, ImageOps

from omni_rl.config import MediaConfig

log = logging.getLogger(__name__)

SIZE_FACTOR = 28  # pixels on a side of one visual token: two merged patches of 14
MAX_ASPECT = 200  # Qwen's processor refuses frames beyond it
CUT_SECONDS = 0.5  # a file that ends this much before its header says is cut short
STILL_CODECS = frozenset({"mjpeg", "png", "bmp", "webp"})  # of cover pictures
SMALL_PIXELS = 256 * 256  # below it, decoder threads cost more than they save


def smart_resize(
    height: int, width: int, min_pixels: int, max_pixels: int, factor: int = SIZE_FACTOR
) -> tuple[int, int]:
    """Return (height, width) in multiples of `factor`, close to the aspect and within the bounds.

    The rule of Qwen2-VL's processor: round each side; where the area leaves
    [min_pixels, max_pixels], scale both sides by the square root and floor (or ceil) them.

    Raises:
        ValueError: one side is over 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"frame of {width} x {height} pixels: one side is over {MAX_ASPECT} times the other; "
            "crop it first"
        )
    rows = round(height / factor) * factor
    columns = round(width / factor) * factor
    if rows * columns > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / scale / factor) * factor)
        columns = max(factor, math.floor(width / scale / factor) * factor)
    elif rows * columns < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * scale / factor) * factor
        columns = math.ceil(width * scale / factor) * factor
    return rows, columns


def read_video(path: Path, config: MediaConfig) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Decode chosen frames and all the sound of a video file.

    Returns:
        frames_THWC (uint8 RGB, T even), their rate in frames a second, and waveform_S (float32
        mono) or None without sound.

    Raises:
        ValueError: the file is damaged, cut short, or holds no video.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise ValueError(f"{path}: holds no video; a sound file belongs under `audio`")
        video = _video_of(container)
        pixels = video.codec_context.width * video.codec_context.height
        video.codec_context.thread_count = 1 if pixels <= SMALL_PIXELS else 0
        indices, fps = choose_frames(_frame_times(container, path), config)
        container.seek(0)
        frames = _FrameTaker(indices, path, config)
        sound = _SoundTaker(container, config)
        streams = [video, *container.streams.audio[:1]]
        for frame in _decoded(container.demux(streams), path):
            if isinstance(frame, av.VideoFrame):
                frames.take(frame)
            elif isinstance(frame, av.AudioFrame):
                sound.take(frame)
        return frames.stacked(), fps, sound.waveform()


def read_audio(path: Path, config: MediaConfig) -> np.ndarray:
    """Decode the sound of a file to waveform_S, float32 mono.

    Raises:
        ValueError: the file is damaged, cut short, or holds no sound.
    """
    with _opened(path) as container:
        sound = _SoundTaker(container, config)
        if container.streams.audio:
            for frame in _decoded(_whole(container, path), path):
                if isinstance(frame, av.AudioFrame):
                    sound.take(frame)
        waveform_S = sound.waveform()
        if waveform_S is None:
            raise ValueError(f"{path}: holds no sound; leave it out of the record's `audio`")
        return waveform_S


def read_image(path: Path, config: MediaConfig) -> np.ndarray:
    """Decode a picture to uint8 RGB (H, W, 3), upright and of `smart_resize`'s size.

    Raises:
        ValueError: the file is damaged or not a picture.
    """
    try:
        with Image.open(path) as stored:
            image = ImageOps.exif_transpose(stored).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: cannot be read as a picture ({error}); copy it again, or leave it out"
        ) from error
    limit = config.max_picture_pixels or config.max_pixels
    height, width = smart_resize(image.height, image.width, config.min_pixels, limit)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def check_container(path: Path, kind: str) -> None:
    """Read every packet of a file without decoding.

    Raises:
        ValueError: the file is damaged, cut short, or holds no `kind` (video or audio).
    """
    with _opened(path) as container:
        if not any(stream.type == kind for stream in container.streams):
            raise ValueError(f"{path}: holds no {kind}; correct the record's `path`")
        for _ in _whole(container, path):
            pass


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open a container; errors of FFmpeg become a ValueError that names the file."""
    try:
        with av.open(str(path)) as container:
            yield container
    except FFmpegError as error:
        raise ValueError(
            f"{path}: cannot be decoded ({error.strerror}); the file is damaged, cut short or not "
            "media: copy it again, or leave its records out"
        ) from error


def _video_of(container: InputContainer) -> av.VideoStream:
    """Return the first video that is no cover picture; of covers alone the first."""
    videos = container.streams.video

    def is_cover(stream: av.VideoStream) -> bool:
        attached = bool(stream.disposition & Disposition.attached_pic)
        return attached or stream.codec_context.name in STILL_CODECS

    return min(videos, key=is_cover)


def _decoded(packets: Iterable[av.Packet], path: Path) -> Iterator[object]:
    """Yield frames; packets that the decoder refuses are left out and counted, as decord does."""
    refused = 0
    for packet in packets:
        try:
            yield from packet.decode()
        except InvalidDataError:
            refused += 1
    if refused:
        log.warning("%s: %d packets could not be decoded and are left out", path, refused)


def _whole(container: InputContainer, path: Path) -> Iterator[av.Packet]:
    """Yield every packet, and raise if any is missing at the end of the file."""
    end, corrupt = 0.0, False
    counts = dict.fromkeys((stream.index for stream in container.streams), 0)
    # The index of some formats grows while reading, so the header's numbers are taken first.
    promised = {stream.index: len(stream.index_entries) for stream in container.streams}
    for packet in container.demux():
        if packet.size:
            counts[packet.stream.index] += 1
            corrupt = packet.is_corrupt
        if packet.pts is not None and packet.time_base:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        yield packet
    if corrupt:  # in the middle it is damage that decoders get over
        raise ValueError(f"{path}: cut short inside a packet; copy the file again")
    # Matroska and WebM have no index to count by; their header says how long they are.
    promised_end = (container.duration or 0) / av.time_base
    if "matroska" in container.format.name and end < promised_end - CUT_SECONDS:
        raise ValueError(
            f"{path}: cut short: {end:.1f} of {promised_end:.1f} s are there; copy the file again"
        )
    for index, count in counts.items():
        if count < promised[index]:
            raise ValueError(
                f"{path}: cut short: {count} of {promised[index]} packets of stream {index} are "
                "there; copy the file again"
            )


def _frame_times(container: InputContainer, path: Path) -> np.ndarray:
    """Return the times of the video's frames (N,) in seconds, in order of display."""
    video = _video_of(container)
    ticks = [
        packet.dts if packet.pts is None else packet.pts  # AVI stores decoding times only
        for packet in _whole(container, path)
        if packet.stream.index == video.index and packet.size and not packet.is_discard
    ]
    shown = sorted(tick for tick in ticks if tick is not None)
    if not shown:
        raise ValueError(f"{path}: its video has no frame with a time; write it again as mp4")
    return np.array(shown, dtype=np.float64) * float(video.time_base or Fraction(1, 1000))


def choose_frames(times_N: np.ndarray, config: MediaConfig) -> tuple[list[int], float]:
    """Choose frames evenly over a clip: as many as `fps` asks for, at most `max_frames`.

    Args:
        times_N: when each frame is shown, in seconds, ascending.
        config: `fps` and `max_frames` (an odd one is lowered by one).

    Returns:
        Indices into `times_N`, even in number, and the rate in frames a second that they stand for.
        As in Qwen's reader an odd number is lowered; at least two frames are taken, of a single one
        the same twice.
    """
    total = len(times_N)
    interval = float(np.median(np.diff(times_N))) if total > 1 else 1.0 / config.fps
    seconds = float(times_N[-1] - times_N[0]) + max(interval, 1e-6)
    wanted = math.floor(seconds * config.fps + 1e-6)
    count = max(2, min(wanted, config.max_frames, total) // 2 * 2)
    targets = np.linspace(times_N[0], times_N[-1], count)
    right = np.clip(np.searchsorted(times_N, targets), 1, max(total - 1, 1))
    left = right - 1
    right = np.minimum(right, total - 1)
    nearer = np.where(targets - times_N[left] < times_N[right] - targets, left, right)
    indices = [int(index) for index in nearer]
    return indices, min(count, total) / seconds


class _FrameTaker:
    """Keeps the chosen frames of a decoded stream, resized and upright."""

    def __init__(self, indices: list[int], path: Path, config: MediaConfig) -> None:
        self._indices = indices
        self._wanted = frozenset(indices)
        self._path = path
        self._config = config
        self._reformat = VideoReformatter()  # one for all frames: swscale plans once
        self._kept: dict[int, np.ndarray] = {}
        self._seen = 0

    def take(self, frame: av.VideoFrame) -> None:
        if self._seen in self._wanted:
            self._kept[self._seen] = self._resized(frame)
        self._seen += 1

    def _resized(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = smart_resize(
            frame.height, frame.width, self._config.min_pixels, self._config.max_pixels
        )
        resized = self._reformat.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
        )
        # Phones store a portrait clip in landscape, with the angle to rotate it by.
        return np.rot90(resized.to_ndarray(), k=round(frame.rotation / 90) % 4)

    def stacked(self) -> np.ndarray:
        """Return frames_THWC; a frame that the decoder dropped is replaced by the nearest."""
        if not self._kept:
            raise ValueError(f"{self._path}: no frame could be decoded; copy the file again")
        missing = sum(index not in self._kept for index in self._indices)
        if missing:
            log.warning("%s: %d chosen frames could not be decoded", self._path, missing)
        have = np.array(sorted(self._kept))
        return np.stack(
            [self._kept[int(have[np.abs(have - index).argmin()])] for index in self._indices]
        )


class _SoundTaker:
    """Collects the first sound track of a container as one mono waveform."""

    def __init__(self, container: InputContainer, config: MediaConfig) -> None:
        # Channels are averaged here, as Qwen's reader does: FFmpeg's own mix to mono adds 3 dB.
        self._resampler = AudioResampler(format="fltp", rate=config.sample_rate)
        self._chunks: list[np.ndarray] = []
        stream = container.streams.audio[0] if container.streams.audio else None
        self._samples: int | None = None
        if stream is not None and stream.duration and stream.time_base:
            self._samples = round(stream.duration * stream.time_base * config.sample_rate)
        heard = config.max_sound
        self._heard = None if heard is None else round(heard * config.sample_rate)

    def take(self, frame: av.AudioFrame | None) -> None:
        self._chunks += [part.to_ndarray().mean(0) for part in self._resampler.resample(frame)]

    def waveform(self) -> np.ndarray | None:
        """Return waveform_S without the padding of the last codec frame; None without samples."""
        if self._chunks:
            self.take(None)
        if not self._chunks:
            return None
        waveform_S = np.concatenate(self._chunks)[: self._samples][: self._heard]
        return waveform_S if len(waveform_S) else None
