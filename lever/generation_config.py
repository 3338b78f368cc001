"""Settings of answerers, and of the beam data and RL data made with them.  No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import is_address, require, require_least, require_positive


class AnswererKind(Enum):
    """The model that answers."""

    # A stand-in: `data.world_reader` in the generated world, else `answerers.text_kernel`.
    kernel = "kernel"
    hf = "hf"  # a Hugging Face image-text-to-text model
    api = "api"  # a server with an OpenAI-compatible interface


class TemplateKind(Enum):
    """The layout of a prompt; see `lever.answerers.templates`."""

    chat = "chat"
    flamingo = "flamingo"
    idefics = "idefics"


@dataclass
class AnswererConfig:
    """The answerer, its prompt and generation settings, and the cache of its answers."""

    kind: AnswererKind = AnswererKind.kernel
    # hf: local folder or hub id, data type of the weights, pixels of a picture.
    path: str | None = None
    dtype: str = "auto"
    min_pixels: int = 3136
    max_pixels: int = 602112
    # api: base URL of the server, the model's name there, environment variable with the key.
    url: str | None = None
    model: str | None = None
    key_env: str = "API_KEY"
    concurrency: int = 16
    timeout: float = 60.0  # seconds for one request
    retries: int = 5
    backoff: float = 1.0  # seconds before the first retry, doubled after each retry
    # The prompt.
    template: TemplateKind = TemplateKind.chat
    system_prompt: str = ""
    instruction: str = "Answer with one word or a short phrase."
    # Generation; the defaults are those of the published evaluation.
    max_new_tokens: int = 5
    min_new_tokens: int = 0
    num_beams: int = 3
    length_penalty: float = 0.0
    batch_size: int = 8  # prompts a forward pass
    cache: str | None = None  # file of answers; null = `${paths.cache}/lever/answers.sqlite`

    def __post_init__(self) -> None:
        if self.kind is AnswererKind.hf:
            require(self.path is not None, "answerer.path", self.path, "a local folder or a hub id")
        if self.kind is AnswererKind.api:
            server = "the base of an OpenAI-compatible server, such as http://localhost:8000/v1"
            require(is_address(self.url), "answerer.url", self.url, server)
            require(self.model is not None, "answerer.model", self.model, "its name at the server")
        counts = ("batch_size", "max_new_tokens", "num_beams", "concurrency")
        require_least("answerer", self, 1, *counts)
        require_least("answerer", self, 0, "retries", "backoff")
        require_positive("answerer", self, "timeout")
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
    """A split of the queries."""

    train = "train"
    val = "val"
    test = "test"


class ConstructOrder(Enum):
    """Where a beam search puts the next demonstration."""

    left = "left"  # in front of the others: the first choice ends up nearest to the question
    right = "right"  # after the others


@dataclass
class BeamConfig:
    """Beam data: demonstrations that raise the answer's probability (`candidates.beam_search`)."""

    beam_size: int = 5
    few_shot: int = 2  # demonstrations in a set
    construct_order: ConstructOrder = ConstructOrder.left
    # Queries: a split, a random sample of it (null = all), and the shard [start, end) of those.
    split: Split = Split.train
    sample_num: int | None = None
    start: int = 0
    end: int | None = None
    output: str | None = None  # the file; null = in the cache, named after the settings

    def __post_init__(self) -> None:
        require_least("beams", self, 1, "beam_size")
        require(1 <= self.few_shot <= 8, "beams.few_shot", self.few_shot, "from 1 to 8")
        require_shard("beams", self.sample_num, self.start, self.end)


class BeamsFrom(Enum):
    """The source of the beams among the candidates."""

    data = "data"  # the beam data; their score is the InfoScore
    selector = "selector"  # beam search with the selector; their score is its log-probability


class Matching(Enum):
    """The rule that scores an answer; see `lever.data.vqa_accuracy`."""

    official = "official"  # VQA accuracy
    simple = "simple"  # 1 for an exact match, .5 for a partial one; for data with one answer


@dataclass
class RlDataConfig:
    """RL data: candidates of several kinds, each answered and scored (`learning.rl_data`)."""

    # Inputs; null = the output of the earlier stages with the same settings.
    beam_data: str | None = None
    sft_ckpt: str | None = None
    # Candidates a query, by the method that proposes them.
    beams_from: BeamsFrom = BeamsFrom.data
    num_beams: int = 5
    temps: list[float] = field(default_factory=lambda: [1.0, 1.3])
    num_samples_per_temp: int = 2
    num_random: int = 1
    num_retrieval: int = 5
    # Scores beside the accuracy: the reference answer's probability, word overlap with it.
    gt_prob: bool = False
    relevance: bool = False
    matching: Matching = Matching.official  # also judges fresh and held-out slates in training
    # true: a query without annotators' answers is an error; false: its candidates stay unjudged.
    strict_eval: bool = True
    save_prompts: bool = False  # also write every prompt as text
    # Queries: a split, a random sample of it (null = all), and the shard [start, end) of those.
    split: Split = Split.train
    sample_num: int | None = None
    start: int = 0
    end: int | None = None
    queries_per_call: int = 16  # queries whose candidates are answered in one call
    output_path: str | None = None  # the file; null = in the cache, named after the settings

    def __post_init__(self) -> None:
        counts = ("num_beams", "num_samples_per_temp", "num_random", "num_retrieval")
        require_least("rl_data", self, 0, *counts)
        for value in self.temps:
            require(value > 0, "rl_data.temps", self.temps, "temperatures above 0")
        samples = len(self.temps) * self.num_samples_per_temp
        total = self.num_beams + samples + self.num_random + self.num_retrieval
        require(total >= 2, "rl_data candidates a query", total, "at least 2: a group to compare")
        require_least("rl_data", self, 1, "queries_per_call")
        require_shard("rl_data", self.sample_num, self.start, self.end)


def require_shard(node: str, sample_num: int | None, start: int, end: int | None) -> None:
    """Check sample and shard; whether the data have that many queries is checked later."""
    ok = sample_num is None or sample_num >= 1
    require(ok, f"{node}.sample_num", sample_num, "null or at least 1")
    require(start >= 0, f"{node}.start", start, "0 or more")
    require(end is None or end > start, f"{node}.end", end, f"null or above start={start}")
