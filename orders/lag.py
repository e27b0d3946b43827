"""How far the log is ahead of the order book, asked from outside the consumer group."""

import time

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings

from orders.models import Position
from sales.topic import ANSWER_SECONDS, TopicUnavailable, client_config, incarnation

logger = structlog.get_logger(__name__)


def unread(partitions: set[int]) -> dict[int, int]:
    """Records of each partition that are in the log and not yet in the order book.

    Partitions that do not answer within five seconds are missing, and so are all of them when the
    broker is down. The answer comes from a fetch at the position: asking for watermarks, or for the
    offset of the end, answers wrongly on Tansu.
    """
    flux = settings.FLUXGATE
    try:
        topic_id = incarnation()
    except TopicUnavailable as error:
        logger.warning("the log was not asked", error=str(error))
        return {}
    positions = dict.fromkeys(partitions, 0) | dict(
        Position.objects.filter(
            topic=flux.kafka_topic, incarnation=topic_id, partition__in=partitions
        ).values_list("partition", "next_offset")
    )
    consumer = Consumer(
        {
            **client_config(),
            "group.id": f"{flux.kafka_group}-lag",  # demanded by the library; never joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": min(100, flux.kafka_fetch_wait_ms),
            "log_level": 0,
        }
    )
    found: dict[int, int] = {}
    try:
        consumer.assign([TopicPartition(flux.kafka_topic, *item) for item in positions.items()])
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(found) < len(positions) and time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None or (number := message.partition()) is None or number not in positions:
                continue
            event = message.error()
            if event is None:
                # What the fetch that brought this record said of the end.
                marks = consumer.get_watermark_offsets(TopicPartition(flux.kafka_topic, number), cached=True)
                if marks:
                    found[number] = max(0, marks[1] - positions[number])
                    consumer.pause([TopicPartition(flux.kafka_topic, number)])
            elif event.code() == KafkaError._PARTITION_EOF:
                found.setdefault(number, 0)
    except KafkaException as error:
        logger.warning("the log was not asked", error=error.args[0].str())
    finally:
        consumer.close()
    return found
