"""The topic of the log on a real broker: made once, never changed, refused when it is another."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka.admin import AdminClient
from django.core.management import CommandError, call_command

from sales import topic
from sales.topic import TopicUnavailable
from tests.running_site import eventually, free_port


@pytest.fixture
def name(settings: Any) -> str:
    """A topic that does not exist yet."""
    found = f"orders-{uuid4().hex[:8]}"
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_topic": found, "kafka_partitions": 3})
    return found


def test_a_pool_keeps_its_partition(settings: Any) -> None:
    """Pinned: a release that computed another one would split the claims of a running sale."""
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_partitions": 12})
    sale = UUID("0f9d8c7b-6a59-4483-8271-60f1e2d3c4b5")
    assert [topic.partition_of(sale, pool) for pool in range(4)] == [11, 9, 7, 9]


def test_sales_spread_over_all_partitions(settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_partitions": 12})
    assert {topic.partition_of(uuid4()) for _ in range(1000)} == set(range(12))


@pytest.mark.kafka
def test_the_topic_is_made_once(name: str) -> None:
    with pytest.raises(TopicUnavailable, match=f"topic {name} does not exist: run `manage.py ensure_topics`"):
        topic.check_topic()
    assert topic.ensure_topic() == f"topic {name} created, 3 partitions, replication 1"
    assert topic.ensure_topic() == f"topic {name} is there, 3 partitions"
    topic.check_topic()
    partitions = AdminClient(topic.client_config()).list_topics(timeout=10).topics[name].partitions
    assert sorted(partitions) == [0, 1, 2]


@pytest.mark.kafka
def test_another_number_of_partitions_is_refused_and_not_changed(name: str, settings: Any) -> None:
    topic.ensure_topic()
    before = topic.incarnation()
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_partitions": 5})
    line = (
        f"topic {name} has 3 partitions, FLUXGATE_KAFKA_PARTITIONS says 5: set it to 3, or use another topic"
    )
    with pytest.raises(TopicUnavailable, match=line):
        topic.check_topic()
    with pytest.raises(CommandError, match=line):
        call_command("ensure_topics")
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_partitions": 3})
    topic.check_topic()
    assert topic.incarnation() == before


@pytest.mark.kafka
def test_a_topic_that_is_made_anew_is_another_incarnation(name: str) -> None:
    with pytest.raises(TopicUnavailable, match="cannot be read"):
        topic.incarnation()
    topic.ensure_topic()
    first = topic.incarnation()
    assert first == topic.incarnation()
    admin = AdminClient(topic.client_config())
    admin.delete_topics([name])[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=10).topics)
    topic.ensure_topic()
    assert topic.incarnation() not in ("", first)


def test_a_broker_that_is_down_is_one_clear_line(
    name: str, settings: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(topic, "ANSWER_SECONDS", 0.3)
    port = free_port()
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_brokers": f"127.0.0.1:{port}"})
    for question in (topic.ensure_topic, topic.check_topic):
        with pytest.raises(TopicUnavailable, match=f"Kafka does not answer at 127.0.0.1:{port}: "):
            question()
    with pytest.raises(CommandError, match="Kafka does not answer"):
        call_command("ensure_topics")
    assert capfd.readouterr().err == "", "the client library says nothing beside it"
