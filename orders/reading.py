"""Reading the log: how a consumer is set up, and what it takes out of the broker's messages."""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message, TopicPartition
from django.conf import settings

from orders.book import Read
from orders.partition import Partition
from sales.topic import client_config


def configuration(on_commit: Callable[..., None]) -> dict[str, Any]:
    """Of a member of the group that keeps its offsets itself."""
    flux = settings.FLUXGATE
    return {
        **client_config(),
        "group.id": flux.kafka_group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset the log does not have is an incident, never a reason to skip or start over.
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": flux.kafka_fetch_wait_ms,
        "session.timeout.ms": flux.kafka_session_ms,
        "heartbeat.interval.ms": min(flux.kafka_session_ms // 6, 2000),
        "on_commit": on_commit,
    }


def read(kafka: Any, batch: int, wait_seconds: float) -> list[Message]:
    """At most `batch` messages. `consume` alone would wait until there are so many: this waits for the
    first, and takes what is there."""
    first = kafka.poll(wait_seconds)
    return [] if first is None else [first, *kafka.consume(batch - 1, timeout=0)]


def number_of(message: Message) -> int:
    number = message.partition()
    return -1 if number is None else number


def record_of(message: Message) -> Read:
    # The client library's types allow for errors and for str; a record has an offset and bytes.
    record: Any = message
    return Read(record.offset(), record.value(), record.key(), record.headers)


def appended_at(message: Message) -> float:
    """Unix seconds, by the clock of the process that appended it; now, where the log does not say."""
    kind, milliseconds = message.timestamp()
    return time.time() if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000


def end_of(kafka: Any, partition: Partition) -> int:
    """The end of the log as the last fetch told it, -1 before. Asking the broker answers wrongly on Tansu."""
    marks = kafka.get_watermark_offsets(
        TopicPartition(partition.source.topic, partition.source.partition), cached=True
    )
    return max(partition.ended_at, marks[1] if marks else -1)
