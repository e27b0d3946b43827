"""Metrics of the lines, summed over all of them: a sale that is popular must not make the metrics grow."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from prometheus_client import Gauge

State = Literal["moving", "standing", "stalled"]

lines = Gauge(
    "fluxgate_lines",
    "Lines by what they do; stalled: people wait, the sale is open and has units, and no turn comes.",
    ["state"],
    multiprocess_mode="livesum",
)
line_people = Gauge(
    "fluxgate_line_people", "Tickets whose turn has not come yet.", multiprocess_mode="livesum"
)
line_turns_per_second = Gauge(
    "fluxgate_line_turns_per_second", "The pace of the lines that move.", multiprocess_mode="livesum"
)


class Seen(NamedTuple):
    """One line, as the keeper has just left it."""

    state: State
    people: int
    rate: float


def publish(seen: Sequence[Seen]) -> None:
    count = Counter(line.state for line in seen)
    for state in get_args(State):
        lines.labels(state).set(count[state])
    line_people.set(sum(line.people for line in seen))
    line_turns_per_second.set(sum(line.rate for line in seen))


def forget() -> None:
    """Another keeper publishes from now on: what we know would be counted twice."""
    lines.clear()
    line_people.set(0)
    line_turns_per_second.set(0)
