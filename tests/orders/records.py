"""Claims, cancels and records as a gate and a log would give them."""

import asyncio
import threading
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
from django.db import connection, connections

from orders import claims
from orders.book import Read, Source
from orders.fulfillment import Batch
from sales.gate import Attempt, Verdict, from_ms
from sales.models import Sale
from sales.turnstile import Turnstile


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
            "unit_price": Decimal(sale.unit_price),  # a sale fresh from the factory has text
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
            found.append(Read(offset, message, b"a key", lambda: [("ce_id", b"x")]))
        else:
            record = claims.encode(message, 0)
            found.append(Read(offset, record.value, record.key, partial(tuple, record.headers)))
    return found


def batch_of(source: Source, *messages: claims.Message | bytes | None, first: int = 0) -> Batch:
    """A batch that begins at the position it expects."""
    return Batch(source, first, reads(*messages, first=first))


def take(sale: Sale, count: int = 1, quantity: int = 1) -> list[claims.Claim]:
    """Claims of as many new customers, granted by the real gate and held there."""

    async def attempts() -> list[claims.Claim]:
        turnstile = Turnstile()
        facts = await turnstile.facts(sale.slug)
        assert facts is not None
        granted = []
        for _ in range(count):
            claim = claim_of(sale, quantity=quantity, epoch=facts.epoch)
            answer = await turnstile.attempt(facts, Attempt(str(claim.order_id), claim.user_id, quantity))
            assert answer.verdict is Verdict.CLAIMED, answer
            granted.append(msgspec.structs.replace(claim, claimed_at=from_ms(answer.first)))
        await turnstile.close()
        return granted

    return asyncio.run(attempts())


def kill_this_connection() -> None:
    """Ends our own backend from another connection, as a crash of the server would."""
    victim = connection.connection.info.backend_pid

    def kill() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (victim,))
        connections.close_all()

    thread = threading.Thread(target=kill)
    thread.start()
    thread.join(30)
