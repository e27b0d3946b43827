"""Each claim of the gate beside its row in the order book, in chunks, while both go on.

A million claims are neither held in memory nor asked of Redis in one call. Between two books every
claim looks wrong for a moment, so whatever contradicts its row is looked at twice: what has gone
away by itself is no stray. What has no row is a stray only when nothing is left to read in the log.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import redis

from orders import repair_book
from orders.balance import ClaimsBook
from orders.models import OrderState
from sales import gate
from sales.gate import POOL, ClaimLetter, GateClaim
from sales.models import Sale

CHUNK = 1000  # claims a call: about a millisecond of the gate's time
# What looks wrong waits for its second look, at most so many of them at about 300 bytes each.
SUSPECTS = 50_000
SECOND_LOOK_SECONDS = 1.0
# I8: no claim stays held for so long while the log is up.
LATE_SECONDS = 30.0

ReadToTheEnd = Callable[[], bool]
Item = TypeVar("Item")


class Kind(StrEnum):
    """What is wrong between a claim and its row."""

    LATE = "late"  # held for too long, no row
    WITHOUT_ROW = "without_row"  # queued or settled, no row
    TO_RELEASE = "to_release"
    TO_SETTLE = "to_settle"
    UNKNOWN = "unknown"  # a row, and no claim


class Stray(NamedTuple):
    """A claim that contradicts its row. `claim` is None for an order that the gate does not know."""

    kind: Kind
    order_id: UUID
    quantity: int
    claim: GateClaim | None


class Comparison:
    """One pass over the claims of a sale. Iterate over `strays`, then read `book`.

    `read_to_the_end` says whether the order book has everything that the log has, at the moment of
    the call. `seconds` bounds the pass; `late_seconds` is how long a claim may be held.
    """

    def __init__(
        self,
        client: redis.Redis,
        sale: Sale,
        read_to_the_end: ReadToTheEnd,
        *,
        seconds: float | None = None,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        self._client, self._sale, self._read_to_the_end = client, sale, read_to_the_end
        self._keys = gate.pool_keys(sale.id, POOL)
        self._until = None if seconds is None else time.monotonic() + seconds
        self._late_ms = 1000 * late_seconds
        self._reading = False  # something is left to read: claims without a row are on their way
        self.book = ClaimsBook(0)

    def strays(self) -> Iterator[list[Stray]]:
        """What stays wrong, in chunks. Raises gate.GateUnreachable, and what the order book raises."""
        yield from self._twice(self._of_claims(), self._claims_again)
        yield from self._twice(self._of_rows(), self._rows_again)
        self._count_customers()

    def _add(self, **counts: int) -> None:
        self.book = self.book._replace(
            **{name: getattr(self.book, name) + count for name, count in counts.items()}
        )

    def _time_is_up(self) -> bool:
        if self._until is not None and time.monotonic() > self._until:
            self.book = self.book._replace(complete=False)
        return not self.book.complete

    def _twice(
        self, suspects: Iterator[Stray], again: Callable[[Sequence[Stray]], Iterator[Stray]]
    ) -> Iterator[list[Stray]]:
        """Lets suspects wait a moment, and yields those that are the same the second time."""
        while waiting := list(islice(suspects, SUSPECTS)):
            time.sleep(SECOND_LOOK_SECONDS)
            # Asked after the claims were seen, and before their rows are looked for again: what was
            # acknowledged then, and has been read, has its row.
            missing = any(stray.kind in (Kind.LATE, Kind.WITHOUT_ROW) for stray in waiting)
            if missing and not self._read_to_the_end():
                self._reading = True
            for chunk in _chunks(waiting, CHUNK):
                before = {(stray.order_id, stray.kind) for stray in chunk}
                stayed = [stray for stray in again(chunk) if (stray.order_id, stray.kind) in before]
                for kind in Kind:
                    quantities = [stray.quantity for stray in stayed if stray.kind == kind]
                    self._add(**{kind.value: len(quantities), f"{kind.value}_units": sum(quantities)})
                if stayed:
                    yield stayed

    # From the claims to the rows

    def _of_claims(self) -> Iterator[Stray]:
        found = self._scan(self._keys.claims)
        for chunk in _chunks(found, CHUNK):
            claims = {UUID(order_id): gate.parse_claim(value) for order_id, value in chunk}
            units = dict.fromkeys(("h", "q", "s", "r"), 0)
            for claim in claims.values():
                units[claim.letter] += claim.quantity
            self._add(
                compared=len(claims), held_units=units["h"], queued_units=units["q"], settled_units=units["s"]
            )
            yield from self._suspect(claims)
            if self._time_is_up():
                return

    def _suspect(self, claims: dict[UUID, GateClaim]) -> Iterator[Stray]:
        """The claims before the rows: what reaches the order book meanwhile has left the gate before."""
        taking = {
            order_id: claim for order_id, claim in claims.items() if claim.letter != ClaimLetter.RELEASED
        }
        states = repair_book.states(list(taking))
        now: int | None = None
        for order_id, claim in taking.items():
            state = states.get(order_id)
            kind = None
            if state in (OrderState.REFUSED, OrderState.CANCELLED):
                kind = Kind.TO_RELEASE
            elif state == OrderState.CONFIRMED:
                kind = Kind.TO_SETTLE if claim.letter != ClaimLetter.SETTLED else None
            elif self._reading:
                continue
            elif claim.letter != ClaimLetter.HELD:
                kind = Kind.WITHOUT_ROW
            else:
                now = self._now_ms() if now is None else now
                kind = Kind.LATE if now - gate.to_ms(claim.claimed_at) > self._late_ms else None
            if kind is not None:
                yield Stray(kind, order_id, claim.quantity, claim)

    def _claims_again(self, suspects: Sequence[Stray]) -> Iterator[Stray]:
        values = self._ask("hmget", self._keys.claims, [str(stray.order_id) for stray in suspects])
        known = zip(suspects, values, strict=True)
        return self._suspect({stray.order_id: gate.parse_claim(v) for stray, v in known if v is not None})

    # From the rows to the claims

    def _of_rows(self) -> Iterator[Stray]:
        for rows in repair_book.confirmed(self._sale.id, CHUNK):
            if self._time_is_up():
                return
            yield from self._unknown([Stray(Kind.UNKNOWN, row.order_id, row.quantity, None) for row in rows])

    def _unknown(self, confirmed: Sequence[Stray]) -> Iterator[Stray]:
        """A claim that the gate has keeps its customer's count as well: settle and release move both."""
        values = self._ask("hmget", self._keys.claims, [str(stray.order_id) for stray in confirmed])
        for stray, value in zip(confirmed, values, strict=True):
            if value is None or value.startswith(ClaimLetter.RELEASED):
                yield stray

    def _rows_again(self, suspects: Sequence[Stray]) -> Iterator[Stray]:
        unknown = list(self._unknown(suspects))
        # The rows after the claims: an order that is cancelled meanwhile is released after its row says so.
        states = repair_book.states([stray.order_id for stray in unknown])
        return (stray for stray in unknown if states.get(stray.order_id) == OrderState.CONFIRMED)

    # Customers

    def _count_customers(self) -> None:
        """Units per customer in both books. While claims are between them the gate may count more."""
        book = self.book
        at_rest = not (book.held_units or book.queued_units or book.without_row or book.to_release)
        suspects = self._customers(at_rest)
        while waiting := list(islice(suspects, SUSPECTS)):
            time.sleep(SECOND_LOOK_SECONDS)
            for chunk in _chunks(waiting, CHUNK):
                stayed = self._miscounted([customer for customer, _ in chunk], at_rest) & set(chunk)
                above = sum(more for _, more in stayed)
                self._add(customers_above=above, customers_below=len(stayed) - above)

    def _customers(self, at_rest: bool) -> Iterator[tuple[str, bool]]:
        for chunk in _chunks(self._scan(self._keys.customers), CHUNK):
            if self._time_is_up():
                return
            yield from self._miscounted([customer for customer, _ in chunk], at_rest)

    def _miscounted(self, customers: list[str], at_rest: bool) -> set[tuple[str, bool]]:
        """Who has a wrong count of units in the gate, and whether it is too high."""
        confirmed = repair_book.confirmed_units(self._sale.id, customers)
        values = self._ask("hmget", self._keys.customers, customers)
        found = set()
        for customer, value in zip(customers, values, strict=True):
            counted, sold = int((value or "0").partition(":")[0]), confirmed.get(customer, 0)
            if counted < sold or (counted > sold and at_rest):
                found.add((customer, counted > sold))
        return found

    # The gate

    def _scan(self, key: str) -> Iterator[tuple[str, str]]:
        cursor: Any = 0
        while True:
            cursor, part = self._ask("hscan", key, cursor, count=CHUNK)
            yield from part.items()
            if cursor == 0:
                return

    def _now_ms(self) -> int:
        seconds, micros = self._ask("time")
        return int(seconds) * 1000 + int(micros) // 1000

    def _ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        with gate.reaching():
            return getattr(self._client, command)(*arguments, **options)


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
