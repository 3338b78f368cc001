"""A world shared by the tests, and what its queries are worth."""

from __future__ import annotations

import functools
from dataclasses import asdict

import numpy as np

from lever.data.world import Floats, World, make_world
from lever.data.world_reader import KernelReader
from lever.world_config import DEFAULT, WorldSettings

SMALL = WorldSettings(
    demos=60,
    train=6,
    val=3,
    test=5,
    entities=20,
    topics=5,
    width=64,
    pool_text=4,
    pool_image=4,
    pool_random=4,
)
# The same as overrides of a command.
SMALL_WORLD = (
    *(
        f"data_mix.world.{name}={value}"
        for name, value in asdict(SMALL).items()
        if value != getattr(DEFAULT, name)
    ),
    f"data_mix.candidate_num={SMALL.pool_size}",
)


@functools.cache
def default_world() -> World:
    return make_world(DEFAULT, seed=0)


@functools.cache
def small_world() -> World:
    return make_world(SMALL, seed=0)


def all_rewards(world: World, queries: range) -> Floats:
    """Rewards of all ordered pairs, [queries, K, K], NaN on the diagonal."""
    reader = KernelReader(world)
    return np.stack([reader.pair_rewards(query) for query in queries])
