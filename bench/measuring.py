"""One run of one side under load, from an empty ground to balanced books."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from bench import buyers, shop, wrk
from bench.errors import Unbalanced
from bench.ground import Ground
from bench.machine import cpu_seconds
from bench.sides import Side


@dataclass(frozen=True)
class Scenario:
    """What the crowd meets, and what it gets. Each sale has so many `units` and `rate` attempts a second.

    `strangers` is the share of other outcomes a run may have.
    """

    name: str
    outcome: str
    units: int
    rate: int
    strangers: float = 0.0


ENOUGH = 10_000_000
OPEN = 1_000_000_000

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("accepted", "accepted", ENOUGH, OPEN),
        Scenario("sold out", "sold_out", 1, OPEN, strangers=0.01),
        Scenario("turned away", "turned_away", ENOUGH, 1, strangers=0.01),
    )
}


@dataclass(frozen=True)
class Knobs:
    seconds: float = 5.0
    warmup: float = 2.0
    sales: int = 4
    connections: int = 200


@dataclass(frozen=True)
class Run:
    """Counts are of the measured seconds only. CPU times are seconds; latencies microseconds."""

    scenario: str
    side: str
    requests: int
    seconds: float
    cpu: float
    gate_cpu: float
    broker_cpu: float
    p50: int
    p95: int
    p99: int
    answers: dict[str, int]

    @property
    def per_cpu_second(self) -> float:
        return self.requests / self.cpu

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """The share of its core that the service used."""
        return self.cpu / self.seconds

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {
            "per_cpu_second": round(self.per_cpu_second),
            "per_second": round(self.per_second),
            "busy": round(self.busy, 3),
        }


def measure(
    ground: Ground,
    side: Side,
    scenario: Scenario,
    knobs: Knobs,
    beside: Callable[[int], None] = lambda pid: None,
) -> Run:
    """A fresh ground, one side, its load, its books. `beside` is called with the pid when the load begins.

    Raises Unfit, and Unbalanced when the run means nothing.
    """
    ground.new_run()
    sales = {f"bench-{number}-{uuid4().hex[:6]}": scenario.units for number in range(knobs.sales)}
    if side.form == "ours":
        shop.open_sales(sales, scenario.rate)
    crowd = ground.logs / f"buyers-{side.form}"
    buyers.write(crowd, tokens=side.tokens)
    side.start(ground, sales, scenario.rate)
    try:
        load = Load(ground, side, crowd, list(sales), knobs)
        load.drive(
            knobs.warmup
        )  # compilers, caches and connections; it also sells out what is to be sold out
        before = _settled(side)
        servers, used = ground.server_seconds(), cpu_seconds(side.pid)
        beside(side.pid)
        figures = load.drive(knobs.seconds)
        cpu, after = cpu_seconds(side.pid) - used, ground.server_seconds()
        total = _settled(side)
    finally:
        side.stop()
    answers = {name: count - before.get(name, 0) for name, count in total.items()}
    _must_be(scenario, figures, answers, knobs.connections)
    if side.form == "ours":
        if total.get("accepted", 0):
            shop.drain(ground)
        shop.must_balance(sales, total.get("accepted", 0))
    else:
        shop.reference_must_balance(ground, sales, total.get("accepted", 0))
    return Run(
        scenario=scenario.name,
        side=side.name,
        requests=figures.requests,
        seconds=figures.seconds,
        cpu=cpu,
        gate_cpu=after["gate"] - servers["gate"],
        broker_cpu=after["kafka"] - servers["kafka"],
        p50=figures.p50,
        p95=figures.p95,
        p99=figures.p99,
        answers={name: count for name, count in answers.items() if count},
    )


class Load:
    """The crowd of one run; each drive has keys of its own."""

    def __init__(self, ground: Ground, side: Side, crowd: Path, sales: list[str], knobs: Knobs) -> None:
        self._core, self._side, self._crowd = ground.cores.load, side, crowd
        self._sales, self._connections = sales, knobs.connections

    def drive(self, seconds: float) -> wrk.Figures:
        return wrk.run(
            wrk.Load(
                url=self._side.url,
                form=self._side.form,
                buyers=self._crowd,
                sales=self._sales,
                prefix=f"{uuid4().hex[:12]}-",
                seconds=seconds,
                connections=self._connections,
                core=self._core,
            )
        )


def _settled(side: Side) -> dict[str, int]:
    """Its counts, once they have stopped: what wrk left behind in flight is still answered."""
    last = side.answers()
    while True:
        time.sleep(0.3)
        now = side.answers()
        if now == last:
            return now
        last = now


def _must_be(scenario: Scenario, figures: wrk.Figures, answers: dict[str, int], connections: int) -> None:
    """What the service has counted is what wrk has seen, and what the scenario is about."""
    counted = sum(answers.values())
    if not figures.requests <= counted <= figures.requests + connections:
        raise Unbalanced(f"wrk has read {figures.requests} answers, the service has counted {counted}")
    strange = counted - answers.get(scenario.outcome, 0)
    if strange > scenario.strangers * counted:
        raise Unbalanced(f"not only {scenario.outcome}: {answers}")
