"""Settings of the questions: data, splits, pools, encoders; no torch here, see `core_rl.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import require
from lever.world_config import WorldSettings


class DataKind(Enum):
    """Where questions come from."""

    synthetic = "synthetic"  # `lever.data.world`
    easyvqa = "easyvqa"  # the easy-vqa package
    files = "files"  # official VQA files: OK-VQA, VQAv2


class SamplerKind(Enum):
    """How a query's pool is chosen; see `lever.data.pools`."""

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
    """What embeds questions; see `lever.features.encoders`."""

    tfidf = "tfidf"  # word counts and their principal directions: needs no weights
    hf = "hf"  # a sentence encoder: mean of the last hidden states
    clip = "clip"
    file = "file"  # rows made elsewhere


class ImageEncoderKind(Enum):
    """What embeds pictures; see `lever.features.encoders`."""

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
