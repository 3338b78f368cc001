"""The adapters to other people's segmenters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sa2va_rl.segmenters.models import (
    CLIPSegSegmenter,
    Prediction,
    Sa2VASegmenter,
    Sam3Segmenter,
    digest,
    load_sa2va,
    single_mask,
)

PICTURE = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10))


class StandInSa2VA:
    """Has the call of the published class, and nothing of the model: thresholds the picture.

    Demands what the two published classes demand: `<image>` with a tokenizer, a processor else.
    """

    def __init__(self, answer: str = "[SEG]", maps: bool = False) -> None:
        self.answer = answer
        self.maps = maps
        self.texts: list[str] = []

    def predict_forward(
        self,
        image: Image.Image | None = None,
        video: Any = None,
        text: str = "",
        past_text: str = "",
        mask_prompts: Any = None,
        tokenizer: Any = None,
        processor: Any = None,
    ) -> dict[str, Any]:
        assert image is not None and image.mode == "RGB"
        if processor is None:
            assert tokenizer is not None and text.count("<image>") == 1
        self.texts.append(text)
        map_HW = np.asarray(image, dtype=np.float32)[..., 0] / 60
        count = self.answer.count("[SEG]")
        result = {"prediction": self.answer, "prediction_masks": [map_HW[None] > 0.5] * count}
        if self.maps:
            result["probability_maps"] = [torch.from_numpy(map_HW[None])] * count
        return result


def internvl(model: StandInSa2VA, threshold: float | None = None) -> Sa2VASegmenter:
    return Sa2VASegmenter(model, "stand-in", tokenizer=object(), threshold=threshold)


@pytest.mark.parametrize("text", ["Segment it.", "<image>Segment it."])
def test_each_class_gets_the_text_it_wants(text: str) -> None:
    model = StandInSa2VA()
    internvl(model).predict_forward(PICTURE, text)
    Sa2VASegmenter(model, "stand-in", processor=object()).predict_forward(PICTURE, text)
    assert model.texts == ["<image>Segment it.", "Segment it."]


def test_masks_come_through_at_the_size_of_the_picture() -> None:
    answer = internvl(StandInSa2VA()).predict_forward(PICTURE, "Segment it.")
    np.testing.assert_array_equal(single_mask(answer, 6, 10), np.asarray(PICTURE) > 30)
    assert "probability_maps" not in answer


def test_no_seg_is_an_empty_mask() -> None:
    answer = internvl(StandInSa2VA("I see no vessel.")).predict_forward(PICTURE, "Segment it.")
    assert not single_mask(answer, 6, 10).any()


def test_a_threshold_reads_the_maps() -> None:
    low = internvl(StandInSa2VA(maps=True), 0.25).predict_forward(PICTURE, "Segment it.")
    np.testing.assert_array_equal(single_mask(low, 6, 10), np.asarray(PICTURE) > 15)
    with pytest.raises(ValueError, match="returns hard masks"):
        internvl(StandInSa2VA(), 0.25).predict_forward(PICTURE, "Segment it.")


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ValueError, match=r"a tokenizer .* or a processor"):
        Sa2VASegmenter(StandInSa2VA(), "stand-in")
    with pytest.raises(ValueError, match="between 0 and 1"):
        internvl(StandInSa2VA(), 1.5)


@pytest.mark.parametrize("trust", [False, 1, "true"])
def test_remote_code_needs_a_plain_yes(trust: Any) -> None:
    with pytest.raises(ValueError, match="set trust_remote_code=true"):
        load_sa2va("ByteDance/Sa2VA-4B", trust_remote_code=trust)


def test_several_masks_join_and_odd_sizes_are_told() -> None:
    left, right = np.zeros((2, 1, 4, 5), dtype=bool)
    left[0, 0, 0] = right[0, 3, 4] = True
    answer = Prediction(prediction="[SEG] [SEG]", prediction_masks=[left, right])
    assert single_mask(answer, 4, 5).sum() == 2
    with pytest.raises(ValueError, match="mask is 5 x 4 pixels, the picture 10 x 8"):
        single_mask(answer, 8, 10)


def test_fingerprints_tell_settings_apart() -> None:
    assert digest("a", 1) == digest("a", 1)
    assert len({digest("a", 1), digest("a", 2), digest("a1"), digest("a", [1])}) == 4
    model = StandInSa2VA(maps=True)
    assert internvl(model).fingerprint != internvl(model, 0.25).fingerprint


def test_a_folder_that_was_trained_on_in_place_is_another_model(tmp_path: Path) -> None:
    def fingerprints() -> tuple[str, str]:
        name, model = str(tmp_path), StandInSa2VA()
        own = Sa2VASegmenter(model, name, tokenizer=object())
        return own.fingerprint, CLIPSegSegmenter(torch.nn.Identity(), None, name).fingerprint

    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"before")
    before = fingerprints()
    assert fingerprints() == before
    weights.write_bytes(b"further")
    assert not set(fingerprints()) & set(before)
    assert internvl(StandInSa2VA()).fingerprint == digest("sa2va", "stand-in", None)


def tiny_tokenizer() -> Any:
    """Seven words, with the marks that CLIP's tokenizer sets."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "vessel", "thin", "wide"]
    backend = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", model_max_length=8
    )


@pytest.fixture(scope="module")
def clipseg() -> CLIPSegSegmenter:
    """A tiny CLIPSeg with random weights, and the real processor around a tiny vocabulary."""
    from transformers import (
        CLIPSegConfig,
        CLIPSegForImageSegmentation,
        CLIPSegProcessor,
        ViTImageProcessor,
    )

    layers = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPSegConfig(
        text_config={
            **layers,
            "num_hidden_layers": 2,
            "vocab_size": 7,
            "max_position_embeddings": 8,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={**layers, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    processor = CLIPSegProcessor(
        ViTImageProcessor(size={"height": 32, "width": 32}, do_resize=True), tiny_tokenizer()
    )
    return CLIPSegSegmenter(CLIPSegForImageSegmentation(config), processor, "tiny")


def test_clipseg_threshold_is_checked(clipseg: CLIPSegSegmenter) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        CLIPSegSegmenter(clipseg.model, clipseg.reader, "tiny", threshold=0.0)


@pytest.fixture(scope="module")
def sam3() -> Sam3Segmenter:
    """A tiny SAM 3 with random weights."""
    from transformers import Sam3Config, Sam3Model

    layer = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    shallow = {**layer, "num_layers": 1}
    torch.manual_seed(0)
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **layer,
                "num_hidden_layers": 2,
                "image_size": 112,
                "pretrain_image_size": 56,
                "patch_size": 14,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "model_type": "clip_text_model",
            **layer,
            "num_hidden_layers": 1,
            "vocab_size": 7,
            "max_position_embeddings": 8,
            "projection_dim": 16,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 0,
        },
        geometry_encoder_config=shallow,
        detr_encoder_config=shallow,
        detr_decoder_config={**shallow, "num_queries": 4},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    return Sam3Segmenter(Sam3Model(config), tiny_tokenizer(), "tiny")


def test_sam3_threshold_is_checked(sam3: Sam3Segmenter) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sam3Segmenter(sam3.model, sam3.reader, "tiny", threshold=1.0)


@pytest.mark.parametrize("kind", ["clipseg", "sam3"])
def test_maps_have_the_size_of_the_picture(kind: str, request: pytest.FixtureRequest) -> None:
    answer = request.getfixturevalue(kind).predict_forward(PICTURE, "thin vessel")
    (map_FHW,) = answer["probability_maps"]
    assert map_FHW.shape == (1, 6, 10)
    assert 0 <= map_FHW.min() < map_FHW.max() <= 1
    np.testing.assert_array_equal(answer["prediction_masks"][0], map_FHW > 0.5)


# Weights are random: another text moves the map, if only a little.
@pytest.mark.parametrize(("kind", "least"), [("clipseg", 1e-6), ("sam3", 1e-7)])
def test_the_text_is_read_and_the_answer_repeats_itself(
    kind: str, least: float, request: pytest.FixtureRequest
) -> None:
    segmenter = request.getfixturevalue(kind)
    maps = [
        segmenter.predict_forward(PICTURE, text)["probability_maps"][0]
        for text in ("thin vessel", "thin vessel", "wide", "wide " * 50)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > least
