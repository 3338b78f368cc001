"""Real files, written and read back: pictures, sound, sizes, faults and the cache."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    smart_resize as qwen_resize,
)

from omni_rl.config import MediaConfig
from omni_rl.data.containers import choose_frames, smart_resize
from omni_rl.data.media import (
    _Cache,
    check_media,
    load_audio,
    load_clip,
    load_image,
    write_clip,
)
from tests.omni_rl.clips import (
    clip_file,
    faststart,
    matroska_file,
    moving_square,
    sound_file,
    tone,
    uneven_file,
)

FULL = MediaConfig(fps=8, max_frames=8, min_pixels=784, max_pixels=112 * 112)
SMALL = MediaConfig(fps=8, max_frames=8, min_pixels=784, max_pixels=56 * 56)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_file(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (24, 112, 112, 3), dtype=np.uint8)
    write_clip(folder / "long.mp4", frames, 8, tone(3.0))
    return folder / "long.mp4"


def test_a_written_clip_reads_back(clip: Path) -> None:
    read = load_clip(clip, FULL)
    assert (read.frames_THWC.shape, read.frames_THWC.dtype) == ((8, 112, 112, 3), np.uint8)
    assert read.fps == 8.0
    # Chroma is stored at half the resolution: edges blur, areas do not.
    assert np.abs(read.frames_THWC.astype(int) - moving_square()).mean() < 3
    for t in range(8):
        assert (
            np.abs(read.frames_THWC[t, 72 * t // 7 + 20, 48].astype(int) - (220, 20, 20)).max() < 8
        )


def test_sound_reads_back_without_delay_or_padding(clip: Path) -> None:
    waveform_S = load_clip(clip, FULL).waveform_S
    assert waveform_S is not None
    assert (waveform_S.shape, waveform_S.dtype) == ((16000,), np.float32)
    assert np.abs(waveform_S - tone()).max() < 0.03
    np.testing.assert_array_equal(waveform_S, load_audio(clip, FULL))


def test_equal_input_gives_equal_bytes(clip: Path, tmp_path: Path) -> None:
    assert clip_file(tmp_path / "again.mp4").read_bytes() == clip.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "again.mp4"]


def test_a_clip_without_sound_has_no_waveform(tmp_path: Path) -> None:
    silent = clip_file(tmp_path / "silent.mp4", sound=False)
    assert load_clip(silent, FULL).waveform_S is None
    with pytest.raises(ValueError, match=r"silent.mp4: holds no sound"):
        load_audio(silent, FULL)


def test_frames_shrink_to_multiples_of_28(clip: Path) -> None:
    small = load_clip(clip, SMALL).frames_THWC
    assert small.shape == (8, 56, 56, 3)
    blocks = moving_square().reshape(8, 56, 2, 56, 2, 3).mean((2, 4))
    assert np.abs(small - blocks).mean() < 3


@pytest.mark.parametrize(
    ("fps", "max_frames", "expected", "rate"),
    [
        (8.0, 8, [0, 1, 2, 3, 4, 5, 6, 7], 8.0),
        (16.0, 32, [0, 1, 2, 3, 4, 5, 6, 7], 8.0),  # no more than there are
        (4.0, 8, [0, 2, 5, 7], 4.0),
        (8.0, 4, [0, 2, 5, 7], 4.0),
        (8.0, 5, [0, 2, 5, 7], 4.0),  # an odd limit is lowered
        (3.0, 8, [0, 7], 2.0),  # an odd number is lowered, as Qwen's reader does
        (5.9, 8, [0, 2, 5, 7], 4.0),
        (0.5, 8, [0, 7], 2.0),  # two at least
    ],
)
def test_frames_are_chosen_evenly(
    fps: float, max_frames: int, expected: list[int], rate: float
) -> None:
    times_N = np.arange(8) / 8
    indices, sampled = choose_frames(times_N, MediaConfig(fps=fps, max_frames=max_frames))
    assert indices == expected
    assert sampled == pytest.approx(rate)


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_a_cut_matroska_is_found_by_the_length_in_its_header(
    tmp_path: Path, suffix: str, kept: float
) -> None:
    """It has no index: what is left reads like a shorter clip."""
    path = matroska_file(tmp_path / f"long.{suffix}", seconds=4)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(kept * len(whole))])
    if kept == 1.0:
        check_media(path, "video")
        assert len(load_clip(path, FULL).frames_THWC) == 8
        return
    for read in (lambda: check_media(path, "video"), lambda: load_clip(path, FULL)):
        with pytest.raises(ValueError, match=r"cut short: \d\.\d of 4\.0 s are there"):
            read()


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = matroska_file(tmp_path / "covered.mkv", seconds=2, cover=True)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    frames = load_clip(path, FULL).frames_THWC
    assert len(frames) == 8
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1  # it moves


def test_packets_that_cannot_be_decoded_are_left_out(
    tmp_path: Path, long_clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.mp4"
    with av.open(str(long_clip)) as container:
        packets = [one for one in container.demux(container.streams.video[0]) if one.size]
        places = [(one.pos, one.size) for one in packets[10:13]]
    damaged = bytearray(long_clip.read_bytes())
    for position, size in places:
        assert position is not None
        damaged[position : position + size] = (bytes(range(1, 256)) * (size // 255 + 1))[:size]
    path.write_bytes(damaged)
    clip = load_clip(path, FULL)
    assert len(clip.frames_THWC) == 8
    assert "could not be decoded" in caplog.text


def test_pictures_have_a_limit_of_their_own(tmp_path: Path) -> None:
    """A page of 1240 x 1754 has 2,772 tokens under the published limit, 54 under a frame's."""
    path = tmp_path / "page.png"
    Image.new("RGB", (1240, 1754), "white").save(path)
    frames = MediaConfig()
    published = MediaConfig(max_picture_pixels=12_845_056)
    tokens = [load_image(path, one).size // 3 // 28**2 for one in (frames, published)]
    assert tokens == [54, 2772]


def test_only_so_many_seconds_of_a_sound_are_heard(tmp_path: Path) -> None:
    path = sound_file(tmp_path / "tone.wav", seconds=2.0)
    assert len(load_audio(path, MediaConfig())) == 32000
    assert len(load_audio(path, MediaConfig(max_sound=0.5))) == 8000
    clip = clip_file(tmp_path / "clip.mp4")
    waveform_S = load_clip(clip, MediaConfig(max_sound=0.5)).waveform_S
    assert waveform_S is not None and len(waveform_S) == 8000


def test_a_single_picture_is_a_clip_of_two_equal_frames(tmp_path: Path) -> None:
    path = clip_file(tmp_path / "one.mp4", frames=1)
    frames = load_clip(path, FULL).frames_THWC
    assert frames.shape == (2, 112, 112, 3)
    np.testing.assert_array_equal(frames[0], frames[1])


def test_uneven_frames_are_sampled_by_time_not_by_number(tmp_path: Path) -> None:
    # Ten frames in the first tenth of a second, then one each half second.
    times = [*range(0, 100, 10), 500, 1000, 1500, 2000]
    path = uneven_file(tmp_path / "uneven.mp4", times)
    read = load_clip(path, MediaConfig(fps=2, max_frames=4, min_pixels=784, max_pixels=6272))
    shades = read.frames_THWC[:, 28, 100, 0].astype(int)
    # Evenly: 0, 667, 1333 and 2000 ms; the nearest frames are numbers 0, 10, 12 and 13.
    assert np.abs(shades - [10, 110, 130, 140]).max() <= 3


@pytest.mark.parametrize(("rotation", "edge"), [(90, "bottom"), (-90, "top"), (180, "right")])
def test_a_phone_clip_stands_upright(tmp_path: Path, rotation: int, edge: str) -> None:
    path = uneven_file(tmp_path / "phone.mp4", [0, 100], rotation)
    frame = load_clip(path, MediaConfig(fps=8, min_pixels=784, max_pixels=6272)).frames_THWC[0]
    assert frame.shape == ((56, 112, 3) if rotation == 180 else (112, 56, 3))
    edges = {"top": frame[2, 28], "bottom": frame[-3, 28], "right": frame[28, -3]}
    assert edges[edge].min() > 200


def test_other_rates_and_channels_become_16_khz_mono(tmp_path: Path) -> None:
    waveform_S = load_audio(sound_file(tmp_path / "stereo.wav"), FULL)
    assert abs(len(waveform_S) - 16000) <= 16
    middle = waveform_S[5000:11000]
    # Left sounds at 0.3, right is silent: the mean of both has half the amplitude.
    assert np.abs(middle).max() == pytest.approx(0.15, abs=0.01)
    peak = np.abs(np.fft.rfft(middle)).argmax() * 16000 / 6000
    assert peak == pytest.approx(220, abs=3)


def test_a_picture_is_upright_and_resized(tmp_path: Path) -> None:
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[:, :60] = 255
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying down: turn a quarter clockwise to view
    image.save(tmp_path / "photo.png", exif=exif)
    read = load_image(tmp_path / "photo.png", FULL)
    assert (read.shape, read.dtype) == ((112, 56, 3), np.uint8)
    assert read[10].mean() > 250 > 5 > read[-10].mean()


@settings(deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    low=st.integers(784, 20_000),
    factor=st.integers(1, 50),
)
def test_sizes_are_those_of_the_real_processor(
    height: int, width: int, low: int, factor: int
) -> None:
    bounds = {"min_pixels": low, "max_pixels": low * factor}
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="over 200 times the other"):
            smart_resize(height, width, **bounds)
        return
    assert smart_resize(height, width, **bounds) == qwen_resize(height, width, **bounds)


def test_decoded_media_are_kept_until_the_file_or_a_setting_changes(tmp_path: Path) -> None:
    path = clip_file(tmp_path / "clip.mp4")
    first = load_clip(path, FULL)
    assert load_clip(path, FULL) is first
    assert load_clip(path, SMALL) is not first
    assert not first.frames_THWC.flags.writeable
    assert first.waveform_S is not None
    assert not first.waveform_S.flags.writeable
    clip_file(path, frames=4)
    assert len(load_clip(path, FULL).frames_THWC) == 4


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    path = clip_file(tmp_path / "clip.mp4")
    two = MediaConfig(cache_clips=2, max_frames=2)
    others = [clip_file(tmp_path / f"other{i}.mp4") for i in range(2)]
    first = load_clip(path, two)
    load_clip(others[0], two)
    assert load_clip(path, two) is first  # and is now the newest
    load_clip(others[1], two)
    assert load_clip(path, two) is first
    load_clip(others[0], two)
    load_clip(others[1], two)
    assert load_clip(path, two) is not first
    nothing = MediaConfig(cache_clips=0, max_frames=2)
    assert load_clip(path, nothing) is not load_clip(path, nothing)
    assert _Cache(max_bytes=10).get("a") is None


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = _Cache(max_bytes=10)
    for key in "abc":
        cache.put(key, key.upper(), size=4, max_items=100)
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]
    cache.put("huge", "H", size=11, max_items=100)
    assert cache.get("huge") is None


def test_missing_files_are_named(tmp_path: Path) -> None:
    for load in (load_clip, load_audio, load_image):
        with pytest.raises(FileNotFoundError, match=r"gone.mp4: no such media file"):
            load(tmp_path / "gone.mp4", FULL)
    with pytest.raises(FileNotFoundError, match="no such media file"):
        load_clip(tmp_path, FULL)


@pytest.mark.parametrize("content", [b"", b"not media at all, but words\n" * 40])
def test_files_that_are_no_media_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.mp4"
    path.write_bytes(content)
    for load in (load_clip, load_audio, load_image):
        with pytest.raises(ValueError, match=r"words.mp4: cannot be"):
            load(path, FULL)


@pytest.mark.parametrize("index_first", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.8, 0.99])
def test_cut_files_are_errors_not_shorter_clips(
    long_clip: Path, tmp_path: Path, share: float, index_first: bool
) -> None:
    whole = faststart(long_clip, tmp_path / "fast.mp4") if index_first else long_clip
    assert len(load_clip(whole, MediaConfig(fps=8)).frames_THWC) == 24
    content = whole.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(len(content) * share)])
    for load in (load_clip, load_audio):
        with pytest.raises(ValueError, match=r"cut.mp4: .*cut short"):
            load(path, FULL)
    for kind in ("video", "audio"):
        with pytest.raises(ValueError, match=r"cut.mp4: .*cut short"):
            check_media(path, kind)


def test_a_cut_between_two_packets_is_found(long_clip: Path, tmp_path: Path) -> None:
    whole = faststart(long_clip, tmp_path / "fast.mp4")
    with av.open(str(whole)) as container:
        starts = sorted(packet.pos for packet in container.demux() if packet.pos is not None)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: starts[len(starts) // 2]])
    with pytest.raises(ValueError, match=r"cut.mp4: cut short: \d+ of \d+ packets"):
        load_clip(path, FULL)


def test_media_of_another_kind_are_errors(clip: Path, tmp_path: Path) -> None:
    wav = sound_file(tmp_path / "voice.wav")
    with pytest.raises(ValueError, match=r"voice.wav: holds no video"):
        load_clip(wav, FULL)
    with pytest.raises(ValueError, match=r"voice.wav: holds no video"):
        check_media(wav, "video")
    with pytest.raises(ValueError, match=r"clip.mp4: cannot be read as a picture"):
        check_media(clip, "image")
    check_media(wav, "audio")
    check_media(clip, "video")
    check_media(clip, "audio")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames_THWC": np.zeros((8, 112, 112, 3), np.float32)}, "float32 of shape"),
        ({"frames_THWC": np.zeros((0, 112, 112, 3), np.uint8)}, r"shape \(0, 112"),
        ({"frames_THWC": np.zeros((8, 112, 112), np.uint8)}, r"expected uint8 \(T, H, W, 3\)"),
        ({"frames_THWC": np.zeros((8, 111, 112, 3), np.uint8)}, "even sides"),
        ({"fps": 0.0}, "fps=0.0"),
        ({"waveform_S": np.zeros((2, 16000), np.float32)}, r"shape \(2, 16000\)"),
        ({"waveform_S": np.full(16000, 1.5, np.float32)}, "peaks at 1.5"),
        ({"waveform_S": np.full(16000, np.nan, np.float32)}, "peaks at nan"),
        ({"sample_rate": 12345}, "sample_rate=12345; AAC knows"),
    ],
)
def test_writing_refuses_what_it_cannot_keep(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    good = {"frames_THWC": moving_square(), "fps": 8.0, "waveform_S": tone(), "sample_rate": 16000}
    with pytest.raises(ValueError, match=message):
        write_clip(tmp_path / "bad.mp4", **(good | change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_writing_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        write_clip(tmp_path / "none" / "clip.mp4", moving_square(), 8.0)
