"""Whether an order costs the same in a sale of a thousand and in a sale of a million, and beside other sales.

A sale is given so many orders through the gate and the log; then a crowd orders on top of them for some
seconds. What those cost is the cost at that size: the same seconds, the same crowd, another size.
"""

from dataclasses import dataclass, replace

from bench import measuring, memory, prefill
from bench.ground import Ground
from bench.machine import cpu_seconds
from bench.measuring import ENOUGH, OPEN, SCENARIOS, Knobs, must_be
from bench.sides import Side
from bench.stage import Stage, slugs

SIZES = {False: (1_000, 10_000, 100_000, 1_000_000), True: (1_000, 10_000, 100_000)}
SALES = (1, 10, 100)


@dataclass(frozen=True)
class Size:
    """CPU per accepted order in microseconds; `bytes_per_order` is what Redis keeps of each; p99 is µs."""

    orders: int
    service_us: float
    gate_us: float
    bytes_per_order: float
    p50: int
    p99: int
    written_per_second: float


@dataclass(frozen=True)
class Beside:
    sales: int
    per_cpu_second: float
    gate_us: float
    p50: int
    p99: int


def of_size(ground: Ground, side: Side, knobs: Knobs, orders: int) -> Size:
    """Raises Unfit and Unbalanced."""
    [slug] = slugs(1)
    with Stage(ground, side, {slug: ENOUGH}, OPEN) as stage:
        empty = memory.used(ground)
        prefill.fill({slug: orders})
        grown = memory.used(ground) - empty
        stage.drive(knobs.warmup, knobs.connections)
        before = stage.settled()
        servers, used = ground.server_seconds(), cpu_seconds(side.pid)
        figures = stage.drive(knobs.seconds, knobs.connections)
        cpu, after = cpu_seconds(side.pid) - used, ground.server_seconds()
        answers = {name: count - before.get(name, 0) for name, count in stage.settled().items()}
        must_be(SCENARIOS["accepted"], figures, answers, knobs)
        stage.besides = orders
    return Size(
        orders=orders,
        service_us=1e6 * cpu / figures.requests,
        gate_us=1e6 * (after["gate"] - servers["gate"]) / figures.requests,
        bytes_per_order=grown / orders,
        p50=figures.p50,
        p99=figures.p99,
        written_per_second=stage.drained / stage.drain_seconds,
    )


def side_by_side(ground: Ground, side: Side, knobs: Knobs, sales: int) -> Beside:
    """So many sales share the crowd. Raises Unfit and Unbalanced."""
    own = replace(knobs, sales=sales)
    run = measuring.measure(ground, side, SCENARIOS["accepted"], own)
    return Beside(sales, run.per_cpu_second, 1e6 * run.gate_cpu / run.requests, run.p50, run.p99)
