"""Settings of answerers and of the data they make: beams and RL data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import is_address, require


class AnswererKind(Enum):
    """Who answers."""

    # A stand-in: `data.world_reader` in the generated world, else `answerers.text_kernel`.
    kernel = "kernel"
    hf = "hf"  # a Hugging Face image-text-to-text model
    api = "api"  # a server with an OpenAI-compatible interface


class TemplateKind(Enum):
    """How a prompt is written; see `lever.answerers.templates`."""

    chat = "chat"
    flamingo = "flamingo"
    idefics = "idefics"


@dataclass
class AnswererConfig:
    """Who answers, how it is asked, and where its answers are kept."""

    kind: AnswererKind = AnswererKind.kernel
    # hf: local folder or hub id of the model, type of its weights, pixels of a picture.
    path: str | None = None
    dtype: str = "auto"
    min_pixels: int = 3136
    max_pixels: int = 602112
    # api: base of the server, name of the model there, variable that holds the key.
    url: str | None = None
    model: str | None = None
    key_env: str = "API_KEY"
    concurrency: int = 16
    timeout: float = 60.0  # seconds for one request
    retries: int = 5
    backoff: float = 1.0  # seconds before the first retry, doubled for each further one
    # The prompt.
    template: TemplateKind = TemplateKind.chat
    system_prompt: str = ""
    instruction: str = "Answer with one word or a short phrase."
    # How an answer is written; defaults of the published evaluation.
    max_new_tokens: int = 5
    min_new_tokens: int = 0
    num_beams: int = 3
    length_penalty: float = 0.0
    # Prompts a forward.
    batch_size: int = 8
    # File of what was answered; null = `${paths.cache}/lever/answers.sqlite`.
    cache: str | None = None

    def __post_init__(self) -> None:
        if self.kind is AnswererKind.hf:
            require(self.path is not None, "answerer.path", self.path, "a local folder or a hub id")
        if self.kind is AnswererKind.api:
            server = "the base of an OpenAI-compatible server, such as http://localhost:8000/v1"
            require(is_address(self.url), "answerer.url", self.url, server)
            require(self.model is not None, "answerer.model", self.model, "its name at the server")
        for name in ("batch_size", "max_new_tokens", "num_beams", "concurrency"):
            value = getattr(self, name)
            require(value >= 1, f"answerer.{name}", value, "at least 1")
        for name in ("retries", "backoff"):
            value = getattr(self, name)
            require(value >= 0, f"answerer.{name}", value, "0 or more")
        require(self.timeout > 0, "answerer.timeout", self.timeout, "above 0")
        require(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            "answerer.min_new_tokens",
            self.min_new_tokens,
            f"from 0 to {self.max_new_tokens}",
        )
        require(
            0 < self.min_pixels <= self.max_pixels,
            "answerer.min_pixels",
            self.min_pixels,
            f"above 0 and at most {self.max_pixels}",
        )


class Split(Enum):
    """Part of the queries."""

    train = "train"
    val = "val"
    test = "test"


class ConstructOrder(Enum):
    """Where the next demonstration goes while a set is built."""

    left = "left"  # in front: the one chosen first stands nearest to the question
    right = "right"  # behind


@dataclass
class BeamConfig:
    """Beam data: demonstrations that raise the answer's probability (`candidates.beam_search`)."""

    beam_size: int = 5
    few_shot: int = 2  # demonstrations in a set
    construct_order: ConstructOrder = ConstructOrder.left
    # Which queries: a split, a random draw of it (null = all), and a shard of those.
    split: Split = Split.train
    sample_num: int | None = None
    start: int = 0
    end: int | None = None
    # The file; null = named after the settings, in the cache.
    output: str | None = None

    def __post_init__(self) -> None:
        require(self.beam_size >= 1, "beams.beam_size", self.beam_size, "at least 1")
        require(1 <= self.few_shot <= 8, "beams.few_shot", self.few_shot, "from 1 to 8")
        require_shard("beams", self.sample_num, self.start, self.end)


class BeamsFrom(Enum):
    """Where the beams among the candidates come from."""

    data = "data"  # the beam file: found by the answerer, scored by InfoScore
    selector = "selector"  # beam search by the selector, scored by its log-probability


class Matching(Enum):
    """How an answer is judged."""

    official = "official"  # VQA accuracy, of ten annotators
    simple = "simple"  # exact 1, in part .5; for data with one answer


@dataclass
class RlDataConfig:
    """RL data: candidates of several kinds, each answered and scored (`learning.rl_data`)."""

    # Inputs; null = what the earlier stages of the same settings left.
    beam_data: str | None = None
    sft_ckpt: str | None = None
    # Candidates a query, by what proposes them.
    beams_from: BeamsFrom = BeamsFrom.data
    num_beams: int = 5
    temps: list[float] = field(default_factory=lambda: [1.0, 1.3])
    num_samples_per_temp: int = 2
    num_random: int = 1
    num_retrieval: int = 5
    # Scores beside the accuracy: probability of the reference, likeness in words.
    gt_prob: bool = False
    relevance: bool = False
    matching: Matching = Matching.official  # also of fresh and held-out slates of a training
    # A query without annotators' answers is an error; else its candidates are kept unjudged.
    strict_eval: bool = True
    save_prompts: bool = False  # also write every prompt as text
    # Which queries: a split, a random draw of it (null = all), and a shard of those.
    split: Split = Split.train
    sample_num: int | None = None
    start: int = 0
    end: int | None = None
    queries_per_call: int = 16  # whose candidates are answered together
    # The file; null = named after the settings, in the cache.
    output_path: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_beams", "num_samples_per_temp", "num_random", "num_retrieval"):
            require(getattr(self, name) >= 0, f"rl_data.{name}", getattr(self, name), "0 or more")
        for value in self.temps:
            require(value > 0, "rl_data.temps", self.temps, "temperatures above 0")
        samples = len(self.temps) * self.num_samples_per_temp
        total = self.num_beams + samples + self.num_random + self.num_retrieval
        require(total >= 2, "rl_data candidates a query", total, "at least 2: a group to compare")
        require(
            self.queries_per_call >= 1,
            "rl_data.queries_per_call",
            self.queries_per_call,
            "at least 1",
        )
        require_shard("rl_data", self.sample_num, self.start, self.end)


def require_shard(node: str, sample_num: int | None, start: int, end: int | None) -> None:
    """Check which queries are asked for; how many there are is known only to the data."""
    ok = sample_num is None or sample_num >= 1
    require(ok, f"{node}.sample_num", sample_num, "null or at least 1")
    require(start >= 0, f"{node}.start", start, "0 or more")
    require(end is None or end > start, f"{node}.end", end, f"null or above start={start}")
