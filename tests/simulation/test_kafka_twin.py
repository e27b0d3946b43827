"""Contract: what the consumer's twin does, the real client does with the broker of the tests."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from django.conf import settings

from orders.claims import Record
from orders.log import AppendUnknown, KafkaLog, LogUnavailable
from orders.reading import configuration
from tests.simulation.shipped import inside
from tests.simulation.world import World

PATIENCE = 30.0
VALUES = [b"one", b"two", b"three", b"four"]


def _nothing(error: Any, offsets: Any) -> None:
    pass


def _polled(kafka: Any, clock: Callable[[], float], until: Callable[[list[Any]], bool]) -> list[Any]:
    """Offsets and values of records, and ends of partitions, until enough has come."""
    found: list[Any] = []
    deadline = clock() + PATIENCE
    while not until(found) and clock() < deadline:
        message = kafka.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            found.append((message.partition(), message.offset(), message.value(), message.key()))
        elif error.code() == KafkaError._PARTITION_EOF:
            found.append((message.partition(), message.offset(), "end"))
    return found


def _behaviour(topic: str, make: Callable[..., Any], clock: Callable[[], float]) -> list[Any]:
    """One consumer's day, as the shipped consumer spends it; partition 0 has VALUES, 1 and 2 are empty."""
    seen: list[Any] = []
    assigned: list[int] = []

    def on_assign(kafka: Any, partitions: list[TopicPartition]) -> None:
        assigned.extend(tp.partition for tp in partitions)
        kafka.assign([])

    kafka = make(configuration(_nothing))
    kafka.subscribe([topic], on_assign=on_assign, on_revoke=lambda kafka, partitions: kafka.unassign())
    deadline = clock() + PATIENCE
    while not assigned and clock() < deadline:
        kafka.poll(0.2)
    seen.append(sorted(assigned))
    wanted = [TopicPartition(topic, 0)]
    seen.append([tp.offset for tp in kafka.committed(wanted, timeout=10)])

    kafka.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    seen.append(_polled(kafka, clock, lambda found: len(found) == 5))
    seen.append(kafka.get_watermark_offsets(wanted[0], cached=True)[1])
    kafka.seek(TopicPartition(topic, 0, 2))
    seen.append(_polled(kafka, clock, lambda found: len(found) == 3))
    kafka.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=True)
    deadline = clock() + PATIENCE
    while (at := kafka.committed(wanted, timeout=10)[0].offset) != 3 and clock() < deadline:
        kafka.poll(0.1)
    seen.append(at)
    kafka.pause(wanted)
    kafka.seek(TopicPartition(topic, 0, 0))
    seen.append(kafka.poll(0.5))
    kafka.resume(wanted)
    kafka.seek(TopicPartition(topic, 0, 3))
    seen.append(_polled(kafka, clock, lambda found: len(found) == 2))
    kafka.assign([])
    seen.append(kafka.poll(0.3))
    return seen


@pytest.mark.kafka
def test_the_consumer_twin_does_what_the_client_does(own_topic: str, kafka_log: KafkaLog) -> None:
    reported: list[Any] = []
    for value in VALUES:
        kafka_log.append(Record(0, b"key", value, []), reported.append)
    deadline = time.monotonic() + PATIENCE
    while len(reported) < len(VALUES) and time.monotonic() < deadline:
        time.sleep(0.01)
    opened: list[Any] = []

    def make(config: dict[str, Any]) -> Any:
        opened.append(Consumer({**config, "group.id": f"twin-{uuid4().hex[:8]}"}))
        return opened[0]

    expected = _behaviour(own_topic, make, time.monotonic)
    if settings.FLUXGATE.kafka_leave_group:
        opened[0].close()

    found: list[Any] = []
    world = World("calm", 0, partitions=3)

    def main() -> None:
        log = world.producer()
        for value in VALUES:
            log.append(Record(0, b"key", value, []), lambda error: None)
        world.sleep(1.0)
        found.extend(_behaviour("orders", world.kafka_consumer, world.monotonic))

    with inside(world):
        world.command("program", main)
        world.scheduler.run(600.0, lambda: len(found) == len(expected))
    assert world.failures == []
    assert found == expected


def test_the_producer_twin_keeps_the_log_s_contract() -> None:
    """As tests/orders/test_log.py asks: order kept, each record reported once, an error is unknown."""
    world = World("calm", 0)
    reported: list[Any] = []

    def main() -> None:
        log = world.producer()
        for number in range(5):
            log.append(
                Record(1, b"key", b"%d" % number, []), lambda error, n=number: reported.append((n, error))
            )
        assert log.available()
        world.sleep(1.0)
        world.broker.freeze()
        log.append(Record(1, b"key", b"frozen", []), lambda error: reported.append(("frozen", error)))
        world.sleep(3.0)
        assert not log.available()
        world.sleep(40.0)
        world.broker.go_on()
        world.sleep(1.0)
        log.close()
        with pytest.raises(LogUnavailable):
            log.append(Record(1, b"key", b"late", []), reported.append)

    with inside(world):
        world.command("program", main)
        world.scheduler.run(60.0)
    assert world.failures == []
    assert reported[:5] == [(number, None) for number in range(5)]
    name, error = reported[5]
    assert name == "frozen"
    assert isinstance(error, AppendUnknown)
    # Unknown, not failed: it is in the log after all.
    assert [entry.value for entry in world.broker.partitions[1]] == [b"0", b"1", b"2", b"3", b"4", b"frozen"]
    assert len(reported) == 6
