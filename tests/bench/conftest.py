"""A bench's document, as the tests of what is made of it need it."""

from dataclasses import asdict
from typing import Any

import pytest

from bench import results, targets
from bench.durable import CONSUMER, WORKER, Durable
from bench.growth import Beside, Size
from bench.half_load import HalfLoad
from bench.line import AGAIN, KNOWN, NEW, Asked, Written
from bench.line_fill import Size as InLine
from bench.line_simulation import Plan, simulate
from bench.line_summary import summary
from bench.measuring import SCENARIOS, Knobs, Run
from bench.original import Original

SMALL = Plan(
    people=1000, every=1, early_seconds=60, late_seconds=60, paces=((0, 20.0), (15, 0.0), (20, 10.0)),
    turn_seconds=10, buying=(1.0, 5.0), draw_seconds=1.0, missing=0.1,
)  # fmt: skip


def run(scenario: str, side: str, per_cpu_second: float) -> dict[str, Any]:
    return asdict(
        Run(
            scenario=scenario, side=side, requests=30_000, seconds=3.0, cpu=2.7, loop_cpu=2.5, gate_cpu=0.5,
            broker_cpu=0.3, p50=5_000, p95=8_000, p99=9_000, answers={}, per_cpu_second=per_cpu_second,
            per_second=0.9 * per_cpu_second, busy=0.9, stolen=0.0,
        )
    )  # fmt: skip


def half_load(side: str, p99: int) -> dict[str, Any]:
    return asdict(HalfLoad(side, 5_000, 0.4, 1_000, 2_000, p99, 20_000, 300))


def original(side: str, answered: int) -> dict[str, Any]:
    return asdict(Original(side, answered, 25.0, 20.0, 9_000, 100, {}))


@pytest.fixture
def found() -> results.Document:
    """A document with two runs a side, ours six times as quick as the reference's designed form."""
    made = results.new(Knobs(), quick=False, whole=True)
    for scenario in SCENARIOS:
        made["runs"] += [run(scenario, targets.OURS, each) for each in (59_000.0, 61_000.0)]
        made["runs"] += [run(scenario, targets.DESIGNED, each) for each in (9_000.0, 11_000.0)]
        made["runs"] += [run(scenario, targets.TUNED, each) for each in (39_000.0, 41_000.0)]
    made["durable"] = [
        asdict(Durable(CONSUMER, 100_000, 30_000.0, 60_000.0, 0.5)),
        asdict(Durable(WORKER, 15_000, 3_000.0, 6_000.0, 0.5)),
    ]
    made["half_load"] = [half_load(targets.OURS, 9_000), half_load(targets.TUNED, 8_000)]
    made["original"] = [original(targets.OURS, 300_000), original(targets.DESIGNED, 100_000)]
    made["growth"] = {
        "sizes": [asdict(Size(10**n, 24.5, 5.0, 400.0, 5_000, 9_000, 20_000.0)) for n in (3, 4, 5)],
        "side_by_side": [asdict(Beside(10, 30_000.0, 5.0, 5_000, 9_000))],
    }
    return made


@pytest.fixture
def a_line() -> dict[str, Any]:
    """What the bench of the line has found; a small crowd was simulated."""
    sizes = (10, 1_000, 100_000)
    looks = [Asked(size, "look", 50_000, 60.0, 0.1, 16_000.0, 9_000, 20_000) for size in sizes]
    asked = [
        Asked(sizes[-1], what, 6_000, 200.0, 5.0, 5_000.0, 9_000, 20_000) for what in (NEW, KNOWN, AGAIN)
    ]
    return {
        "sizes": [asdict(InLine(size, 75.0)) for size in sizes],
        "looks": [asdict(each) for each in looks],
        "tickets": [asdict(each) for each in asked],
        "document": asdict(Written(1000, 1200, 4)),
        "disturbed": 0,
        "simulation": summary(simulate(SMALL), 1200, 60.0, 200.0),
    }
