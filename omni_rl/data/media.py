"""Reading of clips, pictures and sounds as arrays, and writing of clips as H.264 + AAC mp4 files.

Frames are taken evenly over the whole clip at `MediaConfig.fps`, as Qwen's reader does, and resized
from the decoder's YUV planes.  Sizes are those of Qwen's `smart_resize`.  Pixel values are those of
swscale's bicubic filter and may differ from torchvision's by a few levels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter

from core_rl.files import atomically
from omni_rl.config import MediaConfig
from omni_rl.data.containers import check_container, read_audio, read_image, read_video

CACHE_BYTES = 1 << 30  # decoded media kept at most, whatever `cache_clips` allows

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Clip:
    """One decoded clip.  The arrays are shared with the cache and therefore read-only.

    Attributes:
        frames_THWC: uint8 RGB, T even, H and W multiples of 28.
        fps: frames a second of `frames_THWC`, not of the file.
        waveform_S: float32 mono in [-1, 1] at `MediaConfig.sample_rate`; None without sound.
        path: the file.
    """

    frames_THWC: np.ndarray
    fps: float
    waveform_S: np.ndarray | None
    path: Path


def load_clip(path: str | Path, config: MediaConfig) -> Clip:
    """Decode a video and its sound track; clips are kept in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, cut short, or holds no video.
    """
    return _cached(_decode_clip, Path(path), config)


def load_audio(path: str | Path, config: MediaConfig) -> np.ndarray:
    """Decode the sound of an audio or video file to a read-only float32 mono waveform (S,).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, cut short, or holds no sound.
    """
    return _cached(read_audio, Path(path), config)


def load_image(path: str | Path, config: MediaConfig) -> np.ndarray:
    """Decode a picture to read-only uint8 RGB (H, W, 3), upright and resized like a frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not a picture.
    """
    return _cached(read_image, Path(path), config)


def check_media(path: str | Path, kind: str) -> None:
    """Find damage of a file without decoding it.

    Args:
        path: the file.
        kind: video, audio or image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, cut short, or holds something else.
    """
    path = Path(path)
    _require_file(path)
    if kind == "image":
        read_image(path, MediaConfig())
    else:
        check_container(path, kind)


def write_clip(
    path: str | Path,
    frames_THWC: np.ndarray,
    fps: float,
    waveform_S: np.ndarray | None = None,
    sample_rate: int = 16000,
) -> None:
    """Write frames and sound as an H.264 + AAC mp4; equal input gives equal bytes.

    The file appears whole or not at all: it is written beside `path` and renamed.

    Args:
        path: where; its folder must exist.
        frames_THWC: uint8 RGB, H and W even.
        fps: frames a second.
        waveform_S: float mono in [-1, 1]; None writes no sound track.
        sample_rate: of `waveform_S`, in Hz, among those of AAC (8000, 16000, 22050, 44100, ...).

    Raises:
        FileNotFoundError: the folder is missing.
        ValueError: an array of another shape, type or range, or an unknown sample rate.
    """
    path = Path(path)
    _check_writable(path, frames_THWC, fps, waveform_S, sample_rate)
    with atomically(path) as beside:
        _encode(beside, frames_THWC, fps, waveform_S, sample_rate)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such media file; check the path of its record and `data_root`"
        )


def _decode_clip(path: Path, config: MediaConfig) -> Clip:
    frames_THWC, fps, waveform_S = read_video(path, config)
    return Clip(frames_THWC, fps, waveform_S, path)


def _check_writable(
    path: Path,
    frames_THWC: np.ndarray,
    fps: float,
    waveform_S: np.ndarray | None,
    sample_rate: int,
) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist; make it first")
    shape = frames_THWC.shape
    if frames_THWC.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[0] == 0:
        raise ValueError(
            f"{path}: frames are {frames_THWC.dtype} of shape {shape}; expected uint8 (T, H, W, 3)"
        )
    if shape[1] % 2 or shape[2] % 2:
        raise ValueError(f"{path}: frames of {shape[2]} x {shape[1]}; H.264 needs even sides")
    if not fps > 0:
        raise ValueError(f"{path}: fps={fps!r}; expected a number above 0")
    if waveform_S is None:
        return
    if waveform_S.ndim != 1 or len(waveform_S) == 0:
        raise ValueError(f"{path}: waveform of shape {waveform_S.shape}; expected (S,) with S > 0")
    peak = float(np.abs(waveform_S).max())
    if not peak <= 1.0:  # also true of NaN
        raise ValueError(f"{path}: waveform peaks at {peak}; expected values in [-1, 1]")
    rates = av.Codec("aac", "w").audio_rates or []
    if sample_rate not in rates:
        raise ValueError(f"{path}: sample_rate={sample_rate}; AAC knows {sorted(rates)}")


def _encode(
    path: Path, frames_THWC: np.ndarray, fps: float, waveform_S: np.ndarray | None, sample_rate: int
) -> None:
    # Without version strings (bitexact) and with one thread, the bytes are always the same.
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        # With x264's macroblock tree the bytes of noisy frames differ from call to call.
        settings = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
        video = container.add_stream("libx264", rate, settings)
        video.height, video.width = frames_THWC.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.flags |= Flags.bitexact
        sound = _add_sound(container, sample_rate) if waveform_S is not None else None
        reformatter = VideoReformatter()  # one for all frames: swscale plans once
        for frame_HWC in frames_THWC:
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            container.mux(video.encode(reformatter.reformat(rgb, format="yuv420p", threads=1)))
        container.mux(video.encode(None))
        if sound is not None and waveform_S is not None:
            samples = np.ascontiguousarray(waveform_S, dtype=np.float32)[None]
            chunk = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = sample_rate, 0, Fraction(1, sample_rate)
            container.mux(sound.encode(chunk))
            container.mux(sound.encode(None))


def _add_sound(container: OutputContainer, sample_rate: int) -> av.AudioStream:
    # The fast search takes a third of the time and is more exact on tones and voices.
    sound = container.add_stream("aac", sample_rate, {"aac_coder": "fast"}, layout="mono")
    sound.codec_context.flags |= Flags.bitexact
    return sound


class _Cache:
    """Least recently used values, bounded in number and in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[object, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object) -> Any | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: object, value: object, size: int, max_items: int) -> None:
        with self._lock:
            self._bytes += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = (value, size)
            while self._bytes > self._max_bytes or len(self._entries) > max_items:
                self._bytes -= self._entries.popitem(last=False)[1][1]


_cache = _Cache(CACHE_BYTES)


def _cached(decode: Callable[[Path, MediaConfig], T], path: Path, config: MediaConfig) -> T:
    """Return a value from memory, or decode it if the file or a setting changed."""
    _require_file(path)
    stat = path.stat()
    key = (decode, str(path), stat.st_mtime_ns, stat.st_size, astuple(config))
    value: T | None = _cache.get(key)
    if value is None:
        value = decode(path, config)
        arrays = (value.frames_THWC, value.waveform_S) if isinstance(value, Clip) else (value,)
        size = 0
        for array in arrays:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
                size += array.nbytes
        _cache.put(key, value, size, config.cache_clips)
    return value
