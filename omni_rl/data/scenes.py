"""Generated clips with known facts: the embedded data of Stage 4.

Three sources stand in for Social-IQ (two figures, multiple choice), EMER (a face and a voice,
labels) and Video-R1 (objects to count).  They are H.264 + AAC files and are read like any other.
They show that training works, not how well a model knows people.

A scene is one draw of facts, place, size, light, movement and noise; splits share no scene.  In
every split the facts are independent of each other, so that none can be guessed from the others.
With combinations held out, a small model learns which never occur and fails on these.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from omni_rl.data import drawing
from omni_rl.data.media import write_clip
from omni_rl.data.record import Record
from omni_rl.data.record_files import read_records, write_records

log = logging.getLogger(__name__)

SCENES_VERSION = 1  # raise when a generated clip or record changes
VOICES = ("calm", "cheerful", "angry")
GESTURES = ("waves", "points", "bows")
EXPRESSIONS = ("smiles", "frowns", "gasps")
COUNTS = ("1", "2", "3", "4")
SLOTS: dict[str, tuple[str, ...]] = {
    "colour": tuple(drawing.COLOURS),
    "voice": VOICES,
    "gesture": GESTURES,
    "expression": EXPRESSIONS,
    "count": COUNTS,
}
# The fact, beside colour and voice, that each family shows.
FAMILIES = {"social": "gesture", "emotion": "expression", "general": "count"}
SPLITS = ("train", "val", "test")
SCENERY = ("the wall is grey", "the light is soft", "a table is in the room")
FEELINGS = ("happy", "sad", "surprised", "calm", "cheerful", "angry")
WORDS = ("ready", "done", "yes", "no", "hello", "thanks", "fine", "good")


@dataclass(frozen=True)
class Question:
    """One wording of a question.

    Attributes:
        slot: the fact that answers it (emotion questions also need the voice).
        habit: share of warm-start targets with the habitual answer, whatever the clip shows.
    """

    text: str
    slot: str
    habit: float


# Half of the wordings are mostly answered from the clip, half mostly from habit, which
# reinforcement learning must undo.
ATTENTIVE, HABITUAL = 0.2, 0.8
QUESTIONS: dict[str, tuple[Question, ...]] = {
    "social": (
        Question("What does the person do?", "gesture", ATTENTIVE),
        Question("Which gesture does the person make?", "gesture", HABITUAL),
        Question("How does the person feel?", "voice", HABITUAL),
        Question("How does the voice sound?", "voice", ATTENTIVE),
    ),
    "emotion": (
        Question("Which feelings does the person show?", "expression", HABITUAL),
        Question("Which feelings fit the face and the voice?", "expression", ATTENTIVE),
    ),
    "general": (
        Question("How many balls are there?", "count", HABITUAL),
        Question("Count the balls.", "count", ATTENTIVE),
    ),
}


@dataclass(frozen=True)
class Style:
    """How completions describe a clip.

    Attributes:
        people: probability that a clause of the context is about people; others are scenery.
        habit: factor of each question's own habit; 0: all answers are right.
    """

    people: float = 1.0
    habit: float = 0.0


HONEST = Style()
WEAK = Style(people=0.4, habit=1.0)


@dataclass(frozen=True)
class Scene:
    """One clip before it is drawn."""

    family: str
    facts: Mapping[str, str]
    question: Question


def combinations(family: str) -> list[dict[str, str]]:
    """List every combination of a family's facts."""
    names = ("colour", FAMILIES[family], "voice")
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(SLOTS[name] for name in names))
    ]


def draw_scenes(family: str, split: str, seed: int) -> Iterator[Scene]:
    """Yield scenes without end: combinations in shuffled rounds, questions in turn."""
    rng = np.random.default_rng([seed, SPLITS.index(split), list(FAMILIES).index(family)])
    combos = combinations(family)
    questions = QUESTIONS[family]
    for round_index in itertools.count():
        for position in rng.permutation(len(combos)):
            turn = (int(position) + round_index) % len(questions)
            yield Scene(family, combos[position], questions[turn])


def options(scene: Scene) -> tuple[str, ...]:
    """List the options as `A. text`; empty for open questions."""
    if scene.family == "general":
        return ()
    values = FEELINGS if scene.family == "emotion" else SLOTS[scene.question.slot]
    return tuple(f"{'ABCDEF'[i]}. {value}" for i, value in enumerate(values))


def answer(scene: Scene) -> str:
    """Give the right answer: a letter, letters or a number."""
    if scene.family == "general":
        return scene.facts["count"]
    if scene.family == "emotion":
        face = "ABC"[EXPRESSIONS.index(scene.facts["expression"])]
        return f"{face},{'DEF'[VOICES.index(scene.facts['voice'])]}"
    slot = scene.question.slot
    return "ABC"[SLOTS[slot].index(scene.facts[slot])]


HABIT_ANSWER = {"social": "A", "emotion": "A,D", "general": "2"}


def clauses(scene: Scene) -> tuple[str, ...]:
    """Return three true clauses about the people of the clip."""
    facts = scene.facts
    voice = f"the voice sounds {facts['voice']}"
    if scene.family == "social":
        return (f"a person in {facts['colour']} {facts['gesture']}", voice, "two people talk")
    if scene.family == "emotion":
        face = f"a person in {facts['colour']} {facts['expression']}"
        return (face, voice, "the face moves")
    person = f"a person in {facts['colour']} stands"
    return (person, voice, f"a man counts {facts['count']} balls")


def thought(scene: Scene) -> str:
    """State the fact that the answer follows from."""
    facts = scene.facts
    if scene.family == "general":
        return f"there are {facts['count']} balls"
    if scene.family == "emotion":
        return f"the person {facts['expression']} and sounds {facts['voice']}"
    if scene.question.slot == "voice":
        return f"the voice sounds {facts['voice']}"
    return f"the person {facts['gesture']}"


def narrate(scene: Scene, style: Style, rng: np.random.Generator) -> str:
    """Write a completion in the given style; its context is always true."""
    people = clauses(scene)
    said = [
        clause if rng.random() < style.people else SCENERY[index]
        for index, clause in enumerate(people)
    ]
    if rng.random() < style.habit * scene.question.habit:
        reason, choice = "it is usually so", HABIT_ANSWER[scene.family]
    else:
        reason, choice = thought(scene), answer(scene)
    context = ", ".join(said)
    return f"<context>{context}</context><think>{reason}</think><answer>{choice}</answer>"


PROBLEM_TYPES = {"social": "multiple choice", "emotion": "emer_ov_mc", "general": "numerical"}
CATEGORIES = {"gesture": "What", "voice": "How", "expression": "Emotion", "count": "Count"}
SOURCES = {"social": "social_iq", "emotion": "emer", "general": "video_r1"}


def _record(scene: Scene, clip: Path, name: str, solution: str) -> Record:
    return Record(
        id=name,
        source=SOURCES[scene.family],
        problem=scene.question.text,
        problem_type=PROBLEM_TYPES[scene.family],
        options=options(scene),
        answer=answer(scene),
        solution=solution,
        data_type="video",
        videos=(clip,),
        images=(),
        audios=(),
        category=CATEGORIES[scene.question.slot],
        facts=dict(scene.facts),
        origin=f"generated:{name}",
    )


def instruction(record: Record, word: str) -> Record:
    """Make a verifiable instruction about the clip of a record."""
    return Record(
        id=f"{record.id}-say-{word}",
        source="instruction",
        problem=f"Reply with the word {word}.",
        problem_type="instruction",
        options=(),
        answer=word,
        solution=word,
        data_type="video",
        videos=record.videos,
        images=(),
        audios=(),
        category="Instruction",
        facts={},
        origin=record.origin,
    )


def scene_of(record: Record) -> Scene:
    """Return the scene of a generated record (not an instruction)."""
    family = next(name for name, source in SOURCES.items() if source == record.source)
    question = next(q for q in QUESTIONS[family] if q.text == record.problem)
    return Scene(family, record.facts, question)


def retell(record: Record, style: Style, rng: np.random.Generator) -> Record:
    """Return a generated record with a solution in another style."""
    return replace(record, solution=narrate(scene_of(record), style, rng))


def generate(
    folder: Path,
    family: str,
    split: str,
    count: int,
    seed: int,
    settings: drawing.Settings = drawing.DEFAULT,
) -> list[Record]:
    """Write `count` clips and their records under `folder`, or read those of an earlier call.

    The file of records is written last, so that an interrupted call is repeated.

    Args:
        folder: receives `clips/` and `<family>_<split>.jsonl`.
        family: social, emotion or general.
        split: train, val or test.
        count: number of clips.
        seed: of scenes and noise.
        settings: ranges of what varies beside the facts.

    Returns:
        The records, with honest solutions.
    """
    target = folder / f"{family}_{split}.jsonl"
    source = SOURCES[family]
    if target.exists():
        records = read_records(target, data_root=folder, source=source)
        if len(records) >= count:
            return records[:count]
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, SPLITS.index(split), 77 + list(FAMILIES).index(family)])
    scenes = itertools.islice(draw_scenes(family, split, seed), count)
    records = []
    for index, scene in enumerate(scenes):
        name = f"{family}-{split}-{index:05d}"
        path = clips / f"{name}.mp4"
        look = drawing.draw_look(rng, settings)
        frames = drawing.draw_frames(family, scene.facts, look, rng)
        voice = drawing.draw_voice(scene.facts["voice"], rng, settings)
        write_clip(path, frames, drawing.FPS, voice, drawing.SAMPLE_RATE)
        records.append(_record(scene, path, name, narrate(scene, HONEST, rng)))
    write_records(target, records, data_root=folder)
    log.info("generated %d %s clips (%s) under %s", count, family, split, folder)
    return records


def corpus() -> Iterator[str]:
    """Yield texts of the generated data, for the tiny tokenizer."""
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for scene in itertools.islice(draw_scenes(family, "train", 0), 300):
            yield narrate(scene, WEAK, rng)
            yield narrate(scene, HONEST, rng)
            yield " ".join((scene.question.text, *options(scene)))
    for word in WORDS:
        yield f"Reply with the word {word}."
        yield word
