"""Real Apache Kafka in the embedded stack. Run by `make test-kafka`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from management.embedded import Stack
from tests.management.running import processes_in, wait_for

pytestmark = [pytest.mark.apache, pytest.mark.timeout(300)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "a stack")
    yield stack
    stack.down(wipe=True)
    assert processes_in(stack.root) == []


def make_topic(environment: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": environment["FLUXGATE_KAFKA_BROKERS"]})
    topic = NewTopic(
        environment["FLUXGATE_KAFKA_TOPIC"],
        num_partitions=12,
        replication_factor=int(environment["FLUXGATE_KAFKA_REPLICATION"]),
    )
    admin.create_topics([topic])[topic.topic].result(30)


def append(environment: dict[str, str], *values: str) -> None:
    """Append and wait until every in-sync replica has it."""
    errors: list[KafkaError] = []

    def report(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer(
        {
            "bootstrap.servers": environment["FLUXGATE_KAFKA_BROKERS"],
            "acks": "all",
            "enable.idempotence": True,
        }
    )
    for value in values:
        producer.produce(environment["FLUXGATE_KAFKA_TOPIC"], value=value, on_delivery=report)
    assert producer.flush(60) == 0
    assert errors == []


def read(environment: dict[str, str], count: int) -> set[str]:
    """Read from the beginning, in a group, until `count` records are there."""
    consumer = Consumer(
        {
            "bootstrap.servers": environment["FLUXGATE_KAFKA_BROKERS"],
            "group.id": f"reader-{os.urandom(4).hex()}",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": environment["FLUXGATE_KAFKA_SESSION_MS"],
        }
    )
    consumer.subscribe([environment["FLUXGATE_KAFKA_TOPIC"]])
    values: set[str] = set()

    def enough() -> bool:
        values.update(
            (message.value() or b"").decode() for message in consumer.consume(100, 0.2) if not message.error()
        )
        return len(values) >= count

    wait_for(enough, seconds=60)
    consumer.close()
    return values


def kill(stack: Stack, server: str) -> None:
    pid = next(row.pid for row in stack.status() if row.server == server)
    os.kill(pid or 0, signal.SIGKILL)
    wait_for(lambda: "dead" in {row.state for row in stack.status() if row.server == server})


def test_one_broker_keeps_its_log_through_a_kill_and_a_night(stack: Stack) -> None:
    environment = stack.up("apache")
    assert environment["FLUXGATE_KAFKA_SESSION_MS"] == "6000"
    make_topic(environment)
    append(environment, "one", "two")
    assert read(environment, 2) == {"one", "two"}

    # The topic's name says which log it is: the same log, the same name.
    kill(stack, "kafka-1")
    assert stack.up("apache") == environment
    append(environment, "three")
    stack.down()
    assert processes_in(stack.root) == []
    assert stack.up("apache") == environment
    assert read(environment, 3) == {"one", "two", "three"}

    # Another broker is another log. Back again, the first log is what it was.
    other = stack.up("tansu")
    assert other["FLUXGATE_KAFKA_TOPIC"] != environment["FLUXGATE_KAFKA_TOPIC"]
    assert [row.server for row in stack.status()] == ["postgres", "gate", "cache", "kafka"]
    assert other["FLUXGATE_DATABASE_URL"] == environment["FLUXGATE_DATABASE_URL"]
    assert stack.up("apache")["FLUXGATE_KAFKA_TOPIC"] == environment["FLUXGATE_KAFKA_TOPIC"]
    assert read(environment, 3) == {"one", "two", "three"}


def test_three_brokers_lose_nothing_with_one_of_them(stack: Stack) -> None:
    environment = stack.up("apache", brokers=3)
    assert environment["FLUXGATE_KAFKA_REPLICATION"] == "3"
    make_topic(environment)  # at once: a stack that is up has all three
    append(environment, *(f"before {n}" for n in range(50)))
    kill(stack, "kafka-2")
    append(environment, *(f"after {n}" for n in range(50)))
    assert len(read(environment, 100)) == 100
    assert stack.up("apache", brokers=3) == environment
    assert {row.state for row in stack.status()} == {"running"}
    assert len(read(environment, 100)) == 100
