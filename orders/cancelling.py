"""Giving an order back: a record in the partition of its claim; whichever the log shows first wins.

Nothing is released here. Fulfillment reads the record, changes the row if it still may, and only
its result returns units to the gate, so that a repeated cancel returns them once.
"""

import asyncio
from datetime import UTC, datetime
from typing import Literal

from django.conf import settings

from orders import claims
from orders.log import Acknowledgements, LogUnavailable
from orders.status import Standing
from sales.topic import partition_of
from sales.turnstile import Turnstile


async def cancel(
    turnstile: Turnstile,
    log: Acknowledgements,
    standing: Standing,
    reason: Literal["buyer", "operator"] = "buyer",
) -> None:
    """Appends the cancel and waits for the acknowledgement.

    Raises LogUnavailable when the log does not take it in time, sales.gate.GateUnreachable or
    Fenced when nobody can tell the sale's partition: repeating is safe.
    """
    # A sale that was settled long ago is not known any more, and where its partition is has not changed.
    facts = await turnstile.facts(standing.slug)
    partition = facts.partition if facts else partition_of(standing.sale_id, standing.pool)
    claim = claims.Claim(
        v=claims.VERSION,
        order_id=standing.order_id,
        sale_id=standing.sale_id,
        product_id=standing.product_id,
        user_id=standing.customer,
        quantity=standing.quantity,
        unit_price=standing.unit_price,
        currency=standing.currency,
        pool=standing.pool,
        epoch=standing.epoch,
        claimed_at=standing.claimed_at,
    )
    record = claims.encode(
        claims.Cancel(v=claims.VERSION, claim=claim, reason=reason, cancelled_at=datetime.now(UTC)),
        partition,
    )
    if not log.available():
        raise LogUnavailable("the log takes no records now")
    acknowledged = log.append(record)
    await asyncio.wait((acknowledged,), timeout=settings.FLUXGATE.promise_seconds)
    if not acknowledged.done() or acknowledged.exception() is not None:
        raise LogUnavailable("the log has not acknowledged the cancel")
