"""The thinker as a policy: one distribution on every path, with video and sound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from core_rl.hf.recompute import checkpoint_activations
from core_rl.types import Actions
from omni_rl.config import Blank, LoraConfig, MediaConfig
from omni_rl.data.record import Record
from omni_rl.policy.policy import OmniPolicy, adapted, freeze_towers, load_policy, model_card
from tests.core_rl.hf.text_policy import gradients, ragged, weighted_sum
from tests.omni_rl.clips import clip_file


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "together"])
def policy(request: pytest.FixtureRequest, fresh_policy) -> OmniPolicy:
    """Sound after the video, or interleaved with it."""
    return fresh_policy(together=request.param).train()


@pytest.fixture(scope="module")
def separate(fresh_policy) -> OmniPolicy:
    return fresh_policy().train()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(2)


def score(
    policy: OmniPolicy, records: list[Record], actions: Actions, shared: bool = True, t: float = 1.0
) -> Tensor:
    policy.shared_prompt = shared
    try:
        return policy.log_probs(policy.encode(records), actions, t).logp_BGT
    finally:
        policy.shared_prompt = True


# -- one distribution on every path --------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_learner_agree(policy, records, temperature: float) -> None:
    prompt = policy.encode(records)
    assert len({layers[0][0].shape[2] for layers in (p.layers for p in prompt.prefixes)}) > 1
    actions = policy.sample(prompt, 3, temperature)
    assert ragged(actions)
    scored = policy.log_probs(prompt, actions, temperature).logp_BGT
    assert (scored - actions.logp_BGT).exp().sub(1).abs().max() <= 1e-4


def test_a_shared_prompt_changes_neither_log_probs_nor_gradients(policy, records) -> None:
    actions = policy.sample(policy.encode(records), 3)
    shared, again = (score(policy, records, actions, way) for way in (True, False))
    torch.testing.assert_close(shared, again, atol=1e-5, rtol=0)
    one, other = gradients(policy, weighted_sum(shared)), gradients(policy, weighted_sum(again))
    assert (one - other).norm() <= 1e-4 * other.norm()
    towers = [
        parameter.grad.norm()
        for name, parameter in policy.model.named_parameters()
        if ("visual" in name or "audio_tower" in name) and parameter.grad is not None
    ]
    assert min(towers[0], towers[-1]) > 0  # the graph of the shared prompt reaches both towers


def test_neighbours_and_padding_change_nothing(policy, records) -> None:
    actions = policy.sample(policy.encode(records), 2)
    together = score(policy, records, actions)
    for b, record in enumerate(records):
        alone = Actions(actions.ids_BGT[b : b + 1], actions.mask_BGT[b : b + 1])
        torch.testing.assert_close(
            score(policy, [record], alone)[0], together[b], atol=1e-5, rtol=0
        )


def test_clips_without_sound_may_stand_beside_others(policy, records, tmp_path: Path) -> None:
    silent = clip_file(tmp_path / "silent.mp4", sound=False)
    mixed = [records[0], replace(records[1], videos=(silent,)), records[2]]
    actions = policy.sample(policy.encode(mixed), 2)
    shared, again = (score(policy, mixed, actions, way) for way in (True, False))
    torch.testing.assert_close(shared, again, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared, actions.logp_BGT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_completions_of_one_step(policy, records, shared: bool) -> None:
    actions = policy.sample(policy.encode(records[:2]), 2)
    ids, mask = actions.ids_BGT[..., :1], actions.mask_BGT[..., :1]
    one = score(policy, records[:2], Actions(ids, mask), shared)
    torch.testing.assert_close(one, actions.logp_BGT[..., :1], atol=1e-4, rtol=0)


def test_sampling_in_train_mode_with_checkpointing_is_sound(policy, records, fresh_policy) -> None:
    """Where plain `generate` forgets the prompt; see `core_rl.hf.test_generation`."""
    saving = OmniPolicy(fresh_policy().model, policy.processor, policy.config)
    saving.stop_ids = policy.stop_ids
    checkpoint_activations(saving.model)
    saving.train()
    assert saving.model.training
    actions = saving.sample(saving.encode(records), 2)
    scored = score(saving, records, actions)
    torch.testing.assert_close(scored, actions.logp_BGT, atol=1e-4, rtol=0)
    plain = score(policy, records, actions)
    torch.testing.assert_close(scored, plain, atol=1e-5, rtol=0)
    one, other = gradients(saving, scored.sum()), gradients(policy, plain.sum())
    assert (one - other).norm() <= 1e-4 * other.norm()


@torch.no_grad()
def test_greedy_is_what_generate_does(policy, records) -> None:
    actions = policy.sample(policy.encode(records), 1, temperature=0.0)
    inputs = policy.collate(records)
    wanted = policy.model.eval().generate(
        **inputs,
        do_sample=False,
        max_new_tokens=policy.max_completion,
        eos_token_id=policy.stop_ids.tolist(),
        pad_token_id=int(policy.stop_ids[0]),
        suppress_tokens=policy.suppress_ids.tolist(),
    )[:, inputs["input_ids"].shape[1] :]
    for b in range(len(records)):
        kept = actions.ids_BGT[b, 0][actions.mask_BGT[b, 0]].tolist()
        assert wanted[b].tolist()[: len(kept)] == kept


def test_media_tokens_are_never_drawn(separate, records) -> None:
    actions = separate.sample(separate.encode(records), 16, temperature=50.0)
    assert not torch.isin(actions.ids_BGT, separate.suppress_ids).any()
    names = separate.tokenizer.convert_ids_to_tokens(separate.suppress_ids.tolist())
    assert {"<|VIDEO|>", "<|AUDIO|>", "<|IMAGE|>", "<|vision_bos|>", "<|audio_bos|>"} <= set(names)


@pytest.mark.parametrize("blank", [Blank.video, Blank.audio])
def test_what_the_clip_shows_and_sounds_like_matters(
    policy, records, fresh_policy, blank: Blank
) -> None:
    together = policy.config.media.use_audio_in_video
    blind = fresh_policy(together=together).blank(blank)
    actions = policy.sample(policy.encode(records[:1]), 2)
    seen, unseen = (score(each, records[:1], actions) for each in (policy, blind))
    assert (seen - unseen).abs().max() > 1e-3


def test_the_two_layouts_are_two_distributions(fresh_policy, records) -> None:
    apart, together = fresh_policy(), fresh_policy(together=True)
    actions = apart.sample(apart.encode(records[:1]), 2)
    gap = score(apart, records[:1], actions) - score(together, records[:1], actions)
    assert gap.abs().max() > 1e-3


# -- the reference, and what trains --------------------------------------------------------------


def test_a_frozen_copy_stays_and_takes_no_gradient(fresh_policy, records) -> None:
    policy = fresh_policy().train()
    reference = policy.frozen_copy()
    actions = policy.sample(policy.encode(records[:2]), 2)
    before = score(reference, records[:2], actions)
    assert not before.requires_grad
    score(policy, records[:2], actions).sum().backward()
    torch.optim.SGD(policy.parameters(), lr=0.1).step()
    assert (score(policy, records[:2], actions) - before).abs().max() > 1e-3
    assert torch.equal(score(reference, records[:2], actions), before)
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_frozen_towers_take_no_gradient_and_the_rest_does(fresh_policy, records) -> None:
    policy = fresh_policy().train()
    freeze_towers(policy.model)
    actions = policy.sample(policy.encode(records[:2]), 2)
    score(policy, records[:2], actions).sum().backward()
    frozen = {name for name, p in policy.model.named_parameters() if not p.requires_grad}
    assert frozen
    for name, parameter in policy.model.named_parameters():
        in_tower = "visual." in name or "audio_tower." in name
        assert (name in frozen) == in_tower
        assert (parameter.grad is None) == in_tower, name


def test_all_that_trains_gets_a_gradient(fresh_policy, records) -> None:
    policy = fresh_policy().train()
    actions = policy.sample(policy.encode(records), 2)
    weighted_sum(policy.log_probs(policy.encode(records), actions).logp_BGT).backward()
    waiting = [name for name, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []


def test_adapters_train_alone_and_start_as_the_model(fresh_policy, records) -> None:
    pytest.importorskip("peft")
    start = fresh_policy()
    config = replace(start.config, lora=LoraConfig(r=2))
    policy = OmniPolicy(adapted(fresh_policy().model, config), start.processor, config).train()
    policy.stop_ids = start.stop_ids
    actions = start.sample(start.encode(records[:2]), 2)
    torch.testing.assert_close(
        score(policy, records[:2], actions), score(start, records[:2], actions), atol=1e-5, rtol=0
    )
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    layers = start.config.tiny.layers
    assert len(trained) == 2 * 4 * layers  # two matrices for each of four projections
    assert not [name for name in trained if "visual." in name or "audio_tower." in name]
    fresh = policy.sample(policy.encode(records[:2]), 2)
    torch.testing.assert_close(score(policy, records[:2], fresh), fresh.logp_BGT, atol=1e-4, rtol=0)


# -- files ---------------------------------------------------------------------------------------


def test_a_saved_policy_opens_as_itself(separate, records, tmp_path: Path) -> None:
    separate.save(tmp_path / "new" / "best", "omni_tiny", {"val/reward": 0.75, "step": 12.0})
    folder = tmp_path / "new" / "best"
    opened = load_policy(separate.config, folder)
    actions = separate.sample(separate.encode(records), 2)
    assert torch.equal(score(opened, records, actions), score(separate, records, actions))
    assert opened.tokenizer.get_vocab() == separate.tokenizer.get_vocab()
    card = (folder / "README.md").read_text()
    assert "omni_tiny" in card and "- val/reward: 0.75" in card and "- step: 12" in card
    again = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder)
    assert again.num_parameters() == separate.model.num_parameters()


def test_a_loaded_policy_has_frozen_towers_where_asked(separate, tmp_path: Path) -> None:
    separate.save(tmp_path, "x", {})
    for freeze in (True, False):
        opened = load_policy(replace(separate.config, freeze_towers=freeze), tmp_path)
        towers = [p for n, p in opened.model.named_parameters() if "visual." in n]
        assert all(p.requires_grad is not freeze for p in towers)


def test_restored_weights_are_the_saved_ones(fresh_policy, records, tmp_path: Path) -> None:
    policy = fresh_policy()
    actions = policy.sample(policy.encode(records[:2]), 2)
    before = score(policy, records[:2], actions).detach()
    policy.save(tmp_path, "x", {})
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.9)
    assert (score(policy, records[:2], actions) - before).abs().max() > 1e-3
    policy.restore(tmp_path)
    assert torch.equal(score(policy, records[:2], actions), before)


@torch.no_grad()
def move_adapters(policy: OmniPolicy) -> None:
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.normal_(0, 0.3)


def test_restored_adapters_are_the_saved_ones(fresh_policy, records, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start = fresh_policy()
    config = replace(start.config, lora=LoraConfig(r=2))
    policy = OmniPolicy(adapted(start.model, config), start.processor, config)
    move_adapters(policy)
    actions = policy.sample(policy.encode(records[:2]), 2)
    before = score(policy, records[:2], actions).detach()
    policy.save(tmp_path, "x", {})
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.mul_(0.5)
    policy.restore(tmp_path)
    torch.testing.assert_close(score(policy, records[:2], actions), before, atol=1e-6, rtol=0)


def test_a_folder_of_adapters_opens_on_the_checkpoint_it_names(
    fresh_policy, records, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    start = fresh_policy(early=False)
    start.save(tmp_path / "base", "x", {})
    config = replace(start.config, lora=LoraConfig(r=2))
    policy = load_policy(config, tmp_path / "base")
    move_adapters(policy)
    actions = policy.sample(policy.encode(records[:2]), 2)
    expected = score(policy, records[:2], actions)
    policy.save(tmp_path / "adapters", "x", {})
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    again = load_policy(start.config, tmp_path / "adapters")
    torch.testing.assert_close(score(again, records[:2], actions), expected, atol=1e-5, rtol=0)
    trained = [name for name, p in again.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    (tmp_path / "base" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="base_model_name_or_path of"):
        load_policy(start.config, tmp_path / "adapters")


def test_a_model_card_lists_its_metrics_by_name() -> None:
    card = model_card("mine", {"b": 2.0, "a": 1 / 3}, MediaConfig(max_pixels=3136))
    assert card.startswith("# mine")
    assert card.index("- a: 0.3333") < card.index("- b: 2")


def test_a_saved_model_says_where_a_completion_ends(fresh_policy, records, tmp_path: Path) -> None:
    """Stock `generate` reads only what the folder holds."""
    policy = fresh_policy()
    policy.model.generation_config.eos_token_id = None
    policy.model.generation_config.pad_token_id = None
    policy.save(tmp_path, "mine", {})
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved["eos_token_id"] == policy.stop_ids.tolist()
    assert saved["pad_token_id"] == policy.tokenizer.pad_token_id


def test_the_processor_files_of_the_start_stay_as_they_are(fresh_policy, tmp_path: Path) -> None:
    policy = fresh_policy()
    start, end = tmp_path / "start", tmp_path / "end"
    policy.save(start, "start", {})
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        values = json.loads((start / name).read_text())
        (start / name).write_text(json.dumps(values | {"left_by_its_authors": 1}))
    trained = load_policy(policy.config, start)
    trained.save(end, "end", {})
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (end / name).read_bytes() == (start / name).read_bytes()
    assert f"max_pixels {policy.config.media.max_pixels}" in (end / "README.md").read_text()
    load_policy(policy.config, end).save(end, "end", {})  # in its own place
    assert (end / "tokenizer.json").is_file()


def test_adapters_of_another_rank_are_refused(fresh_policy, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start = fresh_policy()
    start.save(tmp_path / "base", "base", {})
    config = replace(start.config, lora=LoraConfig(r=2))
    load_policy(config, tmp_path / "base").save(tmp_path / "adapters", "x", {})
    for rank in (0, 2):
        load_policy(replace(config, lora=LoraConfig(r=rank)), tmp_path / "adapters")
    with pytest.raises(ValueError, match=r"model\.lora\.r=16: the adapters in .* have r=2"):
        load_policy(replace(config, lora=LoraConfig(r=16)), tmp_path / "adapters")
