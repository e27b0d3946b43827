"""A selection of what `make simulate` runs: some seeds of each mode, every planted bug, and replay."""

import pytest

from orders import book, epochs, repair_book
from tests.simulation.bugs import BUGS
from tests.simulation.faults import MODES
from tests.simulation.simulate import Run
from tests.simulation.world import World

SEEDS = 25

# A seed that shows each planted bug, as `python -m tests.simulation --bugs` finds it. A change of the
# workload or of the faults moves them.
CAUGHT = {
    "no-sweeper": ("crashes", 2),
    "sweeper-releases": ("standstill", 224),
    "release-when-late": ("network", 102),
    "promise-after-the-deadline": ("standstill", 47),
    "key-after-stock": ("network", 0),
    "scripts-reloaded": ("redis", 20),
    "no-replication-id": ("redis", 20),
    "no-epoch-in-the-script": ("standstill", 6),
    "keyed-by-order": ("everything", 8),
    "any-position": ("database", 14),
    "idle-consumer-never-looks": ("database", 14),
    "position-before-the-rows": ("crashes", 4),
    "insert-counts-everything": ("crashes", 176),
    "no-wait-before-the-barrier": ("redis", 23),
    "barrier-not-awaited": ("standstill", 394),
    "no-barrier": ("standstill", 166),
    "stale-claims-kept": ("standstill", 166),
    "only-confirmed-keys-loaded": ("redis", 1),
    "customers-not-loaded": ("redis", 34),
    "queued-whatever-epoch": ("standstill", 246),
    "released-twice": ("crashes", 3),
    "cancel-releases-at-once": ("crashes", 64),
    "pause-in-the-database-only": ("calm", 16),
    "stopped-once": ("standstill", 69),
    "opened-without-its-turn": ("standstill", 232),
    "unknown-while-fenced": ("redis", 22),
}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_violated(mode: str) -> None:
    for seed in range(SEEDS):
        assert (mode, seed, Run(mode, seed).go().violations) == (mode, seed, [])


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    """And it is the bug that is caught: without it the same seed violates nothing."""
    mode, seed = CAUGHT[name]
    assert Run(mode, seed).go().violations == []
    assert Run(mode, seed, BUGS[name].planted).go().violations != []


def test_a_seed_is_a_history() -> None:
    for mode in ("everything", "splitbrain"):
        once, again, other = Run(mode, 7).go(), Run(mode, 7).go(), Run(mode, 8).go()
        assert once.world.digest() == again.world.digest()
        assert once.world.digest() != other.world.digest()


def test_every_function_of_the_order_book_has_its_twin() -> None:
    """A statement that is added there must not reach for PostgreSQL in here."""
    twins = World("calm", 0).database.functions()
    for module in (book, epochs, repair_book):
        shipped = {
            name
            for name, found in vars(module).items()
            if callable(found)
            and getattr(found, "__module__", "") == module.__name__
            and not isinstance(found, type)
            and not name.startswith("_")
        }
        assert shipped == set(twins[module])
