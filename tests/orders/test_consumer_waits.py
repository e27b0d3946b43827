"""What the consumer waits for, and how it says so: a newer release, a topic made anew, PostgreSQL."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from confluent_kafka.admin import AdminClient
from django.conf import settings as django_settings
from django.db import OperationalError

from orders import claims, consumer, fulfillment, metrics, sifting, topic_watch
from orders import partition as partition_module
from orders.book import Source
from orders.consumer import Consumer
from orders.health_file import HealthFile
from orders.log import KafkaLog
from orders.models import Order, ParkedRecord
from orders.partition import Partition
from sales import topic
from sales.models import Sale
from tests.orders.records import claim_of, reads, take
from tests.orders.stepping import append, drain, position, sold, step_while, units
from tests.running_site import eventually

kafka = pytest.mark.kafka
pytestmark = pytest.mark.django_db(transaction=True)


def on_partition(make: Callable[..., Sale], number: int) -> Sale:
    """A sale whose pool writes to this partition."""
    for _ in range(50):
        sale = make(allotment=100)
        if topic.partition_of(sale.id) == number:
            return sale
    raise AssertionError("no sale of fifty on that partition")


@pytest.fixture
def two_sales(open_sale: Callable[..., Sale], own_topic: str) -> tuple[Sale, Sale]:
    """Open sales on partitions 0 and 1 of the topic of this test."""
    return on_partition(open_sale, 0), on_partition(open_sale, 1)


def newer(claim: claims.Claim) -> bytes:
    """The record as the next release would write it."""
    return claims.encode(claim, 0).value.replace(b'"v":1', b'"v":2')


def install_the_newer_release(patch: pytest.MonkeyPatch) -> None:
    def decode(value: bytes | None) -> claims.Message:
        return claims.decode((value or b"").replace(b'"v":2', b'"v":1'))

    for module in (sifting, fulfillment):
        patch.setattr(module, "decode", decode)


def waiting(cause: str) -> float:
    return float(metrics.fulfillment_waiting_partitions.labels(cause)._value.get())


def order_ids(sale: Sale) -> set[UUID]:
    return set(Order.objects.filter(sale=sale).values_list("id", flat=True))


# A newer release


@kafka
def test_a_record_of_a_newer_release_is_waited_for_and_the_others_go_on(
    two_sales: tuple[Sale, Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(consumer, "VERSION_SECONDS", 0.3)
    here, there = two_sales
    before, unreadable, after = take(here, 3), take(here, 1)[0], take(here, 3)
    append(kafka_log, *before, newer(unreadable), *after, partition=0)
    append(kafka_log, *take(there, 5))
    worker = start()
    step_while(lambda: sold(there) < 5 or not waiting("version"), worker)
    assert order_ids(here) == {claim.order_id for claim in before}, "what stands before it is fulfilled"
    assert position(0) == 3
    assert not worker.drained()
    retries: list[int] = []
    real = Partition.has_waited
    monkeypatch.setattr(Partition, "has_waited", lambda self: real(self) and not retries.append(1))
    append(kafka_log, *take(there, 5))
    step_while(lambda: sold(there) < 10 or len(retries) < 3, worker)
    assert sold(here) == 3
    assert waiting("version") == 1
    assert (worker.standing.lag_records, worker.standing.lag_seconds > 0.5) == (4, True)
    assert worker.standing.as_json()["waiting"] == {"version": 1}
    assert not ParkedRecord.objects.exists(), "another release is not poison"
    said = [record for record in caplog.records if "waits for a newer release" in record.getMessage()]
    assert len(said) == 1, "once, not at each retry"
    with monkeypatch.context() as patched:
        install_the_newer_release(patched)
        drain(worker)
    assert order_ids(here) == {claim.order_id for claim in [*before, unreadable, *after]}
    assert units(gate, here) == (93, 0, 0, 7, 0)
    assert units(gate, there) == (90, 0, 0, 10, 0)
    assert (waiting("version"), worker.standing.lag_records, worker.standing.lag_seconds) == (0, 0, 0)
    assert worker.standing.as_json()["state"] == "ok"


@kafka
def test_it_is_read_as_well_after_a_return_to_the_books(
    two_sales: tuple[Sale, Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, _ = two_sales
    append(kafka_log, newer(take(here, 1)[0]), *take(here, 2), partition=0)
    worker = start()
    step_while(lambda: not waiting("version"), worker)
    worker._go_back("database", "a connection broke", pause=0)
    with monkeypatch.context() as patched:
        install_the_newer_release(patched)
        drain(worker)
    assert sold(here) == 3


@kafka
def test_park_all_parks_it(
    two_sales: tuple[Sale, Sale], kafka_log: KafkaLog, start: Callable[..., Consumer]
) -> None:
    here, _ = two_sales
    append(kafka_log, newer(take(here, 1)[0]), *take(here, 2), partition=0)
    drain(start(poison_in_a_row=None))
    assert sold(here) == 2
    assert "version 2" in ParkedRecord.objects.get().cause


def never_forgetting(self: Partition, records: Any) -> int | None:
    expected = self.following
    for record in records:
        if record.offset != expected and self.hole_at != expected:
            self.hole_at = expected
            return expected
        expected = record.offset + 1
    return None


@pytest.mark.parametrize("guarded", [True, False])
def test_a_record_that_is_read_again_and_again_is_not_taken_for_a_hole(
    sale: Sale, source: Source, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows it may come before it once, after each time of waiting: a fetch was under way."""
    if not guarded:  # the twin: a place where something was missing once is never forgotten
        monkeypatch.setattr(Partition, "hole_in", never_forgetting)
    at = Partition(source, 0, 0)
    unreadable, *after = reads(b'{"v":2}', *(claim_of(sale) for _ in range(3)))
    skipped = False
    for _ in range(3):
        skipped = skipped or at.hole_in(after) is None
        assert at.hole_in([unreadable, *after]) is None
    assert skipped is not guarded


# A topic that is made anew under a running consumer


def make_topic_anew(name: str) -> None:
    admin = AdminClient(topic.client_config())
    admin.delete_topics([name])[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=5).topics)
    topic.ensure_topic()


@pytest.mark.apache
@pytest.mark.parametrize("guarded", [True, False])
def test_a_topic_made_anew_under_a_running_consumer_is_read_from_its_beginning(
    two_sales: tuple[Sale, Sale],
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    # Tansu's answer to a fetch of a topic that has gone crashes librdkafka (2.16, in its metadata cache).
    assert os.environ.get("FLUXGATE_TEST_KAFKA") == "apache", "run by `make test-kafka`"
    monkeypatch.setattr(topic_watch, "EVERY_SECONDS", 0.5)
    here, _ = two_sales
    log = KafkaLog()
    append(log, *take(here, 3))
    worker = start()
    drain(worker)
    log.close()
    if not guarded:  # the twin: nobody asks
        worker._watch = None
    make_topic_anew(django_settings.FLUXGATE.kafka_topic)
    log = KafkaLog()
    append(log, *take(here, 6))
    log.close()
    deadline = time.monotonic() + 10
    while sold(here) < 9 and time.monotonic() < deadline:
        worker.step(0.05)
    assert (sold(here) == 9) is guarded


@kafka
def test_a_log_that_ends_before_the_books_is_another_log_or_a_loss(
    two_sales: tuple[Sale, Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = start()
    drain(worker)
    known = worker._partitions[0]
    with monkeypatch.context() as patched:
        patched.setattr(consumer, "incarnation", lambda: "another")
        worker._shorter(known, "the log has lost records")
    assert worker.standing.trouble.startswith("topic: ")

    def silent() -> str:
        raise topic.TopicUnavailable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(consumer, "incarnation", silent)
        worker._shorter(known, "the log has lost records")
    assert worker.standing.trouble == "log: no answer"
    with pytest.raises(consumer.LogShorter, match="the log has lost records"):
        worker._shorter(known, "the log has lost records")


# How far it is behind


@kafka
def test_the_lag_is_told_in_records_and_seconds_while_postgresql_is_away(
    two_sales: tuple[Sale, Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = two_sales
    worker = start()
    drain(worker)
    assert (worker.standing.lag_records, worker.standing.lag_seconds) == (0, 0)

    def away(*arguments: Any) -> Any:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(partition_module, "fulfill", away)
        append(kafka_log, *take(here, 4), *take(there, 3))
        oldest = time.time()
        step_while(lambda: waiting("database") == 0 or worker.standing.lag_records < 7, worker)
        restarts = metrics.fulfillment_restarts.labels("database")._value
        several = restarts.get() + 3
        step_while(lambda: restarts.get() < several, worker)
        age = time.time() - oldest
        assert worker.standing.lag_records == metrics.fulfillment_lag_records._value.get() == 7
        assert age - 0.5 < worker.standing.lag_seconds < age + 2.0, "it grows with the outage"
    drain(worker)
    assert (worker.standing.lag_records, worker.standing.lag_seconds) == (0, 0)
    assert metrics.fulfillment_lag_seconds._value.get() == waiting("database") == 0


def test_a_consumer_that_is_no_member_says_so(own_topic: str, start: Callable[..., Consumer]) -> None:
    worker = start()
    worker._look_at_the_end()
    assert worker.standing.as_json() == {
        "state": "waiting",
        "waiting": {"group": 0},
        "partitions": [],
        "lag_records": 0,
        "lag_seconds": 0.0,
    }


def test_a_log_that_does_not_answer_is_told(
    source: Source, start: Callable[..., Consumer], own_topic: str
) -> None:
    worker = start()
    worker.standing.assigned([0])
    begun = {0: Partition(source, 0, 0)}
    worker.standing.publish(begun, log_answers=False)
    assert worker.standing.as_json()["waiting"] == {"log": 1}
    worker.standing.publish(begun, log_answers=True)
    assert worker.standing.as_json()["state"] == "ok"


# The health file


def test_the_health_file_is_replaced_about_once_a_second_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "health"
    with HealthFile(path) as health:
        assert json.loads(path.read_text())["state"] == "starting"
        health.say(lambda: {"state": "ok", "lag_records": 3})
        first = json.loads(path.read_text())
        assert (first["state"], first["lag_records"]) == ("ok", 3)
        inode = path.stat().st_ino
        health.say(lambda: {"state": "too early"})
        assert (path.stat().st_ino, json.loads(path.read_text())) == (inode, first)
        health._due = 0.0
        health.say(lambda: {"state": "waiting"})
        assert path.stat().st_ino != inode, "another file took its place: nobody reads half a line"
        assert path.read_text().count("\n") == 1
        assert json.loads(path.read_text())["state"] == "waiting"
    assert list(tmp_path.iterdir()) == []


def test_a_health_file_that_cannot_be_written_ends_the_start_and_nothing_later(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        HealthFile(tmp_path / "nowhere" / "health")
    folder = tmp_path / "soon gone"
    folder.mkdir()
    health = HealthFile(folder / "health")
    (folder / "health").unlink()
    folder.rmdir()
    health.say(lambda: {"state": "ok"})
    health.close()
