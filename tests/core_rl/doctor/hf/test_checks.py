"""`diagnose`, for the model and the batch of any trainer, and the checks it is made of."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.cache_utils import DynamicCache

from core_rl.doctor.agreement import (
    COARSEST,
    FULL,
    HALF,
    TIMES_ROUNDING,
    gap_between,
    tolerance_of,
)
from core_rl.doctor.findings import Finding, Verdict
from core_rl.doctor.hf import checks
from core_rl.doctor.hf.checks import Trainer, check_policy, diagnose
from core_rl.doctor.hf.parity import Case, Drawn, unpadded_rows
from core_rl.doctor.hf.prompt_checks import template_findings, tokenizer_findings
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.generation import cache_name, generation_mode
from core_rl.hf.recompute import checkpoint_activations
from tests.core_rl.hf.lost_cache import checkpointed, release_loses_it
from tests.core_rl.hf.text_policy import (
    QUERIES,
    TextPolicy,
    build_model,
    build_policy,
    byte_tokenizer,
)

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_the_imports_of_the_example_stand_in_the_example() -> None:
    imports = [line for line in (checks.__doc__ or "").splitlines() if " import " in line]
    assert [line[:16] for line in imports] == ["    from core_rl"] * 2


def bad(findings: list[Finding]) -> dict[str, str]:
    return {one.check: one.cause for one in findings if one.verdict is Verdict.fail}


def batch_of(texts: list[str], side: str = "left") -> Inputs:
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = side
    return dict(tokenizer(texts, padding=True, return_tensors="pt"))


def diagnosed(model: nn.Module, **changes: Any) -> dict[str, str]:
    torch.manual_seed(0)
    return bad(diagnose(model, byte_tokenizer(), batch_of(QUERIES), Trainer(**changes)))


def scored(
    model: nn.Module, inputs: Inputs, ids_NT: Tensor, mask_NT: Tensor, shift: int = 0
) -> Tensor:
    """A trainer's own scoring: one padded forward, positions from the mask."""
    ids = torch.cat([inputs["input_ids"], ids_NT], 1)
    mask = torch.cat([inputs["attention_mask"], mask_NT.long()], 1)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    steps = ids_NT.shape[1]
    logits = model(ids, attention_mask=mask, position_ids=places, use_cache=False).logits
    logits = logits[:, -steps - 1 - shift : -1 - shift]
    logp = logits.log_softmax(-1).gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1)
    return torch.where(mask_NT, logp, 0.0)


# -- healthy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_plain_trainer_is_cleared(family: str) -> None:
    model = build_model(family).eval()
    assert diagnosed(model, score=scored) == {}
    assert diagnosed(model, temperature=0.7, suppress_ids=[3, 5]) == {}


def test_learned_absolute_positions_are_cleared() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=259, n_positions=128, n_embd=32, n_layer=2, n_head=4, eos_token_id=256
        )
    ).eval()
    assert diagnosed(model, score=scored) == {}


def test_half_precision_has_wider_limits() -> None:
    model = build_model().to(torch.bfloat16).eval()
    assert tolerance_of(model) == HALF
    assert tolerance_of(build_model()) is FULL
    assert diagnosed(model) == {}


def sharp_policy() -> TextPolicy:
    """In bfloat16 its log-probs round by more than small models' do, as those of real weights."""
    model = build_model(initializer_range=0.5)
    model.lm_head.weight.data *= 4
    return build_policy(model=model.to(torch.bfloat16))


def test_limits_of_half_precision_follow_what_it_does_to_this_model() -> None:
    policy = sharp_policy()
    torch.manual_seed(0)
    found = check_policy(policy, QUERIES, max_new=9)
    rounding = next(one for one in found if one.check == "parity/rounding")
    assert rounding.figure is not None and rounding.figure > HALF.mean_abs / TIMES_ROUNDING
    assert [one.check for one in found if one.verdict is Verdict.fail] == []
    assert policy.rounding[0] == rounding.figure
    limit = tolerance_of(policy)
    assert HALF.mean_abs < limit.mean_abs <= COARSEST.mean_abs
    assert limit.max_abs <= COARSEST.max_abs


def test_other_weights_are_found_behind_that_rounding() -> None:
    policy = sharp_policy()
    drawing = copy.deepcopy(policy)
    for parameter in drawing.model.parameters():
        parameter.data += 0.2 * parameter.std() * torch.randn_like(parameter)
    policy.sample = drawing.sample  # type: ignore[method-assign]  # stale weights draw
    torch.manual_seed(0)
    failed = {
        one.check for one in check_policy(policy, QUERIES, max_new=9) if one.verdict is Verdict.fail
    }
    assert "parity/decoding_max" in failed or "parity/decoding_mean" in failed


def test_nothing_is_changed() -> None:
    model = build_model()
    checkpoint_activations(model)
    model.train()
    flags = [(m.training, getattr(m, "gradient_checkpointing", None)) for m in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    diagnose(model, byte_tokenizer(), batch_of(QUERIES), Trainer(score=scored))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert flags == [
        (m.training, getattr(m, "gradient_checkpointing", None)) for m in model.modules()
    ]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model._forward_pre_hooks


def test_a_policy_comes_out_as_it_went_in() -> None:
    policy = build_policy()
    policy.model.train()
    limit = policy.max_completion
    check_policy(policy, QUERIES, max_new=3)
    assert policy.model.training and policy.max_completion == limit


# -- sick ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_lost_cache_is_found_in_any_trainer(reentrant: bool) -> None:
    model = checkpointed(build_model("llama"), reentrant)
    found = diagnosed(model.train())
    assert "lost cache" in found["cache/length"]
    assert "lost cache" in found["parity/decoding_max"]
    with generation_mode(model):
        assert diagnosed(model) == {}


@pytest.mark.parametrize("reentrant", [True, False])
def test_generate_under_checkpointing_is_judged_by_what_it_does(reentrant: bool) -> None:
    """Releases up to transformers 5.23 lose the cache there, later ones keep it."""
    model = build_model("llama")
    checkpoint_activations(model, reentrant)
    assert ("cache/length" in diagnosed(model.train())) is release_loses_it()


def test_right_padding_is_found() -> None:
    found = bad(diagnose(build_model().eval(), byte_tokenizer(), batch_of(QUERIES, "right")))
    assert "right padding" in found["prompts/padding_left"]
    assert "right padding" in found["parity/decoding_max"]


def test_a_cache_of_another_batch_is_found() -> None:
    model = build_model().eval()

    def draw(model: nn.Module, inputs: Inputs, max_new: int) -> Drawn:
        prompt = inputs["input_ids"]
        with torch.no_grad():
            cache = DynamicCache()
            kept = {cache_name(model): cache}
            model(input_ids=prompt, **kept)  # never thrown away
            ids, logps, step = [], [], prompt
            for _ in range(max_new):
                logp = model(input_ids=step, **kept).logits[:, -1].log_softmax(-1)
                step = torch.multinomial(logp.exp(), 1)
                ids.append(step)
                logps.append(logp.gather(-1, step))
        drawn = torch.cat(ids, 1)
        return Drawn(
            drawn, torch.ones_like(drawn).bool(), torch.cat(logps, 1), None, prompt.shape[1]
        )

    found = bad(diagnose(model, byte_tokenizer(), batch_of(["one prompt"]), Trainer(draw=draw)))
    assert "earlier batch" in found["cache/length"]
    assert "parity/decoding_max" in found


def test_labels_off_by_one_are_found_in_the_trainers_scoring() -> None:
    def late(*args: Any) -> Tensor:
        return scored(*args, shift=1)

    found = diagnosed(build_model().eval(), score=late)
    assert "shifted" in found["parity/training_max"]
    assert "parity/decoding_max" not in found


def test_a_sampler_with_other_weights_is_told_from_a_bad_forward() -> None:
    model = build_model().eval()
    old = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))

    def draw(_: nn.Module, inputs: Inputs, max_new: int) -> Drawn:
        ids = old.generate(**inputs, max_new_tokens=max_new, min_new_tokens=max_new, do_sample=True)
        ids = ids[:, inputs["input_ids"].shape[1] :]
        mask = torch.ones_like(ids).bool()
        return Drawn(ids, mask, scored(old, inputs, ids, mask).detach())

    found = diagnosed(model, draw=draw, score=scored)
    assert "stale rollout weights" in found["parity/decoding_max"]
    assert "parity/training_max" not in found


def test_weights_that_are_not_finite_end_the_examination() -> None:
    model = build_model().eval()
    model.lm_head.weight.data[0, 0] = torch.nan
    assert list(diagnosed(model)) == ["weights/not_finite"]


def test_media_need_their_rows() -> None:
    inputs = batch_of(QUERIES) | {"pixel_values": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match=r"pixel_values.*rows="):
        unpadded_rows(inputs)


# -- figures -------------------------------------------------------------------------------------


def test_the_gap_is_split_into_first_and_rest() -> None:
    one = torch.tensor([[1.0, 2.0, 9.0], [1.5, 2.0, 3.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    gap = gap_between(one, torch.tensor([[1.0, 2.25, 0.0], [1.0, 2.0, 3.0]]), mask)
    assert (gap.first, gap.rest, gap.max) == (0.5, 0.25, 0.5)
    assert gap.mean == pytest.approx(0.75 / 5)
    nothing = gap_between(one * torch.nan, one, mask)
    assert nothing.max == float("inf") and not nothing.within(HALF)


def test_the_plain_forward_is_the_models_own() -> None:
    model = build_model().eval()
    row = unpadded_rows(batch_of(["some prompt"]))[0]
    ids = torch.tensor([65, 66, 67])
    whole = torch.cat([row["input_ids"][0], ids])
    logits = model(whole.unsqueeze(0)).logits[0, -4:-1]
    case = Case(model, [row], ids.unsqueeze(0), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(case.logits[0], logits)


# -- tokens and templates ------------------------------------------------------------------------


def prompts(tokenizer: Any, template: str, *, opened: bool = True) -> list[list[int]]:
    tokenizer.chat_template = template
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opened)
    return [tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_a_good_template_is_cleared() -> None:
    tokenizer = byte_tokenizer()
    assert bad(template_findings(tokenizer, prompts(tokenizer, CHAT))) == {}


@pytest.mark.parametrize(
    ("template", "check"),
    [
        (CHAT.replace("messages", "messages[1:]"), "template/roles"),
        (CHAT.replace("messages", "messages | reverse"), "template/roles"),
        (CHAT.replace("[{{ m.role }}]", ""), "template/roles"),
        (CHAT.partition("{% if")[0], "template/generation_prompt"),
        ("{{ raise_exception('no system turns') }}", "template/roles"),
    ],
)
def test_a_wrong_template_is_found(template: str, check: str) -> None:
    tokenizer = byte_tokenizer()
    ids = prompts(tokenizer, CHAT)
    tokenizer.chat_template = template
    assert "template" in bad(template_findings(tokenizer, ids))[check]


def test_prompts_that_do_not_end_as_the_template_ends_them_are_found() -> None:
    tokenizer = byte_tokenizer()
    ids = prompts(tokenizer, CHAT, opened=False)
    found = bad(template_findings(tokenizer, ids))
    assert "generation prompt" in found["template/generation_prompt"]
    assert bad(template_findings(tokenizer, [prompts(tokenizer, CHAT)[0][:-4]]))


def test_a_start_token_written_twice_is_found() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<begin>"})
    ids = prompts(tokenizer, "<begin>" + CHAT)[0]
    assert bad(template_findings(tokenizer, [ids])) == {}
    found = bad(template_findings(tokenizer, [[tokenizer.bos_token_id, *ids]]))
    assert "twice" in found["template/begins_once"]


def tokens(**changes: Any) -> dict[str, str]:
    settings: dict[str, Any] = {"vocabulary": 259, "stop_ids": [256]}
    return bad(tokenizer_findings(byte_tokenizer(), **(settings | changes)))


def test_ids_that_a_run_relies_on_must_be_there() -> None:
    assert tokens(special_tokens=["<media>"]) == {}
    assert "<image>" in tokens(special_tokens=["<image>"])["tokens/special_single"]
    assert "no stop id" in tokens(stop_ids=[])["tokens/stop_reachable"]
    assert "no stop id" in tokens(suppress_ids=[256])["tokens/stop_reachable"]
    assert "embeddings" in tokens(vocabulary=200)["tokens/vocabulary"]
    assert "pad" in tokens(vocabulary=200)["tokens/pad"]
