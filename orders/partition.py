"""Where a consumer stands in one partition, by the books."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from orders.book import Read, Source


@dataclass(slots=True)
class Partition:
    """Begun at the lower of two offsets: `position` is the order book's next offset to fulfill,
    `following` the next one to read. Below the position, records are only settled again.
    """

    source: Source
    position: int
    following: int  # negative: wherever the log begins
    quiet_since: float = field(default_factory=time.monotonic)  # when it began or last gave a record
    ended_at: int = -1  # where the log last said that it ends
    hole_at: int = -1  # where offsets were missing once

    @property
    def known(self) -> int:
        """How far the log must reach, by what the books know."""
        return max(self.position, self.following)

    def unseen(self, records: Sequence[Read]) -> list[Read]:
        """Without what came from before a seek."""
        return [record for record in records if record.offset >= self.following]

    def hole_in(self, records: Sequence[Read]) -> int | None:
        """The offset that is missing before or among these records, the first time it is missing.

        Whoever meets a hole reads again; one that stays is the log's own, and is believed.
        """
        if self.following < 0:  # the log's beginning, which must not lie above the position
            self.following = min(records[0].offset, self.position)
        expected = self.following
        for record in records:
            if record.offset != expected and self.hole_at != expected:
                self.hole_at = expected
                return expected
            expected = record.offset + 1
        return None

    def advance(self, following: int) -> None:
        self.following = following
        self.quiet_since = time.monotonic()
