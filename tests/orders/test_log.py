"""The log's contract, on Kafka and on its twin in memory; then what only Kafka can do."""

import asyncio
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from django.conf import settings as django_settings
from prometheus_client import REGISTRY

from management.embedded.tansu import locate
from orders import log as log_module
from orders.claims import Record
from orders.log import Acknowledgements, AppendUnknown, KafkaLog, Log, LogUnavailable
from orders.memory_log import MemoryLog
from sales import topic
from tests.proxy import Proxy
from tests.running_site import eventually, free_port

PROMISE = 1.0


class Rig(Protocol):
    """One log, and what a test must do to its broker."""

    log: Log

    def read(self, partition: int) -> list[bytes]:
        """The values of the partition, as a reader sees them now."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def kill(self) -> None: ...

    def restart(self) -> None: ...


class MemoryRig:
    def __init__(self, capacity: int) -> None:
        self.log: MemoryLog = MemoryLog(partitions=3, capacity=capacity, promise_seconds=PROMISE)

    def read(self, partition: int) -> list[bytes]:
        return [record.value for record in self.log.partitions[partition]]

    def freeze(self) -> None:
        self.log.frozen = True

    def thaw(self) -> None:
        self.log.frozen = False
        self.log.deliver()

    def kill(self) -> None:
        self.log.reachable = False

    def restart(self) -> None:
        self.log.reachable = True
        self.log.deliver()

    def close(self) -> None:
        self.log.close()


class KafkaRig:
    """A broker of the test's own, because it is frozen and cut off; Tansu in memory, behind a proxy,
    because its log would not survive a real kill."""

    def __init__(self, settings: Any) -> None:
        self.port, self._hidden_port = free_port(), free_port()
        self._proxy = Proxy(self.port, self._hidden_port)
        self.broker = self._start()
        self._proxy.up()
        changed = {
            "kafka_brokers": f"127.0.0.1:{self.port}",
            "kafka_topic": "orders-of-the-contract",
            "kafka_partitions": 3,
            "kafka_replication": 1,
            "promise_seconds": PROMISE,
        }
        settings.FLUXGATE = settings.FLUXGATE.model_copy(update=changed)
        topic.ensure_topic()
        self.log: KafkaLog = KafkaLog()

    def read(self, partition: int) -> list[bytes]:
        return read_partition(partition)

    def freeze(self) -> None:
        self.broker.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.broker.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._proxy.down()

    def restart(self) -> None:
        self._proxy.up()

    def close(self) -> None:
        self.thaw()
        self.log.close()
        self._proxy.down()
        self.broker.kill()
        self.broker.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        here, advertised = f"tcp://127.0.0.1:{self._hidden_port}", f"tcp://127.0.0.1:{self.port}"
        listen = ("--listener-url", here, "--advertised-listener-url", advertised)
        broker = subprocess.Popen(
            [locate(), "broker", *listen, "--storage-engine", "memory://tansu/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: _listens(self._hidden_port), 10)
        return broker


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read_partition(partition: int) -> list[bytes]:
    """Everything a reader sees in one partition of the topic of the settings."""
    flux = django_settings.FLUXGATE
    consumer = Consumer(
        {
            **topic.client_config(),
            "group.id": "a reader",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.assign([TopicPartition(flux.kafka_topic, partition, 0)])
    values = []
    try:
        while (message := consumer.poll(10)) is not None:
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return values
            values.append(message.value())
        raise AssertionError("the end of the partition was not reached")
    finally:
        consumer.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def make_rig(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    opened: list[Any] = []

    def make(capacity: int = 1000) -> Any:
        if request.param == "memory":
            rig: Any = MemoryRig(capacity)
        else:
            monkeypatch.setattr(log_module, "QUEUE_RECORDS", capacity)
            rig = KafkaRig(settings)
        opened.append(rig)
        return rig

    yield make
    for rig in opened:
        rig.close()


class Reports:
    """Collects reports by the record's value, from whatever thread they come."""

    def __init__(self) -> None:
        self.all: list[tuple[bytes, Exception | None]] = []

    def of(self, value: bytes) -> Callable[[Exception | None], None]:
        return lambda error: self.all.append((value, error))

    def append(self, log: Log, partition: int, value: bytes) -> None:
        log.append(Record(partition, b"a pool", value, [("ce_id", value)]), self.of(value))

    @property
    def acknowledged(self) -> set[bytes]:
        return {value for value, error in self.all if error is None}


def values(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def test_what_is_acknowledged_can_be_read_in_the_order_of_appending(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    assert rig.log.available()
    for number, value in enumerate(values(300)):
        reports.append(rig.log, number % 3, value)
    eventually(lambda: len(reports.all) == 300)
    assert reports.acknowledged == set(values(300))
    for partition in range(3):
        assert rig.read(partition) == values(300)[partition::3]


def test_every_record_is_reported_exactly_once(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    rig.freeze()
    for value in values(50):
        reports.append(rig.log, 0, value)
    assert reports.all == []
    rig.thaw()
    eventually(lambda: len(reports.all) >= 50)
    rig.log.close()
    assert sorted(value for value, _ in reports.all) == sorted(values(50))


def test_a_full_queue_refuses_before_the_record_is_taken(make_rig: Any) -> None:
    rig, reports = make_rig(capacity=100), Reports()
    rig.freeze()
    for value in values(100):
        reports.append(rig.log, 0, value)
    assert not rig.log.available()
    with pytest.raises(LogUnavailable):
        reports.append(rig.log, 0, b"one too many")
    rig.thaw()
    eventually(lambda: len(reports.all) == 100)
    assert rig.read(0) == values(100), "the refused record must not be in the log, the others must"
    eventually(rig.log.available)


def test_a_log_that_is_nearly_full_is_not_available(make_rig: Any) -> None:
    rig, reports = make_rig(capacity=100), Reports()
    rig.freeze()
    for value in values(89):
        reports.append(rig.log, 0, value)
    assert rig.log.available()
    for value in values(2, first=89):
        reports.append(rig.log, 0, value)
    assert not rig.log.available()


def test_a_frozen_log_is_not_available_once_it_is_late_and_is_again_when_it_answers(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    rig.freeze()
    began = time.monotonic()
    reports.append(rig.log, 0, b"late")
    assert rig.log.available(), "not late yet"
    eventually(lambda: not rig.log.available(), 10)
    assert time.monotonic() - began >= PROMISE
    assert reports.all == [], "late is unknown, not failed"
    rig.thaw()
    eventually(rig.log.available)
    eventually(lambda: reports.all == [(b"late", None)])


@pytest.mark.kafka
def test_a_log_that_was_frozen_for_longer_than_the_library_tries_takes_records_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a timeout the library raises the producer's epoch by itself, which Tansu refuses for ever."""
    monkeypatch.setattr(log_module, "DELIVERY_SECONDS", 2 * PROMISE)
    rig, reports = KafkaRig(settings), Reports()
    try:
        reports.append(rig.log, 0, b"before")
        eventually(lambda: reports.acknowledged)
        rig.freeze()
        reports.append(rig.log, 0, b"late")
        eventually(lambda: len(reports.all) == 2, 20)
        assert isinstance(reports.all[1][1], AppendUnknown)
        rig.thaw()

        def acknowledged() -> bool:
            if rig.log.available():
                reports.append(rig.log, 0, b"after")
            return b"after" in reports.acknowledged

        eventually(acknowledged, 20)
    finally:
        rig.close()


def test_a_log_that_is_down_is_not_available_and_comes_back_without_traffic(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    rig.kill()
    eventually(lambda: not rig.log.available(), 20)
    rig.restart()
    eventually(rig.log.available, 20)
    reports.append(rig.log, 1, b"after")
    eventually(lambda: reports.all == [(b"after", None)])


@pytest.mark.kafka
def test_a_log_that_answers_slowly_is_found_to_be_there(settings: Any) -> None:
    rig, reports = KafkaRig(settings), Reports()
    try:
        rig.kill()
        eventually(lambda: not rig.log.available(), 20)
        rig._proxy.delay = 0.3  # each way: longer than PROBE_SECONDS, shorter than the promise
        rig.restart()
        eventually(rig.log.available, 20)
        reports.append(rig.log, 1, b"after")
        eventually(lambda: reports.acknowledged)
    finally:
        rig.close()


def test_a_closed_log_takes_nothing(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    reports.append(rig.log, 0, b"before")
    rig.log.close()
    assert reports.all == [(b"before", None)], "closing waits for what is under way"
    assert not rig.log.available()
    with pytest.raises(LogUnavailable):
        reports.append(rig.log, 0, b"after")
    rig.log.close()
    assert len(reports.all) == 1
    assert rig.read(0) == [b"before"]


def test_closing_reports_what_stays_unknown(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    rig.freeze()
    reports.append(rig.log, 0, b"unknown")
    if isinstance(rig.log, KafkaLog):
        rig.log.close(0.2)
    else:
        rig.log.close()
    [(value, error)] = reports.all
    assert value == b"unknown"
    assert isinstance(error, AppendUnknown)


def test_a_partition_that_is_not_there_takes_nothing(make_rig: Any) -> None:
    rig, reports = make_rig(), Reports()
    with pytest.raises(LogUnavailable):
        reports.append(rig.log, 3, b"nowhere")
    assert reports.all == []


@pytest.mark.kafka
def test_a_log_without_a_broker_opens_and_says_so(settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"kafka_brokers": f"127.0.0.1:{free_port()}", "promise_seconds": 0.2}
    )
    log = KafkaLog()
    try:
        assert not log.available()
    finally:
        log.close(0.1)


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_not_available(settings: Any, own_topic: str) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_topic": f"{own_topic}-elsewhere"})
    log = KafkaLog()
    try:
        assert not log.available()
        topic.ensure_topic()
        eventually(log.available)
    finally:
        log.close(0.1)


@pytest.mark.kafka
def test_headers_key_and_partition_arrive(kafka_log: KafkaLog, settings: Any) -> None:
    reports = Reports()
    record = Record(2, b"the pool", b"{}", [("ce_id", b"one"), ("content-type", b"application/json")])
    kafka_log.append(record, reports.of(b"x"))
    eventually(lambda: reports.acknowledged)
    consumer = Consumer({**topic.client_config(), "group.id": "a reader", "fetch.wait.max.ms": 20})
    consumer.assign([TopicPartition(settings.FLUXGATE.kafka_topic, 2, 0)])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    assert (message.key(), message.value(), message.headers()) == (record.key, record.value, record.headers)


@pytest.mark.kafka
def test_a_producer_that_met_a_fatal_error_is_replaced(kafka_log: KafkaLog) -> None:
    reports = Reports()
    reports.append(kafka_log, 0, b"before")
    eventually(lambda: reports.acknowledged)
    ended = kafka_log._producer
    # librdkafka's way to say that the producer's sequence is broken; nothing else is simulated.
    kafka_log._complained(KafkaError(KafkaError._FATAL, "sequence out of order", fatal=True))
    assert not kafka_log.available()
    eventually(kafka_log.available)
    assert kafka_log._producer is not ended
    reports.append(kafka_log, 0, b"after")
    eventually(lambda: len(reports.acknowledged) == 2)
    assert read_partition(0) == [b"before", b"after"]


@pytest.mark.kafka
def test_a_report_that_fails_does_not_end_the_reports(kafka_log: KafkaLog) -> None:
    def failing(error: Exception | None) -> None:
        raise RuntimeError("a mistake of the caller")

    kafka_log.append(Record(0, b"k", b"first", []), failing)
    reports = Reports()
    for value in values(20):
        reports.append(kafka_log, 0, value)
    eventually(lambda: len(reports.acknowledged) == 20)


@pytest.mark.kafka
def test_a_mistake_in_the_thread_that_reads_reports_does_not_end_it(
    kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistakes: list[int] = []

    def forget() -> None:
        mistakes.append(1)
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr(kafka_log, "_forget", forget)
        eventually(lambda: mistakes)
    reports = Reports()
    reports.append(kafka_log, 0, b"after")
    eventually(lambda: reports.acknowledged)


def record_of(value: bytes) -> Record:
    return Record(0, b"k", value, [])


async def test_an_acknowledgement_is_awaited_in_the_loop() -> None:
    log = MemoryLog()
    acknowledgements = Acknowledgements(log)
    assert acknowledgements.available()
    await acknowledgements.append(record_of(b"x"))
    assert [record.value for record in log.partitions[0]] == [b"x"]


async def test_an_acknowledgement_that_comes_late_still_counts() -> None:
    log = MemoryLog()
    log.frozen = True
    future = Acknowledgements(log).append(record_of(b"x"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(future), 0.01)
    assert not future.done()
    log.frozen = False
    log.deliver()
    await asyncio.wait_for(future, 5)


async def test_no_acknowledgement_is_an_unknown_outcome() -> None:
    log = MemoryLog()
    log.frozen = True
    future = Acknowledgements(log).append(record_of(b"x"))
    log.close()
    with pytest.raises(AppendUnknown):
        await future


async def test_a_record_that_is_not_taken_raises_at_once() -> None:
    log = MemoryLog()
    log.close()
    with pytest.raises(LogUnavailable):
        Acknowledgements(log).append(record_of(b"x"))


async def test_an_acknowledgement_nobody_waits_for_is_not_missed() -> None:
    log = MemoryLog()
    log.frozen = True
    future = Acknowledgements(log).append(record_of(b"x"))
    future.cancel()
    log.frozen = False
    log.deliver()
    await asyncio.sleep(0)
    assert future.cancelled()


async def test_a_batch_of_reports_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wake_ups = []
    wake = loop.call_soon_threadsafe

    def counting(*arguments: Any, **options: Any) -> Any:
        wake_ups.append(arguments)
        return wake(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    log = MemoryLog()
    log.frozen = True
    acknowledgements = Acknowledgements(log)
    futures = [acknowledgements.append(record_of(value)) for value in values(500)]
    log.frozen = False
    reporter = threading.Thread(target=log.deliver)
    reporter.start()
    reporter.join()  # the loop stands still meanwhile, as it does while it serves requests
    await asyncio.wait_for(asyncio.gather(*futures), 5)
    assert len(wake_ups) == 1


async def test_reports_from_a_thread_are_never_left_lying() -> None:
    """Reports and the loop race for the flag; every future must be done in the end."""
    log = MemoryLog(capacity=100_000)
    log.frozen = True
    acknowledgements = Acknowledgements(log)
    futures = [acknowledgements.append(record_of(b"x")) for _ in range(20_000)]
    log.frozen = False
    reporter = threading.Thread(target=log.deliver)
    reporter.start()
    await asyncio.wait_for(asyncio.gather(*futures), 30)
    reporter.join()


async def test_a_report_after_the_loop_has_ended_is_dropped() -> None:
    log = MemoryLog()
    log.frozen = True

    def appended_in_a_loop_that_ends() -> None:
        async def append() -> None:
            Acknowledgements(log).append(record_of(b"x"))

        asyncio.run(append())

    await asyncio.to_thread(appended_in_a_loop_that_ends)
    log.frozen = False
    log.deliver()
    assert len(log.partitions[0]) == 1


async def test_a_promise_is_kept_by_an_acknowledgement_in_time() -> None:
    log, reports = MemoryLog(), list[Exception | None]()
    acknowledgements = Acknowledgements(log)
    deadline = asyncio.get_running_loop().time() + 60
    assert await acknowledgements.promise(record_of(b"x"), deadline, reports.append)
    assert reports == [None]


async def test_a_promise_ends_at_its_deadline_and_the_late_report_still_comes() -> None:
    log, reports = MemoryLog(), list[Exception | None]()
    log.frozen = True
    acknowledgements = Acknowledgements(log)
    now = asyncio.get_running_loop().time()
    counted = "fluxgate_acknowledgement_seconds_count"
    before = REGISTRY.get_sample_value(counted) or 0
    promises = [
        acknowledgements.promise(record_of(b"x"), now + soon, reports.append) for soon in (0.01, 0.02)
    ]
    assert await asyncio.gather(*promises) == [False, False]
    assert REGISTRY.get_sample_value(counted) == before + 2, "the metric sees what is late"
    assert reports == []
    log.frozen = False
    log.deliver()
    async with asyncio.timeout(5):
        while len(reports) < 2:
            await asyncio.sleep(0)
    assert reports == [None, None]


async def test_an_unknown_outcome_promises_nothing() -> None:
    log, reports = MemoryLog(), list[Exception | None]()
    log.frozen = True
    promise = Acknowledgements(log).promise(
        record_of(b"x"), asyncio.get_running_loop().time() + 60, reports.append
    )
    log.close()
    assert await promise is False
    assert [type(report) for report in reports] == [AppendUnknown]
