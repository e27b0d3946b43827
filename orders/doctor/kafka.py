"""The log's broker and topic. Tansu does not tell all of this: what is not told is a warning."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from django.conf import settings

from orders.doctor.finding import Finding, Level
from sales.topic import ANSWER_SECONDS, client_config

_found = partial(Finding, "Kafka")
DAYS = 7  # the least that a record must last: an order book may be restored from a backup that old


def examine() -> Iterator[Finding]:
    flux = settings.FLUXGATE
    admin = AdminClient({**client_config(), "log_level": 0})
    try:
        # Without a name: a request that names a topic makes some brokers create it.
        cluster = admin.list_topics(timeout=ANSWER_SECONDS)
    except KafkaException as error:
        text = f"does not answer at {flux.kafka_brokers}: {error.args[0].str()}"
        yield _found(Level.FAIL, text, "check FLUXGATE_KAFKA_BROKERS and the brokers")
        return
    brokers = f"{len(cluster.brokers)} broker{'s' if len(cluster.brokers) != 1 else ''}"
    yield _found(Level.OK, f"{brokers} at {flux.kafka_brokers}; the producer asks for acks=all")
    topic = cluster.topics.get(flux.kafka_topic)
    if topic is None:
        yield _found(Level.FAIL, f"topic {flux.kafka_topic} does not exist", "run `manage.py ensure_topics`")
        return
    partitions = list(topic.partitions.values())
    yield _partitions(len(partitions))
    yield _replicas(partitions)
    told = _told(admin, flux.kafka_topic)
    yield _in_sync(told, partitions)
    yield _retention(told)
    yield _cleanup(told)
    yield _elections(told, partitions)


def _partitions(number: int) -> Finding:
    flux = settings.FLUXGATE
    if number == flux.kafka_partitions:
        return _found(Level.OK, f"topic {flux.kafka_topic} has {number} partitions")
    wanted = f"FLUXGATE_KAFKA_PARTITIONS says {flux.kafka_partitions}"
    text = f"topic {flux.kafka_topic} has {number} partitions, {wanted}"
    return _found(
        Level.FAIL, text, f"set it to {number}, or use another topic: claims would change partition"
    )


def _replicas(partitions: list[Any]) -> Finding:
    wanted = settings.FLUXGATE.kafka_replication
    there = min(len(partition.replicas) for partition in partitions)
    if any(partition.leader < 0 for partition in partitions):
        return _found(Level.FAIL, "a partition has no leader: its sales are refused", "start the brokers")
    if there < wanted:
        text = f"{there} copies of each record, FLUXGATE_KAFKA_REPLICATION says {wanted}"
        return _found(Level.FAIL, text, "reassign the partitions to more brokers, or use a new topic")
    behind = sum(len(partition.isrs) < len(partition.replicas) for partition in partitions)
    if behind:
        return _found(Level.WARN, f"{behind} partitions are not fully replicated", "look at the brokers")
    copies = "one copy" if there == 1 else f"{there} copies"
    return _found(Level.OK, f"{copies} of each record, as FLUXGATE_KAFKA_REPLICATION says")


def _told(admin: AdminClient, topic: str) -> dict[str, str]:
    """The topic's configuration, as far as the broker tells it."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=ANSWER_SECONDS)[resource].result()
    except KafkaException:
        return {}
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _not_told(name: str, wanted: str) -> Finding:
    return _found(Level.WARN, f"{name}: not told by this broker", f"{wanted} is wanted")


def _in_sync(told: dict[str, str], partitions: list[Any]) -> Finding:
    name = "min.insync.replicas"
    copies = min(len(partition.replicas) for partition in partitions)
    if name not in told:
        return _not_told(name, "2 with three copies")
    least = int(told[name])
    hint = f"set {name} of the topic to 2"
    if least > min(len(partition.isrs) for partition in partitions):
        return _found(Level.FAIL, f"{name} is {least}, more than are in sync: nothing is acknowledged", hint)
    if copies >= 3 and least < 2:
        return _found(Level.FAIL, f"{name} is {least}: an acknowledged order may be on one broker only", hint)
    if copies < 3:
        text = f"{name} {least} with {copies} copies: a lost broker may take acknowledged orders with it"
        return _found(Level.WARN, text, "three brokers and FLUXGATE_KAFKA_REPLICATION=3 where that matters")
    return _found(Level.OK, f"{name} {least} of {copies}")


def _retention(told: dict[str, str]) -> Finding:
    hint = "set retention.ms and retention.bytes of the topic to -1"
    if "retention.ms" not in told:
        return _not_told("retention.ms", "-1")
    kept, size = int(told["retention.ms"]), int(told.get("retention.bytes", -1))
    days = f"{kept / 86_400_000:.1f} days"
    if 0 <= kept < DAYS * 86_400_000:
        return _found(Level.FAIL, f"records expire after {days}, read or not", hint)
    if size != -1:
        return _found(Level.FAIL, f"records expire beyond {size} bytes, read or not", hint)
    if kept >= 0:
        return _found(Level.WARN, f"records expire after {days}", hint)
    return _found(Level.OK, "records never expire")


def _cleanup(told: dict[str, str]) -> Finding:
    policy = told.get("cleanup.policy")
    if policy is None:
        return _not_told("cleanup.policy", "delete")
    if "compact" in policy:
        text = f"cleanup.policy is {policy}: of all claims of a pool only the last would stay"
        return _found(Level.FAIL, text, "set cleanup.policy of the topic to delete")
    return _found(Level.OK, f"cleanup.policy {policy}")


def _elections(told: dict[str, str], partitions: list[Any]) -> Finding:
    name = "unclean.leader.election.enable"
    if name not in told:
        return _not_told(name, "false")
    if told[name] == "true" and any(len(partition.replicas) > 1 for partition in partitions):
        text = f"{name} is true: a broker that was behind may take over, and acknowledged orders are gone"
        return _found(Level.FAIL, text, f"set {name} of the topic to false")
    return _found(Level.OK, f"{name} {told[name]}")
