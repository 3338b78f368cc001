"""Pictures and masks as other programs write them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sa2va_rl.data.pictures import read_image, read_mask

SIZE = (8, 12)


def saved(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)  # type: ignore[arg-type]
    return path


def truth() -> np.ndarray:
    """Two lines, two pixels wide."""
    truth_HW = np.zeros((48, 64), dtype=bool)
    truth_HW[20:22, 5:60] = truth_HW[5:40, 30:32] = True
    return truth_HW


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, kind: str) -> None:
    ramp = np.arange(96).reshape(SIZE)
    if kind == "I;16":
        saved(tmp_path / "a.png", (ramp * 40).astype(np.uint16))  # 12 bits
    else:
        Image.fromarray(ramp.astype(np.uint8)).convert(kind).save(tmp_path / "a.png")
    image_HWC = read_image(tmp_path / "a.png")
    assert image_HWC.shape == (8, 12, 3)
    assert image_HWC.dtype == np.uint8
    np.testing.assert_array_equal(image_HWC[..., 0], image_HWC[..., 2])
    assert image_HWC.max() == (255 if kind == "I;16" else 95)  # deep pictures are stretched


@pytest.mark.parametrize("suffix", [".gif", ".ppm", ".pgm", ".bmp", ".tif"])
def test_files_of_other_programs(tmp_path: Path, suffix: str) -> None:
    grey = np.repeat(np.arange(96, dtype=np.uint8).reshape(SIZE), 1, axis=1)
    path = saved(tmp_path / f"a{suffix}", grey)
    np.testing.assert_array_equal(read_image(path)[..., 1], grey)


def test_one_hot_pixel_does_not_darken_a_deep_picture(tmp_path: Path) -> None:
    ramp = np.linspace(100, 1100, 100 * 100).reshape(100, 100).astype(np.uint16)
    plain = read_image(saved(tmp_path / "plain.png", ramp))
    ramp[50, 50] = 65_535
    hot = read_image(saved(tmp_path / "hot.png", ramp))
    assert abs(hot.astype(int) - plain.astype(int)).max(axis=2).ravel()[:5000].max() <= 1
    assert hot.std() > 70


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    pixels = np.ones(SIZE, dtype=np.float32)
    pixels[3, 4] = value
    path = saved(tmp_path / "a.tif", pixels)
    for read in (lambda: read_image(path), lambda: read_mask(path, SIZE)):
        with pytest.raises(ValueError, match=r"a\.tif has pixels that are NaN or infinite"):
            read()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.png", np.arange(4096, dtype=np.uint8).reshape(64, 64)).read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
            read_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no picture at"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", [".tif", ".gif"])
def test_several_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(np.full(SIZE, 40 * page, dtype=np.uint8)) for page in range(3)]
    path = tmp_path / f"film{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=rf"film\{suffix} has 3 pages: save each"):
        read_image(path)


def test_the_orientation_of_a_phone_is_followed(tmp_path: Path) -> None:
    """Orientation 6: the first row of the file is the right edge of the picture."""
    stored = np.zeros((20, 30, 3), dtype=np.uint8)
    stored[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(stored).save(path, exif=exif, quality=95)
    image_HWC = read_image(path)
    assert image_HWC.shape == (30, 20, 3)
    assert image_HWC[:, -3:].min() > 200 and image_HWC[:, :12].max() < 50
    mask_HW = read_mask(path, (30, 20))
    assert mask_HW[:, -4:].all() and not mask_HW[:, :-5].any()


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "small.png", np.ones((4, 6), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"small\.png is 6 x 4 pixels, its picture 12 x 8"):
        read_mask(path, SIZE)
    path = saved(tmp_path / "none.png", np.zeros(SIZE, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"none\.png is empty"):
        read_mask(path, SIZE)


def test_a_mask_with_a_palette(tmp_path: Path) -> None:
    values = np.zeros((*SIZE, 3), dtype=np.uint8)
    values[2, 3, 0] = 1
    Image.fromarray(values).quantize(4).save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", SIZE).sum() == 1


@pytest.mark.parametrize("alpha", [0, 255])
def test_transparency_that_does_not_vary_says_nothing(tmp_path: Path, alpha: int) -> None:
    values = np.zeros((*SIZE, 4), dtype=np.uint8)
    values[..., 3] = alpha
    values[2, 3, 0] = 1
    assert read_mask(saved(tmp_path / "rgba.png", values), SIZE).sum() == 1


@pytest.mark.parametrize("ink", [(255, 255, 255), (200, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("paper", [(255, 255, 255), (0, 0, 0)])
def test_a_mask_drawn_in_transparency(
    tmp_path: Path, ink: tuple[int, ...], paper: tuple[int, ...]
) -> None:
    """Colours of transparent pixels are whatever a program left there."""
    values = np.zeros((*SIZE, 4), dtype=np.uint8)
    values[..., :3] = paper
    values[3, 4:7] = (*ink, 255)
    assert read_mask(saved(tmp_path / "a.png", values), SIZE).sum() == 3
    values[3, 5, 3] = 90  # a soft edge
    assert read_mask(saved(tmp_path / "a.png", values), SIZE).sum() == 3


def test_the_void_border_of_voc_is_no_mask(tmp_path: Path) -> None:
    indices = np.zeros(SIZE, dtype=np.uint8)
    indices[2:6, 2:8] = 255
    indices[3:5, 3:7] = 15
    picture = Image.fromarray(indices, mode="P")
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[15], colours[255] = (192, 128, 128), (224, 224, 192)
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "voc.png")
    assert read_mask(tmp_path / "voc.png", SIZE).sum() == 8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask.jpg", {}),
        ("mask.JPEG", {}),
        ("mask.webp", {}),
        ("mask.tif", {"compression": "jpeg"}),
        ("mask.png", {"format": "JPEG"}),  # renamed
    ],
)
def test_a_thin_line_survives_a_lossy_file(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = saved(tmp_path / name, truth().astype(np.uint8) * 255, **options)
    assert (np.asarray(Image.open(path).convert("L")) > 0).sum() > truth().sum()
    np.testing.assert_array_equal(read_mask(path, truth().shape), truth())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask.png", {}),
        ("mask.webp", {"lossless": True, "exact": True}),
        ("mask.webp", {"lossless": True, "exif": Image.Exif()}),
        ("mask.webp", {"lossless": True, "exif": b"Exif\0\0damaged"}),
        ("mask.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_dim_labels_of_a_lossless_file_count(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    labels = np.zeros((*truth().shape, 3), dtype=np.uint8)
    labels[truth()] = 7
    labels[20:22, 5:20] = 255
    path = saved(tmp_path / name, labels, **options)
    np.testing.assert_array_equal(read_mask(path, truth().shape), truth())


FILES = [
    (f".{kind}", kind, mode)
    for kind, mode in (
        *(("png", "RGBA"), ("png", "P"), ("tiff", "RGB"), ("tiff", "I;16"), ("gif", "P")),
        *(("webp", "RGBA"), ("jpeg", "RGB"), ("bmp", "RGB"), ("ppm", "RGB")),
    )
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged metadata
@settings(max_examples=500, deadline=None)
@given(data=st.data(), file=st.sampled_from(FILES))
def test_any_damage_is_read_or_refused(data: st.DataObject, file: tuple[str, str, str]) -> None:
    suffix, kind, mode = file
    picture = Image.fromarray(truth().astype(np.uint16 if mode == "I;16" else np.uint8) * 200)
    buffer = io.BytesIO()
    (picture if mode == "I;16" else picture.convert(mode)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        content[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content[: data.draw(st.none() | places)])
        for read in (lambda: read_image(path), lambda: read_mask(path, truth().shape)):
            try:
                assert read().shape[2:] in ((), (3,))
            except ValueError as error:
                message = str(error)
            else:
                continue
            assert str(path) in message
