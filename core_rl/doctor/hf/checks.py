"""Does a model learn from exactly what it drew?  Checks for any trainer and for our policies.

`diagnose` takes a Hugging Face model, the batch that is fed to `generate` and, where the trainer
has one, its own scoring of completions:

    from core_rl.doctor.findings import health_table
    from core_rl.doctor.hf.checks import diagnose

    print(health_table(diagnose(model, tokenizer, batch)).to_string())

Call it in the very state in which the trainer would draw: nothing is switched for it.
`check_policy` does the same for a policy of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core_rl.doctor.agreement import is_half
from core_rl.doctor.findings import Finding, failed
from core_rl.doctor.hf.explain import Hypothesis
from core_rl.doctor.hf.parity import Case, Drawn, Scored, unpadded_rows, watch_cache
from core_rl.doctor.hf.parity_checks import cache_finding, parity_findings
from core_rl.doctor.hf.prompt_checks import batch_findings, template_findings, tokenizer_findings
from core_rl.doctor.hf.sampling_checks import sampling_findings, text_findings
from core_rl.doctor.weights import weights_finite
from core_rl.hardware import own_randomness
from core_rl.hf.encoded_prompt import Inputs
from core_rl.hf.generation import cache_name
from core_rl.hf.policy import HFPolicy
from core_rl.types import Query

Draw = Callable[[PreTrainedModel, Inputs, int], Drawn]
Score = Callable[[PreTrainedModel, Inputs, Tensor, Tensor], Tensor]

# -- any trainer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainer:
    """How a trainer draws completions and scores them.

    Attributes:
        temperature: at which candidates are drawn and scored.
        suppress_ids: never drawn.
        stop_ids: end a completion; None = the model's generation config.
        max_new: tokens to draw.
        draw: `(model, inputs, max_new)` -> completions of the B prompts with the log-probs that
            decoding saw; None = `model.generate`.
        score: `(model, inputs, ids_NT, mask_NT)` -> the trainer's own log-probs [N, T]; None leaves
            the training forward out.
    """

    temperature: float = 1.0
    suppress_ids: Sequence[int] = ()
    stop_ids: Sequence[int] | None = None
    max_new: int = 16
    draw: Draw | None = None
    score: Score | None = None


def diagnose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, Any],
    trainer: Trainer | None = None,
    rows: Sequence[Inputs] | None = None,
) -> list[Finding]:
    """Check how a causal model is drawn from and scored, in the state it is in.

    Args:
        model: as the trainer holds it when it draws.
        tokenizer: of the model.
        inputs: the padded batch, as it is fed to `generate`; B prompts.
        trainer: how it draws and scores; None = by `generate`, at temperature 1.
        rows: the same prompts, each encoded alone without padding; needed with media, otherwise cut
            out of `inputs`.

    Returns:
        Findings under `prompts/`, `tokens/`, `cache/`, `sampling/` and `parity/`; only the
        finding of weights where those are not finite.
    """
    if failed(broken := [weights_finite(model)]):
        return broken  # nothing can be drawn
    trainer = trainer or Trainer()
    if trainer.stop_ids is None:
        trainer = replace(trainer, stop_ids=_stop_ids(model, tokenizer))
    alone = unpadded_rows(inputs) if rows is None else list(rows)
    batch = dict(inputs)
    found = _before_drawing(model, tokenizer, batch, alone, trainer)
    with own_randomness(model.device), watch_cache(model) as watch:
        draw = trainer.draw
        drawn = (
            _generate(model, batch, trainer)
            if draw is None
            else draw(model, batch, trainer.max_new)
        )
        if drawn.cache_length is None:
            drawn = replace(drawn, cache_length=watch.length)
    never = torch.tensor(list(trainer.suppress_ids), dtype=torch.long, device=drawn.ids_NT.device)
    owners = list(range(len(alone)))
    case = Case(
        model, alone, drawn.ids_NT, drawn.mask_NT, trainer.temperature, never, batch, owners
    )
    found.append(cache_finding(drawn))
    found += sampling_findings(case, drawn.logp_NT, trainer.stop_ids or (), trainer.max_new)
    scored = None
    if (score := trainer.score) is not None:
        with own_randomness(model.device):
            passes = (score(model, batch, case.ids_NT, case.mask_NT) for _ in range(2))
            scored = Scored(*(logp_NT.detach() for logp_NT in passes))
    return found + parity_findings(case, drawn.logp_NT, scored)


def _before_drawing(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Inputs,
    rows: Sequence[Inputs],
    trainer: Trainer,
) -> list[Finding]:
    embedding: Any = model.get_input_embeddings()
    return batch_findings(batch, rows, tokenizer.pad_token_id) + tokenizer_findings(
        tokenizer,
        vocabulary=len(embedding.weight),
        stop_ids=trainer.stop_ids or (),
        suppress_ids=trainer.suppress_ids,
    )


@torch.no_grad()
def _generate(model: Any, batch: Inputs, trainer: Trainer) -> Drawn:
    """Draw by `model.generate`, with raw logits instead of warped scores."""
    prompt, never = batch["input_ids"].shape[1], list(trainer.suppress_ids)
    stops = list(trainer.stop_ids or ())
    pad_id = model.generation_config.pad_token_id
    out = model.generate(
        **batch,
        do_sample=True,
        temperature=trainer.temperature,
        top_k=0,
        top_p=1.0,
        suppress_tokens=never or None,
        eos_token_id=stops or None,
        pad_token_id=stops[0] if pad_id is None and stops else pad_id,
        max_new_tokens=trainer.max_new,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids_NT = out.sequences[:, prompt:]
    logits_NTK = torch.stack(out.logits, dim=1).float() / trainer.temperature
    logits_NTK[..., never] = -torch.inf
    logp_NT = logits_NTK.log_softmax(-1).gather(-1, ids_NT.unsqueeze(-1)).squeeze(-1)
    ended = torch.isin(ids_NT, torch.tensor(stops, device=ids_NT.device))
    mask_NT = (ended.int().cumsum(-1) - ended.int()) == 0  # up to the first stop, that included
    cache = out.get(cache_name(model))
    length = None if cache is None else int(cache.get_seq_length())
    return Drawn(ids_NT, mask_NT, torch.where(mask_NT, logp_NT, 0.0), length, prompt)


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
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
    if failed(broken := [weights_finite(policy)]):
        return broken  # nothing can be drawn
    model = policy.model
    with own_randomness(policy.device), training_mode(policy), torch.no_grad():
        rows, batch = [policy.inputs([query]) for query in queries], policy.inputs(queries)
        found = _of_prompts(policy, batch, rows)
        with limited(policy, max_new), watch_cache(model) as watch:
            actions = policy.sample(policy.encode(queries), candidates, temperature)
            length, limit = watch.length, policy.max_completion
        prompt = policy.encode(queries)
        passes = [policy.log_probs(prompt, actions, temperature).logp_BGT for _ in range(2)]
        # Of the first query every candidate is compared, of the others one is enough.
        chosen = [(0, g) for g in range(candidates)] + [(b, 0) for b in range(1, len(queries))]
        owners = [query for query, _ in chosen]
        assert actions.logp_BGT is not None
        ids_NT, mask_NT, drawn_NT, *scored_NT = (
            torch.stack([values[b, g] for b, g in chosen])
            for values in (actions.ids_BGT, actions.mask_BGT, actions.logp_BGT, *passes)
        )
        own_rows, never = [rows[query] for query in owners], policy.suppress_ids
        completions = (own_rows, ids_NT, mask_NT, temperature, never, batch, owners)
        case = Case(model, *completions, policy.per_token)
        if is_half(policy):
            policy.rounding = (case.rounding.mean, case.rounding.max)
        drawn = Drawn(ids_NT, mask_NT, drawn_NT, length, batch["input_ids"].shape[1])
        found += [cache_finding(drawn), *text_findings(policy.tokenizer, actions)]
        found += sampling_findings(case, drawn_NT, policy.stop_ids.tolist(), limit)
        return found + parity_findings(case, drawn_NT, Scored(*scored_NT), hypotheses)


def _of_prompts(policy: HFPolicy, batch: Inputs, rows: Sequence[Inputs]) -> list[Finding]:
    as_trainer = Trainer(
        suppress_ids=policy.suppress_ids.tolist(), stop_ids=policy.stop_ids.tolist()
    )
    found = _before_drawing(policy.model, policy.tokenizer, batch, rows, as_trainer)
    ids = [row["input_ids"][0].tolist() for row in rows]
    return found + template_findings(policy.tokenizer, ids)


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
