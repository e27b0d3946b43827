"""How a consumer stands: how far it is behind, in records and in seconds, and what it waits for.

Kept across a return to the books: a consumer that cannot reach PostgreSQL is behind by what it has
seen of the log, and the oldest of that grows older meanwhile.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orders import metrics
from orders.partition import Partition

CAUSES = ("database", "gate", "group", "log", "topic", "version", "zombie")


class Behind(NamedTuple):
    records: int
    oldest_at: float | None  # Unix seconds, of the oldest record that is not in the order book


class Standing:
    """One consumer's. `cause` and `trouble` are those of the last return to the books."""

    def __init__(self) -> None:
        self.cause = "group"
        self.trouble = ""  # for people
        self.moved_at = time.monotonic()  # when it last got further
        self._assigned: Sequence[int] | None = None
        self._behind: dict[int, Behind] = {}
        self._waiting: Mapping[str, int] = {}

    def assigned(self, numbers: Sequence[int] | None) -> None:
        """These partitions are its own from now on, and no others. None: it is not in the group."""
        self._assigned, self.cause = numbers, "group"
        self._behind = {number: seen for number, seen in self._behind.items() if number in (numbers or ())}

    def note(self, number: int, partition: Partition, end: int) -> None:
        """Where one partition stands. `end` is the end of the log, negative while nobody has said."""
        if end < 0:
            return
        records = max(0, end - partition.position)
        if not records:
            partition.oldest_at = None
        elif partition.oldest_at is None:
            # Read before we went back to the books; else it has just come, and nobody has looked at it.
            before = self._behind.get(number)
            partition.oldest_at = (before and before.oldest_at) or time.time()
        self._behind[number] = Behind(records, partition.oldest_at)

    def publish(self, partitions: Mapping[int, Partition], log_answers: bool) -> None:
        """Writes the metrics. `partitions` are those that have been begun."""
        self._waiting = self._causes(partitions, log_answers)
        metrics.fulfillment_lag_records.set(self.lag_records)
        metrics.fulfillment_lag_seconds.set(self.lag_seconds)
        for cause in CAUSES:
            metrics.fulfillment_waiting_partitions.labels(cause).set(self._waiting.get(cause, 0))

    def _causes(self, partitions: Mapping[int, Partition], log_answers: bool) -> Mapping[str, int]:
        """How many partitions are not being fulfilled, by cause. Empty when all are."""
        if self._assigned is None:
            return {"group": 0}
        if len(partitions) < len(self._assigned):
            return {self.cause: len(self._assigned)}
        if not log_answers:
            return {"log": len(partitions)}
        return Counter("version" for each in partitions.values() if each.waits)

    @property
    def lag_records(self) -> int:
        return sum(behind.records for behind in self._behind.values())

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest record not in the order book; 0.0 when none is known."""
        oldest = [behind.oldest_at for behind in self._behind.values() if behind.oldest_at is not None]
        return max(0.0, time.time() - min(oldest)) if oldest else 0.0

    def as_json(self) -> dict[str, Any]:
        """What the health file says."""
        return {
            "state": "waiting" if self._waiting else "ok",
            "waiting": dict(self._waiting),
            "partitions": sorted(self._assigned or ()),
            "lag_records": self.lag_records,
            "lag_seconds": round(self.lag_seconds, 3),
        }
