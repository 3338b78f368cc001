"""Ask one question about one clip, without any JSON."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from core_rl.files import write_text
from omni_rl.config import OmniModelConfig
from omni_rl.data.record import Record
from omni_rl.learning.warm_start import start_policy
from omni_rl.policy.policy import known_checkpoint
from omni_rl.policy.rollout import describe_first, greedy_texts
from omni_rl.rewards.rules import Format, PeopleFocus
from omni_rl.settings import Settings

log = logging.getLogger(__name__)


def demo(
    folder: Path,
    seed: int,
    video: str,
    question: str,
    options: list[str],
    checkpoint: str | None,
    **groups: object,
) -> dict[str, float]:
    """Answer a question about a clip and score how much the answer is about people.

    Args:
        folder: of the run; receives `answer.txt`.
        seed: unused by the greedy answer.
        video: the file.
        question: about the clip.
        options: as `A. text`, of a multiple choice question; may be empty.
        checkpoint: folder or hub id instead of the configured model.
        groups: the fields of `omni_rl.settings.Settings`.

    Returns:
        `people_focus` and `format` of the answer.

    Raises:
        FileNotFoundError: there is no such clip or checkpoint.
    """
    settings = Settings(**groups)  # type: ignore[arg-type]
    model: OmniModelConfig = settings.model
    if checkpoint is not None:
        path = known_checkpoint(checkpoint, "checkpoint")
        settings = replace(settings, model=replace(model, path=path))
    clip = Path(video).expanduser()
    if not clip.is_file():
        raise FileNotFoundError(f"video={video}: no such file")
    record = Record(
        id=clip.stem,
        source="demo",
        problem=question,
        problem_type="multiple choice" if options else "free-form",
        options=tuple(options),
        answer="",
        solution="",
        data_type="video",
        videos=(clip,),
        images=(),
        audios=(),
        origin=str(clip),
    )
    policy = start_policy(settings, seed)
    policy.eval()
    log.info("what the model is given\n%s", describe_first(policy, record))
    text = greedy_texts(policy, [record])[0]
    log.info("answer\n%s", text)
    write_text(folder / "answer.txt", text + "\n")
    return {
        "people_focus": PeopleFocus().score(record, text) or 0.0,
        "format": Format().score(record, text) or 0.0,
    }
