"""What a refusal leaves behind in Redis: nothing. Half of the sales are sold out, half turn people away."""

import time
from dataclasses import dataclass

from bench.ground import Ground
from bench.measuring import OPEN, Knobs
from bench.sides import Side
from bench.stage import Stage, slugs

_PIECE_SECONDS = 2.0


@dataclass(frozen=True)
class Memory:
    """Bytes are Redis' `used_memory` after MEMORY PURGE."""

    refused: int
    wanted: int
    seconds: float
    before: int
    after: int

    @property
    def grown(self) -> int:
        return self.after - self.before


def measure(ground: Ground, side: Side, knobs: Knobs, wanted: int, most_seconds: float) -> Memory:
    """Refuses until it is enough, or for so many seconds."""
    names = slugs(4)
    # One unit each, so that nothing is kept for orders while refusals are counted.
    sales = dict.fromkeys(names, 1)
    rates = {name: OPEN if number < 2 else 1 for number, name in enumerate(names)}
    with Stage(ground, side, sales, rates) as stage:
        stage.drive(knobs.warmup, knobs.connections)
        base = _refused(stage.settled())
        before = used(ground)
        begun = time.monotonic()
        refused = 0
        while refused < wanted and time.monotonic() - begun < most_seconds:
            stage.drive(min(_PIECE_SECONDS, most_seconds), knobs.connections)
            refused = _refused(stage.settled()) - base
        seconds = time.monotonic() - begun
        after = used(ground)
    return Memory(refused, wanted, seconds, before, after)


def _refused(answers: dict[str, int]) -> int:
    return sum(answers.get(name, 0) for name in ("sold_out", "turned_away", "limit_reached"))


def used(ground: Ground) -> int:
    """Bytes in Redis, after the allocator was asked to give back what is free."""
    with ground.gate_client() as client:
        client.execute_command("MEMORY PURGE")
        time.sleep(0.5)  # the allocator gives back what it has been told to
        information = client.info("memory")
        assert isinstance(information, dict)
        return int(information["used_memory"])
