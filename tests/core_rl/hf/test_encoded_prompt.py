"""Which inputs grow with a completion: those named, whatever sizes coincide."""

from __future__ import annotations

import torch

from core_rl.hf.encoded_prompt import PER_TOKEN, followed_by

MEDIA = {
    "feature_attention_mask": torch.ones(1, 103, dtype=torch.long),
    "input_features": torch.ones(1, 32, 103),
    "pixel_values_videos": torch.ones(64, 12),
    "video_grid_thw": torch.tensor([[4, 4, 4]]),
    "video_second_per_grid": torch.tensor([0.25]),
    "use_audio_in_video": False,
}
SIZES = {size for value in MEDIA.values() for size in getattr(value, "shape", ())}
IDS, MASK = torch.tensor([[7, 8, 9]]), torch.tensor([[True, True, False]])


def test_only_inputs_named_per_token_grow_whatever_the_prompts_length() -> None:
    assert {1, 3, 12, 32, 64, 103} <= SIZES
    for length in range(1, max(SIZES) + 2):
        prompt = {name: torch.ones(1, length, dtype=torch.long) for name in PER_TOKEN}
        prompt |= {"input_ids": torch.arange(length).unsqueeze(0)}
        whole = followed_by(prompt | MEDIA, IDS, MASK)
        assert all(whole[name] is value for name, value in MEDIA.items())
        assert whole["input_ids"][0].tolist() == [*range(length), 7, 8, 9]
        assert whole["attention_mask"][0].tolist() == [1] * length + [1, 1, 0]
        for name in ("token_type_ids", "mm_token_type_ids"):
            assert whole[name][0].tolist() == [1] * length + [0, 0, 0]


def test_a_model_may_name_inputs_of_its_own() -> None:
    prompt = {"input_ids": torch.zeros(1, 4, dtype=torch.long), "speakers": torch.zeros(1, 4)}
    assert followed_by(prompt, IDS)["speakers"] is prompt["speakers"]
    whole = followed_by(prompt, IDS, per_token={"speakers": 2})
    assert whole["speakers"].tolist() == [[0, 0, 0, 0, 2, 2, 2]]
    assert whole["speakers"].dtype is prompt["speakers"].dtype
