"""Every flag of lever's earlier command lines has a key here, and every key composes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments import schema

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "lever_flags.md"

GENERATOR = """
sft_ckpt beam_data output_path query_emb cand_emb vqa_model dataset config num_beams temps
num_samples_per_temp num_random num_retrieval device train_ques_path train_ann_path val_ques_path
val_ann_path strict_eval no_strict_eval save_prompts start_idx end_idx
"""
TRAINER = """
sft_ckpt beam_data output_dir img_emb text_emb rce_epochs grpo_epochs batch_size rce_lr
rce_temp_start rce_temp_end grpo_lr kl_beta disable_adaptive_kl use_ppo_clip_only clip_epsilon
use_top1_only reward_mode hard_weight soft_weight rel_weight reward_alpha reward_beta
reward_correctness_mode use_logprob num_layers rce_use_raw_reward freeze_backbone_in_grpo
no_skip_fallback_reward require_positive_query normalize_method normalize_clamp_value
candidate_size device max_samples dry_run
"""
FLAGS = {"generate_rl_data": GENERATOR.split(), "grpo_post_train": TRAINER.split()}


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield section, experiment, flag, key and value of every row."""
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        section = part.split("\n")[0].strip()
        command = re.search(r"`python -m experiments\.run (\+exp=\w+)`", part)
        assert command, section
        for line in part.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 4 and cells[0].startswith("`--"):
                yield section, command[1], cells[0].strip("`-"), cells[1], cells[2]


ROWS = list(rows())


@pytest.fixture(scope="module", autouse=True)
def conf() -> Iterator[None]:
    schema.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def test_every_flag_has_a_row() -> None:
    for section, flags in FLAGS.items():
        assert sorted(flags) == sorted(row[2] for row in ROWS if row[0] == section)


@pytest.mark.parametrize(
    ("experiment", "key", "value"),
    sorted({(row[1], row[3], row[4]) for row in ROWS}),
)
def test_every_key_composes_and_takes_its_value(experiment: str, key: str, value: str) -> None:
    cfg = compose("config", overrides=[experiment, "paths.data=data", f"{key}={value}"])
    schema.validate(cfg)
    if (ROOT / "conf" / key).is_dir():  # a group
        assert (ROOT / "conf" / key / f"{value}.yaml").is_file()
        return
    [parsed] = OverridesParser.create().parse_overrides([f"{key}={value}"])
    wanted, found = parsed.value(), OmegaConf.select(cfg, key)
    if isinstance(wanted, dict):
        assert {name: _plain(found[name]) for name in wanted} == wanted
    else:
        assert _plain(found) == wanted


def _plain(value: object) -> object:
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return getattr(value, "name", value)
