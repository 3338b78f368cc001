"""Answer prompts with transformers' own Qwen2_5OmniProcessor, in a process of its own.

    python torchvision_folder.py FOLDER

The real processor needs torchvision, whose wheels are CUDA builds that break transformers and
lightning on a CPU-only torch.  So it is installed into a folder of its own, never into the
environment, and only this process sees it.  Where its library does not load, this script declares
the two operators that its import needs.

FOLDER holds `checkpoint/` (from `omni_rl.policy.processor.save_processor`) and, for each case,
`NAME.json` and `NAME.npz`; the answer is `NAME.out.npz`.  Exit code 77: torchvision cannot be had
here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

UNAVAILABLE = 77


def torchvision_version() -> str:
    """Name the release made for the installed torch: 0.28.0 for 2.13.0, 0.29.1 for 2.14.1."""
    _, minor, patch = torch.__version__.partition("+")[0].split(".")
    return f"0.{int(minor) + 15}.{patch}"


def torchvision_folder() -> Path:
    """Install torchvision beside the environment unless an earlier call did."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tag = f"torchvision-{torchvision_version()}-cp{sys.version_info.major}{sys.version_info.minor}"
    folder = cache / "qwen-processor-test" / tag
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as partial:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command += ["--target", partial, f"torchvision=={torchvision_version()}"]
            if subprocess.run(command, check=False).returncode:
                sys.exit(UNAVAILABLE)
            try:
                os.rename(partial, folder)
            except OSError:  # another test run was faster
                assert folder.exists()
    return folder


def loads_its_library() -> bool:
    """Load torchvision's own library, which declares its operators; False where that fails.

    A wheel for CUDA does not load with a torch without CUDA.
    """
    package = find_spec("torchvision")
    assert package is not None and package.submodule_search_locations
    finder = FileFinder(
        package.submodule_search_locations[0], (ExtensionFileLoader, EXTENSION_SUFFIXES)
    )
    # Called `_C_stable` from 0.29 on.
    library = finder.find_spec("_C_stable") or finder.find_spec("_C")
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)
    except OSError:
        return False
    return True


def declare_operators() -> torch.library.Library:
    """Declare the operators that torchvision's import registers fakes for; nothing calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def answer(processor: Any, case: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Run the real processor on one case."""
    from transformers import processing_utils

    numbered: dict[str, list[np.ndarray]] = {}
    for kind in ("video", "audio", "image"):
        names = [name for name in arrays if name.startswith(kind)]
        numbered[kind] = [arrays[name] for name in sorted(names)]
    size = {"shortest_edge": case["min_pixels"], "longest_edge": case["max_pixels"]}
    # `load_audio_from_video` replaced `use_audio_in_video` after transformers 5.17.
    together: dict[str, Any] = {"use_audio_in_video": case["use_audio_in_video"]}
    if hasattr(processing_utils, "OmniModalProcessorMixin"):
        together = {
            "load_audio_from_video": case["use_audio_in_video"],
            "audio_from_video_indices": case["audio_from_video_indices"],
        }
    batch = processor(
        text=processor.apply_chat_template(
            case["conversations"], tokenize=False, add_generation_prompt=True
        ),
        videos=numbered["video"] or None,
        audio=numbered["audio"] or None,
        images=numbered["image"] or None,
        videos_kwargs={"size": size, "fps": case["fps"], "cap_pixels_per_frame": False},
        images_kwargs={"size": size},
        padding=True,
        return_tensors="pt",
        **together,
    )
    return {name: value.numpy() for name, value in batch.items()}


def main(folder: Path) -> None:
    """Answer every case in `folder`."""
    sys.path.append(str(torchvision_folder()))
    # Declared twice, an operator ends the process.  The declarations live as long as this object.
    declared = None if loads_its_library() else declare_operators()
    from transformers import Qwen2_5OmniProcessor

    processor = Qwen2_5OmniProcessor.from_pretrained(folder / "checkpoint")
    for path in sorted(folder.glob("*.json")):
        with np.load(path.with_suffix(".npz")) as arrays:
            batch = answer(processor, json.loads(path.read_text()), dict(arrays))
        np.savez(path.with_suffix(".out.npz"), **batch)
    del declared


if __name__ == "__main__":
    main(Path(sys.argv[1]))
