"""Where a consumer stands in one partition, by the books, and what it does with the records of it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orders import book
from orders.book import Read, Source, Zombie
from orders.fulfillment import Batch, NewerVersion, Outcome, fulfill, recall

# After how long without a record an end of the log that lies before the books is believed.
QUIET_SECONDS = 5.0


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
    oldest_at: float | None = None  # Unix seconds: nothing that is not in the order book is older
    waits_until: float | None = None  # on the monotonic clock; None: it is being read
    waited_at: int = -1  # the offset of the record it last waited for

    @property
    def known(self) -> int:
        """How far the log must reach, by what the books know."""
        return max(self.position, self.following)

    @property
    def drained(self) -> bool:
        """Whether it has been fulfilled up to the end of the log."""
        return not self.waits and self.ended_at >= self.known

    @property
    def waits(self) -> bool:
        """Whether its next record is one that it has waited for and still could not read."""
        return self.waited_at == self.following

    def outlasts(self, end: int) -> bool:
        """Whether the books have read more than the log has. `end` is negative while it is not known.

        Kafka complains of an offset that is not there, Tansu says nothing at all. After a while in which
        nothing came, the end we know is not one from before.
        """
        return 0 <= end < self.known and time.monotonic() - self.quiet_since > QUIET_SECONDS

    def unseen(self, records: Sequence[Read]) -> Sequence[Read]:
        """Without what came from before a seek."""
        if records[0].offset >= self.following:
            return records
        return [record for record in records if record.offset >= self.following]

    def hole_in(self, records: Sequence[Read]) -> int | None:
        """The offset that is missing before or among these records, the first time it is missing.

        Whoever meets a hole reads again; one that stays is the log's own, and is believed.
        """
        if self.following < 0:  # the log's beginning, which must not lie above the position
            self.following = min(records[0].offset, self.position)
        if self.hole_at == records[0].offset:
            self.hole_at = -1  # it was none; a record that is read again and again must not become one
        expected = self.following
        for record in records:
            if record.offset != expected and self.hole_at != expected:
                self.hole_at = expected
                return expected
            expected = record.offset + 1
        return None

    def take(
        self, records: Sequence[Read], poison_in_a_row: int | None
    ) -> tuple[list[Outcome], NewerVersion | None]:
        """Fulfills these records, as far as this release can read them; then the error says what is next.

        Raises what `fulfill` raises. Records below the position are only looked up.
        """
        known = []
        if records[0].offset < self.position:
            known = [record for record in records if record.offset < self.position]
        fresh = records[len(known) :]
        outcomes = recall(known) if known else []
        late: NewerVersion | None = None
        try:
            outcomes += self._fulfill(fresh, poison_in_a_row)
        except NewerVersion as error:
            late = error
            readable = [record for record in fresh if record.offset < error.offset]
            outcomes += self._fulfill(readable, poison_in_a_row)
        self.following = late.offset if late else records[-1].offset + 1
        self.quiet_since = time.monotonic()
        return outcomes, late

    def wait(self, seconds: float) -> bool:
        """Reads nothing for a while. False: it has waited for this very record before."""
        again = self.waits
        self.waits_until, self.waited_at = time.monotonic() + seconds, self.following
        return not again

    def has_waited(self) -> bool:
        """True once, when the time of waiting is over."""
        if self.waits_until is None or time.monotonic() < self.waits_until:
            return False
        self.waits_until = None
        return True

    def _fulfill(self, fresh: Sequence[Read], poison_in_a_row: int | None) -> list[Outcome]:
        if not fresh:
            return []
        batch = Batch(self.source, self.position, fresh)
        outcomes = fulfill(batch, poison_in_a_row)
        self.position = batch.following
        return outcomes


def look_for_what_was_forgotten(partitions: Iterable[Partition]) -> None:
    """Raises Zombie when the order book is behind what it had: a PostgreSQL that failed over may have lost
    its last commits, and where nothing new comes in no batch would notice."""
    for partition in partitions:
        if book.position(partition.source) < partition.position:
            raise Zombie(f"the order book has forgotten records of {partition.source}")
