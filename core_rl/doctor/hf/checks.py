"""Is what a model learns from what it drew?  The same question to any trainer and to ours.

`diagnose` takes a Hugging Face model, the batch that is fed to `generate` and, where the trainer
has one, its own scoring of completions:

    from core_rl.doctor.findings import health_table
    from core_rl.doctor.hf.checks import diagnose

    print(health_table(diagnose(model, tokenizer, batch)).to_string())

Call it in the very state in which the trainer would draw: nothing is switched for it.
`check_policy` asks the same of a policy of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core_rl.doctor.findings import Finding, failed
from core_rl.doctor.hf.explain import Hypothesis
from core_rl.doctor.hf.parity import (
    Case,
    Drawn,
    Gap,
    gap_between,
    unpadded_rows,
    watch_cache,
)
from core_rl.doctor.hf.parity_checks import cache_finding, parity_findings
from core_rl.doctor.hf.prompt_checks import batch_findings, template_findings, tokenizer_findings
from core_rl.doctor.hf.sampling_checks import sampling_findings, text_findings
from core_rl.doctor.weights import weights_finite
from core_rl.hardware import own_randomness
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.policy import HFPolicy
from core_rl.types import Actions, Query

Draw = Callable[[nn.Module, Inputs, int], Drawn]
Score = Callable[[nn.Module, Inputs, Tensor, Tensor], Tensor]

# -- any trainer ---------------------------------------------------------------------------------


def diagnose(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, Any],
    *,
    rows: Sequence[Inputs] | None = None,
    draw: Draw | None = None,
    score: Score | None = None,
    temperature: float = 1.0,
    suppress_ids: Sequence[int] = (),
    stop_ids: Sequence[int] | None = None,
    max_new: int = 16,
    hypotheses: Sequence[Hypothesis] = (),
) -> list[Finding]:
    """Check how a causal model is drawn from and scored, in the state it is in.

    Args:
        model: a `PreTrainedModel`, as the trainer holds it when it draws.
        tokenizer: of the model.
        inputs: the padded batch, as it is fed to `generate`; B prompts.
        rows: the same prompts, each encoded alone without padding; needed with media, otherwise cut
            out of `inputs`.
        draw: `(model, inputs, max_new)` -> completions of the B prompts with the log-probs that
            decoding saw; None = `model.generate`.
        score: `(model, inputs, ids_NT, mask_NT)` -> the trainer's own log-probs [N, T]; None leaves
            the training forward out.
        temperature: at which candidates are drawn and scored.
        suppress_ids: never drawn.
        stop_ids: end a completion; None = the model's generation config.
        max_new: tokens to draw.
        hypotheses: more causes to try on a failure.

    Returns:
        Findings under `prompts/`, `tokens/`, `cache/`, `sampling/` and `parity/`; of weights that
        are not finite, that alone.
    """
    if failed(broken := [weights_finite(model)]):
        return broken  # nothing can be drawn
    alone = unpadded_rows(inputs) if rows is None else list(rows)
    stops = _stop_ids(model, tokenizer) if stop_ids is None else list(stop_ids)
    batch, owners = dict(inputs), list(range(len(alone)))
    found = _prompt_findings(model, tokenizer, batch, alone, stops, suppress_ids)
    draw = draw or partial(
        _generate, temperature=temperature, suppress_ids=suppress_ids, stop_ids=stops
    )
    drawn = _drawn(draw, model, batch, max_new)
    suppressed = _suppressed(suppress_ids, drawn.ids_NT)
    case = Case(model, alone, drawn.ids_NT, drawn.mask_NT, temperature, suppressed, batch, owners)
    found += [cache_finding(drawn), *sampling_findings(case, drawn.logp_NT, stops, max_new)]
    scored, repeat = (None, None) if score is None else _scored(score, model, batch, drawn)
    return found + parity_findings(case, drawn.logp_NT, scored, repeat, hypotheses)


def _prompt_findings(
    model: Any,
    tokenizer: Any,
    batch: Inputs,
    rows: Sequence[Inputs],
    stop_ids: Sequence[int],
    suppress_ids: Sequence[int],
) -> list[Finding]:
    """Check what is known before anything is drawn."""
    return batch_findings(batch, rows, tokenizer.pad_token_id) + tokenizer_findings(
        tokenizer,
        vocabulary=model.get_input_embeddings().num_embeddings,
        stop_ids=stop_ids,
        suppress_ids=suppress_ids,
    )


def _drawn(draw: Draw, model: Any, batch: Inputs, max_new: int) -> Drawn:
    """Draw, and look at the cache where the draw itself says nothing of it."""
    with own_randomness(model.device), watch_cache(model) as watch:
        drawn = draw(model, batch, max_new)
        if drawn.cache_length is None:
            drawn = replace(drawn, cache_length=watch.length)
    return drawn


def _scored(score: Score, model: Any, batch: Inputs, drawn: Drawn) -> tuple[Tensor, Gap]:
    """Score what was drawn, and say how far a second time differs."""
    with own_randomness(model.device):
        scored, again = (
            score(model, batch, drawn.ids_NT, drawn.mask_NT).detach() for _ in range(2)
        )
    return scored, gap_between(scored, again, drawn.mask_NT)


def _generate(
    model: Any,
    batch: Inputs,
    max_new: int,
    temperature: float,
    suppress_ids: Sequence[int],
    stop_ids: Sequence[int],
) -> Drawn:
    """Draw by `model.generate`, with raw logits instead of warped scores."""
    prompt = batch["input_ids"].shape[1]
    pad_id = model.generation_config.pad_token_id
    with torch.no_grad():
        out = model.generate(
            **batch,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            suppress_tokens=list(suppress_ids) or None,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=stop_ids[0] if pad_id is None and stop_ids else pad_id,
            max_new_tokens=max_new,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids_NT = out.sequences[:, prompt:]
    logits_NTK = torch.stack(out.logits, dim=1).float() / temperature
    if suppress_ids:
        logits_NTK[..., list(suppress_ids)] = -torch.inf
    logp_NT = logits_NTK.log_softmax(-1).gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1)
    ended = torch.isin(ids_NT, torch.tensor(list(stop_ids), device=ids_NT.device))
    mask_NT = (ended.int().cumsum(-1) - ended.int()) == 0  # up to the first stop, that included
    cache = out.past_key_values
    length = None if cache is None else int(cache.get_seq_length())
    return Drawn(ids_NT, mask_NT, torch.where(mask_NT, logp_NT, 0.0), length, prompt)


def _stop_ids(model: Any, tokenizer: Any) -> list[int]:
    stop = model.generation_config.eos_token_id
    stop = tokenizer.eos_token_id if stop is None else stop
    return [] if stop is None else [stop] if isinstance(stop, int) else list(stop)


# -- our policies --------------------------------------------------------------------------------


def check_policy(
    policy: HFPolicy,
    queries: Sequence[Query],
    *,
    candidates: int = 2,
    temperature: float = 1.0,
    max_new: int = 16,
    hypotheses: Sequence[Hypothesis] = (),
) -> list[Finding]:
    """Check drawing and scoring of a policy, in train mode, as a training step would use them.

    Every flag and the random state are as before afterwards.

    Args:
        policy: to be checked.
        queries: at least one; two or more show prompts that were mixed up, and padding.
        candidates: completions a query.
        temperature: of the run.
        max_new: tokens to draw at most.
        hypotheses: more causes to try on a failure.

    Returns:
        As `diagnose`, and `template/`.
    """
    tokenizer: Any = policy.tokenizer
    if failed(broken := [weights_finite(policy)]):
        return broken  # nothing can be drawn
    with own_randomness(policy.device), training_mode(policy):
        rows = [_on_device(policy.collate([query]), policy) for query in queries]
        batch = _on_device(policy.collate(queries), policy)
        stops, never = policy.stop_ids.tolist(), policy.suppress_ids.tolist()
        found = _prompt_findings(policy.model, tokenizer, batch, rows, stops, never)
        found += template_findings(tokenizer, [row["input_ids"][0].tolist() for row in rows])
        with torch.no_grad(), limited(policy, max_new), watch_cache(policy.model) as watch:
            actions = policy.sample(policy.encode(queries), candidates, temperature)
            length, limit = watch.length, policy.max_completion
        with torch.no_grad():
            prompt = policy.encode(queries)
            scored, again = (
                policy.log_probs(prompt, actions, temperature).logp_BGT for _ in range(2)
            )
        repeat = gap_between(*(x.flatten(0, 1) for x in (scored, again, actions.mask_BGT)))
        # Of the first query every candidate is compared, of the others one is enough.
        chosen = [(0, g) for g in range(candidates)] + [(b, 0) for b in range(1, len(queries))]
        case, drawn = _picked(policy, rows, batch, actions, chosen, temperature)
        b, g = torch.tensor(chosen, device=scored.device).T
        found.append(cache_finding(replace(drawn, cache_length=length)))
        found += text_findings(tokenizer, actions)
        found += sampling_findings(case, drawn.logp_NT, stops, limit)
        return found + parity_findings(case, drawn.logp_NT, scored[b, g], repeat, hypotheses)


def _picked(
    policy: HFPolicy,
    rows: Sequence[Inputs],
    batch: Inputs,
    actions: Actions,
    chosen: Sequence[tuple[int, int]],
    temperature: float,
) -> tuple[Case, Drawn]:
    """Lay out some candidates, named by query and number, for comparison."""
    assert actions.logp_BGT is not None
    b, g = torch.tensor(chosen, device=actions.ids_BGT.device).T
    owners = [query for query, _ in chosen]
    drawn = Drawn(
        actions.ids_BGT[b, g],
        actions.mask_BGT[b, g],
        actions.logp_BGT[b, g],
        prompt_length=batch["input_ids"].shape[1],
    )
    case = Case(
        policy.model,
        [rows[query] for query in owners],
        drawn.ids_NT,
        drawn.mask_NT,
        temperature,
        policy.suppress_ids,
        batch,
        owners,
        policy.per_token,
    )
    return case, drawn


@contextmanager
def training_mode(policy: nn.Module) -> Iterator[None]:
    """Put a policy into train mode in its own way, then restore every flag exactly."""
    before = [(module, module.training) for module in policy.modules()]
    try:
        policy.train()
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def limited(policy: HFPolicy, max_new: int) -> Iterator[None]:
    """Draw at most `max_new` tokens inside."""
    before = policy.max_completion
    try:
        policy.max_completion = min(before, max_new)
        yield
    finally:
        policy.max_completion = before


def _on_device(inputs: Mapping[str, Any], policy: HFPolicy) -> Inputs:
    return {
        name: value.to(policy.device) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


def _suppressed(suppress_ids: Sequence[int], like: Tensor) -> Tensor | None:
    return torch.tensor(list(suppress_ids), device=like.device) if suppress_ids else None
