"""Settings of lever, as plain dataclasses; no torch here, see `core_rl.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import require


@dataclass
class WorldSettings:
    """The generated VQA world; see `lever.synthetic`.

    The defaults were settled before any policy was trained on them: about 14 variants in a first
    trial, then three (nuisance 1.3, 1.4 and 1.5 with fewer entities) on the worlds of seeds 100 and
    101, looking only at rows that need no training: random, similarity and exhaustive oracle.  They
    make the task reachable, so a score here says nothing about real pictures.
    """

    demos: int = 2000
    train: int = 600
    val: int = 100
    test: int = 600
    # What an item is made of: an entity (it decides its topic), a kind of question, an attribute.
    entities: int = 600
    zipf_offset: float = 5.0  # the entity of rank r (from 0) has weight 1 / (r + 1 + offset)
    topics: int = 30
    kinds: int = 8
    attributes: int = 6
    # An answer is a pair: a name, which the entity decides, and a value, of the kind's family.
    names: int = 24
    values: int = 16
    # Embeddings: length of each part before the noise, and of the noise.
    width: int = 512
    image_topic: float = 0.6
    image_entity: float = 1.0
    image_attribute: float = 0.35
    text_kind: float = 0.8
    text_attribute: float = 0.6
    text_topic: float = 0.7
    nuisance: float = 1.3  # scene in pictures, wording in questions
    noise: float = 2.0
    # Annotators: how many, how likely one gives the true answer (uniform a question), and how the
    # rest err: another value of the family, another name, anything.
    annotators: int = 10
    agreement_low: float = 0.3
    agreement_high: float = 0.9
    err_value: float = 0.55
    err_name: float = 0.35
    # The reader: what a demonstration adds to the answers it speaks for.
    earlier_weight: float = 0.85  # of each demonstration against the one after it
    evidence: float = 6.0
    name_topic: float = 0.35  # relevance for the name of a demonstration of the same topic
    value_kind: float = 0.3  # relevance for the value of a demonstration of the same kind
    copying: float = 9.0  # pull of a demonstration that merely looks alike
    prior_family: float = 1.5
    known_share: float = 0.3  # share of questions whose answer the reader may know by itself
    known_bonus: float = 9.0
    # Each query's pool.
    pool_text: int = 16
    pool_image: int = 16
    pool_random: int = 32

    def __post_init__(self) -> None:
        for name in ("demos", "train", "val", "test", "entities", "topics", "kinds", "names"):
            value = getattr(self, name)
            require(value >= 1, f"data_mix.world.{name}", value, "at least 1")
        require(self.attributes >= 2, "data_mix.world.attributes", self.attributes, "at least 2")
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
    """Settings never trained on: each world draws these uniformly, the rest stay as they are."""

    noise: tuple[float, float] = (2.2, 2.8)
    nuisance: tuple[float, float] = (1.4, 1.6)
    agreement_high: tuple[float, float] = (0.75, 0.85)
    earlier_weight: tuple[float, float] = (0.7, 0.8)
    copying: tuple[float, float] = (9.5, 10.5)
    zipf_offset: tuple[float, float] = (8.0, 16.0)


DEFAULT = WorldSettings()
SHIFTED = ShiftedRange()


class DataKind(Enum):
    """Where questions come from."""

    synthetic = "synthetic"  # `lever.synthetic`
    easyvqa = "easyvqa"  # the easy-vqa package
    files = "files"  # official VQA files: OK-VQA, VQAv2


class SamplerKind(Enum):
    """How a query's pool is chosen; see `lever.samplers`."""

    world = "world"  # as the generated world draws it: as `mix`, a quarter, a quarter and a half
    rand = "rand"
    text_sim = "text_sim"
    img_sim = "img_sim"
    mix = "mix"


@dataclass
class EncodingConfig:
    """Which of picture and question a selector sees, of queries and of demonstrations."""

    query_image: bool = True
    query_text: bool = True
    demo_image: bool = True
    demo_text: bool = True

    def __post_init__(self) -> None:
        for side in ("query", "demo"):
            require(
                getattr(self, f"{side}_image") or getattr(self, f"{side}_text"),
                f"data_mix.encoding.{side}_image and {side}_text",
                False,
                "at least one of the two",
            )


class TextEncoderKind(Enum):
    """What embeds questions; see `lever.encoders`."""

    tfidf = "tfidf"  # word counts and their principal directions: needs no weights
    hf = "hf"  # a sentence encoder: mean of the last hidden states
    clip = "clip"
    file = "file"  # rows made elsewhere


class ImageEncoderKind(Enum):
    """What embeds pictures; see `lever.encoders`."""

    statistics = "statistics"  # colours and directions of edges: needs no weights
    tags = "tags"  # names of objects, by the text encoder
    clip = "clip"
    file = "file"  # rows made elsewhere


@dataclass
class TextEncoderConfig:
    """The encoder of questions."""

    kind: TextEncoderKind = TextEncoderKind.tfidf
    path: str | None = None  # hf, clip: local folder or hub id; file: a safetensors file
    adapters: str | None = None  # clip: folder of adapters trained for it
    dims: int = 128  # columns of tfidf
    max_length: int = 128  # tokens of hf; longer texts are cut
    batch_size: int = 64

    def __post_init__(self) -> None:
        require(
            self.path is not None or self.kind is TextEncoderKind.tfidf,
            "data_mix.text_encoder.path",
            self.path,
            f"a path: text_encoder.kind={self.kind.value} reads one",
        )
        for name, least in (("dims", 1), ("max_length", 2), ("batch_size", 1)):
            value = getattr(self, name)
            require(value >= least, f"data_mix.text_encoder.{name}", value, f"at least {least}")


@dataclass
class ImageEncoderConfig:
    """The encoder of pictures."""

    kind: ImageEncoderKind = ImageEncoderKind.statistics
    path: str | None = None  # clip: local folder or hub id; file: a safetensors file
    adapters: str | None = None  # clip: folder of adapters trained for it
    batch_size: int = 32

    def __post_init__(self) -> None:
        require(
            self.path is not None
            or self.kind in (ImageEncoderKind.statistics, ImageEncoderKind.tags),
            "data_mix.image_encoder.path",
            self.path,
            f"a path: image_encoder.kind={self.kind.value} reads one",
        )
        require(
            self.batch_size >= 1, "data_mix.image_encoder.batch_size", self.batch_size, "at least 1"
        )


@dataclass
class FilesConfig:
    """Official VQA files; relative paths are taken from `paths.data`."""

    questions: str = ""
    annotations: str = ""
    # Of the test questions; empty = a share of the pictures above is kept for them.
    test_questions: str = ""
    test_annotations: str = ""
    # Folders of pictures and how a file in them is named after its picture's id; empty = none.
    pictures: str = ""
    picture_name: str = "COCO_train2014_{image_id:012d}.jpg"
    test_pictures: str = ""
    test_picture_name: str = "COCO_val2014_{image_id:012d}.jpg"
    # JSON files of object tags by question_id or image_id; empty = none.
    tags: str = ""
    test_tags: str = ""

    def __post_init__(self) -> None:
        for name in ("picture_name", "test_picture_name"):
            value = getattr(self, name)
            try:
                ok = value.format(image_id=1) != value
            except (IndexError, KeyError, ValueError):
                ok = False
            require(ok, f"data_mix.files.{name}", value, "a name with {image_id} or {image_id:06d}")


@dataclass
class SplitConfig:
    """How many questions are used, and for what.  No picture is in two splits."""

    seed: int = 0  # of the split and the pools, whatever the seed of the run
    # Shares of the pictures that validation and test take.
    val_share: float = 0.1
    test_share: float = 0.2
    # At most so many questions: in the bank, of the bank as queries to learn from, and held out.
    demos: int = 2000
    train: int = 600
    val: int = 200
    test: int = 600

    def __post_init__(self) -> None:
        for name in ("val_share", "test_share"):
            value = getattr(self, name)
            require(0 < value < 1, f"data_mix.split.{name}", value, "between 0 and 1")
        require(
            self.val_share + self.test_share < 1,
            "data_mix.split.val_share + test_share",
            self.val_share + self.test_share,
            "below 1",
        )
        for name in ("demos", "train", "val", "test"):
            value = getattr(self, name)
            require(value >= 1, f"data_mix.split.{name}", value, "at least 1")
        require(
            self.train <= self.demos,
            "data_mix.split.train",
            self.train,
            f"at most the {self.demos} of data_mix.split.demos",
        )


@dataclass
class LeverDataConfig:
    """Questions, what is known of them, and each query's pool."""

    name: str = "lever_synthetic"
    kind: DataKind = DataKind.synthetic
    # The generated world: its settings, and whether they come from the range never trained on.
    world: WorldSettings = field(default_factory=WorldSettings)
    shifted: bool = False
    # Other data: where they lie, how they are split, what embeds them.
    files: FilesConfig = field(default_factory=FilesConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    # Which of picture and question a selector sees.
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    # Pools: how they are chosen, and how many demonstrations one holds.
    sampler: SamplerKind = SamplerKind.world
    candidate_num: int = 64

    def __post_init__(self) -> None:
        if self.kind is DataKind.files:
            for name in ("questions", "annotations"):
                value = getattr(self.files, name)
                require(value != "", f"data_mix.files.{name}", value, "an official VQA file")
        require(self.candidate_num >= 2, "data_mix.candidate_num", self.candidate_num, "2 or more")
        require(
            self.sampler is not SamplerKind.world or self.kind is DataKind.synthetic,
            "data_mix.sampler",
            self.sampler.value,
            "rand, text_sim, img_sim or mix: `world` is the generated world's own",
        )
        require(
            self.sampler is not SamplerKind.world or self.candidate_num == self.world.pool_size,
            "data_mix.candidate_num",
            self.candidate_num,
            f"{self.world.pool_size}, the sum of the three data_mix.world.pool_ settings, or "
            "another sampler",
        )


class AnswererKind(Enum):
    """Who answers."""

    kernel = "kernel"  # a stand-in: `lever.kernel` in the generated world, else `lever.text_kernel`
    hf = "hf"  # a Hugging Face image-text-to-text model
    api = "api"  # a server with an OpenAI-compatible interface


class TemplateKind(Enum):
    """How a prompt is written; see `lever.templates`."""

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
            for name in ("url", "model"):
                value = getattr(self, name)
                require(value is not None, f"answerer.{name}", value, "a value for a server")
        for name, least in (("batch_size", 1), ("max_new_tokens", 1), ("num_beams", 1)):
            value = getattr(self, name)
            require(value >= least, f"answerer.{name}", value, f"at least {least}")
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
    """Beam data: demonstrations that raise the answer's probability; see `lever.infoscore`."""

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
    """RL data: candidates of several kinds, each answered and scored; see `lever.rl_data`."""

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
    matching: Matching = Matching.official
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
