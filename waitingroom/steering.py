"""How fast a line should go, by what its gate shows: a rule, and nothing that remembers.

How late orders are written down follows from Little's law: what is granted and not yet in the order book,
divided by what is granted in a second, is how long a claim waits for its row.
"""

from typing import NamedTuple

from sales.gate import Image
from waitingroom.models import Room

STEER_SECONDS = 5.0  # between two looks that are compared
LATE_SECONDS = 5.0
SLOW_GATE_SECONDS = 0.05  # a round trip; idle it takes less than a hundredth of that
UNUSED = 0.5  # so few of the turns lead to an order that more may come
FEWEST_TURNS = 10  # from which a share says something
SLOWER, FASTER = 0.7, 1.25


class Look(NamedTuple):
    """What was seen at a moment. `at` is seconds on any clock, `turns` how many tickets have had their turn
    come, `waiting` how many have not; `gate_seconds` is a round trip to the gate."""

    at: float
    image: Image
    turns: int
    waiting: int
    gate_seconds: float


def granted(image: Image) -> int:
    """Units ever granted by the gate."""
    return image.held + image.queued + image.settled + image.released


def steered(room: Room, rate: float, before: Look, now: Look) -> tuple[float, str] | None:
    """The rate (turns per second) from now on and why; None: as it is."""
    seconds = now.at - before.at
    units, turns = granted(now.image) - granted(before.image), now.turns - before.turns
    late = (now.image.held + now.image.queued) * seconds / units if units > 0 else 0.0
    if late > LATE_SECONDS:
        return bounded(room, rate, rate * SLOWER, f"orders are written down {late:.0f} s late")
    if now.gate_seconds > SLOW_GATE_SECONDS:
        return bounded(room, rate, rate * SLOWER, f"the gate takes {now.gate_seconds * 1000:.0f} ms")
    if rate < room.turn_rate and late < LATE_SECONDS / 2:
        return bounded(room, rate, min(rate * FASTER, room.turn_rate), "everything keeps up again")
    # Everybody whose turn has come may still buy: not faster than the operator wished with more turns at
    # once than there are units.
    may_come = now.waiting and rate * FASTER * room.turn_seconds <= now.image.remaining
    # No order at all is a fault in front of the gate, not a lack of wishes.
    if may_come and turns >= FEWEST_TURNS and 0 < units < UNUSED * turns:
        return bounded(room, rate, rate * FASTER, f"{units} of {turns} turns were used")
    return bounded(room, rate, rate, "within the bounds set by the operator")


def bounded(room: Room, before: float, wanted: float, reason: str) -> tuple[float, str] | None:
    """The wanted rate within the operator's bounds; None when that changes nothing."""
    rate = round(min(max(wanted, room.least_rate), room.most_rate), 2)
    return None if rate == before else (rate, reason)
