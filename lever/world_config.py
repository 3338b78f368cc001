"""Settings of the generated VQA world; see `lever.data.world`."""

from __future__ import annotations

from dataclasses import dataclass

from core_rl.config import require, require_least


@dataclass
class WorldSettings:
    """The generated VQA world.

    The defaults were fixed before any policy was trained: about 14 variants in a first trial, then
    three (nuisance 1.3, 1.4 and 1.5 with fewer entities) on the worlds of seeds 100 and 101.  Only
    baselines without training were looked at: random, similarity and the exhaustive oracle.  The
    defaults make the task solvable, so a score in this world says nothing about real pictures.
    """

    demos: int = 2000
    train: int = 600
    val: int = 100
    test: int = 600
    # An item has an entity (which determines its topic), a kind of question and an attribute.
    entities: int = 600
    zipf_offset: float = 5.0  # the entity of rank r (from 0) has weight 1 / (r + 1 + offset)
    topics: int = 30
    kinds: int = 8
    attributes: int = 6
    # An answer is a name, determined by the entity, and a value from the kind's family.
    names: int = 24
    values: int = 16
    # Embeddings: the length of each part before noise, and the length of the noise.
    width: int = 512
    image_topic: float = 0.6
    image_entity: float = 1.0
    image_attribute: float = 0.35
    text_kind: float = 0.8
    text_attribute: float = 0.6
    text_topic: float = 0.7
    nuisance: float = 1.3  # scene in pictures, wording in questions
    noise: float = 2.0
    # Annotators: their number, the probability of the true answer (uniform in this range for each
    # question), and the errors: another value of the family, another name, else any answer.
    annotators: int = 10
    agreement_low: float = 0.3
    agreement_high: float = 0.9
    err_value: float = 0.55
    err_name: float = 0.35
    # The reader: what a demonstration adds to the logits of the answers it supports.
    earlier_weight: float = 0.85  # weight of a demonstration relative to the one after it
    evidence: float = 6.0
    name_topic: float = 0.35  # evidence for the name from a demonstration of the same topic
    value_kind: float = 0.3  # evidence for the value from a demonstration of the same kind
    copying: float = 9.0  # evidence for the answer of a demonstration that only looks similar
    prior_family: float = 1.5
    known_share: float = 0.3  # share of questions that the reader may answer without help
    known_bonus: float = 9.0
    # Each query's pool.
    pool_text: int = 16
    pool_image: int = 16
    pool_random: int = 32

    def __post_init__(self) -> None:
        node = "data_mix.world"
        sizes = ("demos", "train", "val", "test", "entities", "topics", "kinds", "names")
        require_least(node, self, 1, *sizes)
        require_least(node, self, 2, "attributes")
        require(
            self.values >= self.attributes,
            "data_mix.world.values",
            self.values,
            f"at least the {self.attributes} attributes: a family holds one value for each",
        )
        require(
            0 <= self.agreement_low <= self.agreement_high <= 1,
            "data_mix.world.agreement_low",
            self.agreement_low,
            f"from 0 to {self.agreement_high}",
        )
        require(
            self.err_value + self.err_name <= 1,
            "data_mix.world.err_value",
            self.err_value,
            f"at most 1 together with err_name={self.err_name}",
        )
        require(
            0 < self.earlier_weight <= 1,
            "data_mix.world.earlier_weight",
            self.earlier_weight,
            "above 0 and at most 1",
        )
        require(
            2 <= self.pool_size <= self.demos,
            "data_mix.world.pool_text + pool_image + pool_random",
            self.pool_size,
            f"from 2 to the {self.demos} demonstrations",
        )

    @property
    def pool_size(self) -> int:
        return self.pool_text + self.pool_image + self.pool_random

    @property
    def answers(self) -> int:
        return self.names * self.values


@dataclass(frozen=True)
class ShiftedRange:
    """Ranges kept out of all tuning; a world draws from them, other settings keep their values."""

    noise: tuple[float, float] = (2.2, 2.8)
    nuisance: tuple[float, float] = (1.4, 1.6)
    agreement_high: tuple[float, float] = (0.75, 0.85)
    earlier_weight: tuple[float, float] = (0.7, 0.8)
    copying: tuple[float, float] = (9.5, 10.5)
    zipf_offset: tuple[float, float] = (8.0, 16.0)


DEFAULT = WorldSettings()
SHIFTED = ShiftedRange()
