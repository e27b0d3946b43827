"""A selection of what `make simulate` runs: some seeds of each mode, and replay."""

import pytest

from tests.simulation.faults import MODES
from tests.simulation.simulate import Run

SEEDS = 25


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_violated(mode: str) -> None:
    for seed in range(SEEDS):
        assert (mode, seed, Run(mode, seed).go().violations) == (mode, seed, [])


def test_a_seed_is_a_history() -> None:
    for mode in ("everything", "splitbrain"):
        once, again, other = Run(mode, 7).go(), Run(mode, 7).go(), Run(mode, 8).go()
        assert once.world.digest() == again.world.digest()
        assert once.world.digest() != other.world.digest()
