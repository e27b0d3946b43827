"""The targets of this project's issue "Faster than Node, in Django", and whether a document meets them."""

from typing import Any, NamedTuple

from bench import line
from bench.durable import CONSUMER, WORKER
from bench.figures import Figure
from bench.measuring import ASKED
from bench.results import Document, of

OURS = "ours, hot"
DESIGNED, TUNED = "reference, designed", "reference, tuned"
P99, DURABLE, ORIGINAL = "p99 at half load", "durable", "original's shape"


class Target(NamedTuple):
    """`ratio` is ours to theirs, or theirs to ours where less is better. `unit` belongs to both figures."""

    what: str
    against: str
    unit: str
    ours: Figure
    theirs: Figure
    ratio: float
    wanted: float
    met: bool


class Limit(NamedTuple):
    """A target of ours alone. `met` is None when it was not measured to the end."""

    what: str
    found: str
    wanted: str
    met: bool | None


_PER_CPU = (
    ("accepted", "accepted", DESIGNED, 5.0),
    ("accepted", "accepted", TUNED, 2.0),
    ("sold out", "sold out", DESIGNED, 4.0),
    ("sold out", "sold out", TUNED, 4.0),
    (ASKED.name, "sold out", DESIGNED, 2.0),  # the reference always asks
    (ASKED.name, "sold out", TUNED, 2.0),
    ("turned away", "turned away", DESIGNED, 2.5),
    ("turned away", "turned away", TUNED, 2.5),
)
MEMORY_BYTES, MEMORY_REFUSALS = 1_000_000, 1_000_000
OTHER_DOORS_MS = 200
# Of the line.
PERSON_BYTES, LONG_LINE, SAME = 200, 100_000, 0.25
ASKED_PER_SECOND, OWN_ERROR_SECONDS = 1, 1.0


def judge(found: Document, ours: str = OURS) -> list[Target]:
    """Every target that the document has both sides of, by the medians."""
    rows = []
    for scenario, their_scenario, other, wanted in _PER_CPU:
        mine = of(found, "runs", ours, "per_cpu_second", scenario)
        theirs = of(found, "runs", other, "per_cpu_second", their_scenario)
        if mine and theirs:
            rows.append(_at_least(scenario, other, "/CPU-s", mine, theirs, wanted))
    for other in (DESIGNED, TUNED):
        mine, theirs = of(found, "half_load", ours, "p99"), of(found, "half_load", other, "p99")
        if mine and theirs:
            rows.append(_below(P99, other, mine.over(1000), theirs.over(1000)))
    mine, theirs = of(found, "durable", CONSUMER, "per_second"), of(found, "durable", WORKER, "per_second")
    if mine and theirs:
        rows.append(_at_least(DURABLE, WORKER, "/s", mine, theirs, 8.0))
    for other in (DESIGNED, TUNED):
        mine, theirs = of(found, "original", ours, "answered"), of(found, "original", other, "answered")
        if mine and theirs:
            rows.append(_at_least(ORIGINAL, other, "answers", mine, theirs, 1.0))
    return rows


def limits(found: Document) -> list[Limit]:
    """Those that the document has something about."""
    rows = []
    if memory := found["memory"]:
        grown = memory["after"] - memory["before"]
        met = grown <= MEMORY_BYTES if memory["refused"] >= MEMORY_REFUSALS else None
        what = f"Redis, after {memory['refused']:,} refusals"
        rows.append(Limit(what, f"{grown / 1000:+,.0f} kB", "within 1 MB", met))
    for door in found["other_doors"]:
        found_ms = door["p99"] / 1000
        what = f"p99 of {door['door']} under full load"
        rows.append(
            Limit(what, f"{found_ms:.1f} ms", f"below {OTHER_DOORS_MS} ms", found_ms < OTHER_DOORS_MS)
        )
    if found.get("line"):
        rows += _of_the_line(found["line"])
    return rows


def _of_the_line(found: dict[str, Any]) -> list[Limit]:
    looks, last = line.costs(found["looks"], "people"), found["sizes"][-1]
    few, many = min(looks), max(looks)
    bytes_, ratio, long = last["bytes_per_person"], looks[many] / looks[few], many >= LONG_LINE
    asked, eta = found["simulation"]["with"]["peak"], found["simulation"]["eta"]
    return [
        Limit(
            f"Redis, for each of {last['people']:,} in line",
            f"{bytes_:.0f} bytes",
            f"below {PERSON_BYTES}",
            bytes_ < PERSON_BYTES if long else None,
        ),
        Limit(
            f"CPU of a look, {many:,} in line to {few:,}",
            f"{ratio:.2f} times",
            f"1, within {SAME:.0%}",
            abs(ratio - 1) <= SAME if long else None,
        ),
        Limit(
            "simulated: looks at the origin, per s and cache",
            f"{asked:,}",
            f"at most {ASKED_PER_SECOND}",
            asked <= ASKED_PER_SECOND,
        ),
        Limit(
            "simulated: error of the ETA where the pace stayed",
            f"{eta['own_p90']:.3f} s",
            f"below {OWN_ERROR_SECONDS:g} s (p90)",
            eta["own_p90"] < OWN_ERROR_SECONDS,
        ),
    ]


def _at_least(what: str, other: str, unit: str, mine: Figure, theirs: Figure, wanted: float) -> Target:
    ratio = mine.median / theirs.median
    return Target(what, other, unit, mine, theirs, ratio, wanted, ratio >= wanted)


def _below(what: str, other: str, mine: Figure, theirs: Figure) -> Target:
    ratio = theirs.median / mine.median
    return Target(what, other, "ms", mine, theirs, ratio, 1.0, ratio > 1.0)
