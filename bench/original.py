"""The load of the original project's own test: a ramp to 100 users, 100 units, 50 admissions a second.

Its users ask again at once and do not follow redirects. The ramp has five steps, since wrk opens all its
connections together.
"""

from dataclasses import dataclass

from bench.errors import Unbalanced
from bench.ground import Ground
from bench.machine import cpu_seconds
from bench.sides import Side
from bench.stage import Stage, slugs

UNITS = 100
RATE = 50
USERS = (20, 40, 60, 80, 100)  # in steps of 5 s: the original's 25 s
STEP_SECONDS = 5.0
QUICK_USERS, QUICK_STEP_SECONDS = (20, 60, 100), 1.0


@dataclass(frozen=True)
class Original:
    """`p99` is the worst step's, in microseconds."""

    side: str
    answered: int
    seconds: float
    cpu: float
    p99: int
    sold: int
    answers: dict[str, int]


def measure(ground: Ground, side: Side, quick: bool) -> Original:
    """Raises Unfit, and Unbalanced when not exactly all units were sold."""
    users, seconds = (QUICK_USERS, QUICK_STEP_SECONDS) if quick else (USERS, STEP_SECONDS)
    with Stage(ground, side, dict.fromkeys(slugs(1), UNITS), RATE) as stage:
        used = cpu_seconds(side.pid)
        steps = [stage.drive(seconds, count) for count in users]
        cpu = cpu_seconds(side.pid) - used
        answers = {name: count for name, count in stage.settled().items() if count}
    if (sold := answers.get("accepted", 0)) != UNITS:
        raise Unbalanced(f"{side.name} sold {sold} of {UNITS} units")
    return Original(
        side=side.name,
        answered=sum(step.requests for step in steps),
        seconds=sum(step.seconds for step in steps),
        cpu=cpu,
        p99=max(step.p99 for step in steps),
        sold=sold,
        answers=answers,
    )
