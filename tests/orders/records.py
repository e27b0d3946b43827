"""Claims, cancels and records as a gate and a log would give them."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from orders import claims
from orders.book import Read, Source
from orders.fulfillment import Batch
from sales.models import Sale


def claim_of(sale: Sale, **facts: Any) -> claims.Claim:
    """A claim at the sale's price, of a new order by a new customer."""
    return claims.Claim(
        **{
            "v": 1,
            "order_id": uuid4(),
            "sale_id": sale.id,
            "product_id": sale.product_id,
            "user_id": f"customer-{uuid4().hex[:8]}",
            "quantity": 1,
            "unit_price": sale.unit_price,
            "currency": sale.currency,
            "pool": 0,
            "epoch": sale.epoch or 1,
            "claimed_at": datetime.now(UTC),
        }
        | facts
    )


def cancel_of(claim: claims.Claim, reason: Any = "buyer") -> claims.Cancel:
    return claims.Cancel(v=1, claim=claim, reason=reason, cancelled_at=datetime.now(UTC))


def reads(*messages: claims.Message | bytes | None, first: int = 0) -> list[Read]:
    """Records at offsets from `first` on. Bytes and None stand as the value itself."""
    found = []
    for offset, message in enumerate(messages, first):
        if isinstance(message, bytes | None):
            found.append(Read(offset, message, b"a key", [("ce_id", b"x")]))
        else:
            record = claims.encode(message, 0)
            found.append(Read(offset, record.value, record.key, record.headers))
    return found


def batch_of(source: Source, *messages: claims.Message | bytes | None, first: int = 0) -> Batch:
    """A batch that begins at the position it expects."""
    return Batch(source, first, reads(*messages, first=first))
