"""Refusals that a process may repeat without asking the gate, because it knows what the gate would say.

An empty bucket has no token before its wait is over; a sale without units has none until some come
back. Either is believed for FLUXGATE_REPEAT_MS at most, counted from before the gate was asked, so a
restock, a release or a new epoch ends it within the 100 ms of docs/api.md. Half-way one request asks
the gate again while the others are still told: a crowd does not stand still for its answer.

A key that has a claim outranks every refusal (I5), and another process may have got it one. So the
gate says with these refusals how many claims it has, and they are repeated only by a process that
knows the customers of that many: those it got claims for itself, and those it has read.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sales.gate import Answer, Attempt, Verdict, parse_claim

# With more claims than this every refusal is asked for: each process would hold all their customers.
MOST_CLAIMS = 200_000
# Reading them may take this share of the time at most, while other processes keep getting claims.
_READING_SHARE = 0.05


class Question(NamedTuple):
    """When the gate was asked, on the monotonic clock, and how many claims this process had got by then."""

    at: float
    granted: int


class Refusals:
    """What one process may repeat of one armed sale, for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._holders: set[str] = set()  # customers who may hold a claim
        self._known = 0  # claims of the gate, each once, whose customers are among them
        self._granted = 0  # claims this process has got
        self._claims = 0  # claims of the gate, as it last said
        self._told: Answer | None = None
        self._quantity = 0
        self._at = self._ask_at = self._until = self._read_at = 0.0

    def repeat(self, attempt: Attempt) -> Answer | None:
        """What the gate would answer, or None: ask it."""
        if self._told is None or attempt.admitted or attempt.customer in self._holders:
            return None
        if attempt.quantity > self._quantity:  # it may be above the limit, which is decided before the units
            return None
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = self._until  # this one asks; the others are told until then
            return None
        return self._told._replace(now=self._told.now + int(1000 * (now - self._at)))

    def repeats(self, answer: Answer) -> bool:
        """Whether this is what others are told at the moment."""
        return self._told is not None and self._told[:2] == answer[:2] and time.monotonic() < self._until

    @property
    def verdict(self) -> Verdict | None:
        """The gate's word for it."""
        return self._told and self._told.verdict

    def hold_for(self, customer: str, now: float) -> bool:
        """Whether a customer is told it as well, who is not admitted: the room lets those pass."""
        return now < self._ask_at and customer not in self._holders

    def ask(self) -> Question:
        """To be called before the gate is asked, and given back with what it says."""
        return Question(time.monotonic(), self._granted)

    def hear(self, question: Question, attempts: Sequence[Attempt], answers: Sequence[Answer]) -> None:
        """The gate's answers, in the order in which it decided."""
        # A claim got since then by another call may or may not be in the numbers of this one.
        alone = question.granted == self._granted
        for attempt, answer in zip(attempts, answers, strict=True):
            verdict = answer.verdict
            if verdict is Verdict.CLAIMED or verdict is Verdict.REPLAYED:
                self._holders.add(attempt.customer)
                self._ask_at = self._until = 0.0
                if verdict is Verdict.CLAIMED:
                    self._granted += 1
                    self._known += 1
            elif attempt.admitted:
                continue
            elif verdict is Verdict.BUSY or verdict is Verdict.SOLD_OUT:
                self._claims = int(answer.second or 0)
                if alone and answer.second and self._claims == self._known:
                    wait = float(answer.first) / 1000 if verdict is Verdict.BUSY else self._seconds
                    self._told, self._quantity, self._at = answer, attempt.quantity, question.at
                    self._until = question.at + min(wait, self._seconds)
                    self._ask_at = min(self._until, question.at + self._seconds / 2)
            else:
                self._ask_at = self._until = 0.0

    def unanswered(self, attempts: Iterable[Attempt]) -> None:
        """The gate was asked and did not answer: it may have granted them."""
        self._holders.update(attempt.customer for attempt in attempts)

    def wants_to_read(self) -> bool:
        """Whether the gate has claims that are not known here, and it is time to read them."""
        return self._known < self._claims <= MOST_CLAIMS and time.monotonic() >= self._read_at

    def read(self, question: Question, claims: Collection[str]) -> None:
        """All claims the gate had when it was asked, and perhaps some that came meanwhile."""
        now = time.monotonic()
        self._read_at = now + (now - question.at) / _READING_SHARE
        self._holders.update(parse_claim(claim).customer for claim in claims)
        if question.granted == self._granted:  # else it is not known which of ours are among them
            self._known = len(claims)
