from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from core_rl.config import PathsConfig
from lever.answerers.protocol import Answerer, KernelICLAnswerer
from lever.answerers.text_kernel import TextKernelAnswerer
from lever.config import LeverDataConfig
from lever.data.datasets import LeverData, Prompted, load_data
from lever.data.vqa_accuracy import vqa_accuracy
from lever.results.choose import pair_rewards
from tests.lever.counting import Noting
from tests.lever.vqa_folder import folder_config, write_vqa_folder
from tests.lever.worlds import SMALL


def folder_data(folder: Path) -> LeverData:
    write_vqa_folder(folder)
    return load_data(folder_config(), PathsConfig(cache=str(folder), data=str(folder)), 0)


@pytest.mark.parametrize("kind", ["world", "files"])
def test_exact_rewards_are_those_of_asking_for_each_pair(kind: str, tmp_path: Path) -> None:
    answerer: Answerer
    if kind == "files":
        data = folder_data(tmp_path)
        answerer = TextKernelAnswerer(data)
    else:
        data = load_data(LeverDataConfig(world=SMALL, candidate_num=12), PathsConfig(), 0)
        assert data.world is not None
        answerer = KernelICLAnswerer(data.world)
    rewards = pair_rewards(data, answerer, data.test[:2])
    assert rewards is not None
    for one, table in zip(data.test[:2], rewards, strict=True):
        assert np.isnan(table.diagonal()).all()
        for first, last in itertools.permutations(range(len(one.pool)), 2):
            [said] = answerer.generate([Prompted(one.query, (one.pool[first], one.pool[last]))])
            accuracy = vqa_accuracy(said, data.answers[one.query])
            assert table[first, last] == pytest.approx(accuracy)


def test_a_model_is_not_asked_for_every_pair(tmp_path: Path) -> None:
    data = folder_data(tmp_path)
    answerer = Noting(TextKernelAnswerer(data), tmp_path / "notes.txt")
    assert pair_rewards(data, answerer, data.test) is None
    assert answerer.asked == []
