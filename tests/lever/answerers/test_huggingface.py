"""Answers of a tiny Qwen2.5-VL: what is scored, and that batching changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lever.answerers.huggingface import (
    IGNORED,
    PUBLISHED,
    HFAnswerer,
    PicturesOnly,
    load_hf,
)
from lever.answerers.templates import (
    FLAMINGO,
    IDEFICS,
    ChatTemplate,
    Prompts,
    Template,
    pictures_of,
)
from lever.data.datasets import Prompted
from tests.lever.tiny_vlm import CHAT, item, save_tiny, tiny_vlm

PROMPTS = [Prompted(0, (1, 2)), Prompted(3), Prompted(4, (9,)), Prompted(5, (4, 6, 7))]
ANSWERS = ["dog", "a brown dog", "park 12", "nothing at all"]
TEMPLATES: dict[str, Template] = {
    "chat": ChatTemplate(),
    "system": ChatTemplate(system="Be brief."),
    "flamingo": FLAMINGO,
    "idefics": IDEFICS,
}


def answerer(template: Template = TEMPLATES["chat"], **changes: Any) -> HFAnswerer:
    model, processor = tiny_vlm()
    return HFAnswerer(model, processor, Prompts(template, item), data="made up", **changes)


@pytest.mark.parametrize("name", TEMPLATES)
def test_labels_cover_exactly_the_answers_tokens(name: str) -> None:
    template = TEMPLATES[name]
    _, processor = tiny_vlm()
    inputs, labels_BT = answerer(template).scored_inputs(PROMPTS, ANSWERS)
    pad, picture = processor.tokenizer.pad_token_id, processor.image_token_id
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        ids, labels = inputs["input_ids"][row], labels_BT[row]
        real = inputs["attention_mask"][row].bool()
        scored = labels != IGNORED
        assert torch.equal(ids[scored], labels[scored])
        assert processor.tokenizer.decode(labels[scored]) == template.answer_prefix + answer
        # The answer closes the row: the prompt before it, padding alone behind.
        assert torch.equal(scored.nonzero().flatten(), real.nonzero().flatten()[-scored.sum() :])
        assert (ids[~real] == pad).all()
        # The prompt is what the processor makes of it alone, pictures expanded.
        alone = answerer(template).prompt_inputs([prompt], "right")
        assert torch.equal(ids[real & ~scored], alone["input_ids"][0])
        grid = alone.get("image_grid_thw", torch.zeros(0, 3, dtype=torch.long))
        assert int((ids == picture).sum()) == int(grid.prod(dim=-1).sum()) // 4
        assert not scored[ids == picture].any()
    assert int((inputs["input_ids"] == picture).sum()) == 40  # pictures there are
    assert torch.equal(inputs["mm_token_type_ids"] == 1, inputs["input_ids"] == picture)


def test_the_answer_stands_where_the_chat_layout_puts_it() -> None:
    """A whole chat, the answer as the assistant's turn, tokenised in one piece."""
    model, processor = tiny_vlm()
    template = ChatTemplate()
    prompt, answer = PROMPTS[0], "a brown dog"
    shots, query = [item(shot) for shot in prompt.shots], item(prompt.query)
    messages = template.messages(shots, query)
    assert messages is not None
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    text = processor.apply_chat_template([*messages, said], tokenize=False)
    whole = processor(text=[text], images=[pictures_of(shots, query)], return_tensors="pt")
    inputs, labels_BT = answerer().scored_inputs([prompt], [answer])
    ours = inputs["input_ids"][0]
    assert torch.equal(whole["input_ids"][0, : len(ours)], ours)
    assert processor.tokenizer.decode(whole["input_ids"][0, len(ours) :]) == "<|im_end|>\n"
    loss = model(**inputs, labels=labels_BT).loss
    assert answerer().answer_logprob([prompt], [answer])[0] == pytest.approx(-loss.item(), abs=1e-5)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_batch_is_answered_as_one_by_one(name: str) -> None:
    batched, single = (
        answerer(TEMPLATES[name], batch_size=3),
        answerer(TEMPLATES[name], batch_size=1),
    )
    assert batched.generate(PROMPTS) == single.generate(PROMPTS)
    together = batched.answer_logprob(PROMPTS, ANSWERS)
    assert together == pytest.approx(single.answer_logprob(PROMPTS, ANSWERS), abs=1e-4)
    assert max(together) < 0


def test_demonstrations_their_order_and_pictures_all_count() -> None:
    prompts = [Prompted(0, (1, 2)), Prompted(0, (2, 1)), Prompted(0, (1,)), Prompted(0)]
    scores = answerer().answer_logprob(prompts, ["dog"] * 4)
    assert len({round(score, 5) for score in scores}) == 4

    def without_pictures(index: int) -> Any:
        return replace(item(index), picture=None)

    model, processor = tiny_vlm()
    blind = HFAnswerer(model, processor, Prompts(ChatTemplate(), without_pictures))
    assert blind.answer_logprob(prompts[:1], ["dog"])[0] != pytest.approx(scores[0], abs=1e-4)


def test_greedy_generation_takes_the_most_probable_tokens() -> None:
    settings = PUBLISHED | {"max_new_tokens": 3, "num_beams": 1}
    greedy = answerer(generation=settings)
    model, processor = tiny_vlm()
    inputs = greedy.prompt_inputs([PROMPTS[0]], "right")
    said: list[int] = []
    with torch.no_grad():
        for _ in range(3):
            said.append(int(model(**inputs).logits[0, -1].argmax()))
            one = torch.tensor([[said[-1]]])
            for name, value in (("input_ids", one), ("attention_mask", one * 0 + 1)):
                inputs[name] = torch.cat([inputs[name], value], dim=1)
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, kinds[:, :1] * 0], dim=1)
    text = processor.tokenizer.decode(said, skip_special_tokens=True)
    assert greedy.generate([PROMPTS[0]]) == [ChatTemplate().cut(text)]


def test_the_checkpoints_own_sampling_is_not_used_and_modes_are_restored() -> None:
    model, _ = tiny_vlm()
    config = model.generation_config
    assert config is not None
    plain = answerer().generate(PROMPTS)
    model.train()
    config.update(do_sample=True, temperature=5.0, top_k=3)
    try:
        assert answerer().generate(PROMPTS) == plain
        assert model.training and config.do_sample
    finally:
        model.eval()
        config.update(do_sample=False, temperature=None, top_k=None)


def test_a_checkpoint_folder_is_opened_and_named_by_its_weights(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model, processor = load_hf(str(tmp_path), "float32", (784, 3136))
    assert isinstance(processor, PicturesOnly)
    opened = HFAnswerer(model, processor, Prompts(ChatTemplate(), item), data="made up")
    assert opened.fingerprint == answerer().fingerprint
    before = answerer().answer_logprob(PROMPTS[1:3], ANSWERS[1:3])
    assert opened.answer_logprob(PROMPTS[1:3], ANSWERS[1:3]) == pytest.approx(before, abs=1e-4)
    with torch.no_grad():
        model.get_output_embeddings().weight[3] += 1
    changed = HFAnswerer(model, processor, Prompts(ChatTemplate(), item), data="made up")
    other_data = HFAnswerer(model, processor, Prompts(ChatTemplate(), item), data="other")
    assert len({opened.fingerprint, changed.fingerprint, other_data.fingerprint}) == 3


def test_pixels_bound_the_tokens_of_a_picture(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model, processor = load_hf(str(tmp_path), pixels=(784, 784))
    small = HFAnswerer(model, processor, Prompts(ChatTemplate(), item))
    inputs = small.prompt_inputs([Prompted(2)], "right")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 1
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_5_vl"


def test_a_plain_prompt_marks_pictures_as_the_chat_layout_does() -> None:
    _, processor = tiny_vlm()
    inputs = answerer(FLAMINGO).prompt_inputs([Prompted(2)], "right")
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|vision_start|><|image_pad|>")
    assert "<|image_pad|><|vision_end|>Question:What is it, 2? Short answer:" in text


def test_a_checkpoint_without_a_chat_layout_needs_a_plain_template() -> None:
    model, processor = tiny_vlm()
    processor.chat_template = processor.tokenizer.chat_template = None
    try:
        with pytest.raises(ValueError, match="no chat template"):
            HFAnswerer(model, processor, Prompts(ChatTemplate(), item))
        HFAnswerer(model, processor, Prompts(FLAMINGO, item))
    finally:
        processor.chat_template = processor.tokenizer.chat_template = CHAT


def test_an_answer_without_tokens_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        answerer().answer_logprob(PROMPTS[:1], [""])
