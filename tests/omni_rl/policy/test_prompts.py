"""Prompts: layout, batches, blanked media and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omni_rl.config import Blank, MediaConfig, OmniModelConfig, TinyConfig
from omni_rl.data.media import Clip, write_clip
from omni_rl.data.record import PROBLEM_TYPES
from omni_rl.policy.processor import Processor, load_processor, save_processor
from omni_rl.policy.prompts import (
    INSTRUCTIONS,
    PromptBuilder,
    stop_token_ids,
    suppressed_token_ids,
)
from omni_rl.policy.tiny import SPECIAL_TOKENS, build_model, build_tokenizer
from tests.omni_rl.prompt_cases import MIXED, SYSTEM, builder, clip, make_processor, record


@pytest.fixture(scope="module")
def processor() -> Processor:
    return make_processor()


@pytest.fixture(scope="module")
def model(processor):
    return build_model(TinyConfig(), processor.tokenizer, seed=0)


both_layouts = pytest.mark.parametrize("together", [False, True])


class TestConversation:
    def test_media_come_first_and_sound_follows_its_clip(self, processor):
        system, user = builder(processor).conversation(record("wide", "silent", "tall"))
        assert system == {"role": "system", "content": SYSTEM}
        assert [(item["type"], item.get(item["type"])) for item in user["content"][:-1]] == [
            ("video", "wide.mp4"),
            ("audio", "wide.mp4"),
            ("video", "silent.mp4"),
            ("video", "tall.mp4"),
            ("audio", "tall.mp4"),
        ]
        assert user["content"][-1]["text"] == (
            "Here is a video with its sound and a video and a video with its sound.\n"
            "How does the voice sound? Options:\nA. calm\nB. cheerful\nC. angry\n"
            "Answer with the letter of the right option."
        )

    def test_interleaved_sound_is_no_item_of_its_own(self, processor):
        _, user = builder(processor, together=True).conversation(record("wide", "silent"))
        assert [item["type"] for item in user["content"]] == ["video", "video", "text"]

    def test_every_problem_type_has_its_instruction(self):
        assert set(INSTRUCTIONS) == set(PROBLEM_TYPES)

    def test_only_choice_questions_show_options(self, processor):
        _, user = builder(processor).conversation(record(problem_type="numerical"))
        assert user["content"] == [
            {"type": "text", "text": "How does the voice sound?\nAnswer with a number."}
        ]

    def test_an_unknown_type_names_the_record(self, processor):
        with pytest.raises(ValueError, match=r"qa\.json:7.*'riddle'.*multiple choice"):
            builder(processor).conversation(record(problem_type="riddle"))


class TestBatch:
    @both_layouts
    def test_a_padded_batch_equals_single_prompts(self, processor, model, together):
        build = builder(processor, together)
        records = [*MIXED, record("long"), record(problem_type="judge")]
        batch = build(records)
        with torch.no_grad():
            logits = model(**batch).logits
            for row, one in enumerate(records):
                single = build([one])
                length = single["input_ids"].shape[1]
                assert batch["attention_mask"][row].sum() == length
                assert batch["attention_mask"][row, -length:].all()
                alone = model(**single).logits[0]
                torch.testing.assert_close(logits[row, -length:], alone, atol=1e-5, rtol=1e-4)

    @both_layouts
    @pytest.mark.parametrize("blank", [Blank.video, Blank.audio, Blank.all])
    def test_blanked_media_keep_their_shape_and_change_the_logits(
        self, processor, model, together, blank
    ):
        shown = builder(processor, together)([record("plain")])
        hidden = builder(processor, together, blank=blank)([record("plain")])
        assert torch.equal(shown["input_ids"], hidden["input_ids"])
        changed = {
            name: not torch.equal(shown[name], hidden[name])
            for name in ("pixel_values_videos", "input_features")
        }
        assert changed == {
            "pixel_values_videos": blank is not Blank.audio,
            "input_features": blank is not Blank.video,
        }
        with torch.no_grad():
            gap = (model(**shown).logits - model(**hidden).logits)[:, -1].abs().max()
        assert gap > 1e-4

    def test_blanking_leaves_nothing_of_the_clip(self, processor):
        blank = builder(processor, blank=Blank.all)
        first, second = blank([record("plain")]), blank([record("plain")])
        assert torch.equal(first["pixel_values_videos"], second["pixel_values_videos"])
        assert first["pixel_values_videos"].unique().numel() == 3  # black, by channel
        real = first["feature_attention_mask"][0].bool()
        assert first["input_features"][0][:, real].unique().numel() == 1

    @both_layouts
    def test_sound_is_fed_once(self, processor, together):
        batch = builder(processor, together)([record("plain")])
        assert batch["input_features"].shape[0] == 1
        tokenizer = processor.tokenizer
        assert (batch["input_ids"] == tokenizer.audio_token_id).sum() == 25
        assert (batch["input_ids"] == tokenizer.audio_bos_token_id).sum() == 1
        assert batch["use_audio_in_video"] is together

    def test_an_interleaved_clip_without_sound_gets_silence(self, processor):
        batch = builder(processor, together=True)([record("silent")])
        assert batch["feature_attention_mask"].sum() == 50  # 4 frames at 8 a second
        assert batch["input_features"].unique().numel() == 1

    def test_text_alone_has_no_media_arguments(self, processor):
        batch = builder(processor)([record(problem_type="judge")])
        assert set(batch) == {"input_ids", "attention_mask", "use_audio_in_video"}

    def test_files_pictures_and_sounds_are_read(self, processor, model, tmp_path):
        made = clip(Path("plain.mp4"))
        write_clip(tmp_path / "clip.mp4", made.frames_THWC, made.fps, made.waveform_S)
        Image.fromarray(made.frames_THWC[0]).save(tmp_path / "picture.png")
        media = MediaConfig(fps=8.0, min_pixels=784, max_pixels=3136)
        build = PromptBuilder(processor, OmniModelConfig(media=media, system_prompt=SYSTEM))
        batch = build(
            [
                record(videos=(tmp_path / "clip.mp4",)),
                record(images=(tmp_path / "picture.png",), audios=(tmp_path / "clip.mp4",)),
            ]
        )
        assert batch["video_grid_thw"].tolist() == [[4, 4, 4]]
        assert batch["image_grid_thw"].tolist() == [[1, 4, 4]]
        assert batch["video_second_per_grid"].tolist() == [0.25]
        assert batch["input_features"].shape[0] == 2
        with torch.no_grad():
            assert torch.isfinite(model(**batch).logits).all()

    def test_sound_beyond_the_front_end_is_cut_and_said_once(self, processor, caplog):
        def endless(path: Path, config: MediaConfig) -> Clip:
            return Clip(clip(path).frames_THWC, 8.0, np.zeros(16000 * 31, np.float32), path)

        build = PromptBuilder(processor, OmniModelConfig(), load=endless)
        for _ in range(2):
            batch = build([record("plain")])
        assert batch["feature_attention_mask"].sum() == 3000
        assert caplog.text.count("only the first 30 s are heard") == 1


class TestRefusals:
    def test_a_placeholder_in_the_question_is_named(self, processor):
        bad = record("plain", problem="What is <|VIDEO|>?")
        with pytest.raises(ValueError, match=r"qa\.json:7.*'plain'.*2 <\|VIDEO\|> for 1 video"):
            builder(processor)([MIXED[0], bad])

    def test_a_template_that_drops_media_is_named(self, processor, monkeypatch):
        bare = "{% for m in messages %}{{ m.role }}{% endfor %}"
        monkeypatch.setattr(processor.tokenizer, "chat_template", bare)
        with pytest.raises(ValueError, match=r"'plain'.*0 <\|VIDEO\|> for 1 video"):
            builder(processor)([record("plain")])

    def test_a_tokenizer_that_breaks_placeholders_is_named(self, processor):
        plain = build_tokenizer(["text"], 300)
        plain.split_special_tokens = True  # the placeholder falls apart into characters
        broken = Processor(plain, processor.feature_extractor)
        with pytest.raises(ValueError, match=r"'plain'.*0 <\|VIDEO\|> tokens for 16 features"):
            builder(broken)([record("plain")])

    def test_the_sound_of_a_clip_listed_again_is_an_error(self, processor):
        doubled = record("plain", audios=(Path("plain.mp4"),))
        with pytest.raises(ValueError, match=r"'plain'.*under videos and audios"):
            builder(processor)([doubled])

    def test_a_long_prompt_is_refused_whole(self, processor):
        with pytest.raises(ValueError, match=r"qa\.json:7.*'wide-tall'.*max_prompt=120"):
            builder(processor, max_prompt=120)(MIXED)

    def test_a_click_is_too_short_to_hear(self, processor):
        def click(path: Path, config: MediaConfig) -> Clip:
            return Clip(clip(path).frames_THWC, 8.0, np.zeros(300, np.float32), path)

        build = PromptBuilder(processor, OmniModelConfig(), load=click)
        # A clip's own track cannot be left out of its record, so it is left out here.
        silent = build([record("plain")])
        assert "input_features" not in silent
        assert "a video with its sound" not in build.question(record("plain"))


class TestTokenIds:
    def test_all_special_tokens_but_the_stops_are_suppressed(self, processor):
        tokenizer = processor.tokenizer
        stops = stop_token_ids(tokenizer)
        assert tokenizer.convert_ids_to_tokens(stops) == ["<|endoftext|>", "<|im_end|>"]
        names = tokenizer.convert_ids_to_tokens(suppressed_token_ids(tokenizer))
        assert set(names) == set(SPECIAL_TOKENS.values()) - {"<|endoftext|>", "<|im_end|>"}


class TestSavedProcessor:
    def test_a_saved_processor_makes_the_same_batch(self, processor, tmp_path):
        save_processor(processor, tmp_path)
        loaded = load_processor(str(tmp_path))
        assert loaded.patches == processor.patches
        want, got = (builder(part)(MIXED) for part in (processor, loaded))
        assert want.keys() == got.keys()
        for name, value in want.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(got[name])), name
        assert suppressed_token_ids(loaded.tokenizer) == suppressed_token_ids(processor.tokenizer)

    @pytest.mark.parametrize(
        "template",
        [
            "{{ messages[0].role }}",
            "{{ 'a turn: ' + messages[0].content }}",
            "{{ raise_exception('text only') }}",
        ],
    )
    def test_a_template_without_media_is_replaced(self, processor, tmp_path, template):
        save_processor(processor, tmp_path)
        (tmp_path / "chat_template.jinja").write_text(template)
        assert "vision_bos" in load_processor(str(tmp_path)).tokenizer.chat_template

    def test_another_familys_tokenizer_is_refused(self, processor, tmp_path):
        save_processor(processor, tmp_path)
        path = tmp_path / "tokenizer.json"
        path.write_text(path.read_text().replace("<|VIDEO|>", "<|FILM|>"))
        settings = tmp_path / "tokenizer_config.json"
        settings.write_text(settings.read_text().replace("<|VIDEO|>", "<|FILM|>"))
        with pytest.raises(ValueError, match=r"lacks \['<\|VIDEO\|>'\]"):
            load_processor(str(tmp_path))
