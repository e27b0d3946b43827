"""How long an order takes at half of what a side can do: arrivals at random that do not wait."""

import random
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from bench import arrivals
from bench.errors import Unbalanced, Unfit
from bench.ground import Ground
from bench.machine import cpu_seconds, pinned
from bench.measuring import ENOUGH, OPEN, Knobs
from bench.processes import CHECKOUT
from bench.sides import Side
from bench.stage import Stage, new_prefix, slugs


@dataclass(frozen=True)
class HalfLoad:
    """`rate` is requests a second as they were meant to arrive; latencies are microseconds from then."""

    side: str
    rate: int
    busy: float
    p50: int
    p95: int
    p99: int
    most: int
    client_late_p99: int


def measure(ground: Ground, side: Side, rate: float, knobs: Knobs) -> HalfLoad:
    """Raises Unfit, and Unbalanced when somebody got another answer than 202."""
    sales = dict.fromkeys(slugs(knobs.sales), ENOUGH)
    with Stage(ground, side, sales, OPEN) as stage:
        stage.drive(knobs.warmup, knobs.connections)
        stage.settled()
        used = cpu_seconds(side.pid)
        seen = _arrive(stage, rate, knobs)
        cpu = cpu_seconds(side.pid) - used
    if set(seen.answers) != {"202"} or seen.unanswered:
        raise Unbalanced(f"at half load {side.name} gave {seen.answers}, {seen.unanswered} without an answer")
    busy = cpu / knobs.seconds
    return HalfLoad(side.name, round(rate), busy, seen.p50, seen.p95, seen.p99, seen.most, seen.late_p99)


def _arrive(stage: Stage, rate: float, knobs: Knobs) -> arrivals.Seen:
    order = arrivals.Order(
        url=stage.side.url,
        form=stage.side.form,
        buyers=str(stage.crowd),
        sales=list(stage.sales),
        prefix=new_prefix(),
        rate=rate,
        seconds=knobs.seconds,
        connections=knobs.connections,
        seed=random.randrange(2**32),
    )
    answer = subprocess.run(
        pinned(stage.ground.cores.load, sys.executable, "-m", "bench.arrivals"),
        input=msgspec.json.encode(order), cwd=CHECKOUT, capture_output=True, check=False,
        timeout=knobs.seconds + 60,
    )  # fmt: skip
    if answer.returncode or answer.stderr:
        raise Unfit(f"the arrivals ended: {answer.stderr.decode()[-1500:]}")
    return msgspec.json.decode(answer.stdout, type=arrivals.Seen)
