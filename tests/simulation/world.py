"""One world: servers, processes, clients and faults of one seed, from the arming to the last check."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from orders.consumer import LogShorter
from sales.models import Sale
from sales.topic import TopicUnavailable
from tests.simulation.book_twin import DatabaseTwin
from tests.simulation.database_twin import Database, LeadershipTwin
from tests.simulation.kafka_group import Group
from tests.simulation.kafka_twin import ConsumerTwin
from tests.simulation.log_twin import Broker, ProducerTwin
from tests.simulation.loop import EPOCH, Process, Scheduler
from tests.simulation.network import Network
from tests.simulation.processes import AsyncProcess, SyncProcess
from tests.simulation.redis_clients import RedisServer, SyncRedis
from tests.simulation.redis_twin import Node
from tests.simulation.shipped import SETTINGS
from tests.simulation.tables import SaleRow
from tests.simulation.web import WebProcess

PARTITIONS = int(SETTINGS["kafka_partitions"])  # type: ignore[call-overload]


@dataclass
class Strike:
    """What will happen to the first process of this name, at its next but `to_go` use of a wire or of a
    crash point."""

    name: str
    to_go: int
    what: str  # pass | kill | kill after (with the reply) | freeze | stall (its threads go on)
    seconds: float = 0.0
    wire: str = ""
    then: Callable[[Process], None] = lambda process: None


class World:
    """Made of a seed. `history` is what happened, as text with virtual seconds."""

    def __init__(self, mode: str, seed: int, *, verbose: bool = False, partitions: int = PARTITIONS) -> None:
        self.mode, self.seed, self._verbose = mode, seed, verbose
        self.rng = random.Random(f"{mode}/{seed}")
        self.scheduler = Scheduler()
        self.history: list[str] = []
        self.failures: list[str] = []
        self.grants: list[
            tuple[float, str, UUID, int, bool]
        ] = []  # when, node, order, epoch, by a deluded caller
        self.network = Network(self.scheduler, self.rng)
        self.clock_step = {"redis": 0.0}  # seconds that a server's wall clock is off
        self.nodes = [self._node("redis-a"), self._node("redis-b")]
        self.redis = RedisServer(self.nodes[0], self._granted)
        self.books = Database(self.scheduler)
        self.database = DatabaseTwin(self.scheduler, self.network, self.books, self.rng)
        self.broker = Broker(self.scheduler, partitions)
        self.group = Group(self.broker, partitions)
        self.webs: list[WebProcess] = []
        self._ever: list[WebProcess] = []
        self._commands: list[SyncProcess] = []
        self.daemons: dict[str, SyncProcess] = {}
        self.pause_now: Callable[[float], None] = lambda seconds: None  # the operator's phone rings
        self.client_loss = 0.0  # of requests and of answers between browsers and web processes
        self.tails_lost = self.commits_lost = 0
        self._serial = 0
        self.striking: list[Strike] = []
        self.sale_ids = [self._uuid() for _ in range(self.rng.choice([1, 1, 2]))]
        for number, sale_id in enumerate(self.sale_ids):
            self._sale(number, sale_id)

    def _uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128), version=4)

    def _node(self, name: str) -> Node:
        return Node(
            name,
            lambda: self.wall_clock() + self.clock_step["redis"],
            self.replication_id(),
            lambda: self.scheduler.now,
        )

    def replication_id(self) -> str:
        return f"{self.rng.getrandbits(160):040x}"

    def _sale(self, number: int, sale_id: UUID) -> None:
        now = datetime.fromtimestamp(EPOCH, UTC)
        rng = self.rng
        busy = rng.random() < 0.15
        self.books.committed.put_sale(
            SaleRow(
                sale_id, f"sale-{number}", 1, rng.randint(2, 7), Decimal("19.90"), "EUR",
                rng.choice([1, 1, 2, 3]),
                now - timedelta(hours=1), now + timedelta(hours=3), 3 if busy else 1000, 3 if busy else 1000,
            )
        )  # fmt: skip

    # What the shipped code meets in place of the machine

    def monotonic(self) -> float:
        return self.scheduler.now + 1000.0

    def wall_clock(self) -> float:
        return EPOCH + self.scheduler.now

    def sleep(self, seconds: float) -> None:
        self._synchronous().sleep(seconds)

    def _synchronous(self) -> SyncProcess:
        process = self.scheduler.current
        assert isinstance(process, SyncProcess)
        return process

    def connect(self, url: str | None = None) -> SyncRedis:
        return SyncRedis(self.network, self.redis, self._synchronous())

    def producer(self) -> ProducerTwin:
        return self.producer_of(self._synchronous())

    def producer_of(self, process: Process) -> ProducerTwin:
        return ProducerTwin(self.network, self.broker, process, self.rng, patience=2.0)

    def leadership(self) -> LeadershipTwin:
        return LeadershipTwin(self.database)

    def kafka_consumer(self, config: dict[str, Any], logger: Any = None) -> ConsumerTwin:
        return ConsumerTwin(self.network, self.broker, self.group, self._synchronous(), self.rng, config)

    def topic_id(self) -> str:
        process = self._synchronous()
        value = process.wait(
            lambda answer: self.network.request(
                process, self.broker, lambda done: done("the topic"), answer, TopicUnavailable
            ),
            5.0,
        )
        if value is None:
            raise TopicUnavailable("the broker does not answer")
        return str(value)

    def reached(self, name: str) -> None:
        process = self.scheduler.current
        assert process is not None
        process.using(name)
        if not process.alive and isinstance(process, SyncProcess):
            process.die()

    def freshen(self, sale: Sale) -> None:
        """Lets a sale's `refresh_from_db` ask the twin."""
        sale.refresh_from_db = lambda fields=None: self.database.refresh(sale)  # type: ignore[method-assign,assignment]

    # Processes

    strike_of = Strike

    def strike(self, process: Process, wire: str) -> str:
        """The plan of kills and freezes at the n-th use of a wire by whoever bears a name."""
        if not self.striking or not process.alive:
            return ""
        for index, strike in enumerate(self.striking):
            if not (process.name.startswith(strike.name) and wire.startswith(strike.wire)):
                continue
            if strike.to_go > 0:
                strike.to_go -= 1
                continue
            del self.striking[index]
            length = f" for {strike.seconds:.1f} s" if strike.seconds else ""
            if strike.what != "pass":
                self.note(f"FAULT {strike.what} {process.name} at {wire}{length}")
            if strike.what == "kill":
                process.kill()
            elif strike.what in ("freeze", "stall"):
                process.freeze(strike.seconds, threads=strike.what == "stall")
            strike.then(process)
            return strike.what
        return ""

    def start_web(self, number: int) -> None:
        self._serial += 1
        web = WebProcess(self, f"web-{number}#{self._serial}")
        web.process.on_death.append(lambda: self._again(lambda: self.start_web(number)))
        self._ever.append(web)
        while len(self.webs) <= number:
            self.webs.append(web)
        self.webs[number] = web

    def start_daemon(self, name: str, main: Callable[[], None]) -> None:
        """A supervised process: it is started again when it has died or has ended by itself."""
        self._serial += 1
        process = self.command(f"{name}#{self._serial}", main)
        self.daemons[name] = process
        process.on_death.append(lambda: self._again(lambda: self.start_daemon(name, main)))

    def _again(self, start: Callable[[], None]) -> None:
        self.scheduler.after(self.rng.uniform(0.2, 1.5), start)

    def command(
        self, name: str, main: Callable[[], None], ended: Callable[[], None] = lambda: None
    ) -> SyncProcess:
        """Something that runs once: a buyer, an operator's step."""

        def on_end(error: BaseException | None) -> None:
            if error is not None:
                self.note(f"{name} ended: {error!r}")
                if not isinstance(error, LogShorter | TopicUnavailable):
                    self.failed(f"{name} ended by itself: {error!r}")
            ended()

        process = SyncProcess(self.scheduler, name, main, on_end)
        process.strike = self.strike
        self._commands.append(process)
        self.scheduler.after(0.0001, process.start)
        return process

    # The history

    def note(self, text: str) -> None:
        self.history.append(f"{self.scheduler.now:9.4f}  {text}")

    def log(self, text: str) -> None:
        if self._verbose:
            process = self.scheduler.current
            self.note(f"    [{process.name if process else ''}] {text}")

    def failed(self, text: str) -> None:
        """Something that no run may show, whatever the checks of the books say."""
        self.note(f"WRONG {text}")
        self.failures.append(text)

    def digest(self) -> str:
        """Of the whole history: the same seed gives the same."""
        return hashlib.sha256("\n".join(self.history).encode()).hexdigest()

    def _granted(self, process: Process, node: Node, verdicts: list[Any], arguments: tuple[Any, ...]) -> None:
        """Every claim that any gate grants, whoever hears of it."""
        for index in range(1, len(verdicts), 3):
            if verdicts[index] == "claimed":
                order_id = UUID(arguments[4 * ((index - 1) // 3)])
                claim = node.data[f"{arguments_gate(node, order_id)}"][str(order_id)]
                epoch = int(claim.split(":")[2])
                deluded = node is not self.redis.master
                self.grants.append((self.scheduler.now, node.name, order_id, epoch, deluded))
                self.note(f"granted {str(order_id)[:8]} by {node.name}, epoch {epoch}")

    def abandon(self) -> None:
        """Ends every process, so that nothing of this world runs in the next."""
        for process in self._commands:
            process.kill()
        for web in self._ever:
            web.process.abandon()


def arguments_gate(node: Node, order_id: UUID) -> str:
    """The key of the claims that hold this order."""
    return next(key for key, held in node.data.items() if key.endswith(":claims") and str(order_id) in held)


__all__ = ["AsyncProcess", "World"]
