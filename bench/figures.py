"""Many runs of one thing, as one figure: the median, and how far the runs lie apart."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    median: float
    low: float
    high: float

    def over(self, divisor: float) -> "Figure":
        """The same in another unit."""
        return Figure(*(each / divisor for each in self))

    @property
    def spread(self) -> float:
        """From the lowest to the highest run, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def figure(values: Sequence[float]) -> Figure:
    """Raises ValueError when there are none."""
    if not values:
        raise ValueError("no runs")
    return Figure(median(values), min(values), max(values))
