"""Settings of the video-and-audio pipeline, torch-free (see `core_rl.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from core_rl.config import OnBadRecord, require, require_least, require_positive


class Blank(Enum):
    """Which media are blanked, for blind baselines."""

    none = "none"
    video = "video"
    audio = "audio"
    all = "all"


@dataclass
class MediaConfig:
    """How a clip becomes frames and a waveform."""

    fps: float = 2.0  # frames sampled a second
    max_frames: int = 32
    min_pixels: int = 3136  # of a frame, after resizing to multiples of 28
    max_pixels: int = 50176
    max_picture_pixels: int | None = None  # of a picture; null = max_pixels
    max_sound: float | None = None  # seconds of a sound that are heard; null = all
    sample_rate: int = 16000  # Hz, mono
    # True: audio tokens interleaved with video tokens in 2-second chunks; False: audio as an item
    # of its own after the video.  One value for processor, generation and log-probs.
    use_audio_in_video: bool = False
    cache_clips: int = 4096  # decoded clips kept in memory

    def __post_init__(self) -> None:
        require_positive("model.media", self, "fps", "sample_rate")
        require_least("model.media", self, 2, "max_frames")
        require_least("model.media", self, 0, "cache_clips")
        require(
            784 <= self.min_pixels <= self.max_pixels,
            "model.media.min_pixels",
            self.min_pixels,
            f"from 784 (28 x 28) to max_pixels={self.max_pixels}",
        )
        pictures, sound = self.max_picture_pixels, self.max_sound
        require(
            pictures is None or pictures >= self.min_pixels,
            "model.media.max_picture_pixels",
            pictures,
            f"null or at least min_pixels={self.min_pixels}",
        )
        require(sound is None or sound > 0, "model.media.max_sound", sound, "null or above 0")


@dataclass
class TinyConfig:
    """Sizes of the thinker that is built from a config instead of loaded."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 384
    vision_hidden: int = 64
    vision_layers: int = 2
    audio_hidden: int = 64
    audio_layers: int = 2
    mel_bins: int = 32
    vocab_size: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        require_least("model.tiny", self, 1, "heads", "kv_heads")
        require(
            self.hidden % self.heads == 0, "model.tiny.hidden", self.hidden, "a multiple of heads"
        )
        require(
            self.heads % self.kv_heads == 0,
            "model.tiny.kv_heads",
            self.kv_heads,
            "a divisor of heads",
        )


@dataclass
class WarmStartConfig:
    """The supervised start of the tiny thinker: first perception, then the habit."""

    clips: int = 3600  # generated for it, in the shares of the mix
    perception_steps: int = 400  # honest narrators; again until every fact is perceived
    perception_rounds: int = 2  # at most
    perception_goal: float = 0.97  # ends the rounds; measured on the validation split
    # Gentler, so that what was perceived stays.
    habit_lr_scale: float = 0.3
    habit_steps: int = 100  # weak narrators: mostly scenery, often the habitual answer
    habit_rounds: int = 4  # at most
    habit_goal: float = 0.63  # greedy accuracy on validation clips that ends the rounds
    batch_size: int = 24
    lr: float = 2e-3
    gate_clips: int = 160  # of the validation split
    # The gate before GRPO.  Each fact must be perceived, and the start must be neither blind nor
    # done.
    perception_min: float = 0.9
    accuracy_min: float = 0.35
    accuracy_max: float = 0.65

    def __post_init__(self) -> None:
        counts = ("clips", "perception_steps", "perception_rounds", "habit_steps", "habit_rounds")
        require_least("model.warm", self, 1, *counts, "batch_size", "gate_clips")
        require_positive("model.warm", self, "lr")


@dataclass
class LoraConfig:
    """Low-rank adapters of the language model; the reference policy is a copy of them only."""

    r: int = 0  # rank; 0 = no adapters, 16 is usual
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )

    def __post_init__(self) -> None:
        require(self.r >= 0, "model.lora.r", self.r, "0 (no adapters) or above")
        # Dropout would make the log-probs of one candidate differ from call to call.
        require(
            self.dropout == 0, "model.lora.dropout", self.dropout, "0 in reinforcement learning"
        )


# Fields of `OmniModelConfig` that have a few values.
_CHOICES = {
    "attention": ("sdpa", "eager", "flash_attention_2"),
    "recompute": ("auto", "layers", "never"),
    "dtype": ("float32", "bfloat16", "float16"),
    "warm_start": ("packaged", "train", "none"),
}


@dataclass
class OmniModelConfig:
    """The thinker, with the training defaults for its size."""

    name: str = "omni_tiny"
    # A local folder or a hub id; null builds the tiny thinker of `tiny` and warm-starts it.
    path: str | None = None
    tiny: TinyConfig = field(default_factory=TinyConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    system_prompt: str = "Watch the people."
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze_towers: bool = True  # vision and audio encoders do not train
    attention: str = "sdpa"  # sdpa | eager | flash_attention_2
    dtype: str = "float32"
    # Share one encoded prompt among the candidates of a question.
    shared_prompt: bool = True
    # What its backward pass computes again instead of keeping it: `auto` = layers of the prompt and
    # cheap operations of the completions, `layers` of both, `never`.
    recompute: str = "auto"
    # Training defaults; `trainer` and `rollout` read them.
    lr: float = 5e-7
    batch_size: int = 1
    max_prompt: int = 2048
    max_completion: int = 1024
    # Warm start of the tiny thinker: `packaged` (shipped weights), `train` (made and cached),
    # `none`.
    warm_start: str = "packaged"
    warm: WarmStartConfig = field(default_factory=WarmStartConfig)

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            require(value in known, f"model.{name}", value, f"one of {', '.join(known)}")
        require_positive("model", self, "lr")


@dataclass
class SourceConfig:
    """One source of records: a YAML of the published layout, or one JSON file."""

    # A `.yaml` with `datasets: [{json_path, data_root, sampling_strategy}]`, or a `.json`/`.jsonl`.
    # Empty: generated clips of the family `family`.
    path: str = ""
    data_root: str = ""
    sampling: str = "all"  # all | first:N|P% | end:N|P% | random:N|P%
    family: str = ""  # social | emotion | general (generated clips)


@dataclass
class OmniDataConfig:
    """Sources, their shares and the size of the mix."""

    name: str = "stage4_embedded"
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    size: int = 1500
    general: list[str] = field(default_factory=list)  # sources that stand for general ability
    generated: bool = True  # made by `omni_rl.data.scenes`; real data otherwise
    shifted: bool = False  # draw test clips from the unseen range of generator settings
    test_path: str = ""  # real data: held-out records (IntentBench's qa.json, say)
    test_root: str = ""  # folder of its media, in paths.data or else the working folder
    val_path: str = ""
    val_root: str = ""
    on_bad_record: OnBadRecord = OnBadRecord.error
    blank: Blank = Blank.none

    def __post_init__(self) -> None:
        require_positive("data_mix", self, "size")
        require(
            len(self.sources) > 0, "data_mix.sources", dict(self.sources), "at least one source"
        )
        require(
            set(self.ratios) == set(self.sources),
            "data_mix.ratios",
            dict(self.ratios),
            f"one share for each of {sorted(self.sources)}",
        )
        total = sum(self.ratios.values())
        require(
            abs(total - 1.0) < 1e-6 and min(self.ratios.values()) >= 0,
            "data_mix.ratios",
            dict(self.ratios),
            f"shares of 0 or more that sum to 1 (they sum to {total:g})",
        )
        unknown = sorted(set(self.general) - set(self.sources))
        require(not unknown, "data_mix.general", unknown, f"names among {sorted(self.sources)}")
