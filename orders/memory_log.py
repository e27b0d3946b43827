"""The log's twin in memory, for unit tests and for the simulator: same contract, no broker.

What a broker does by itself is a switch here: `frozen` takes records and does not answer,
`reachable = False` is a broker that is known to be down.
"""

import time
from collections import deque
from collections.abc import Callable

from orders.claims import Record
from orders.log import NEARLY_FULL, QUEUE_RECORDS, AppendUnknown, LogUnavailable, Reported


class MemoryLog:
    """Partitions are lists; an offset is an index. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        partitions: int = 12,
        capacity: int = QUEUE_RECORDS,
        promise_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partitions: list[list[Record]] = [[] for _ in range(partitions)]
        self.reachable = True
        self.frozen = False
        self._capacity, self._patience, self._clock = capacity, promise_seconds, clock
        self._under_way: deque[tuple[float, Record, Reported]] = deque()
        self._closed = False

    def append(self, record: Record, reported: Reported) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        if len(self._under_way) >= self._capacity:
            raise LogUnavailable(f"{self._capacity} records wait for the log already")
        if not 0 <= record.partition < len(self.partitions):
            raise LogUnavailable(f"there is no partition {record.partition}")
        self._under_way.append((self._clock(), record, reported))
        self.deliver()

    def available(self) -> bool:
        if self._closed or not self.reachable or len(self._under_way) >= NEARLY_FULL * self._capacity:
            return False
        return not self._under_way or self._clock() - self._under_way[0][0] < self._patience

    def close(self) -> None:
        self._closed = True
        self.deliver()
        while self._under_way:
            self._under_way.popleft()[2](AppendUnknown("the log was closed before it answered"))

    def deliver(self) -> None:
        """Writes and acknowledges what is under way, unless the broker is down or frozen."""
        while self._under_way and self.reachable and not self.frozen:
            _, record, reported = self._under_way.popleft()
            self.partitions[record.partition].append(record)
            reported(None)
