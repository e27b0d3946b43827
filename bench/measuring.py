"""The three answers a crowd gets, each measured alone: accepted, sold out, turned away."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import wrk
from bench.errors import Unbalanced
from bench.ground import Ground
from bench.machine import cpu_seconds, loop_seconds, stolen_seconds
from bench.sides import Side
from bench.stage import Stage, slugs

# Of admissions that had been saved up when a load began.
_BEGUN_SECONDS = 2
ENOUGH = 10_000_000  # units that no run sells
OPEN = 1_000_000_000  # attempts a second: nobody is turned away


@dataclass(frozen=True)
class Scenario:
    """What the crowd meets, and what it gets. Each sale has so many `units` and `rate` attempts a second.

    `strangers` are other outcomes that a run may have, for each sale and second; `settings` are ours for it.
    """

    name: str
    outcome: str
    units: int
    rate: int
    strangers: int = 0
    settings: tuple[str, ...] = ()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("accepted", "accepted", ENOUGH, OPEN),
        Scenario("sold out", "sold_out", 1, OPEN),
        Scenario("turned away", "turned_away", ENOUGH, 1, strangers=1),
    )
}
# The reference asks Redis for every refusal. So does ours here; otherwise it repeats what it was just told.
ASKED = Scenario("sold out, Redis asked every time", "sold_out", 1, OPEN, settings=("FLUXGATE_REPEAT_MS=0",))


@dataclass(frozen=True)
class Knobs:
    """Of each run. `sales` stand side by side, the crowd shares so many connections."""

    seconds: float = 3.0
    warmup: float = 2.0
    sales: int = 4
    connections: int = 200
    buyers: int = 4000


@dataclass(frozen=True)
class Run:
    """Counts are of the measured seconds only. CPU times are seconds; latencies microseconds."""

    scenario: str
    side: str
    requests: int
    seconds: float
    cpu: float
    loop_cpu: float  # of `cpu`, what the event loop's own thread has used
    gate_cpu: float
    broker_cpu: float
    p50: int
    p95: int
    p99: int
    answers: dict[str, int]
    per_cpu_second: float
    per_second: float
    busy: float  # the share of its core that the service used
    stolen: float  # seconds per second that the hypervisor took from all cores together


def measure(
    ground: Ground,
    side: Side,
    scenario: Scenario,
    knobs: Knobs,
    beside: Callable[[int, float], None] = lambda pid, seconds: None,
) -> Run:
    """A fresh ground, one side, its load, its books.

    `beside` is called with the process and the seconds when the load begins. Raises Unfit, and
    Unbalanced when the run means nothing.
    """
    sales = dict.fromkeys(slugs(knobs.sales), scenario.units)
    with Stage(ground, side, sales, scenario.rate, knobs.buyers) as stage:
        # For compilers, caches and connections; it also sells out what is to be sold out.
        stage.drive(knobs.warmup, knobs.connections)
        before = stage.settled()
        servers, used, stolen = ground.server_seconds(), cpu_seconds(side.pid), stolen_seconds()
        looped = loop_seconds(side.pid)
        beside(side.pid, knobs.seconds)
        figures = stage.drive(knobs.seconds, knobs.connections)
        cpu, after = cpu_seconds(side.pid) - used, ground.server_seconds()
        looped, stolen = loop_seconds(side.pid) - looped, stolen_seconds() - stolen
        answers = {name: count - before.get(name, 0) for name, count in stage.settled().items()}
    must_be(scenario, figures, answers, knobs)
    return Run(
        scenario=scenario.name,
        side=side.name,
        requests=figures.requests,
        seconds=figures.seconds,
        cpu=cpu,
        loop_cpu=looped,
        gate_cpu=after["gate"] - servers["gate"],
        broker_cpu=after["kafka"] - servers["kafka"],
        p50=figures.p50,
        p95=figures.p95,
        p99=figures.p99,
        answers={name: count for name, count in answers.items() if count},
        per_cpu_second=figures.requests / cpu,
        per_second=figures.requests / figures.seconds,
        busy=cpu / figures.seconds,
        stolen=stolen / figures.seconds,
    )


def must_be(scenario: Scenario, figures: wrk.Figures, answers: dict[str, int], knobs: Knobs) -> None:
    """What the service has counted is what wrk has seen, and what the scenario is about.

    wrk leaves at most one request per connection unread at its end. Raises Unbalanced.
    """
    counted = sum(answers.values())
    if not figures.requests <= counted <= figures.requests + knobs.connections:
        raise Unbalanced(f"wrk has read {figures.requests} answers, the service has counted {counted}")
    strange = counted - answers.get(scenario.outcome, 0)
    if strange > scenario.strangers * knobs.sales * (figures.seconds + _BEGUN_SECONDS):
        raise Unbalanced(f"not only {scenario.outcome}: {answers}")
