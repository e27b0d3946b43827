"""The targets of this project's issue "Faster than Node, in Django", and whether a document meets them."""

from typing import NamedTuple

from bench.durable import CONSUMER, WORKER
from bench.results import Document, of

OURS = "ours, hot"
DESIGNED, TUNED = "reference, designed", "reference, tuned"


class Target(NamedTuple):
    """`ratio` is ours to theirs, or theirs to ours where less is better. `unit` belongs to both values."""

    what: str
    against: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    wanted: float
    met: bool


_PER_CPU = (
    ("accepted", DESIGNED, 5.0),
    ("accepted", TUNED, 2.0),
    ("sold out", DESIGNED, 4.0),
    ("sold out", TUNED, 4.0),
    ("turned away", DESIGNED, 2.5),
    ("turned away", TUNED, 2.5),
)
MEMORY_BYTES = 1_000_000


def judge(found: Document, ours: str = OURS) -> list[Target]:
    """Every target that the document has both sides of, by the medians."""
    rows = []
    for scenario, other, wanted in _PER_CPU:
        mine = of(found, "runs", ours, "per_cpu_second", scenario)
        theirs = of(found, "runs", other, "per_cpu_second", scenario)
        if mine and theirs:
            rows.append(_at_least(scenario, other, "/CPU-s", mine.median, theirs.median, wanted))
    for other in (DESIGNED, TUNED):
        mine, theirs = of(found, "half_load", ours, "p99"), of(found, "half_load", other, "p99")
        if mine and theirs:
            rows.append(_below("p99 at half load", other, mine.median / 1000, theirs.median / 1000))
    mine, theirs = of(found, "durable", CONSUMER, "per_second"), of(found, "durable", WORKER, "per_second")
    if mine and theirs:
        rows.append(_at_least("durable", WORKER, "/s", mine.median, theirs.median, 8.0))
    for other in (DESIGNED, TUNED):
        mine, theirs = of(found, "original", ours, "answered"), of(found, "original", other, "answered")
        if mine and theirs:
            rows.append(_at_least("original's shape", other, "answers", mine.median, theirs.median, 1.0))
    return rows


def memory_met(found: Document) -> bool | None:
    """Whether a million refusals left Redis as it was; None when it was not measured to the end."""
    memory = found["memory"]
    if not memory or memory["refused"] < 1_000_000:
        return None
    return bool(memory["after"] - memory["before"] <= MEMORY_BYTES)


def _at_least(what: str, other: str, unit: str, mine: float, theirs: float, wanted: float) -> Target:
    ratio = mine / theirs
    return Target(what, other, unit, mine, theirs, ratio, wanted, ratio >= wanted)


def _below(what: str, other: str, mine: float, theirs: float) -> Target:
    ratio = theirs / mine
    return Target(what, other, "ms", mine, theirs, ratio, 1.0, ratio > 1.0)
