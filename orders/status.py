"""How an order stands: from the order book when it has the row, until then from the gate.

The order book is asked first because it is the proof; the gate answers for what has been
promised and not yet written, and for everything when PostgreSQL is down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog

from orders.models import Order
from sales.batching import GroupCommit, QueueFull
from sales.database import Database, DatabaseAway
from sales.gate import ClaimLetter, Fenced
from sales.turnstile import Turnstile

logger = structlog.get_logger(__name__)

LISTED = 100  # of one customer at once
_JUST_ARMED_SECONDS = 0.05  # an order may come before the news of its sale; made-up ids may not cost more
_STATES = {
    ClaimLetter.HELD: "held",
    ClaimLetter.QUEUED: "queued",
    # Settled and released are results of the order book: they are seen here only while it is down.
    ClaimLetter.SETTLED: "confirmed",
    ClaimLetter.RELEASED: "cancelled",
}


@dataclass(frozen=True)
class Standing:
    """One order, whichever book told us. Times are UTC, the price is per unit."""

    order_id: UUID
    sale_id: UUID
    product_id: int
    slug: str
    customer: str
    state: str
    reason: str
    quantity: int
    unit_price: Decimal
    currency: str
    pool: int
    epoch: int
    claimed_at: datetime

    @property
    def final(self) -> bool:
        return self.state not in ("held", "queued")

    def body(self) -> dict[str, Any]:
        return {
            "order_id": self.order_id,
            "state": self.state,
            "reason": self.reason,
            "final": self.final,
            "sale": self.slug,
            "quantity": self.quantity,
            "unit_price": f"{self.unit_price:.2f}",
            "currency": self.currency,
            "claimed_at": self.claimed_at,
            "status_url": f"/api/v1/orders/{self.order_id}",
            "server_time": datetime.now(UTC),
        }


class Standings:
    """Tells how orders stand. One per process: whoever polls at the same moment shares one query."""

    def __init__(self, turnstile: Turnstile, database: Database) -> None:
        self._turnstile = turnstile
        self._database = database
        self._rows = GroupCommit(self._read, most=500, in_flight=2)
        # A query each: few at a time, so that a crowd of these never looks like a database that is away.
        self._lists = GroupCommit(self._list, most=20, in_flight=2, waiting=1000)

    async def find(self, order_id: UUID) -> Standing | None:
        """The order with this id, or None when neither book knows it.

        Raises sales.gate.GateUnreachable or Fenced, and sales.database.DatabaseAway when the order
        book cannot be asked and the gate does not know: then nobody can tell.
        """
        try:
            written = await self.written(order_id)
        except DatabaseAway as error:
            logger.warning(
                "order book unreachable, asking the gate", order_id=str(order_id), error=str(error)
            )
            standing = await _promised(order_id, self._turnstile)
            if standing is None:
                raise DatabaseAway(str(error)) from error
            return standing
        return written or await _promised(order_id, self._turnstile)

    async def written(self, order_id: UUID) -> Standing | None:
        """What the order book says of it, None without a row. Raises sales.database.DatabaseAway."""
        try:
            order = await self._rows.submit(order_id)
        except QueueFull as error:
            raise DatabaseAway(str(error)) from error
        return _written(order) if order else None

    async def of_customer(self, customer: str) -> list[Standing]:
        """The customer's newest LISTED orders in the order book. Raises sales.database.DatabaseAway."""
        try:
            return await self._lists.submit(customer)
        except QueueFull as error:
            raise DatabaseAway(str(error)) from error

    async def _list(self, customers: Sequence[str]) -> list[list[Standing]]:
        def ask() -> list[list[Standing]]:
            orders = Order.objects.select_related("sale").order_by("-claimed_at", "id")
            return [
                [_written(order) for order in orders.filter(customer=customer)[:LISTED]]
                for customer in customers
            ]

        return await self._database.ask(ask)

    async def _read(self, order_ids: Sequence[UUID]) -> list[Order | None]:
        found = await self._database.ask(lambda: Order.objects.select_related("sale").in_bulk(order_ids))
        return [found.get(order_id) for order_id in order_ids]


def _written(order: Order) -> Standing:
    return Standing(
        order_id=order.id,
        sale_id=order.sale_id,
        product_id=order.sale.product_id,
        slug=order.sale.slug,
        customer=order.customer,
        state=order.state,
        reason=order.reason,
        quantity=order.quantity,
        unit_price=order.unit_price,
        currency=order.currency,
        pool=order.pool,
        epoch=order.epoch,
        claimed_at=order.claimed_at,
    )


async def _promised(order_id: UUID, turnstile: Turnstile) -> Standing | None:
    # An order id does not tell its sale. Few sales are armed at once, and one round trip asks them all.
    # What is remembered of them may be a second old: nobody is told "unknown" by old news.
    published = await turnstile.published()
    try:
        found, fenced = await turnstile.claim_of(order_id, published), None
    except Fenced as error:
        found, fenced = None, error
    if found is None and (newer := await turnstile.published(seconds=_JUST_ARMED_SECONDS)) != published:
        found, fenced = await turnstile.claim_of(order_id, newer), None
    if fenced:
        raise fenced
    if found is None:
        return None
    facts, claim = found
    return Standing(
        order_id=order_id,
        sale_id=facts.sale_id,
        product_id=facts.product_id,
        slug=facts.slug,
        customer=claim.customer,
        state=_STATES[claim.letter],
        reason="",
        quantity=claim.quantity,
        unit_price=Decimal(facts.unit_price),
        currency=facts.currency,
        pool=facts.pool,
        epoch=claim.epoch,
        claimed_at=claim.claimed_at,
    )
