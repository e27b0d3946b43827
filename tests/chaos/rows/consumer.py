"""The consumer dies, comes back from the dead, or meets records that nobody can read."""

import json
import random
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

from tests.chaos.registry import row
from tests.chaos.scenario import Scenario
from tests.chaos.site import Process

_POINTS = {
    "consume.after-read": "after it has read a batch",
    "fulfill.after-position": "in the transaction, after the position",
    "fulfill.after-rows": "in the transaction, after the rows",
    "consume.after-commit": "between PostgreSQL and the gate",
    "consume.after-settle": "between the gate and Kafka's offsets",
}


@row("consumer-sigkill", "consumers: kill -9 five times at random moments, 3,000 orders", seconds=40)
def consumer_sigkill(chaos: Scenario) -> None:
    chance = random.Random(5)
    chaos.sell(3000, limit=1, rate=100)
    chaos.let_come(3000)
    for _ in range(5):
        known = chaos.written()
        chaos.until(partial(_more_than, chaos, known), "orders are written")
        chaos.during(chance.uniform(0, 1))
        for consumer in chaos.site.named("run_fulfillment"):
            consumer.kill()
            chaos.site.start_consumer()
    chaos.written_again()


def _dies_at(point: str) -> None:
    @row(f"consumer-{point}", f"consumer: kill -9 {_POINTS[point]}, three times", seconds=22)
    def run(chaos: Scenario) -> None:
        chaos.sell(2000, rate=40, consumers=0)
        for _ in range(3):
            dying = chaos.site.start_consumer(FLUXGATE_CRASH_AT=f"{point}:2")
            chaos.until(lambda dying=dying: not dying.alive, f"the consumer dies at {point}", 20)  # type: ignore[misc]
            chaos.expect(dying.crashed, f"the consumer ended by itself instead: {dying.printed()[-300:]}")
        chaos.site.start_consumer()
        chaos.written_again()


for _point in _POINTS:
    _dies_at(_point)


@row("consumer-zombie", "consumers: each SIGSTOP beyond its session, then SIGCONT", seconds=26)
def consumer_zombie(chaos: Scenario) -> None:
    """One of the two has the partition; stopped in turn, each is a zombie to the other once."""
    chaos.sell(1500, rate=60)
    chaos.until(chaos.written, "orders are written")
    for consumer in chaos.site.named("run_fulfillment"):
        begun = _beginnings(consumer)
        consumer.stop()
        chaos.during(3)
        known = chaos.written()
        chaos.until(partial(_more_than, chaos, known), "the other one has taken over", 20)
        consumer.go_on()
        # Before the other one stops in its turn, this one has to know that it had been given up.
        chaos.until(partial(_began_again, consumer, begun), "the zombie is a member again", 30)
    chaos.written_again()


@row(
    "consumer-zombie-in-transaction",
    "consumer: SIGSTOP in the middle of its transaction, beyond its session",
    seconds=36,
)
def consumer_zombie_in_transaction(chaos: Scenario) -> None:
    """It keeps the locks of position and sale for as long as PostgreSQL believes in its connection."""
    chaos.sell(1500, rate=40, consumers=0)
    zombie = chaos.site.start_consumer(**chaos.broken("stops-in-transaction"))
    chaos.until(lambda: zombie.stopped, "the consumer stops in its transaction", 20)
    known = chaos.written()
    chaos.site.start_consumer()
    chaos.until_promised(20)
    chaos.until(partial(_more_than, chaos, known), "the other one has taken over", 30)
    chaos.written_again()
    zombie.go_on()
    chaos.until_promised(20)
    chaos.written_again()


@row("poison", "log: 40 records that nobody can read, between the claims", seconds=12)
def poison(chaos: Scenario) -> None:
    chaos.sell(1000, rate=100)
    garbage = [
        b"",
        b"not JSON",
        b"[1, 2]",
        b'{"type": "claim", "v": 1}',
        b"\xff\xfe",
        b'{"type": "wish"}',
        None,
    ]
    for number in range(40):
        _append(chaos, [garbage[number % len(garbage)]])
        if number % 8 == 7:
            chaos.until_promised(10)
    chaos.written_again()
    parked = _parked()
    chaos.expect(parked == 40, f"{parked} of 40 records are parked")


@row(
    "newer-version", "log: a record of a newer release; its partition waits, an operator decides", seconds=24
)
def newer_version(chaos: Scenario) -> None:
    chaos.sell(2000, rate=50)
    chaos.until(chaos.written, "orders are written")
    _append(chaos, [json.dumps({"v": 2, "type": "claim", "order_id": str(uuid4())}).encode()])
    chaos.until_promised(40)
    chaos.during(2)
    known = chaos.written()
    chaos.until_promised(40)
    chaos.expect(chaos.written() == known, "orders behind a record of a newer release were written")
    chaos.expect(_parked() == 0, "a record of a newer release was parked by an old one")
    for consumer in chaos.site.named("run_fulfillment"):
        consumer.end()
    chaos.site.start_consumer(arguments="--park-all")
    chaos.written_again()
    chaos.expect(_parked() == 1, "the operator's --park-all has not parked it")


@row(
    "all-poison", "consumers: a release that can read nothing; they stop, the old one comes back", seconds=26
)
def all_poison(chaos: Scenario) -> None:
    chaos.sell(2000, rate=60, consumers=0)
    chaos.until_promised(60)
    bad = [chaos.site.start_consumer(**chaos.broken("bad-release")) for _ in range(2)]
    _all_stop(chaos, bad)
    chaos.until_promised(30)
    parked = _parked()
    chaos.expect(parked < 20, f"{parked} records were parked before the bad release stopped")
    chaos.site.start_consumer()
    if parked:
        done = chaos.site.manage("parked", "replay", "--all")
        chaos.expect(done.returncode == 0, f"the parked records were not replayed: {done.stderr[-300:]}")
    chaos.written_again()


def _more_than(chaos: Scenario, orders: int) -> bool:
    return chaos.written() > orders


def _beginnings(consumer: Process) -> int:
    """How often it has been given partitions and begun with them."""
    return consumer.printed().count("partitions begun")


def _began_again(consumer: Process, before: int) -> bool:
    return _beginnings(consumer) > before


def _all_stop(chaos: Scenario, consumers: Sequence[Process]) -> None:
    """The one that has the partition stops; the next that gets it stops as well."""
    chaos.until(lambda: not any(each.alive for each in consumers), "the consumers stop by themselves", 40)
    for each in consumers:
        each.killed = True  # as expected here


def _append(chaos: Scenario, values: Sequence[bytes | None]) -> None:
    """Appends these values to the partition of the sale."""
    from confluent_kafka import Producer
    from django.conf import settings

    from sales.topic import client_config, partition_of

    producer = Producer(client_config())
    for value in values:
        producer.produce(settings.FLUXGATE.kafka_topic, value=value, partition=partition_of(chaos.sale.id))
    assert producer.flush(10) == 0


def _parked() -> int:
    from orders.models import ParkedRecord

    return ParkedRecord.objects.count()
