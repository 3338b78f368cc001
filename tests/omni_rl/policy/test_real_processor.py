"""Our batches against those of transformers' own Qwen2_5OmniProcessor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omni_rl.data.record import Record
from omni_rl.policy.processor import Processor, save_processor
from omni_rl.policy.prompts import PromptBuilder
from tests.omni_rl.prompt_cases import MIXED, builder, clip, make_processor, record

SCRIPT = Path(__file__).with_name("torchvision_folder.py")
UNAVAILABLE = 77  # its exit code where torchvision cannot be had


@pytest.fixture(scope="module")
def processor() -> Processor:
    return make_processor()


CASES: dict[str, tuple[bool, list[Record]]] = {
    "explicit": (False, MIXED),
    "explicit_slow": (False, [record("long"), record("drifting", problem_type="judge")]),
    "together": (True, [record("plain"), record("wide", "tall")]),
    "together_chunks": (True, [record("drifting", "long"), record("long")]),
    "together_sparse": (True, [record("sparse")]),
    "together_silent": (True, [record("plain"), record("silent")]),
    "text": (False, [record(problem_type="judge"), record(problem_type="free-form")]),
    "picture": (False, [record("plain"), record(id="seen", images=(Path("picture.png"),))]),
    "picture_together": (True, [record("wide", images=(Path("picture.png"),))]),
}
PICTURE_HWC = np.random.default_rng(9).integers(0, 256, (56, 84, 3), dtype=np.uint8)


def write_case(folder: Path, name: str, build: PromptBuilder, records: Sequence[Record]) -> None:
    """Hand a case to the real processor: chats as we write them, media as plain arrays."""
    arrays: dict[str, np.ndarray] = {}
    sources: list[int | None] = []
    pictures = [path for one in records for path in one.images]
    arrays |= {f"image{index:02d}": PICTURE_HWC for index, _ in enumerate(pictures)}
    clips = [clip(path) for one in records for path in one.videos]
    together = build.config.media.use_audio_in_video
    for index, made in enumerate(clips):
        arrays[f"video{index:02d}"] = made.frames_THWC
        wave = made.waveform_S
        if wave is None and together:
            wave = np.zeros(round(len(made.frames_THWC) / made.fps * 16000), np.float32)
        if wave is not None:
            arrays[f"audio{index:02d}"] = wave
            sources.append(index if together else None)
    np.savez(folder / f"{name}.npz", **arrays)
    media = build.config.media
    case = {
        "conversations": [build.conversation(one) for one in records],
        "use_audio_in_video": together,
        "audio_from_video_indices": sources if clips else None,
        "fps": clips[0].fps if clips else None,
        "min_pixels": media.min_pixels,
        "max_pixels": media.max_pixels,
    }
    (folder / f"{name}.json").write_text(json.dumps(case))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Make the working folder of this module, with the picture that records name."""
    folder = tmp_path_factory.mktemp("real")
    Image.fromarray(PICTURE_HWC).save(folder / "picture.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def real_batches(processor, folder) -> dict[str, dict[str, torch.Tensor]]:
    """Answers of the real processor to all cases, from one process."""
    save_processor(processor, folder / "checkpoint")
    for name, (together, records) in CASES.items():
        write_case(folder, name, builder(processor, together), records)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE and not os.environ.get("CI"):
        pytest.skip(f"torchvision cannot be installed here:\n{done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    batches = {}
    for name in CASES:
        with np.load(folder / f"{name}.out.npz") as arrays:
            batches[name] = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return batches


@pytest.mark.parametrize("name", CASES)
def test_batches_equal_the_real_processors(processor, folder, real_batches, name):
    together, records = CASES[name]
    ours = builder(processor, together)(records)
    real = real_batches[name]
    assert set(ours) - {"use_audio_in_video"} == set(real)
    for exact in ("input_ids", "attention_mask", "video_grid_thw", "image_grid_thw"):
        if exact in real:
            assert torch.equal(ours[exact], real[exact].long()), exact
    for close in ("pixel_values_videos", "pixel_values", "video_second_per_grid"):
        if close in real:
            torch.testing.assert_close(ours[close], real[close], atol=1e-6, rtol=1e-6)
    if "input_features" in real:
        our_mask, real_mask = (b["feature_attention_mask"].bool() for b in (ours, real))
        assert torch.equal(our_mask.sum(1), real_mask.sum(1))
        assert not real_mask[:, our_mask.shape[1] :].any()
        for index in range(len(our_mask)):
            heard = ours["input_features"][index][:, our_mask[index]]
            meant = real["input_features"][index][:, real_mask[index]]
            torch.testing.assert_close(heard, meant, atol=1e-5, rtol=1e-5)
