"""Kafka's broker and producer in memory: partitions, acknowledgements, a consumer group.

Kept of Kafka: a producer's records stay in order in a partition and are written once however
often they are sent; an acknowledgement may come late or never; a record on its way when its
process dies may or may not be written; an acknowledged tail may be lost with its broker.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from orders.claims import Record
from orders.log import DELIVERY_SECONDS, AppendUnknown, LogUnavailable, Reported
from tests.simulation.loop import Process, Scheduler
from tests.simulation.network import Network, Server


class Entry(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Broker(Server):
    """Partitions are lists; an offset is an index. One topic."""

    def __init__(self, scheduler: Scheduler, partitions: int) -> None:
        super().__init__("kafka")
        self.scheduler = scheduler
        self.partitions: list[list[Entry]] = [[] for _ in range(partitions)]
        self.committed: dict[tuple[str, int], int] = {}  # (group, partition) -> offset
        self.waiting: dict[str, Callable[[], Any]] = {}  # consumers that poll, by name
        self.down_since: float | None = None
        self.on_up: list[Callable[[], None]] = []
        self.lost: list[tuple[int, int, Entry]] = []  # (partition, offset, entry) of lost tails

    def appended(self) -> None:
        """Something has happened that consumers wait for."""
        waiting, self.waiting = self.waiting, {}
        for wake in waiting.values():
            wake()

    def append(self, record: Record) -> int:
        self.partitions[record.partition].append(Entry(record.key, record.value, list(record.headers)))
        self.appended()
        return len(self.partitions[record.partition]) - 1

    def go_down(self) -> None:
        self.up, self.down_since = False, self.scheduler.now

    def come_up(self) -> None:
        self.up, self.down_since = True, None
        waiting, self.on_up = self.on_up, []
        for resend in waiting:
            resend()
        self.appended()

    def lose_tail(self, partition: int, records: int) -> int:
        """The acknowledged end of a partition is gone, as after an unclean election. Returns how many."""
        entries = self.partitions[partition]
        cut = max(0, len(entries) - records)
        self.lost += [(partition, offset, entries[offset]) for offset in range(cut, len(entries))]
        lost = len(entries) - cut
        del entries[cut:]
        return lost


class _Sending:
    """One record on its way."""

    __slots__ = ("acknowledged", "appended_at", "ends", "record", "reported", "written")

    def __init__(self, record: Record, reported: Reported, now: float) -> None:
        self.record, self.reported, self.appended_at = record, reported, now
        self.written = self.acknowledged = self.ends = False


class ProducerTwin:
    """`orders.log.Log` of one process. What librdkafka does in its threads happens in events here."""

    def __init__(
        self, network: Network, broker: Broker, process: Process, rng: random.Random, patience: float
    ) -> None:
        self._network, self._broker, self._process, self._rng = network, broker, process, rng
        self._scheduler, self._patience = broker.scheduler, patience
        self._under_way: list[_Sending] = []
        self._leaves_at: dict[int, float] = {}  # by partition: nothing overtakes, there or back
        self._told_at: dict[int, float] = {}
        self._closed = False
        self._cut = False  # of what a dead process had on its way, nothing behind a lost record arrives

    def append(self, record: Record, reported: Reported) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        self._process.using("kafka")
        if not self._process.alive:
            die: Any = getattr(self._process, "die", None)
            return die() if die else None
        sending = _Sending(record, reported, self._scheduler.now)
        self._under_way.append(sending)
        leaves = self._scheduler.now + self._network.delay(self._broker)
        leaves = max(leaves, self._leaves_at.get(record.partition, 0.0))
        self._leaves_at[record.partition] = leaves
        self._scheduler.at(leaves, self._leave, sending)
        self._scheduler.after(DELIVERY_SECONDS, self._process.expire, self._give_up, sending)

    def available(self) -> bool:
        if self._closed:
            return False
        since = self._broker.down_since
        if since is not None and self._scheduler.now - since > 0.3:  # its last probe has told
            return False
        return not self._under_way or self._scheduler.now - self._under_way[0].appended_at < self._patience

    def close(self) -> None:
        self._closed = True

    def _leave(self, sending: _Sending) -> None:
        """The record leaves the process: not while it is frozen, and perhaps not when it has died."""
        if self._process.alive and self._process.frozen and self._process.threads:
            self._send(sending)
        elif self._process.alive:
            self._process.enter(self._send, sending)
        elif not self._cut and self._rng.random() < 0.5:
            self._send(sending)
        else:
            self._cut = True

    def _send(self, sending: _Sending) -> None:
        if sending.ends:
            return
        broker = self._broker
        if not broker.up or self._process.name in broker.unreachable_from:
            if broker.up:
                self._scheduler.after(0.2, self._leave, sending)
            else:
                broker.on_up.append(lambda: self._leave(sending))
            return
        broker.receive(lambda: self._write(sending))

    def _write(self, sending: _Sending) -> None:
        if not sending.written:  # the broker knows what it has written: a retry adds nothing
            sending.written = True
            self._broker.append(sending.record)
        weather, wait = self._broker.weather, self._network.delay(self._broker)
        luck = self._rng.random() if weather.lost_reply else 1.0
        if luck < weather.lost_reply:
            if luck < weather.lost_reply / 4:
                return  # never acknowledged: unknown, after the delivery timeout
            wait += self._rng.uniform(0.5, 4.0)  # the client sends it again, and is told then
        told = max(self._scheduler.now + wait, self._told_at.get(sending.record.partition, 0.0))
        self._told_at[sending.record.partition] = told
        self._scheduler.at(told, self._process.enter, self._acknowledge, sending)

    def _acknowledge(self, sending: _Sending) -> None:
        if not sending.ends:
            sending.ends = True
            self._forget()
            sending.reported(None)

    def _give_up(self, sending: _Sending) -> None:
        if not sending.ends:
            sending.ends = True
            self._forget()
            sending.reported(AppendUnknown("Local: Message timed out"))

    def _forget(self) -> None:
        while self._under_way and self._under_way[0].ends:
            self._under_way.pop(0)
