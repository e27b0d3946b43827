"""How far the log is ahead of the order book, asked from outside the consumer group."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from orders import repair_book
from orders.reading import appended_at
from sales.topic import ANSWER_SECONDS, TopicUnavailable, client_config, incarnation

# A broker that is asked for offsets beyond the end of the log may say nothing (Tansu): after so
# long the end that came with its last answer is believed.
SILENCE_SECONDS = 1.0
Kafka = Callable[[dict[str, Any]], Any]
logger = structlog.get_logger(__name__)


class Reach(NamedTuple):
    """Offsets of one partition: the next one to fulfill, and the next one the log will give.

    `oldest_at` is when the first of the unread records was appended, in Unix seconds; None without one.
    """

    position: int
    end: int
    oldest_at: float | None = None

    @property
    def unread(self) -> int:
        return max(0, self.end - self.position)

    @property
    def lost(self) -> int:
        """How far the position lies beyond the end. More than 0: an acknowledged tail is gone."""
        return max(0, self.position - self.end)


def reach(partitions: set[int], kafka: Kafka | None = None) -> dict[int, Reach]:
    """How far each partition has been read, and how far it goes.

    Partitions that do not answer within five seconds are missing, and so are all of them when the
    broker is down. The answer comes from a fetch at the position: asking for watermarks, or for the
    offset of the end, answers wrongly on Tansu. `kafka` makes the consumer; the simulator has its own.
    """
    if not partitions:
        return {}
    topic = settings.FLUXGATE.kafka_topic
    try:
        known = repair_book.positions(topic, incarnation())
    except TopicUnavailable as error:
        logger.warning("the log was not asked", error=str(error))
        return {}
    # The positions before the ends: one of them is never ahead of the log by our own slowness.
    positions = {number: known.get(number, 0) for number in partitions}
    consumer: Any = (kafka or Consumer)(_options())
    ends: dict[int, int] = {}
    oldest: dict[int, float] = {}
    try:
        consumer.assign([TopicPartition(topic, *item) for item in positions.items()])
        begun = time.monotonic()
        while len(ends) < len(positions) and (spent := time.monotonic() - begun) < ANSWER_SECONDS:
            message = consumer.poll(0.1)
            if message is None:
                if spent > SILENCE_SECONDS:
                    ends |= _beyond(consumer, topic, positions, ends)
                continue
            number = message.partition()
            if number not in positions or number in ends:
                continue
            event = message.error()
            if event is None:
                # What the fetch that brought this record said of the end.
                marks = consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
                if marks:
                    ends[number] = marks[1]
                    oldest[number] = appended_at(message)
                    consumer.pause([TopicPartition(topic, number)])
            elif event.code() == KafkaError._PARTITION_EOF:
                ends[number] = positions[number]
            elif event.code() == KafkaError._AUTO_OFFSET_RESET:
                # The log has not got this offset, and says so: this broker is one to ask for the end.
                ends[number] = consumer.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=ANSWER_SECONDS
                )[1]
    except KafkaException as error:
        logger.warning("the log was not asked", error=error.args[0].str())
    finally:
        consumer.close()
    return {number: Reach(positions[number], end, oldest.get(number)) for number, end in ends.items()}


def beginning(partition: int, kafka: Kafka | None = None) -> int | None:
    """The first offset that the log of a partition still has. None: the broker did not tell."""
    topic = settings.FLUXGATE.kafka_topic
    consumer: Any = (kafka or Consumer)(_options())
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None or message.partition() != partition:
                continue
            event = message.error()
            if event is None or event.code() == KafkaError._PARTITION_EOF:
                offset: int = message.offset()
                return offset
    except KafkaException as error:
        logger.warning("the log was not asked", error=error.args[0].str())
    finally:
        consumer.close()
    return None


def _beyond(consumer: Any, topic: str, positions: dict[int, int], ends: dict[int, int]) -> dict[int, int]:
    """The ends of the partitions that are silent because their log ends before the position."""
    found = {}
    for number in positions.keys() - ends.keys():
        marks = consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
        if marks and 0 <= marks[1] < positions[number]:
            found[number] = marks[1]
    return found


def _options() -> dict[str, Any]:
    flux = settings.FLUXGATE
    return {
        **client_config(),
        "group.id": f"{flux.kafka_group}-lag",  # demanded by the library; never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": min(100, flux.kafka_fetch_wait_ms),
        "log_level": 0,
    }
