"""Fulfillment: a batch of one partition becomes orders, in one transaction. Knows nothing of Kafka.

Everything a batch does commits or rolls back together with the position, so that a consumer may
die anywhere: the next one finds the position and the rows in agreement. The order of the steps:

1. The position moves from the expected offset. A zombie's batch ends here, before it has written.
2. Claims of an epoch before the pool's last barrier are dropped: the gate they came from is gone, and
   the one that stands was loaded without them.
3. Orders are inserted; a claim that has its row already changes nothing.
4. What a customer has above the limit is refused (I4; the gate refuses it first).
5. One conditional UPDATE per sale takes the units; where it moves no row, one by one in log
   order, and the excess is refused. After the inserts, so that the sale's row is locked briefly.
6. Events of what changed, barriers that were passed, records that cannot be used.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, cast
from uuid import UUID

import msgspec
import structlog
from django.db import DataError, IntegrityError

from orders import book, epochs, metrics
from orders.book import Read, Source
from orders.claims import BadRecord, Barrier, Cancel, Claim, claim_in, decode, sale_in
from orders.models import OrderState
from orders.sifting import NewerVersion, Parked, names_in, one_line, sift
from sales import crashpoints

# So many records in a row that all have to be parked are not an accident of one record: it is this
# release that cannot read them. Better to stop with the log untouched than to park a whole sale.
POISON_IN_A_ROW = 20
SOLD_OUT = "sold_out"
LIMIT_REACHED = "limit_reached"

_POISON = (DataError, IntegrityError, UnicodeError)  # of the data, not of the connection
__all__ = ["Batch", "NewerVersion", "Outcome", "Poisoned", "fulfill", "recall", "write"]
logger = structlog.get_logger(__name__)


class Batch(NamedTuple):
    """Records of one partition in log order. `expected` is the position they were read from."""

    source: Source
    expected: int
    records: Sequence[Read]

    @property
    def following(self) -> int:
        return self.records[-1].offset + 1


class Outcome(msgspec.Struct, frozen=True):
    """What the order book says of one record's order. `new` is False when it said so before."""

    order_id: UUID
    sale_id: UUID
    pool: int
    state: OrderState
    reason: str = ""
    new: bool = True


class Poisoned(Exception):
    """Everything in the partition had to be parked: nothing was written, the position has not moved."""


def fulfill(batch: Batch, poison_in_a_row: int | None = POISON_IN_A_ROW) -> list[Outcome]:
    """Writes the batch and returns an outcome for each order in it, in log order.

    Raises book.Zombie, Poisoned and NewerVersion, with nothing written; django.db.OperationalError and
    InterfaceError when PostgreSQL is not there: then whether it was written is unknown, and the
    position tells. `poison_in_a_row=None` parks without end.
    """
    with metrics.fulfillment_batch_seconds.time():
        try:
            outcomes, parked = _transact(batch, poison_in_a_row, together=True)
        except _POISON as error:
            logger.warning("batch refused, now one by one", **_where(batch.source), error=one_line(error))
            outcomes, parked = _transact(batch, poison_in_a_row, together=False)
    for state, count in Counter(outcome.state for outcome in outcomes if outcome.new).items():
        metrics.fulfilled_orders.labels(state).inc(count)
    for record, cause in parked:
        metrics.parked_records.inc()
        known = names_in(record.value or b"")
        logger.error("record parked", **_where(batch.source), offset=record.offset, cause=cause, **known)
    return outcomes


def recall(records: Sequence[Read]) -> list[Outcome]:
    """What the order book says of records that were fulfilled before: nothing is written.

    A record without a row (it was parked) has no outcome.
    """
    claims = []
    for read in records:
        try:
            message = decode(read.value)
        except BadRecord:
            continue
        if not isinstance(message, Barrier):
            claims.append(claim_in(message))
    known = book.states({claim.order_id for claim in claims})
    return [_outcome(claim, *known[claim.order_id], new=False) for claim in claims if claim.order_id in known]


def _transact(
    batch: Batch, poison_in_a_row: int | None, *, together: bool
) -> tuple[list[Outcome], list[Parked]]:
    with book.transaction():
        book.move_position(batch.source, batch.expected, batch.following)
        crashpoints.reached("fulfill.after-position")
        sifted = sift(batch.records, patient=poison_in_a_row is not None)
        parked = sifted.parked
        if together:
            outcomes = write([message for _, message in sifted.usable])
        else:
            outcomes = []
            for read, message in sifted.usable:
                try:
                    with book.savepoint():
                        outcomes += write([message])
                except _POISON as error:
                    parked.append(Parked(read, one_line(error)))
        epochs.move_to(sifted.barriers)
        for read, cause in parked:
            book.park(batch.source, read, cause)
        if parked and poison_in_a_row is not None:
            _stop_a_poisoned_partition(batch, poison_in_a_row, parked[-1])
        crashpoints.reached("fulfill.after-rows")
    if sifted.stale:
        metrics.stale_claims.inc(sifted.stale)
        logger.warning("claims of an earlier epoch dropped", **_where(batch.source), claims=sifted.stale)
    return outcomes, parked


def _stop_a_poisoned_partition(batch: Batch, poison_in_a_row: int, last: Parked) -> None:
    """Raises Poisoned when so many records in a row are parked, however the log is cut into batches."""
    before = batch.records[0].offset - poison_in_a_row + 1
    row, expected = 0, -1
    for offset in book.parked_offsets(batch.source, before, batch.following):
        row = row + 1 if offset == expected else 1
        expected = offset + 1
        if row == poison_in_a_row:
            raise Poisoned(
                f"{poison_in_a_row} records in a row cannot be used, up to {batch.source.topic}/"
                f"{batch.source.partition}@{offset}; the last of this batch: {last.cause}"
            )


def write(messages: Sequence[Claim | Cancel]) -> list[Outcome]:
    """Runs of claims and runs of cancels, in log order: whichever the log shows first wins."""
    runs = [(kind, list(run)) for kind, run in groupby(messages, type)]
    if len(runs) > 1:
        # Each run locks its sales in order; several runs together only keep that order like this.
        book.lock_in_order({sale_in(message) for message in messages})
    outcomes: list[Outcome] = []
    for kind, run in runs:
        outcomes += _confirm(cast(list[Claim], run)) if kind is Claim else _cancel(cast(list[Cancel], run))
    return outcomes


def _confirm(claims: list[Claim]) -> list[Outcome]:
    once: dict[UUID, Claim] = {}
    for claim in claims:
        once.setdefault(claim.order_id, claim)  # the first of each id counts
    unique = list(once.values())
    new = book.insert(unique, OrderState.CONFIRMED, [""] * len(unique))
    known: dict[UUID, tuple[OrderState, str]] = dict.fromkeys(new, (OrderState.CONFIRMED, ""))
    fresh = unique if len(new) == len(unique) else [claim for claim in unique if claim.order_id in new]
    above = book.above_limit(map(sale_in, fresh), (claim.user_id for claim in fresh)) if fresh else {}
    refused: dict[UUID, str] = {}
    by_sale: dict[UUID, list[Claim]] = {}
    for claim in fresh:
        by_sale.setdefault(claim.sale_id, []).append(claim)
    for _, same_sale in sorted(by_sale.items()):  # the order of `lock_in_order`
        refused |= _take_units(same_sale, above)
    for reason in set(refused.values()):
        book.refuse([order_id for order_id, why in refused.items() if why == reason], reason)
    known.update({order_id: (OrderState.REFUSED, reason) for order_id, reason in refused.items()})
    book.add_events([(order_id, *known[order_id]) for order_id in new])
    known.update(book.states(once.keys() - new))
    outcomes = []
    for claim in claims:
        order_id = claim.order_id
        outcomes.append(_outcome(claim, *known[order_id], new=order_id in new))
        new.discard(order_id)  # a second record of it in this batch is a redelivery
    return outcomes


def _take_units(claims: list[Claim], above: dict[tuple[UUID, str], int]) -> dict[UUID, str]:
    """Takes the units of one sale's new claims. Returns the orders to refuse, each with its reason.

    Where all of them fit, in one step; else one by one in log order, so that the outcome is the same
    however the log is cut into batches.
    """
    sale_id = claims[0].sale_id
    rooms = Counter({customer: -units for (of, customer), units in above.items() if of == sale_id})
    if not rooms and book.sell(sale_id, sum(claim.quantity for claim in claims)):
        return {}
    for claim in claims:
        if claim.user_id in rooms:
            rooms[claim.user_id] += claim.quantity  # what the customer may have of these claims
    refused = {}
    for claim in claims:
        if claim.quantity > rooms.get(claim.user_id, claim.quantity):
            refused[claim.order_id] = LIMIT_REACHED
        elif not book.sell(sale_id, claim.quantity):
            refused[claim.order_id] = SOLD_OUT
        elif claim.user_id in rooms:
            rooms[claim.user_id] -= claim.quantity
    return refused


def _cancel(cancels: list[Cancel]) -> list[Outcome]:
    once: dict[UUID, Cancel] = {}
    for cancel in cancels:
        once.setdefault(cancel.claim.order_id, cancel)
    moved = book.cancel({order_id: cancel.reason for order_id, cancel in once.items()})
    returned: Counter[int] = Counter()
    for sale_id, rows in groupby(sorted(moved, key=lambda row: row[1]), key=lambda row: row[1]):
        units = sum(quantity for _, _, quantity in rows)
        product_id = book.unsell(sale_id, units)
        if product_id is not None:
            returned[product_id] += units
    for product_id, units in sorted(returned.items()):
        book.restock(product_id, units)
    new = {order_id for order_id, _, _ in moved}
    # A cancel that comes before its claim writes the row, so that the claim loses.
    early = [cancel for order_id, cancel in once.items() if order_id not in new]
    new |= book.insert(
        [cancel.claim for cancel in early], OrderState.CANCELLED, [cancel.reason for cancel in early]
    )
    known = book.states(once)
    book.add_events([(order_id, *known[order_id]) for order_id in new])
    outcomes = []
    for cancel in cancels:
        order_id = cancel.claim.order_id
        outcomes.append(_outcome(cancel.claim, *known[order_id], new=order_id in new))
        new.discard(order_id)
    return outcomes


def _outcome(claim: Claim, state: OrderState, reason: str, *, new: bool) -> Outcome:
    return Outcome(claim.order_id, claim.sale_id, claim.pool, state, reason, new)


def _where(source: Source) -> dict[str, str | int]:
    return {"topic": source.topic, "partition": source.partition}
