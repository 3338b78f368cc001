"""Causes of failed media checks, with their cures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        says: the cause in one sentence.
        cure: the override or edit that ends it.
    """

    says: str
    cure: str


def _missing(kind: str, values: str) -> Cause:
    return Cause(
        f"{kind} features do not reach the model: its placeholders have no content",
        f"pass `{values}` (and its grid or mask) on to every call of the model, in generation and "
        "in log-probs",
    )


def _dropped(kind: str, values: str) -> Cause:
    return Cause(
        f"{kind} features reach the forward and its tower never runs: a wrapper drops them inside",
        f"hand `{values}` through the overridden forward (`**kwargs`)",
    )


CAUSES = {
    "video_missing": _missing("video", "pixel_values_videos"),
    "image_missing": _missing("picture", "pixel_values"),
    "audio_missing": _missing("audio", "input_features"),
    "media_missing": Cause(
        "no media features reach the model: it answers from the text alone",
        "pass every key of the processor's output on to the model",
    ),
    "video_dropped": _dropped("video", "pixel_values_videos"),
    "audio_dropped": _dropped("audio", "input_features"),
    "video_added": Cause(
        "more videos arrive than the records name", "list each clip of a record once"
    ),
    "image_added": Cause(
        "more pictures arrive than the records name", "list each picture of a record once"
    ),
    "audio_added": Cause(
        "more sounds arrive than the records name", "list each sound of a record once"
    ),
    "audio_twice": Cause(
        "the audio is fed twice: as the clip's own track and as an item of its own",
        "leave clips out of the record's `audio`, or set model.media.use_audio_in_video=false",
    ),
    "counts_differ": Cause(
        "placeholders and features were made from different media or sizes",
        "expand placeholders from the very grids and masks that the model is given",
    ),
    "cut_span": Cause(
        "the prompt is cut through a media span: placeholders are lost, their features stay",
        "raise rollout.max_prompt, or lower model.media.max_frames or max_pixels; never truncate "
        "token ids of a multimodal prompt",
    ),
    "hidden": Cause(
        "the attention mask hides media tokens from the text",
        "make the mask of padding alone, after placeholders were expanded",
    ),
    "own_prompt": Cause(
        "a row holds the prompt of another record of its batch, as after `prompt(...)[0]`",
        "render all chats of a batch in one call and keep every row",
    ),
    "question_lost": Cause(
        "a row lacks the question of its record: wrong chat template, or the text was cut",
        "use the checkpoint's chat template and raise rollout.max_prompt",
    ),
    "other_sample": Cause(
        "a row is given the media of another sample of its batch",
        "concatenate features in the order of the rows, and shuffle both or neither",
    ),
    "media_order": Cause(
        "the media of a sample come in another order than their placeholders",
        "collect features in the order in which the chat names the items",
    ),
    "candidates_scrambled": Cause(
        "several clips a sample are repeated clip by clip where samples should be repeated whole "
        "(`num_return_sequences`)",
        "repeat prompt and media per candidate, or encode once and expand the cache; do not use "
        "num_return_sequences",
    ),
    "foreign_features": Cause(
        "the features are not those of any file of the batch: noise, blank, or other preprocessing",
        "compare mean, standard deviation, sample rate and frame choice with the checkpoint's "
        "preprocessor_config.json",
    ),
    "flag": Cause(
        "use_audio_in_video differs between the prompt and a call of the model",
        "set model.media.use_audio_in_video once and pass it to processor, generation and forward",
    ),
    "timing": Cause(
        "video_second_per_grid is not that of the clip",
        "derive it from the frame rate of the frames that are fed (temporal patch / fps)",
    ),
    "positions": Cause(
        "rotary positions are not those of the model's get_rope_index",
        "compute them from the same ids, mask, grids and flag that the model is given",
    ),
    "scattered": Cause(
        "what stands at the placeholders is not what the towers said",
        "do not replace inputs_embeds after the media were put in",
    ),
    "sizes": Cause(
        "the processor belongs to another checkpoint",
        "load tokenizer and preprocessor from the folder of the weights",
    ),
    "blind": Cause(
        "the media reach the model and change nothing it says",
        "look at the towers' weights and at attention masks over media positions; start from a "
        "checkpoint that perceives",
    ),
    "sampled": Cause(
        "media tokens can be sampled: the next forward breaks or claims features of others",
        "suppress every special id that does not end a completion (`suppress_ids`), in sampling "
        "and in log-probs alike",
    ),
    "no_forward": Cause(
        "drawing made no forward over a prompt of this model",
        "draw with the policy's own model, or check the engine's request instead",
    ),
    "raised": Cause("the policy raised an error", "see the message and the failures above"),
}
