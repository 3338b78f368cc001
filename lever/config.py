"""Settings of the data: questions, splits, pools, encoders.  No torch, as in `core_rl.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import require, require_least
from lever.world_config import WorldSettings


class DataKind(Enum):
    """Where questions come from."""

    synthetic = "synthetic"  # `lever.data.world`
    easyvqa = "easyvqa"  # the easy-vqa package
    files = "files"  # official VQA files: OK-VQA, VQAv2


class SamplerKind(Enum):
    """How a query's pool is chosen; see `lever.data.pools`."""

    world = "world"  # drawn with the generated world, in the shares of `mix`
    rand = "rand"
    text_sim = "text_sim"
    img_sim = "img_sim"
    mix = "mix"


@dataclass
class EncodingConfig:
    """Whether a selector sees the picture and the question, of queries and of demonstrations."""

    query_image: bool = True
    query_text: bool = True
    demo_image: bool = True
    demo_text: bool = True

    def __post_init__(self) -> None:
        for side, seen in (
            ("query", self.query_image or self.query_text),
            ("demo", self.demo_image or self.demo_text),
        ):
            name = f"data_mix.encoding.{side}_image and {side}_text"
            require(seen, name, False, "at least one of the two")


class TextEncoderKind(Enum):
    """The encoder of questions; see `lever.features.encoders`."""

    tfidf = "tfidf"  # TF-IDF and a truncated SVD; needs no weights
    hf = "hf"  # a sentence encoder: mean of the last hidden states
    clip = "clip"
    file = "file"  # embeddings from a file


class ImageEncoderKind(Enum):
    """The encoder of pictures; see `lever.features.encoders`."""

    statistics = "statistics"  # histograms of colours and edge directions; needs no weights
    tags = "tags"  # names of objects, encoded by the text encoder
    clip = "clip"
    file = "file"  # embeddings from a file


@dataclass
class TextEncoderConfig:
    """The encoder of questions."""

    kind: TextEncoderKind = TextEncoderKind.tfidf
    path: str | None = None  # hf, clip: local folder or hub id; file: a safetensors file
    adapters: str | None = None  # clip: folder of trained adapters
    dims: int = 128  # tfidf: columns
    max_length: int = 128  # hf: tokens; longer texts are cut
    batch_size: int = 64

    def __post_init__(self) -> None:
        require(
            self.path is not None or self.kind is TextEncoderKind.tfidf,
            "data_mix.text_encoder.path",
            self.path,
            f"a path: text_encoder.kind={self.kind.value} reads one",
        )
        require_least("data_mix.text_encoder", self, 1, "dims", "batch_size")
        require_least("data_mix.text_encoder", self, 2, "max_length")


@dataclass
class ImageEncoderConfig:
    """The encoder of pictures."""

    kind: ImageEncoderKind = ImageEncoderKind.statistics
    path: str | None = None  # clip: local folder or hub id; file: a safetensors file
    adapters: str | None = None  # clip: folder of trained adapters
    batch_size: int = 32

    def __post_init__(self) -> None:
        needs_path = self.kind in (ImageEncoderKind.clip, ImageEncoderKind.file)
        require(
            self.path is not None or not needs_path,
            "data_mix.image_encoder.path",
            self.path,
            f"a path: image_encoder.kind={self.kind.value} reads one",
        )
        require_least("data_mix.image_encoder", self, 1, "batch_size")


@dataclass
class FilesConfig:
    """Official VQA files; relative paths start at `paths.data`."""

    questions: str = ""
    annotations: str = ""
    # The test questions; empty = a share of the pictures above is kept for testing.
    test_questions: str = ""
    test_annotations: str = ""
    # Folders of pictures (empty = none), and a picture's file name, from its id.
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
    """How many questions each split has.  No picture is in two splits."""

    seed: int = 0  # of the split and the pools; independent of the run's seed
    # Shares of the pictures for validation and test.
    val_share: float = 0.1
    test_share: float = 0.2
    # Largest number of questions of each split.
    demos: int = 2000  # the bank of demonstrations
    train: int = 600  # training queries, taken from the bank
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
        require_least("data_mix.split", self, 1, "demos", "train", "val", "test")
        require(
            self.train <= self.demos,
            "data_mix.split.train",
            self.train,
            f"at most the {self.demos} of data_mix.split.demos",
        )


@dataclass
class LeverDataConfig:
    """The questions, their encoders, and each query's pool of demonstrations."""

    name: str = "lever_synthetic"
    kind: DataKind = DataKind.synthetic
    # The generated world; `shifted` draws its settings from a range kept out of all tuning.
    world: WorldSettings = field(default_factory=WorldSettings)
    shifted: bool = False
    # Other data: their files, splits and encoders.
    files: FilesConfig = field(default_factory=FilesConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    # Pools: how they are chosen, and K, the demonstrations in each.
    sampler: SamplerKind = SamplerKind.world
    candidate_num: int = 64

    def __post_init__(self) -> None:
        if self.kind is DataKind.files:
            for name in ("questions", "annotations"):
                value = getattr(self.files, name)
                require(value != "", f"data_mix.files.{name}", value, "an official VQA file")
        require_least("data_mix", self, 2, "candidate_num")
        if self.sampler is SamplerKind.world:
            require(
                self.kind is DataKind.synthetic,
                "data_mix.sampler",
                self.sampler.value,
                "rand, text_sim, img_sim or mix: `world` needs the generated world",
            )
            require(
                self.candidate_num == self.world.pool_size,
                "data_mix.candidate_num",
                self.candidate_num,
                f"{self.world.pool_size}, the sum of the three data_mix.world.pool_ settings, or "
                "another sampler",
            )
