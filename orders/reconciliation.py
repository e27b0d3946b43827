"""Reconciliation: the three books of a sale side by side, and one verdict.

`balance` is a pure comparison; `read` collects what it compares.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import redis
from django.conf import settings
from django.db import connection

from orders.lag import unread
from orders.models import ParkedRecord
from sales import fence, gate
from sales.models import Sale, SaleState
from sales.topic import partition_of

Verdict = Literal["balanced", "under way", "differs"]

# A batch between its two books is no difference: what stays for so long is one.
RETRIES, RETRY_SECONDS = 4, 0.25
_ARMED = {SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED, SaleState.CLOSING, SaleState.CLOSED}


_SELLING = {SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED}
_GATE_STATE: dict[str, str] = {
    SaleState.ARMED: "armed",
    SaleState.OPEN: "open",
    SaleState.PAUSED: "paused",
    SaleState.CLOSING: "closed",
    SaleState.CLOSED: "closed",
}


class OrderBook(NamedTuple):
    """One snapshot of the order book of one sale. Units, except where it says orders or customers."""

    allotment: int
    sold: int
    confirmed: int
    confirmed_orders: int
    refused_orders: int
    cancelled_orders: int
    customers_above_limit: int
    orders_at_another_price: int


class LogBook(NamedTuple):
    """The partition of the sale: records. None: the broker did not tell."""

    unread: int | None
    parked: int


@dataclass(frozen=True)
class Balance:
    """What the books say, what is still between them, and what they contradict each other in."""

    sale: str
    state: str
    epoch: int
    gate: gate.Image | None
    log: LogBook
    book: OrderBook
    sealed: bool = True  # the gate's script is loaded: without it nothing sells
    quiet: bool = True  # the gate has not moved while the books were read
    under_way: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        if self.differences:
            return "differs"
        return "under way" if self.under_way else "balanced"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "verdict": self.verdict,
            "gate": self.gate._asdict() if self.gate else None,
            "log": self.log._asdict(),
            "book": self.book._asdict(),
        }


def balance(
    sale: str,
    state: str,
    epoch: int,
    image: gate.Image | None,
    log: LogBook,
    book: OrderBook,
    *,
    sealed: bool = True,
    quiet: bool = True,
) -> Balance:
    """Compares the books. Pure: the same books, the same balance."""
    result = Balance(sale, state, epoch, image, log, book, sealed, quiet)
    differ = result.differences.append
    if book.sold > book.allotment:
        differ(f"I1: {book.sold} units sold of {book.allotment}")
    if book.sold != book.confirmed:
        differ(f"I1: the sale says {book.sold} units sold, its confirmed orders {book.confirmed}")
    if book.customers_above_limit:
        differ(f"I4: {book.customers_above_limit} customers have more confirmed units than the limit")
    if book.orders_at_another_price:
        differ(f"I6: {book.orders_at_another_price} orders at a price that is not the sale's")
    if state == SaleState.ARMING:
        result.under_way.append("the sale is being armed")
    if log.unread is None:
        result.under_way.append("the broker did not tell how far the log has been read")
    elif log.unread:
        result.under_way.append(f"{log.unread} records of the log are not in the order book yet")
    if state in _ARMED:
        _compare_gate(result)
    return result


def _compare_gate(result: Balance) -> None:
    image, book = result.gate, result.book
    differ = result.differences.append
    if image is None:
        differ("I2: the gate holds nothing of this sale")
        return
    if image.epoch != result.epoch:
        differ(f"the gate is of epoch {image.epoch}, the sale of epoch {result.epoch}")
        return
    if image.state != _GATE_STATE.get(result.state, image.state):
        differ(f"I7: the gate is {image.state}, the sale is {result.state}")
    counters = {name: getattr(image, name) for name in ("remaining", "held", "queued", "settled")}
    if image.loaded != sum(counters.values()) or min(counters.values()) < 0:
        text = ", ".join(f"{units} {name}" for name, units in counters.items())
        differ(f"I2: {image.loaded} units loaded, but {text}")
    left = book.allotment - book.sold
    if image.held or image.queued:
        result.under_way.append(f"{image.held} units are held, {image.queued} queued")
    # Units that left the gate may be on their way to the order book, never the other way round.
    if image.remaining > left:
        differ(f"I2: {image.remaining} units remain in the gate, the order book has only {left} left")
    nothing_comes = result.log.unread == 0 and not image.held and result.quiet
    if image.remaining < left and (nothing_comes or not result.under_way):
        lost = left - image.remaining
        differ(f"I3: {lost} units were granted and are not in the order book, and nothing is left to read")
    if not result.sealed and result.state in _SELLING:
        differ("the gate is fenced: Redis is another incarnation than the one that was armed, nothing sells")


def read(client: redis.Redis, sales: Sequence[Sale]) -> list[Balance]:
    """The balances of these sales, read until they agree or the difference stays.

    Raises gate.GateUnreachable. A broker that does not answer leaves `log.unread` at None.
    """
    for attempt in range(RETRIES):
        before = [gate.image(client, sale.id) for sale in sales]
        lags = unread({partition_of(sale.id) for sale in sales}) if sales else {}
        balances = [_read(client, sale, image, lags) for sale, image in zip(sales, before, strict=True)]
        if attempt + 1 == RETRIES or not any(found.differences for found in balances):
            break
        time.sleep(RETRY_SECONDS)
    return balances


def _read(client: redis.Redis, sale: Sale, before: gate.Image | None, lags: dict[int, int]) -> Balance:
    partition = partition_of(sale.id)
    parked = ParkedRecord.objects.filter(topic=settings.FLUXGATE.kafka_topic, partition=partition).count()
    # The book before the gate: what reaches the book in between has left the gate before.
    book = _read_book(sale)
    image = gate.image(client, sale.id)
    sale.refresh_from_db()
    return balance(
        sale.slug,
        sale.state,
        sale.epoch,
        image,
        LogBook(lags.get(partition), parked),
        book,
        sealed=not fence.fallen(client, [sale]),
        quiet=image == before,
    )


def _read_book(sale: Sale) -> OrderBook:
    with connection.cursor() as cursor:
        cursor.execute(_BOOK, {"sale": sale.pk})  # one statement, one snapshot
        return OrderBook(*map(int, cursor.fetchone()))


_BOOK = """
SELECT s.allotment, s.sold,
       coalesce(sum(o.quantity) FILTER (WHERE o.state = 'confirmed'), 0),
       count(o.id) FILTER (WHERE o.state = 'confirmed'),
       count(o.id) FILTER (WHERE o.state = 'refused'),
       count(o.id) FILTER (WHERE o.state = 'cancelled'),
       (SELECT count(*) FROM (
            SELECT 1 FROM orders_order WHERE sale_id = s.id AND state = 'confirmed'
            GROUP BY customer HAVING sum(quantity) > s.limit_per_customer) AS above),
       count(o.id) FILTER (WHERE (o.unit_price, o.currency) <> (s.unit_price, s.currency))
FROM sales_sale s LEFT JOIN orders_order o ON o.sale_id = s.id
WHERE s.id = %(sale)s
GROUP BY s.id
"""
