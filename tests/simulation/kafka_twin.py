"""`confluent_kafka.Consumer` over the broker's twin, and the group that shares its partitions.

Kept of the original: callbacks run inside `poll`; the group is eager, so that everybody loses
everything at each rebalance; a member whose heartbeats stop is thrown out while it still believes
it owns its partitions; what has been fetched is in a buffer that a lost tail does not empty; ends
of partitions and offsets out of range come as events.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from django.conf import settings

from tests.simulation.kafka_group import Group
from tests.simulation.log_twin import Broker, Entry
from tests.simulation.network import Network
from tests.simulation.processes import SyncProcess


class Message:
    def __init__(
        self, topic: str, partition: int, offset: int, entry: Entry | None, error: KafkaError | None
    ) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset
        self._entry, self._error = entry, error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_NOT_AVAILABLE, 0

    def value(self) -> bytes | None:
        return self._entry.value if self._entry else None

    def key(self) -> bytes | None:
        return self._entry.key if self._entry else None

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._entry.headers if self._entry else None


class ConsumerTwin:
    def __init__(
        self, network: Network, broker: Broker, group: Group, process: SyncProcess, rng: random.Random,
        config: dict[str, Any],
    ) -> None:  # fmt: skip
        self._network, self._broker, self._group, self._process, self._rng = (
            network,
            broker,
            group,
            process,
            rng,
        )
        self.name = process.name
        self._group_id = config["group.id"]
        self._on_commit: Callable[..., None] = config.get("on_commit", lambda error, offsets: None)
        self._on_assign: Callable[..., None] = lambda kafka, partitions: None
        self._on_revoke: Callable[..., None] = lambda kafka, partitions: None
        self._topic = settings.FLUXGATE.kafka_topic
        self._subscribed = False
        self._generation = -1
        self._owned: list[int] | None = None
        self._at: dict[int, int] = {}  # what it fetches next
        self._buffer: deque[Message] = deque()
        self._ended: dict[int, int] = {}  # partition -> the end that has been told
        self._marks: dict[int, tuple[int, int]] = {}
        self._paused: set[int] = set()
        self._callbacks: deque[Callable[[], None]] = deque()
        self._closed = False

    def beats(self) -> bool:
        process = self._process
        reachable = process.name not in self._broker.unreachable_from
        return process.alive and not process.frozen and reachable and not self._closed

    # What the production consumer calls

    def subscribe(self, topics: list[str], on_assign: Any = None, on_revoke: Any = None) -> None:
        self._topic, self._subscribed = topics[0], True
        self._on_assign, self._on_revoke = on_assign or self._on_assign, on_revoke or self._on_revoke

    def poll(self, timeout: float = -1) -> Message | None:
        self._use()
        self._serve()
        self._fetch()
        if not self._buffer and timeout > 0:
            self._process.wait(self._wake, timeout)
            self._serve()
            self._fetch()
        return self._buffer.popleft() if self._buffer else None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        self._fetch()
        # What has arrived so far need not be all there is.
        most = self._rng.randint(0, num_messages) if self._rng.random() < 0.3 else num_messages
        return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._at = {
            tp.partition: 0 if tp.offset in (OFFSET_BEGINNING, OFFSET_INVALID) else tp.offset
            for tp in partitions
        }
        self._buffer.clear()
        self._ended, self._marks, self._paused = {}, {}, set()

    def unassign(self) -> None:
        self.assign([])

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self._at]

    def seek(self, partition: TopicPartition) -> None:
        number = partition.partition
        if number not in self._at:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self._at[number] = 0 if partition.offset == OFFSET_BEGINNING else partition.offset
        self._buffer = deque(message for message in self._buffer if message.partition() != number)
        self._ended.pop(number, None)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {tp.partition for tp in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._paused -= {tp.partition for tp in partitions}

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: Any = None, cached: bool = False
    ) -> Any:
        if not cached:
            self._use()
            return (0, len(self._broker.partitions[partition.partition]))
        return self._marks.get(partition.partition, (OFFSET_INVALID, OFFSET_INVALID))

    def committed(self, partitions: list[TopicPartition], timeout: float = 5.0) -> list[TopicPartition]:
        def perform(done: Callable[[Any], None]) -> None:
            known = self._broker.committed
            done([known.get((self._group_id, tp.partition), OFFSET_INVALID) for tp in partitions])

        def refused(text: str) -> Exception:
            return KafkaException(KafkaError(KafkaError._TRANSPORT))

        offsets = self._process.wait(
            lambda answer: self._network.request(self._process, self._broker, perform, answer, refused),
            timeout,
        )
        if offsets is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [
            TopicPartition(self._topic, tp.partition, at) for tp, at in zip(partitions, offsets, strict=True)
        ]

    def commit(self, message: Any = None, offsets: Any = None, asynchronous: bool = True) -> None:
        self._use()
        generation = self._generation
        wanted = [(tp.partition, tp.offset) for tp in offsets]

        def perform(done: Callable[[Any], None]) -> None:
            if not self._group.belongs(self, generation):
                done(KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION)))
                return
            for number, offset in wanted:
                self._broker.committed[self._group_id, number] = offset
            done(None)

        def told(value: Any) -> None:
            error = value.args[0] if isinstance(value, KafkaException) else None
            self._callbacks.append(lambda: self._on_commit(error, list(offsets)))

        def refused(text: str) -> Exception:
            return KafkaException(KafkaError(KafkaError._TRANSPORT))

        self._network.request(self._process, self._broker, perform, told, refused)

    def close(self) -> None:
        self._closed = True
        self._group.leave(self)

    # What librdkafka does by itself

    def _use(self) -> None:
        self._process.using("kafka")
        if not self._process.alive:
            self._process.die()

    def _reaches(self) -> bool:
        broker = self._broker
        return broker.up and not broker.frozen and self.name not in broker.unreachable_from

    def _serve(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()()
        if not self._reaches() or self._closed or not self._subscribed:
            return
        group = self._group
        if self._owned is not None and not group.belongs(self, self._generation):
            lost, self._owned = self._owned, None
            self._on_revoke(self, [TopicPartition(self._topic, number) for number in lost])
        if self._owned is None:
            if self not in group.assignments:
                group.join(self)
            if self in group.assignments:
                self._generation, self._owned = group.generation, group.assignments[self]
                self._on_assign(self, [TopicPartition(self._topic, number) for number in self._owned])

    def _fetch(self) -> None:
        if self._buffer or not self._reaches():
            return
        for number, at in sorted(self._at.items()):
            entries = self._broker.partitions[number]
            self._marks[number] = (0, len(entries))
            if number in self._paused:
                continue
            if at > len(entries):
                if self._ended.get(number) != -1:  # told once, and then nothing is fetched any more
                    self._ended[number] = -1
                    self._event(number, at, KafkaError._AUTO_OFFSET_RESET)
            elif at < len(entries):
                self._buffer.extend(
                    Message(self._topic, number, offset, entries[offset], None)
                    for offset in range(at, len(entries))
                )
                self._at[number] = len(entries)
            elif self._ended.get(number) != at:
                self._ended[number] = at
                self._event(number, at, KafkaError._PARTITION_EOF)

    def _event(self, number: int, offset: int, code: int) -> None:
        self._buffer.append(Message(self._topic, number, offset, None, KafkaError(code)))

    def _wake(self, answer: Callable[[Any], None]) -> None:
        delay = self._network.delay(self._broker)
        self._broker.waiting[self.name] = lambda: self._broker.scheduler.after(delay, answer, True)
