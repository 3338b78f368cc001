"""What every test runs under: one thread, no network, no settings of the person who runs them."""

from __future__ import annotations

import os

import pytest

# Before torch is imported by any test: several test processes share the cores.
os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg"
)
for name in ("USE_API_REWARD", "API", "API_KEY", "DEBUG_MODE", "LOG_PATH", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hub", action="store_true", help="also run tests that load from a model hub")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hub"):
        os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("hub") and not config.getoption("--hub"):
            item.add_marker(pytest.mark.skip(reason="loads from a model hub: give --hub"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
