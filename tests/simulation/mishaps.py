"""What can go wrong. Each function is one fault; it draws from the seed how bad, and for how long."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Process
from tests.simulation.network import Server, Weather

if TYPE_CHECKING:
    from tests.simulation.world import World

Fault = Callable[["World", random.Random], None]


def after(world: "World", seconds: float, action: Callable[[], None], text: str) -> None:
    def act() -> None:
        world.note(f"FAULT {text}")
        action()

    world.scheduler.after(seconds, act)


def weather(world: "World", rng: random.Random) -> None:
    """A wire is bad for a while."""
    server = rng.choice([world.redis, world.redis, world.books, world.broker])
    weather = Weather(
        lost_request=rng.choice([0, 0.02, 0.1]),
        lost_reply=rng.choice([0, 0.05, 0.2]),
        reset=rng.choice([0, 0.05]),
        slow=rng.choice([0, 0.2, 0.5]),
        slowest=rng.choice([0.1, 0.4, 3.0]),
    )
    server.weather = weather
    world.note(f"FAULT weather of {server.name}: {weather}")
    after(world, rng.uniform(0.5, 4), lambda: _calm(server), f"{server.name} calm")


def _calm(server: Server) -> None:
    server.weather = Weather()


def cut(world: "World", rng: random.Random) -> None:
    """One process cannot reach one server for a while."""
    server = rng.choice([world.redis, world.books, world.broker])
    name = rng.choice([web.process.name for web in world.webs] + [p.name for p in world.daemons.values()])
    server.unreachable_from.add(name)
    world.note(f"FAULT {name} is cut off from {server.name}")
    after(
        world,
        rng.uniform(0.5, 8),
        lambda: server.unreachable_from.discard(name),
        f"{name} reaches {server.name}",
    )


def clients(world: "World", rng: random.Random) -> None:
    """Browsers lose requests and answers."""
    world.client_loss = rng.choice([0.1, 0.3])
    world.note(f"FAULT clients lose {world.client_loss}")

    def calm() -> None:
        world.client_loss = 0.0

    after(world, rng.uniform(1, 5), calm, "clients calm")


def kill(world: "World", rng: random.Random) -> None:
    name = rng.choice(["web", "web", "consumer", "consumer", "gatekeeper", "gatekeeper", "operator"])
    what = rng.choice(["kill", "kill", "kill after"])
    world.striking.append(world.strike_of(name, rng.randint(0, 60 if name != "operator" else 10), what))


def freeze(world: "World", rng: random.Random) -> None:
    name = rng.choice(["web", "web", "consumer", "gatekeeper", "operator"])
    seconds = rng.choice([rng.uniform(0.3, 2), rng.uniform(2, 14)])
    world.striking.append(
        world.strike_of(name, rng.randint(0, 60 if name != "operator" else 10), "freeze", seconds)
    )


def crash_point(world: "World", rng: random.Random) -> None:
    """A process dies or stands still at one of its named crash points."""
    name, point = rng.choice(
        [("web", "place."), ("web", "place."), ("gatekeeper", "rearm."), ("gatekeeper", "sweep."),
         ("consumer", "fulfill."), ("consumer", "consume.")]
    )  # fmt: skip
    what, seconds = rng.choice([("kill", 0.0), ("freeze", rng.uniform(0.3, 10))])
    world.striking.append(world.strike_of(name, rng.randint(0, 12), what, seconds, point))


def stall(world: "World", rng: random.Random) -> None:
    """A web process stands still between the gate and the log, and the gate is lost meanwhile."""
    seconds = rng.choice([rng.uniform(0.5, 1.9), rng.uniform(2, 3.9), rng.uniform(3, 9)])
    lose = rng.choice([restart, failover, flush])
    point = rng.choice(["place.after-gate", "place.after-gate", "place.after-append"])

    def then(process: Process) -> None:
        world.scheduler.after(rng.uniform(0.01, 0.5), lose, world, rng)
        if seconds > 3 and rng.random() < 0.5:  # and who is asked instead dies at the same place
            world.scheduler.after(
                1.0, world.striking.append, world.strike_of("web", 0, "kill", 0.0, "place.after-gate")
            )

    world.striking.append(world.strike_of("web", rng.randint(0, 6), "freeze", seconds, point, then))


def late(world: "World", rng: random.Random) -> None:
    """A record is on its way for seconds while its process is busy, and the gate is lost meanwhile."""
    seconds = rng.uniform(3.3, 7)

    def then(process: Process) -> None:
        if seconds > 4.5:  # and who is asked instead dies between the new gate and the log
            world.scheduler.after(
                3.2, world.striking.append, world.strike_of("web", 0, "kill", 0.0, "place.after-gate")
            )
        world.broker.unreachable_from.add(process.name)
        after(
            world,
            seconds - 0.3,
            lambda: world.broker.unreachable_from.discard(process.name),
            "the log is reached",
        )
        world.scheduler.after(rng.uniform(0.01, 0.2), rng.choice([flush, failover, restart]), world, rng)

    world.striking.append(
        world.strike_of("web", rng.randint(0, 6), "stall", seconds, "place.after-append", then)
    )


def slow_pause(world: "World", rng: random.Random) -> None:
    """An operator's pause stands still between the gate and the database, and the gate is armed again."""

    def then(process: Process) -> None:
        world.scheduler.after(rng.uniform(0.01, 0.5), rng.choice([flush, failover, restart]), world, rng)

    world.striking.append(
        # The gate has been asked whether it is there, and has been stopped; its answer is not read yet.
        world.strike_of("operator", 1, "freeze", rng.uniform(4, 7), "redis", then)
    )
    world.pause_now(rng.uniform(5, 9))


def pause_while_opening(world: "World", rng: random.Random) -> None:
    """A gatekeeper stands still before it opens the gate it has built, and the sale is paused meanwhile."""
    seconds = rng.uniform(1.5, 4)

    def opening(process: Process) -> None:
        world.pause_now(rng.uniform(5, 9))

    def built(process: Process) -> None:
        # It has asked what the sale's state is, and has not read the answer.
        world.striking.append(world.strike_of("gatekeeper", 0, "freeze", seconds, "postgresql", opening))

    world.striking.append(world.strike_of("gatekeeper", 0, "pass", 0.0, "rearm.after-load", built))
    rng.choice([flush, failover, restart])(world, rng)


def down(server: str) -> Fault:
    def fault(world: "World", rng: random.Random) -> None:
        target = getattr(world, server)
        seconds = rng.choice([0.2, 1.0, 4.0]) * rng.random()
        down, up = (
            (target.go_down, target.come_up)
            if server == "broker"
            else (lambda: _up(target, False), lambda: _up(target, True))
        )
        down()
        world.note(f"FAULT {target.name} down for {seconds:.1f} s")
        after(world, seconds, up, f"{target.name} up")

    return fault


def _up(server: Server, up: bool) -> None:
    server.up = up


def frozen(server: str) -> Fault:
    def fault(world: "World", rng: random.Random) -> None:
        target: Server = getattr(world, server)
        seconds = rng.choice([0.3, 2.5, 6.0]) * rng.random()
        target.freeze()
        world.note(f"FAULT {target.name} frozen for {seconds:.1f} s")
        after(world, seconds, target.go_on, f"{target.name} goes on")

    return fault


def restart(world: "World", rng: random.Random, keep: str = "") -> None:
    """Redis restarts: empty, or from its append-only file without the last part of it."""
    node = world.redis.master
    keep = keep or rng.choice(["nothing", "all", "cut", "cut"])
    journal = {"nothing": [], "all": node.journal, "cut": _until(world, rng.uniform(0, 2.0))}[keep]
    lost = len(node.journal) - len(journal)
    node.replay(journal)
    node.scripts, node.replication_id = {}, world.replication_id()
    world.redis.up = False
    world.note(f"FAULT {node.name} restarts with {keep}, {lost} writes lost")
    after(world, rng.uniform(0.05, 1.5), lambda: _up(world.redis, True), f"{node.name} up")


def failover(world: "World", rng: random.Random) -> None:
    """The replica takes over with what it has received, without scripts; perhaps the old one comes back."""
    _promote(world, rng.choice([0, 0.02, 0.5, 2.0]) * rng.random())
    if rng.random() < 0.5:
        seconds = rng.choice([0.05, 0.3, 2.0, 5.0]) * rng.random()
        world.scheduler.after(seconds, _promote, world, rng.choice([0, 0.02, 0.5]) * rng.random())


def _promote(world: "World", lag: float) -> None:
    old = world.redis.master
    new = world.nodes[1 - world.nodes.index(old)]
    new.replay(_until(world, lag))
    new.replication_id = world.replication_id()
    world.redis.master = new
    world.note(f"FAULT failover to {new.name}, {len(old.journal) - len(new.journal)} writes behind")


def _until(world: "World", seconds: float) -> list[Any]:
    """The journal of the master without what it has written within the last so many seconds."""
    since = world.scheduler.now - seconds
    return [entry for entry in world.redis.master.journal if entry[0] <= since]


def flush(world: "World", rng: random.Random) -> None:
    world.redis.master.execute("FLUSHALL")
    world.note("FAULT FLUSHALL")


def full(world: "World", rng: random.Random) -> None:
    node = world.redis.master
    node.full = True
    world.note("FAULT redis is full")

    def room() -> None:
        node.full = False

    after(world, rng.uniform(0.5, 3), room, "redis has room again")


def clock(world: "World", rng: random.Random) -> None:
    """Redis' clock is set, by seconds or by an hour; never so far that the sale's window is left for good."""
    step = rng.choice([-3600.0, -2.0, -0.5, 0.5, 2.0, 3600.0])
    if abs(world.clock_step["redis"] + step) > 4000:
        step = -step
    world.clock_step["redis"] += step
    world.note(f"FAULT redis' clock steps by {step}")


def sessions(world: "World", rng: random.Random) -> None:
    world.books.restart()
    world.note("FAULT postgresql ends every session")


def database_failover(world: "World", rng: random.Random) -> None:
    lost = world.books.restart(rng.choice([0, 1, 2, 4, 8]))
    world.commits_lost += lost
    world.note(f"FAULT postgresql fails over, {lost} commits lost")
    world.books.up = False
    after(world, rng.uniform(0.1, 2), lambda: _up(world.books, True), "postgresql up")


def lost_tail(world: "World", rng: random.Random) -> None:
    """Kafka's acknowledged tail is gone."""
    for partition in range(len(world.broker.partitions)):
        lost = world.broker.lose_tail(partition, rng.choice([0, 1, 2, 4]))
        if lost:
            world.tails_lost += lost
            world.note(f"FAULT kafka loses {lost} records of partition {partition}")


def split(world: "World", rng: random.Random) -> None:
    """A replica is promoted while some still talk to the master of before, which goes on granting."""
    old = world.redis.master
    _promote(world, rng.choice([0, 0.02, 0.5]) * rng.random())
    everybody = [web.process.name for web in world.webs] + [p.name for p in world.daemons.values()]
    deluded = [name for name in everybody if rng.random() < 0.4 and "consumer" not in name]
    world.redis.deluded = dict.fromkeys(deluded, old)
    world.note(f"FAULT split brain: {deluded} still talk to {old.name}")
    after(world, rng.uniform(0.5, 6), world.redis.deluded.clear, "one redis again")
