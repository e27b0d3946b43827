"""The topic of the log: its name, its partitions, and which pool writes to which.

It stands beside the gate because a pool is one Redis counter and one partition: arming
writes the partition of a pool into the sale's facts.
"""

import zlib
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic
from django.conf import settings

ANSWER_SECONDS = 5.0  # how long a broker may take to answer an operator


class TopicUnavailable(Exception):
    """The broker does not answer, or the topic is not as it should be. One clear line."""


def client_config() -> dict[str, Any]:
    """What the producer, the consumer and the admin client have in common."""
    return {
        "bootstrap.servers": settings.FLUXGATE.kafka_brokers,
        "client.id": "flux-gate",
        # A broker that came back is found within a second: a sale does not wait ten.
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
    }


def partition_of(sale_id: UUID, pool: int = 0) -> int:
    """The partition of a pool: the same in every process, in every release, on every machine."""
    return zlib.crc32(f"{sale_id}:{pool}".encode()) % settings.FLUXGATE.kafka_partitions


def ensure_topic() -> str:
    """Creates the topic when it is not there. Returns one line that says what was found or made.

    Raises TopicUnavailable. Never changes an existing topic: with another number of partitions
    the claims of a pool would move, and their order would be lost.
    """
    flux = settings.FLUXGATE
    if flux.kafka_topic in _partitions():
        check_topic()
        return f"topic {flux.kafka_topic} is there, {flux.kafka_partitions} partitions"
    config = {"cleanup.policy": "delete", "retention.ms": "-1"}
    if flux.kafka_replication >= 3:
        config["min.insync.replicas"] = "2"
    new = NewTopic(flux.kafka_topic, flux.kafka_partitions, flux.kafka_replication, config=config)
    admin = _admin()  # must outlive its answer
    try:
        admin.create_topics([new], request_timeout=ANSWER_SECONDS)[flux.kafka_topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
            raise TopicUnavailable(
                f"topic {flux.kafka_topic} cannot be created: {error.args[0].str()}"
            ) from None
        check_topic()
    return (
        f"topic {flux.kafka_topic} created, {flux.kafka_partitions} partitions, "
        f"replication {flux.kafka_replication}"
    )


def check_topic() -> None:
    """Raises TopicUnavailable unless the topic is there with the partitions the settings say."""
    flux = settings.FLUXGATE
    found = _partitions().get(flux.kafka_topic)
    if found is None:
        raise TopicUnavailable(f"topic {flux.kafka_topic} does not exist: run `manage.py ensure_topics`")
    if found != flux.kafka_partitions:
        raise TopicUnavailable(
            f"topic {flux.kafka_topic} has {found} partitions, FLUXGATE_KAFKA_PARTITIONS says "
            f"{flux.kafka_partitions}: set it to {found}, or use another topic"
        )


def incarnation() -> str:
    """The id the broker gave this topic when it was made (KIP-516). Raises TopicUnavailable.

    A topic that was deleted and made again has another one: positions of the old log must not
    be applied to the new, or its first claims would count as written.
    """
    name = settings.FLUXGATE.kafka_topic
    admin = _admin()  # must outlive its answer
    try:
        answers = admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_SECONDS)
        described = answers[name].result()
    except KafkaException as error:
        raise TopicUnavailable(f"topic {name} cannot be read: {error.args[0].str()}") from None
    return str(described.topic_id)


def _admin() -> AdminClient:
    # Its complaints would go to stderr beside the one clear line.
    return AdminClient({**client_config(), "log_level": 0})


def _partitions() -> dict[str, int]:
    """Partitions of every topic. Asked without a name: a named request makes some brokers create it."""
    try:
        topics = _admin().list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as error:
        raise TopicUnavailable(
            f"Kafka does not answer at {settings.FLUXGATE.kafka_brokers}: {error.args[0].str()}"
        ) from None
    return {name: len(topic.partitions) for name, topic in topics.items()}
