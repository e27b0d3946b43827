"""The consumer's loop, one public step at a time: read, fulfill, settle, commit.

Two books say how far the log has been read. The position in PostgreSQL says "written up to
here" and commits with the rows; Kafka's committed offset says "settled in the gate up to here"
and is committed last. A start, and a return after any trouble, begins at the lower of the two:
records below the position are not written again, but the gate is told their outcome again, so
that a consumer killed between the database and the gate leaves no claim unsettled.

Each batch is finished inside its step, so nothing is under way when partitions are taken away.
Trouble has one remedy, `_go_back`: drop what was read, wait a little, begin from the books.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

import redis
import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Consumer as KafkaConsumer
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from orders import book, metrics
from orders.book import Read, Source, Zombie
from orders.fulfillment import POISON_IN_A_ROW, Batch, fulfill, recall
from orders.partition import Partition
from orders.settling import Settling
from sales.topic import TopicUnavailable, client_config, incarnation

# Back-off after trouble, in seconds: the first pause, and the longest.
PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
# After how long without a record an end of the log that lies before us is believed.
QUIET_SECONDS = 5.0
# How long `drained` waits for a gate that is down before it leaves settling to a later run.
GATE_PATIENCE_SECONDS = 10.0

logger = structlog.get_logger(__name__)


class LogShorter(Exception):
    """The log does not have the offset the books point at: it lost records, or they have expired."""


class Consumer:
    """Shares the topic's partitions with the other consumers of the group. Close it when done."""

    def __init__(self, client: redis.Redis, *, poison_in_a_row: int | None = POISON_IN_A_ROW) -> None:
        flux = settings.FLUXGATE
        self._settling = Settling(client)
        self._poison_in_a_row = poison_in_a_row
        self._topic = flux.kafka_topic
        self._batch = flux.fulfillment_batch
        self._assigned: list[int] | None = None  # None: not a member of the group yet, or again
        self._partitions: dict[int, Partition] = {}  # empty while the books have not been asked
        self._closed = False
        self._start_at = 0.0
        self._commits_under_way = 0
        self._pause = PAUSE_SECONDS
        self._kafka = KafkaConsumer(
            {
                **client_config(),
                "group.id": flux.kafka_group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # An offset the log does not have is an incident, never a reason to skip or start over.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": flux.kafka_fetch_wait_ms,
                "session.timeout.ms": flux.kafka_session_ms,
                "heartbeat.interval.ms": min(flux.kafka_session_ms // 6, 2000),
                "on_commit": self._on_commit,
            },
            logger=logging.getLogger("librdkafka"),
        )
        # The default range assignor is eager: everything is revoked and begun anew from the books,
        # which costs one read of the position and spares a second way of starting.
        self._kafka.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def step(self, wait_seconds: float = 0.2) -> bool:
        """One turn of the loop. True: go on. False: nothing was read within `wait_seconds`.

        Raises fulfillment.Poisoned, LogShorter and fatal KafkaExceptions: the process should end,
        and the next one begins at the same records.
        """
        self._begin()
        if self._settling.gate_is_back():
            self._go_back("gate", "the gate is back", pause=0)
        messages = self._read(wait_seconds)
        read: dict[int, list[Read]] = {}
        for message in messages:
            if self._usable(message):
                read.setdefault(_number(message), []).append(_record(message))
        try:
            done = [
                partition for number, records in read.items() if (partition := self._take(number, records))
            ]
            if done:
                self._commit(done)
        except Zombie as error:
            self._go_back("zombie", str(error))
        except (OperationalError, InterfaceError) as error:
            # PostgreSQL is not there, or the commit's answer was lost: the position will tell.
            self._go_back("database", str(error))
        except KafkaException as error:  # a seek or a commit in the middle of a rebalance
            if error.args[0].fatal():
                raise
            self._go_back("log", error.args[0].str())
        else:
            if read:
                self._pause = PAUSE_SECONDS
        self._look_at_the_end()
        return bool(read)

    def drained(self) -> bool:
        """Whether this consumer has fulfilled its partitions up to the end of the log.

        With several consumers each drains its own; one that has no partitions is done at once.
        """
        if self._assigned is None or len(self._partitions) < len(self._assigned):
            return False
        if any(partition.ended_at < partition.known for partition in self._partitions.values()):
            return False
        since = self._settling.behind_since
        return since is None or time.monotonic() - since > GATE_PATIENCE_SECONDS

    def close(self) -> None:
        """Leaves the group, so that the others take over at once."""
        if self._closed:
            return
        self._closed = True
        self._partitions, self._assigned = {}, None
        self._kafka.assign([])
        deadline = time.monotonic() + 1
        while self._commits_under_way and time.monotonic() < deadline:
            self._kafka.poll(0.05)
        if settings.FLUXGATE.kafka_leave_group:
            self._kafka.close()
        else:
            # Members that leave a group wedge it on Tansu, members that just stop do not.
            del self._kafka

    def _begin(self) -> None:
        """Asks the books where to start, once partitions have been assigned."""
        if not self._assigned or self._partitions or time.monotonic() < self._start_at:
            return
        try:
            topic_id = incarnation()
            wanted = [TopicPartition(self._topic, number) for number in self._assigned]
            starts = []
            for known in self._kafka.committed(wanted, timeout=5):
                if known.error is not None:
                    raise KafkaException(known.error)
                source = Source(self._topic, topic_id, known.partition)
                position = book.position(source)
                # Nothing committed means that nothing is known to be settled: from the beginning.
                start = min(position, known.offset) if known.offset >= 0 else OFFSET_BEGINNING
                self._partitions[known.partition] = Partition(source, position, start)
                starts.append(TopicPartition(self._topic, known.partition, start))
            self._kafka.assign(starts)
        except (OperationalError, InterfaceError) as error:
            self._go_back("database", str(error))
        except (KafkaException, TopicUnavailable) as error:
            self._go_back("log", str(error))
        else:
            self._settling.begin()
            logger.info("partitions begun", partitions=sorted(self._partitions))

    def _read(self, wait_seconds: float) -> list[Message]:
        # `consume` alone would wait until the batch is full: wait for the first, take what is there.
        first = self._kafka.poll(wait_seconds)
        return [] if first is None else [first, *self._kafka.consume(self._batch - 1, timeout=0)]

    def _usable(self, message: Message) -> bool:
        """Whether it is a record of a partition that is ours, and not an event or an error."""
        error = message.error()
        partition = self._partitions.get(_number(message))
        if error is None:
            return partition is not None
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None:
                partition.ended_at = message.offset() or 0
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise LogShorter(f"{self._topic}/{_number(message)}: {error.str()}")
        elif error.fatal():
            raise KafkaException(error)
        else:
            logger.warning("consumer", error=error.str())
        return False

    def _take(self, number: int, records: list[Read]) -> Partition | None:
        """Fulfills and settles what was read of one partition. None: it has nothing to commit."""
        partition = self._partitions.get(number)
        if partition is None:  # went back because of another partition of the same read
            return None
        records = partition.unseen(records)
        if not records:
            return None
        if (hole := partition.hole_in(records)) is not None:
            logger.warning("hole in the log", partition=number, offset=hole)
            self._kafka.seek(TopicPartition(self._topic, number, partition.following))
            return None
        known = [record for record in records if record.offset < partition.position]
        fresh = records[len(known) :]
        outcomes = recall(known) if known else []
        if fresh:
            batch = Batch(partition.source, partition.position, fresh)
            outcomes += fulfill(batch, self._poison_in_a_row)
            partition.position = batch.following
        partition.advance(records[-1].offset + 1)
        return partition if self._settling.tell(outcomes) else None

    def _commit(self, partitions: Iterable[Partition]) -> None:
        offsets = [
            TopicPartition(self._topic, partition.source.partition, partition.following)
            for partition in partitions
        ]
        # Not waited for: a commit that is late or lost only settles a little again.
        self._kafka.commit(offsets=offsets, asynchronous=True)
        self._commits_under_way += 1

    def _go_back(self, cause: str, why: str, pause: float | None = None) -> None:
        """Drops what has been read and begins again from the books, after a pause that grows."""
        logger.warning("going back to the books", cause=cause, why=why)
        metrics.fulfillment_restarts.labels(cause).inc()
        if cause == "database":
            connection.close()
        self._partitions = {}
        self._kafka.assign([])  # nothing is fetched meanwhile; the group membership goes on
        self._start_at = time.monotonic() + (self._pause if pause is None else pause)
        if pause is None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _look_at_the_end(self) -> None:
        """Publishes the lag. Raises LogShorter for a log that ends before the books."""
        lag = 0
        for number, partition in self._partitions.items():
            end = self._end(partition)
            lag += max(0, end - partition.position)
            # Kafka complains of an offset that is not there, Tansu says nothing at all. After a while
            # in which nothing came, the end we know is not one from before.
            if 0 <= end < partition.known and time.monotonic() - partition.quiet_since > QUIET_SECONDS:
                raise LogShorter(
                    f"{self._topic}/{number} ends at {end} and the books have read up to "
                    f"{partition.known}: the log has lost records"
                )
        metrics.fulfillment_lag_records.set(lag)

    def _end(self, partition: Partition) -> int:
        """The end of the log as the last fetch told it. Asking the broker answers wrongly on Tansu."""
        tp = TopicPartition(self._topic, partition.source.partition)
        marks = self._kafka.get_watermark_offsets(tp, cached=True)
        return max(partition.ended_at, marks[1] if marks else -1)

    def _on_assign(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions assigned", partitions=sorted(tp.partition for tp in partitions))
        self._assigned = [tp.partition for tp in partitions]
        self._partitions = {}
        self._start_at = 0.0
        kafka.assign([])  # `_begin` starts them: asking the books may take long or fail

    def _on_revoke(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions revoked", partitions=sorted(tp.partition for tp in partitions))
        self._assigned, self._partitions = None, {}
        kafka.unassign()

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits_under_way -= 1
        if error is not None:
            logger.warning("offsets not committed", error=error.str())


def _number(message: Message) -> int:
    number = message.partition()
    return -1 if number is None else number


def _record(message: Message) -> Read:
    # The client library's types allow for errors and for str; a record has an offset and bytes.
    fields: Any = message.offset(), message.value(), message.key(), message.headers() or []
    return Read(*fields)
