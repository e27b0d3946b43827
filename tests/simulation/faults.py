"""What goes wrong, and when: each mode is a bag of faults, from which a seed draws a plan."""

from typing import TYPE_CHECKING

from tests.simulation import mishaps
from tests.simulation.mishaps import Fault
from tests.simulation.network import Weather

if TYPE_CHECKING:
    from tests.simulation.world import World

BEGIN, END = 0.8, 9.0  # faults begin in this span, in virtual seconds
HEALED = 10.0  # from here on nothing new goes wrong


NETWORK: list[Fault] = [mishaps.weather, mishaps.weather, mishaps.weather, mishaps.cut, mishaps.clients]
CRASHES: list[Fault] = [mishaps.kill, mishaps.kill, mishaps.freeze, mishaps.crash_point]
REDIS: list[Fault] = [
    mishaps.restart,
    mishaps.restart,
    mishaps.failover,
    mishaps.failover,
    mishaps.flush,
    mishaps.full,
    mishaps.down("redis"),
    mishaps.frozen("redis"),
    mishaps.clock,
]
DATABASE: list[Fault] = [
    mishaps.database_failover,
    mishaps.database_failover,
    mishaps.sessions,
    mishaps.down("books"),
    mishaps.frozen("books"),
]
LOG: list[Fault] = [mishaps.down("broker"), mishaps.frozen("broker")]

STANDSTILL: list[Fault] = [
    *[mishaps.stall, mishaps.late] * 2,
    *[mishaps.slow_pause, mishaps.pause_while_opening] * 2,
    *[mishaps.freeze, mishaps.crash_point, mishaps.frozen("broker"), mishaps.restart],
]

# What a mode draws from, and how many faults at most.
MODES: dict[str, tuple[list[Fault], int]] = {
    "calm": ([], 0),
    "network": (NETWORK, 6),
    "crashes": (CRASHES, 6),
    "redis": (
        [*REDIS, *REDIS, mishaps.stall, mishaps.stall, mishaps.kill, mishaps.freeze, mishaps.clients],
        4,
    ),
    "standstill": (STANDSTILL, 3),
    "database": ([*DATABASE, mishaps.kill, mishaps.clients], 5),
    "log": ([*LOG, *LOG, mishaps.lost_tail, mishaps.lost_tail, mishaps.kill, mishaps.weather], 4),
    "everything": ([*NETWORK, *CRASHES, *REDIS, *DATABASE, *LOG, mishaps.stall, mishaps.stall], 8),
    "splitbrain": ([mishaps.split, mishaps.split, mishaps.kill, mishaps.weather, mishaps.freeze], 4),
}


def plan(world: "World") -> None:
    """Draws this seed's faults, and the end of all of them."""
    bag, most = MODES[world.mode]
    rng = world.rng
    for _ in range(rng.randint(1, most) if most else 0):
        fault = rng.choice(bag)
        world.scheduler.at(rng.uniform(BEGIN, END), fault, world, rng)
    world.scheduler.at(HEALED, heal, world)


def heal(world: "World") -> None:
    world.note("everything healed")
    world.striking.clear()
    world.client_loss = 0.0
    world.redis.deluded.clear()
    for node in world.nodes:
        node.full = False
    for server in (world.redis, world.books, world.broker):
        server.weather = Weather()
        server.unreachable_from.clear()
        if server.frozen:
            server.go_on()
    world.redis.up = world.books.up = True
    if not world.broker.up:
        world.broker.come_up()
    world.broker.appended()
