"""Fixtures of the tests of the log and of fulfillment."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from orders.book import Source
from orders.consumer import Consumer
from orders.log import KafkaLog
from sales import topic


@pytest.fixture
def source() -> Source:
    """A partition nobody else fulfills."""
    return Source(f"orders-{uuid4().hex[:8]}", "an incarnation", 0)


@pytest.fixture
def own_topic(settings: Any) -> str:
    """A topic, and a consumer group, of this test's own; read it in `settings.FLUXGATE`."""
    name = f"orders-{uuid4().hex[:8]}"
    changed: dict[str, Any] = {
        "kafka_topic": name,
        "kafka_group": f"fulfillment-{name}",
        "kafka_partitions": 3,
    }
    if not settings.FLUXGATE.kafka_leave_group:
        changed["kafka_session_ms"] = 1000  # Tansu answers a join after half of it; Kafka refuses so little
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=changed)
    topic.ensure_topic()
    return name


@pytest.fixture
def kafka_log(own_topic: str) -> Iterator[KafkaLog]:
    """The log on `own_topic`."""
    log = KafkaLog()
    yield log
    log.close()


@pytest.fixture
def start(own_topic: str, gate: redis.Redis) -> Iterator[Callable[..., Consumer]]:
    """Starts consumers, and ends all of them."""
    started: list[Consumer] = []

    def make(client: redis.Redis | None = None, **options: Any) -> Consumer:
        started.append(Consumer(client or gate, **options))
        return started[-1]

    yield make
    for each in started:
        each.close()
