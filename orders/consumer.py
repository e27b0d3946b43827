"""The consumer's loop, one public step at a time: read, fulfill, settle, commit.

Two books say how far the log has been read. The position in PostgreSQL says "written up to
here" and commits with the rows; Kafka's committed offset says "settled in the gate up to here"
and is committed last. A start, and a return after any trouble, begins at the lower of the two:
records below the position are not written again, but the gate is told their outcome again, so
that a consumer killed between the database and the gate leaves no claim unsettled.

Each batch is finished inside its step, so nothing is under way when partitions are taken away.
Trouble has one remedy, `_go_back`: drop what was read, wait a little, begin from the books. Only a
record of a newer release is waited for in its own partition, while the others go on.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Consumer as KafkaConsumer
from django.conf import settings

from orders import book, metrics
from orders.book import Read, Source, Zombie
from orders.fulfillment import POISON_IN_A_ROW, NewerVersion
from orders.partition import Partition, look_for_what_was_forgotten
from orders.reading import appended_at, configuration, end_of, number_of, read, record_of
from orders.settling import Settling
from orders.standing import Standing
from orders.topic_watch import TopicWatch
from sales import crashpoints
from sales.topic import TopicUnavailable, incarnation

# Back-off after trouble, in seconds: the first pause, and the longest.
PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
# How often a record of a newer release is tried again: the release that reads it may be on its way.
VERSION_SECONDS = 5.0
# How long `drained` waits for a gate that is down before it leaves settling to a later run.
GATE_PATIENCE_SECONDS = 10.0
# How often an idle consumer compares its position with the order book's.
BOOKS_SECONDS = 5.0

logger = structlog.get_logger(__name__)


class LogShorter(Exception):
    """The log does not have the offset the books point at: it lost records, or they have expired."""


class Consumer:
    """Shares the topic's partitions with the other consumers of the group. Close it when done.

    `kafka` makes the client of the broker, from a configuration and a logger.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        poison_in_a_row: int | None = POISON_IN_A_ROW,
        kafka: Callable[..., Any] | None = None,
    ) -> None:
        flux = settings.FLUXGATE
        self._settling = Settling(client)
        self._poison_in_a_row = poison_in_a_row
        self._topic = flux.kafka_topic
        self._batch = flux.fulfillment_batch
        self._assigned: list[int] | None = None  # None: not a member of the group yet, or again
        self._partitions: dict[int, Partition] = {}  # empty while the books have not been asked
        self._closed = False
        self._start_at = self._books_at = 0.0
        self._commits_under_way = 0
        self._pause = PAUSE_SECONDS
        self.standing = Standing()
        # Where the broker is somebody's own, there is nobody to ask about its topics.
        self._watch = TopicWatch() if kafka is None else None
        make = kafka or KafkaConsumer
        self._kafka: Any = make(configuration(self._on_commit), logger=logging.getLogger("librdkafka"))
        # The default range assignor is eager: everything is revoked and begun anew from the books,
        # which costs one read of the position and spares a second way of starting.
        self._kafka.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def step(self, wait_seconds: float = 0.2) -> bool:
        """One turn of the loop. True: go on. False: nothing was read within `wait_seconds`.

        Raises fulfillment.Poisoned, LogShorter and fatal KafkaExceptions: the process should end,
        and the next one begins at the same records.
        """
        self._begin()
        self._look_at_the_topic()
        if self._settling.gate_is_back():
            self._go_back("gate", "the gate is back", pause=0)
        found: dict[int, list[Message]] = {}
        for message in read(self._kafka, self._batch, wait_seconds):
            if message.error() is not None:
                self._heed(message)
            elif (number := number_of(message)) in self._partitions:
                found.setdefault(number, []).append(message)
        if found:
            crashpoints.reached("consume.after-read")
        try:
            self._resume()
            if time.monotonic() >= self._books_at:
                self._books_at = time.monotonic() + BOOKS_SECONDS
                look_for_what_was_forgotten(self._partitions.values())
            done = [partition for item in found.items() if (partition := self._work_off(*item))]
            if done:
                self._commit(done)
        except Zombie as error:
            self._go_back("zombie", str(error))
        except book.AWAY as error:
            # PostgreSQL is not there, or the commit's answer was lost: the position will tell.
            self._go_back("database", str(error))
        except KafkaException as error:  # a seek or a commit in the middle of a rebalance
            if error.args[0].fatal():
                raise
            self._go_back("log", error.args[0].str())
        else:
            if found:
                self._pause = PAUSE_SECONDS
        self._look_at_the_end()
        return bool(found)

    def drained(self) -> bool:
        """Whether this consumer has fulfilled its partitions up to the end of the log.

        With several consumers each drains its own; one that has no partitions is done at once.
        """
        if self._assigned is None or len(self._partitions) < len(self._assigned):
            return False
        if not all(partition.drained for partition in self._partitions.values()):
            return False
        since = self._settling.behind_since
        return since is None or time.monotonic() - since > GATE_PATIENCE_SECONDS

    def close(self) -> None:
        """Leaves the group, so that the others take over at once."""
        if self._closed:
            return
        self._closed = True
        self._partitions, self._assigned, self._watch = {}, None, None
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
            begun = []
            for known in self._kafka.committed(wanted, timeout=5):
                if known.error is not None:
                    raise KafkaException(known.error)
                source = Source(self._topic, topic_id, known.partition)
                position = book.position(source)
                # Nothing committed means that nothing is known to be settled: from the beginning.
                start = min(position, known.offset) if known.offset >= 0 else OFFSET_BEGINNING
                begun.append(Partition(source, position, start))
            self._kafka.assign(starts := [self._place(partition) for partition in begun])
            self._kafka.resume(starts)  # a pause outlives an assignment
            self._partitions = {partition.source.partition: partition for partition in begun}
        except book.AWAY as error:
            self._go_back("database", str(error))
        except (KafkaException, TopicUnavailable) as error:
            self._go_back("log", str(error))
        else:
            self._settling.begin()
            logger.info("partitions begun", partitions=sorted(self._partitions))

    def _heed(self, message: Message) -> None:
        """An event or an error, which comes in the place of a record."""
        error: Any = message.error()
        partition = self._partitions.get(number_of(message))
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None:
                partition.ended_at = message.offset() or 0
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            if partition is not None:
                self._shorter(partition, f"{self._topic}/{number_of(message)}: {error.str()}")
        elif error.fatal():
            raise KafkaException(error)
        else:
            logger.warning("consumer", error=error.str())

    def _work_off(self, number: int, messages: list[Message]) -> Partition | None:
        """Fulfills and settles what was read of one partition. None: it has nothing to commit."""
        partition = self._partitions.get(number)
        if partition is None or partition.waits_until is not None:
            return None  # went back because of another partition of the same read, or waits
        partition.oldest_at = appended_at(messages[0])
        done = self._take(partition, [record_of(message) for message in messages])
        if not partition.waits:
            partition.oldest_at = appended_at(messages[-1])  # what follows is younger
        return partition if done else None

    def _take(self, partition: Partition, records: Sequence[Read]) -> bool:
        """False: there is nothing whose offset may be committed."""
        records = partition.unseen(records)
        if not records:
            return False
        if (hole := partition.hole_in(records)) is not None:
            logger.warning("hole in the log", partition=partition.source.partition, offset=hole)
            self._kafka.seek(self._place(partition))
            return False
        outcomes, late = partition.take(records, self._poison_in_a_row)
        if late:
            self._wait_for_a_release(partition, late)
        if partition.following == records[0].offset:
            return False
        self.standing.moved_at = time.monotonic()
        crashpoints.reached("consume.after-commit")
        told = self._settling.tell(outcomes)
        crashpoints.reached("consume.after-settle")
        return told

    def _wait_for_a_release(self, partition: Partition, error: NewerVersion) -> None:
        """Stops fetching this partition, and no other, until it is time to try the record again."""
        number = partition.source.partition
        self._kafka.pause([TopicPartition(self._topic, number)])
        self.standing.trouble = f"version: {self._topic}/{number}, {error}"
        if partition.wait(VERSION_SECONDS):
            logger.error("partition waits for a newer release", partition=number, why=str(error))

    def _resume(self) -> None:
        """Reads the partitions again whose time of waiting is over."""
        for number, partition in self._partitions.items():
            if partition.has_waited():
                # In this order: what resuming fetches from elsewhere, seeking throws away.
                self._kafka.resume([TopicPartition(self._topic, number)])
                self._kafka.seek(self._place(partition))

    def _place(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._topic, partition.source.partition, partition.following)

    def _commit(self, partitions: Iterable[Partition]) -> None:
        # Not waited for: a commit that is late or lost only settles a little again.
        self._kafka.commit(offsets=[self._place(each) for each in partitions], asynchronous=True)
        self._commits_under_way += 1

    def _go_back(self, cause: str, why: str, pause: float | None = None) -> None:
        """Drops what has been read and begins again from the books, after a pause that grows."""
        logger.warning("going back to the books", cause=cause, why=why)
        metrics.fulfillment_restarts.labels(cause).inc()
        self.standing.cause, self.standing.trouble = cause, f"{cause}: {why}"
        if cause == "database":
            book.disconnect()
        self._note_the_lag()
        self._partitions = {}
        self._kafka.assign([])  # nothing is fetched meanwhile; the group membership goes on
        self._start_at = time.monotonic() + (self._pause if pause is None else pause)
        if pause is None:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _look_at_the_topic(self) -> None:
        found = self._watch.answer() if self._watch else None
        if found is not None and any(each.source.incarnation != found for each in self._partitions.values()):
            self._go_back("topic", f"{self._topic} was deleted and made anew")

    def _look_at_the_end(self) -> None:
        """Publishes where it stands. Raises LogShorter for a log that ends before the books."""
        self._note_the_lag()
        for number, partition in list(self._partitions.items()):
            if partition.outlasts(end := end_of(self._kafka, partition)):
                known = f"the books have read up to {partition.known}: the log has lost records"
                self._shorter(partition, f"{self._topic}/{number} ends at {end} and {known}")
        self.standing.publish(self._partitions, not (self._watch and self._watch.trouble))

    def _shorter(self, partition: Partition, why: str) -> None:
        """The log ends before the books. Raises LogShorter, unless it is another log by now."""
        try:
            found = incarnation()
        except TopicUnavailable as error:
            self._go_back("log", str(error))
            return
        if found == partition.source.incarnation:
            raise LogShorter(why)
        self._go_back("topic", f"{self._topic} was deleted and made anew")

    def _note_the_lag(self) -> None:
        for number, partition in self._partitions.items():
            self.standing.note(number, partition, end_of(self._kafka, partition))

    def _on_assign(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions assigned", partitions=sorted(tp.partition for tp in partitions))
        self._assigned = [tp.partition for tp in partitions]
        self._partitions = {}
        self.standing.assigned(self._assigned)
        self._start_at = 0.0
        kafka.assign([])  # `_begin` starts them: asking the books may take long or fail

    def _on_revoke(self, kafka: KafkaConsumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions revoked", partitions=sorted(tp.partition for tp in partitions))
        self._assigned, self._partitions = None, {}
        self.standing.assigned(None)
        kafka.unassign()

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits_under_way -= 1
        if error is not None:
            logger.warning("offsets not committed", error=error.str())
