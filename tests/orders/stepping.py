"""Consumers taken step by step, and what the books say of them afterwards."""

import time
from collections.abc import Callable
from typing import Any

import redis
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition
from django.conf import settings as django_settings

from orders import book, claims
from orders.book import Source
from orders.consumer import Consumer
from orders.log import KafkaLog
from sales import topic
from sales.gate import image
from sales.models import Sale
from tests.running_site import eventually


def kill(victim: Consumer) -> None:
    """Its connection to the broker ends without a word, like a process's."""
    victim._closed = True
    del victim._kafka


def append(log: KafkaLog, *messages: claims.Message | bytes, partition: int | None = None) -> None:
    """Appends and waits for the acknowledgements."""
    reports: list[Exception | None] = []
    for message in messages:
        if isinstance(message, bytes):
            record = claims.Record(partition or 0, b"a key", message, [])
        else:
            record = claims.encode(message, topic.partition_of(claims.sale_in(message)))
        log.append(record, reports.append)
    eventually(lambda: len(reports) == len(messages))
    assert set(reports) <= {None}


def drain(*consumers: Consumer, seconds: float = 40) -> None:
    """Steps in turn until all of them are drained in the same round."""
    deadline = time.monotonic() + seconds
    while True:
        steps = [each.step(0.05) for each in consumers]
        if not any(steps) and all(each.drained() for each in consumers):
            return
        assert time.monotonic() < deadline, "not drained"


def step_while(waiting: Callable[[], Any], *consumers: Consumer, seconds: float = 40) -> None:
    """Steps in turn as long as it is true."""
    deadline = time.monotonic() + seconds
    while waiting():
        for each in consumers:
            each.step(0.05)
        assert time.monotonic() < deadline, f"still waiting after {seconds:g} s"


def units(client: redis.Redis, sale: Sale) -> tuple[int, int, int, int, int]:
    """The gate's remaining, held, queued, settled, released."""
    found = image(client, sale.id)
    assert found is not None
    return found.remaining, found.held, found.queued, found.settled, found.released


def sold(sale: Sale) -> int:
    sale.refresh_from_db()
    return sale.sold


def committed(partition: int) -> int:
    """Kafka's committed offset of the group."""
    flux = django_settings.FLUXGATE
    kafka = KafkaConsumer({**topic.client_config(), "group.id": flux.kafka_group})
    [found] = kafka.committed([TopicPartition(flux.kafka_topic, partition)], timeout=10)
    kafka.close()
    return found.offset


def position(partition: int) -> int:
    return book.position(Source(django_settings.FLUXGATE.kafka_topic, topic.incarnation(), partition))
