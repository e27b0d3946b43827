"""What reconciliation and repairs ask of the order book, and the little that repairs write there.

Plain functions, called through this module, so that the simulator's twin can replace them. All of
them raise django.db.OperationalError or InterfaceError when PostgreSQL is not there.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from orders.balance import OrderBook
from orders.book import Source
from orders.models import Order, OrderState, Position
from sales.models import Sale, SaleEvent

ACTOR = "reconcile"


class Row(NamedTuple):
    """An order that is confirmed."""

    order_id: UUID
    customer: str
    quantity: int


def summary(sale_id: UUID) -> OrderBook:
    """One statement, one snapshot."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY, {"sale": sale_id})
        return OrderBook(*map(int, cursor.fetchone()))


def states(order_ids: Sequence[UUID]) -> dict[UUID, OrderState]:
    """Of the orders that have a row."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, state FROM orders_order WHERE id = ANY(%s)", (list(order_ids),))
        return {order_id: OrderState(state) for order_id, state in cursor.fetchall()}


def confirmed(sale_id: UUID, chunk: int) -> Iterator[list[Row]]:
    """Every confirmed order of a sale, in chunks of one snapshot. No more than one is in memory."""
    rows: list[Row] = []
    with transaction.atomic():  # the cursor on the server lives as long as it does
        query = Order.objects.filter(sale_id=sale_id, state=OrderState.CONFIRMED).order_by()
        for row in query.values_list("pk", "customer", "quantity").iterator(chunk_size=chunk):
            rows.append(Row(*row))
            if len(rows) == chunk:
                yield rows
                rows = []
    if rows:
        yield rows


def confirmed_units(sale_id: UUID, customers: Sequence[str]) -> dict[str, int]:
    """Of the customers who have any, in this sale."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT customer, sum(quantity) FROM orders_order "
            "WHERE sale_id = %s AND state = %s AND customer = ANY(%s) GROUP BY customer",
            (sale_id, OrderState.CONFIRMED.value, list(customers)),
        )
        return {customer: int(units) for customer, units in cursor.fetchall()}


def positions(topic: str, incarnation: str) -> dict[int, int]:
    """The next offset to fulfill of every partition of which anything has been fulfilled."""
    found = Position.objects.filter(topic=topic, incarnation=incarnation)
    return dict(found.values_list("partition", "next_offset"))


def wind_back(source: Source, expected: int, to: int) -> bool:
    """Moves a position back, unless a consumer has moved it meanwhile. True: it moved."""
    return bool(
        Position.objects.filter(**source._asdict(), next_offset=expected, next_offset__gt=to).update(
            next_offset=to
        )
    )


def refresh(sale: Sale) -> None:
    """Reads a sale anew, in place."""
    sale.refresh_from_db()


def note(sale_id: UUID, action: str, reason: str, detail: dict[str, Any]) -> None:
    """One event in the sale's history for each repair."""
    SaleEvent.objects.create(sale_id=sale_id, actor=ACTOR, action=action, reason=reason[:500], detail=detail)


_SUMMARY = """
SELECT s.allotment, s.sold,
       coalesce(sum(o.quantity) FILTER (WHERE o.state = 'confirmed'), 0),
       count(o.id) FILTER (WHERE o.state = 'confirmed'),
       count(o.id) FILTER (WHERE o.state = 'refused'),
       count(o.id) FILTER (WHERE o.state = 'cancelled'),
       (SELECT count(*) FROM (
            SELECT 1 FROM orders_order WHERE sale_id = s.id AND state = 'confirmed'
            GROUP BY customer HAVING sum(quantity) > s.limit_per_customer) AS above),
       count(o.id) FILTER (WHERE (o.unit_price, o.currency) <> (s.unit_price, s.currency)), s.returned
FROM sales_sale s LEFT JOIN orders_order o ON o.sale_id = s.id
WHERE s.id = %(sale)s
GROUP BY s.id
"""
