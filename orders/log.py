"""The log remembers: append a record, and be told when it is safe.

`Log` is the one port of the house, because the simulator needs a twin: `KafkaLog` and
`MemoryLog` (orders/memory_log.py) keep the same contract, tests/orders/test_log.py.

An error in a report means *unknown*, never *failed*: a frozen broker answered "timed out"
and the record was in the log. Whoever appends goes forward only.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from django.conf import settings

from orders import metrics
from orders.claims import Record
from sales.topic import client_config

# Records that wait for an acknowledgement in one process, at about 1 kB each. Beyond it the
# log says so before the gate takes a unit, instead of growing until the machine is full.
QUEUE_RECORDS = 20_000
NEARLY_FULL = 0.9
# How long the client library tries by itself before it reports "unknown". Much longer than the
# promise: a late acknowledgement is worth more than a record the sweeper must append again.
DELIVERY_SECONDS = 30.0
PROBE_SECONDS = 0.5
# After a record has timed out the library raises the producer's epoch by itself. Apache Kafka takes that,
# Tansu refuses it for ever (measured, 45 s frozen): only a new producer goes on.
_SPENT = {KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.UNKNOWN_PRODUCER_ID}

Reported = Callable[[Exception | None], None]
logger = structlog.get_logger(__name__)


class LogUnavailable(Exception):
    """The record has not been taken: it will never be in the log unless it is appended again."""


class AppendUnknown(Exception):
    """The record was taken and no acknowledgement came: it may or may not be in the log."""


class Log(Protocol):
    """An append-only log of partitions.

    Records appended by one thread to one partition keep their order. `reported` is called
    exactly once for each record taken, from any thread: with None when the log has
    acknowledged it (then every reader sees it), else with AppendUnknown.
    """

    def append(self, record: Record, reported: Reported) -> None:
        """Never waits. Raises LogUnavailable, and then `reported` is never called."""

    def available(self) -> bool:
        """Whether an append is likely to be acknowledged in time. Ask before taking a unit."""

    def close(self) -> None:
        """Waits, with a bound, for what is under way; afterwards everything has been reported."""


class _Append:
    """One record on its way. Called by the producer with its report."""

    __slots__ = ("appended_at", "done", "log", "reported")

    def __init__(self, log: "KafkaLog", reported: Reported) -> None:
        self.log, self.reported = log, reported
        self.appended_at = time.monotonic()
        self.done = False

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.done = True
        self.log.settled(error)
        try:
            self.reported(None if error is None else AppendUnknown(error.str()))
        except Exception:  # somebody else's mistake must not end the only thread that reports
            logger.exception("a report was not taken")


class KafkaLog:
    """The log in Kafka: acks=all, idempotent producer, one thread that reads the reports.

    Opened once per process, after the fork (librdkafka does not survive one); closed at its end.
    """

    def __init__(self) -> None:
        flux = settings.FLUXGATE
        self._topic = flux.kafka_topic
        self._partitions = flux.kafka_partitions
        self._patience = flux.promise_seconds
        self._under_way: deque[_Append] = deque()
        self._closed = self._down = self._fatal = False
        self._probed_at = 0.0
        self._config = {
            **client_config(),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": flux.kafka_linger_ms,
            "queue.buffering.max.messages": QUEUE_RECORDS,
            "delivery.timeout.ms": int(1000 * max(DELIVERY_SECONDS, 2 * flux.promise_seconds)),
            "error_cb": self._complained,
        }
        self._producer = self._open()
        self._arrive()
        self._thread = threading.Thread(target=self._serve, name="log-reports", daemon=True)
        self._thread.start()

    def append(self, record: Record, reported: Reported) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        append = _Append(self, reported)
        self._under_way.append(append)  # before producing: its report may come at once
        try:
            self._producer.produce(
                self._topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=cast(Any, record.headers),  # its list type is invariant
                on_delivery=append,
            )
        except BufferError:
            append.done = True
            raise LogUnavailable(f"{QUEUE_RECORDS} records wait for the log already") from None
        except KafkaException as error:
            append.done = True
            raise LogUnavailable(error.args[0].str()) from None

    def available(self) -> bool:
        if self._closed or self._down or self._fatal or len(self._producer) >= NEARLY_FULL * QUEUE_RECORDS:
            return False
        try:
            oldest = self._under_way[0]
        except IndexError:
            return True
        return oldest.done or time.monotonic() - oldest.appended_at < self._patience

    def close(self, seconds: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.join()
        self._give_up(self._producer, seconds)

    def settled(self, error: KafkaError | None) -> None:
        """Called with each report, only by the thread that reads them."""
        self._forget()
        if error is not None:
            metrics.append_errors.inc()
            self._turn(down=True)  # until a probe says otherwise
            if error.code() in _SPENT:
                self._fatal = True

    def _forget(self) -> None:
        while self._under_way and self._under_way[0].done:
            self._under_way.popleft()

    def _open(self) -> Producer:
        return Producer(self._config, logger=logging.getLogger("librdkafka"))

    def _serve(self) -> None:
        while not self._closed:
            try:
                self._read_reports()
            except Exception:  # without this thread nobody would ever be told of an acknowledgement
                logger.exception("reading reports failed")
                time.sleep(PROBE_SECONDS)

    def _read_reports(self) -> None:
        self._producer.poll(0.1)
        self._forget()
        if self._fatal:
            self._renew()
        if self._down and time.monotonic() - self._probed_at >= PROBE_SECONDS:
            self._probe()
            self._probed_at = time.monotonic()
        metrics.log.stands(self.available(), len(self._producer))

    def _complained(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._turn(down=True)

    def _arrive(self) -> None:
        """Waits, with a bound, for the log and for the change to its brokers' own connections, which may look
        like "all brokers down": not while somebody buys already."""
        began = time.monotonic()
        self._probe()
        if not self._down:
            self._producer.poll(time.monotonic() - began)
            self._probe()

    def _probe(self) -> None:
        """Asks for the leaders, as patiently as a buyer: a log that is back is found without any traffic."""
        try:
            # Without a name: a request that names a topic makes some brokers create it.
            topic = self._producer.list_topics(timeout=self._patience).topics.get(self._topic)
            partitions = topic.partitions.values() if topic else ()
            down = sum(each.leader >= 0 for each in partitions) < self._partitions
        except KafkaException:
            down = True
        self._turn(down)

    def _turn(self, down: bool) -> None:
        if down != self._down:
            logger.warning("log down" if down else "log available again", topic=self._topic)
        self._down = down

    def _renew(self) -> None:
        """A fatal error ends an idempotent producer. What was under way is unknown; the sweeper goes on."""
        logger.error("the producer met a fatal error and is replaced", topic=self._topic)
        ended, self._producer = self._producer, self._open()
        self._give_up(ended, 0)
        self._fatal = False

    def _give_up(self, producer: Producer, seconds: float) -> None:
        if producer.flush(seconds):
            producer.purge()
            producer.flush(1.0)


class Acknowledgements:
    """Brings the log's reports into an event loop, with one wake-up per batch of them.

    A wake-up writes to the loop's pipe: one per report cost a fifth of the orders per second.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.promise_seconds = settings.FLUXGATE.promise_seconds
        self._reports: deque[tuple[asyncio.Future[bool] | None, Reported, Exception | None]] = deque()
        self._woken = False
        self._promises: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def available(self) -> bool:
        """Whether an append is likely to be acknowledged in time. Ask before taking a unit."""
        return self._log.available()

    def append(self, record: Record) -> "asyncio.Future[None]":
        """Done when the log has acknowledged the record; AppendUnknown when no acknowledgement came.

        Shield it from a timeout: the acknowledgement may come late, and then it still counts.
        Raises LogUnavailable at once when the record was not taken.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._log.append(record, partial(self._collect, None, partial(_settle, future)))
        return future

    def promise(self, record: Record, deadline: float, reported: Reported) -> "asyncio.Future[bool]":
        """True: the log has acknowledged the record before the deadline, on the loop's clock.

        `reported` is called in the loop with the report, however late. One timer serves all promises,
        because a timer for each would cost more than the append. Raises LogUnavailable at once when
        the record was not taken.
        """
        kept: asyncio.Future[bool] = self._loop.create_future()
        self._log.append(record, partial(self._collect, kept, reported))
        self._promises.append((deadline, kept))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)
        return kept

    def _expire(self) -> None:
        """In the order of appending, in which deadlines follow each other but for the gate's latency."""
        self._timer = None
        while self._promises:
            deadline, kept = self._promises[0]
            if not kept.done():
                if deadline > self._loop.time():
                    self._timer = self._loop.call_at(deadline, self._expire)
                    return
                kept.set_result(False)
                metrics.acknowledgement_seconds.observe(self.promise_seconds)  # at least
            self._promises.popleft()

    def _collect(
        self, kept: "asyncio.Future[bool] | None", reported: Reported, error: Exception | None
    ) -> None:
        # The report first, then the flag: `_take` clears the flag first and then reads, so that
        # a report which saw the flag set is always read.
        self._reports.append((kept, reported, error))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._woken = False
        if self._promises:
            began = self._promises[0][0] - self.promise_seconds
            metrics.acknowledgement_seconds.observe(self._loop.time() - began)
        while self._reports:
            kept, reported, error = self._reports.popleft()
            if kept is not None and not kept.done():
                kept.set_result(error is None)
            reported(error)
        while self._promises and self._promises[0][1].done():
            self._promises.popleft()


def _settle(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # looked at: nobody may be waiting for a late report
