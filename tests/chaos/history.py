"""What the buyers saw: every question and every answer, with its moment."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

# Kinds of answers. `refused` is definite: there will be no order for that key unless it asks again.
QUEUED, HELD, REFUSED, LATER, UNKNOWN, BROKEN = "queued", "held", "refused", "later", "unknown", "error"


class Said(NamedTuple):
    """One answer. Moments are on the monotonic clock; `what` is the problem's type or the status."""

    asked: float
    at: float
    kind: str
    what: str = ""
    order_id: UUID | None = None
    replayed: bool = False


@dataclass
class Attempt:
    """One buyer's wish: all that was asked with one key, and all that was answered."""

    customer: str
    key: str
    quantity: int
    said: list[Said] = field(default_factory=list)
    settled: bool = False  # the buyer has stopped asking
    cancelled: bool = False  # the buyer has asked for its cancellation

    @property
    def order_ids(self) -> set[UUID]:
        return {said.order_id for said in self.said if said.order_id}

    @property
    def promised_at(self) -> float | None:
        """When it was first told `queued`: the promise."""
        return next((said.at for said in self.said if said.kind == QUEUED), None)

    @property
    def held_only(self) -> bool:
        return self.promised_at is None and any(said.kind == HELD for said in self.said)

    @property
    def refused(self) -> bool:
        """The last word was a definite refusal."""
        return bool(self.said) and self.said[-1].kind == REFUSED


class History:
    """Every attempt of one row. Written by the buyers' thread, read by the row's."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.promised = 0  # attempts that have been told `queued`
        self.answers: Counter[str] = Counter()
        self.last_fresh = float("-inf")  # when a key was last promised for the first time
        self.fresh_asked = float("-inf")  # and when the answer that granted its unit had been asked for
        self.sold_out_in_a_row = 0

    def open(self, customer: str, key: str, quantity: int) -> Attempt:
        attempt = Attempt(customer, key, quantity)
        self.attempts.append(attempt)
        return attempt

    def add(self, attempt: Attempt, said: Said) -> None:
        first = said.kind == QUEUED and attempt.promised_at is None
        attempt.said.append(said)
        if first:
            self.promised += 1
            self.last_fresh = said.at
            self.fresh_asked = max(self.fresh_asked, next(s.asked for s in attempt.said if s.order_id))
        self.answers[f"{said.kind} {said.what}".strip()] += 1
        if said.what == "sold-out":
            self.sold_out_in_a_row += 1
        elif said.kind in (QUEUED, HELD) and not said.replayed:
            self.sold_out_in_a_row = 0

    def between(self, start: float, end: float) -> list[Said]:
        """Answers to what was asked in [start, end)."""
        return [
            said
            for attempt in list(self.attempts)
            for said in list(attempt.said)
            if start <= said.asked < end
        ]

    def slowest(self, start: float, end: float) -> float:
        """Seconds the slowest of those answers took; 0 where there are none."""
        return max((said.at - said.asked for said in self.between(start, end)), default=0.0)
