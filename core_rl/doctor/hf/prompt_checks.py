"""Check prompts as the model gets them: own to each sample, padded on the left, well rendered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core_rl.doctor.findings import Finding, Verdict, at_most, equals, finding, skipped

PROBE = "zebra lantern"  # words that no template writes by itself


# -- the batch -----------------------------------------------------------------------------------


def batch_findings(
    batch: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], pad_id: int | None = None
) -> list[Finding]:
    """Check a padded batch against the prompts encoded one at a time.

    Args:
        batch: what decoding gets; `input_ids` [B, P] and, where padded, `attention_mask`.
        rows: the same prompts, each encoded alone, without padding.
        pad_id: of the tokenizer; None skips the check of what the mask hides.
    """
    ids_BP: Tensor = batch["input_ids"]
    mask_BP = batch.get("attention_mask", torch.ones_like(ids_BP)).bool()
    found = [_own_prompts(ids_BP, mask_BP, rows), _differ(rows), _padding_side(mask_BP)]
    if pad_id is not None:
        found.append(_pads_masked(ids_BP, mask_BP, rows, pad_id))
    return found


def _own_prompts(ids_BP: Tensor, mask_BP: Tensor, rows: Sequence[Mapping[str, Any]]) -> Finding:
    alone = [row["input_ids"][0].tolist() for row in rows]
    if len(ids_BP) != len(alone):
        cause = f"{len(alone)} queries became a batch of {len(ids_BP)} prompts"
        cure = "encode the whole batch in one call and index nothing with [0]"
        return equals("prompts/own", len(ids_BP), len(alone), cause, cure)
    together = [ids[mask].tolist() for ids, mask in zip(ids_BP, mask_BP, strict=True)]
    right = [one == other for one, other in zip(together, alone, strict=True)]
    share = sum(right) / len(right)
    wrong = right.index(False) if False in right else 0
    if together[wrong] in alone and together[wrong] != alone[wrong]:
        donor = alone.index(together[wrong])
        which = "the first sample" if donor == 0 else f"sample {donor}"
        cause = f"sample {wrong} was given the prompt of {which}: one prompt reused in the batch"
    else:
        cause = (
            f"sample {wrong} has another prompt in the batch ({len(together[wrong])} tokens) than "
            f"alone ({len(alone[wrong])}): truncated, masked or mixed up"
        )
    cure = (
        "render the batch in one call (apply_chat_template takes a list of conversations), index "
        "nothing with [0], and truncate no prompt"
    )
    return equals("prompts/own", share, 1, cause, cure)


def _differ(rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Different queries must give different inputs, in text or in media."""
    if len(rows) < 2:
        return skipped("prompts/differ", "needs two queries")
    distinct = [row for n, row in enumerate(rows) if not any(_same(row, o) for o in rows[:n])]
    return finding(
        "prompts/differ",
        float(len(distinct)),
        "> 1",
        len(distinct) > 1,
        f"{len(rows)} queries give one and the same input: a prompt is reused, or query and "
        "media never reach it",
        "build each prompt from its own query; index nothing with [0]; nothing is wrong where the "
        "data hold one question twice, or media are blank on purpose",
        Verdict.warn,
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        for name, value in one.items()
    )


def _padding_side(mask_BP: Tensor) -> Finding:
    """Real tokens must end at the right edge and have no hole."""
    wrong = float((mask_BP.int().diff(dim=1) < 0).any(dim=1).float().mean())
    return equals(
        "prompts/padding_left",
        1 - wrong,
        1,
        "right padding: completions start after pads, and the last logits are those of a pad",
        "set tokenizer.padding_side = 'left' for drawing",
    )


def _pads_masked(
    ids_BP: Tensor, mask_BP: Tensor, rows: Sequence[Mapping[str, Any]], pad_id: int
) -> Finding:
    """A pad that is attended to is a token of the prompt."""
    own = sum(int((row["input_ids"] == pad_id).sum()) for row in rows)
    attended = int(((ids_BP == pad_id) & mask_BP).sum())
    return equals(
        "prompts/pads_masked",
        attended,
        own,
        "padding is attended to: the attention mask is ignored or was made of ones",
        "pass the tokenizer's attention_mask on with input_ids",
    )


# -- the tokenizer -------------------------------------------------------------------------------


def tokenizer_findings(
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int,
    stop_ids: Sequence[int],
    suppress_ids: Sequence[int] = (),
    special_tokens: Iterable[str] = (),
) -> list[Finding]:
    """Check that the ids a run relies on are there.

    Args:
        tokenizer: of the model.
        vocabulary: rows of the model's embedding.
        stop_ids: end a completion.
        suppress_ids: are never drawn.
        special_tokens: texts that must be one id each, e.g. `<|im_end|>`.
    """
    return [
        _special_tokens(tokenizer, special_tokens),
        _stop_ids(stop_ids, suppress_ids, vocabulary),
        _pad(tokenizer, stop_ids, vocabulary),
        at_most(
            "tokens/vocabulary",
            len(tokenizer),
            vocabulary,
            "the tokenizer knows more ids than the model has embeddings: another model's tokenizer",
            "load tokenizer and model from the same folder, or resize_token_embeddings",
        ),
    ]


def _special_tokens(tokenizer: PreTrainedTokenizerBase, special_tokens: Iterable[str]) -> Finding:
    names = [*dict.fromkeys([*tokenizer.all_special_tokens, *special_tokens])]
    unknown = getattr(tokenizer, "unk_token_id", None)
    wrong = []
    for name in names:
        ids = tokenizer(name, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or (ids[0] == unknown and name != tokenizer.unk_token):
            wrong.append(name)
    return equals(
        "tokens/special_single",
        len(wrong),
        0,
        f"not a single id in this tokenizer: {', '.join(wrong[:5])}",
        "use the model's own tokenizer; add missing ones with add_special_tokens and resize",
    )


def _stop_ids(stop_ids: Sequence[int], suppress_ids: Sequence[int], vocabulary: int) -> Finding:
    reachable = [i for i in stop_ids if 0 <= i < vocabulary and i not in set(suppress_ids)]
    return finding(
        "tokens/stop_reachable",
        float(len(reachable)),
        ">= 1",
        bool(reachable),
        "no stop id can be drawn: every completion runs to the length limit",
        "give stop_ids that the model has, and leave them out of suppress_ids",
    )


def _pad(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], vocabulary: int) -> Finding:
    pad = tokenizer.pad_token_id
    if pad is None or not 0 <= pad < vocabulary:
        return finding(
            "tokens/pad",
            None if pad is None else float(pad),
            f"from 0 to {vocabulary - 1}",
            False,
            "the tokenizer has no pad id that the model knows",
            "set tokenizer.pad_token",
        )
    return finding(
        "tokens/pad",
        float(pad),
        "not the only stop id",
        set(stop_ids) != {pad},
        "pad and end are one id: masks made by comparing ids with it lose the end token",
        "give padding an id of its own, or make masks from lengths",
        Verdict.warn,
    )


# -- the chat template ---------------------------------------------------------------------------


def template_findings(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    renders_system: bool = True,
) -> list[Finding]:
    """Check the chat template, and that the prompts end as it ends them.

    Args:
        tokenizer: with a chat template; without one the checks do not apply.
        prompts: ids of each prompt, without padding.
        renders_system: whether prompts have a system turn.
    """
    if not tokenizer.chat_template:
        return [skipped("template/generation_prompt", "the tokenizer has no chat template")]
    turns = [{"role": "user", "content": PROBE}]
    if renders_system:
        turns.insert(0, {"role": "system", "content": PROBE[::-1]})
    try:
        closed, opened = (
            str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add))
            for add in (False, True)
        )
    except Exception as error:  # a template is a program: it raises what it likes
        cause = f"the chat template raises {type(error).__name__}: {error}"
        return [equals("template/roles", 0, 1, cause, "use the model's template")]
    return [
        _roles(opened, turns),
        _generation_prompt(tokenizer, closed, opened, prompts),
        _round_trip(tokenizer, prompts),
        _begins_once(tokenizer, prompts),
    ]


def _roles(rendered: str, turns: Sequence[Mapping[str, str]]) -> Finding:
    places = [rendered.find(turn["content"]) for turn in turns]
    marked = [turn["role"] in rendered for turn in turns]
    healthy = -1 not in places and places == sorted(places) and all(marked)
    missing = [
        turn["role"]
        for turn, place, mark in zip(turns, places, marked, strict=True)
        if place == -1 or not mark
    ]
    return finding(
        "template/roles",
        float(len(turns) - len(missing)),
        f"= {len(turns)}, in order",
        healthy,
        f"wrong chat template: it leaves out or reorders {', '.join(missing) or 'turns'}",
        "use the chat template that the model was trained with",
    )


def _generation_prompt(
    tokenizer: PreTrainedTokenizerBase, closed: str, opened: str, prompts: Sequence[Sequence[int]]
) -> Finding:
    check = "template/generation_prompt"
    suffix = opened[len(closed) :] if opened.startswith(closed) else ""
    if not suffix:
        cause = "wrong chat template: add_generation_prompt adds nothing, so the model continues"
        return equals(check, 0, 1, f"{cause} the user's turn", "use the model's own template")
    ends = [_decoded(tokenizer, ids).rstrip().endswith(suffix.rstrip()) for ids in prompts]
    return equals(
        check,
        _share(ends),
        1,
        f"prompts do not end with the chat template's generation prompt {suffix!r}: "
        "wrong chat template, or the end of the prompt was cut off",
        "render with add_generation_prompt=True and truncate nothing",
    )


def _round_trip(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> Finding:
    """Decoding a prompt and tokenising it again must give the same ids."""
    same = [
        tokenizer(_decoded(tokenizer, ids), add_special_tokens=False)["input_ids"] == list(ids)
        for ids in prompts
    ]
    return equals(
        "template/round_trip",
        _share(same),
        1,
        "a prompt's text tokenises to other ids: a role marker or special token was split into "
        "plain text, or another tokenizer made the prompt",
        "render and tokenise with the model's own tokenizer, special tokens registered as such",
        Verdict.warn,
    )


def _begins_once(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> Finding:
    begin = tokenizer.bos_token_id
    doubled = [ids for ids in prompts if begin is not None and list(ids[:2]) == [begin, begin]]
    return equals(
        "template/begins_once",
        len(doubled),
        0,
        "prompts begin with the start token twice: the template wrote one, the tokenizer another",
        "tokenise rendered text with add_special_tokens=False",
    )


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


def _share(right: Sequence[bool]) -> float:
    """Share of True; 1 of nothing."""
    return sum(right) / len(right) if right else 1.0
