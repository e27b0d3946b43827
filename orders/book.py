"""The order book's statements. Each asks PostgreSQL and believes the rows that moved.

Written in SQL because `bulk_create(ignore_conflicts)` cannot say which rows are new, and
`INSERT ... SELECT FROM unnest(...) RETURNING` can, in one statement for a whole batch (measured:
36,000 orders/s against 18,300). All of them run inside the caller's transaction.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from django.db import InterfaceError, InternalError, OperationalError, connection
from django.db import transaction as django_transaction

from orders.claims import Claim
from orders.models import OrderState
from sales.models import SaleState

# PostgreSQL is not there, or cannot be written to: a standby that is not promoted yet says InternalError.
AWAY = (OperationalError, InterfaceError, InternalError)


class Source(NamedTuple):
    """One partition of one incarnation of a topic."""

    topic: str
    incarnation: str
    partition: int


Headers = Sequence[tuple[str, bytes | None]]


class Read(msgspec.Struct, frozen=True):
    """One record as the log gave it. Its headers are asked for when it is parked: reading them takes longer
    than everything else of a record."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Callable[[], Headers | None] = tuple


class SaleFacts(NamedTuple):
    """What an order must agree with."""

    product_id: int
    unit_price: Decimal
    currency: str
    limit_per_customer: int  # units


class Zombie(Exception):
    """The position is not where this consumer left it: another one has taken the partition over."""


def transaction() -> AbstractContextManager[Any]:
    """Everything in it commits together, or nothing does. Raises on leaving it when the commit fails."""
    return django_transaction.atomic(durable=True)


def savepoint() -> AbstractContextManager[Any]:
    """Inside of a transaction: what fails in it takes back no more than itself."""
    return django_transaction.atomic()


def disconnect() -> None:
    """Drops a connection that may be broken: outside a request Django would keep it for ever."""
    connection.close()


def sales(sale_ids: Iterable[UUID]) -> dict[UUID, SaleFacts]:
    """The facts of those sales that exist."""
    rows = _select(
        "SELECT id, product_id, unit_price, currency, limit_per_customer FROM sales_sale WHERE id = ANY(%s)",
        (list(set(sale_ids)),),
    )
    return {sale_id: SaleFacts(*facts) for sale_id, *facts in rows}


def position(source: Source) -> int:
    """The next offset to fulfill; 0 when nothing has been fulfilled."""
    rows = _select(
        "SELECT next_offset FROM orders_position WHERE topic = %s AND incarnation = %s AND partition = %s",
        source,
    )
    return rows[0][0] if rows else 0


def move_position(source: Source, expected: int, following: int) -> None:
    """The fence against zombies: moves the position from where we believe it is, or raises Zombie."""
    moved = _change(
        "UPDATE orders_position SET next_offset = %s "
        "WHERE topic = %s AND incarnation = %s AND partition = %s AND next_offset = %s",
        (following, *source, expected),
    )
    if not moved and expected == 0:
        # Two first-comers meet at the unique key: the second waits, and then moves nothing.
        moved = _change(
            "INSERT INTO orders_position (topic, incarnation, partition, next_offset) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (*source, following),
        )
    if not moved:
        raise Zombie(f"{source.topic}/{source.partition} is not at {expected} any more")


def insert(claims: Sequence[Claim], state: OrderState, reasons: Sequence[str]) -> set[UUID]:
    """Writes an order per claim and returns the ids that are new."""
    # It answers with the ids that are not new, most often none: reading each new one costs more than asking.
    rows = _select(
        "WITH claim AS (SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::numeric[],"
        " %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::timestamptz[]) AS claim"
        " (id, sale_id, customer, quantity, unit_price, currency, reason, pool, epoch, claimed_at)), "
        "new AS (INSERT INTO orders_order"
        " (id, sale_id, customer, quantity, unit_price, currency, state, reason, pool, epoch, claimed_at) "
        "SELECT id, sale_id, customer, quantity, unit_price, currency, %s, reason, pool, epoch, claimed_at "
        "FROM claim ON CONFLICT (id) DO NOTHING RETURNING id) "
        "SELECT id FROM claim WHERE id NOT IN (SELECT id FROM new)",
        (
            _array(claim.order_id for claim in claims),
            _array(claim.sale_id for claim in claims),
            _texts(claim.user_id for claim in claims),
            _array(claim.quantity for claim in claims),
            _array(claim.unit_price for claim in claims),
            _texts(claim.currency for claim in claims),
            _texts(reasons),
            _array(claim.pool for claim in claims),
            _array(claim.epoch for claim in claims),
            _array(claim.claimed_at for claim in claims),
            str(state),
        ),
    )
    return {claim.order_id for claim in claims} - {row[0] for row in rows}


def sell(sale_id: UUID, units: int) -> bool:
    """I1: adds to the sale's sold units, or moves nothing because the allotment would not hold them: what
    went back into the product when the sale was settled is not the sale's any more."""
    return bool(
        _change(
            # The difference, not the sum: a sum of two integers may leave the integer's range.
            "UPDATE sales_sale SET sold = sold + %s WHERE id = %s AND %s <= allotment - sold - returned",
            (units, sale_id, units),
        )
    )


def above_limit(sale_ids: Iterable[UUID], customers: Iterable[str]) -> dict[tuple[UUID, str], int]:
    """I4: by how many units customers, among these, have confirmed more of a sale than its limit."""
    rows = _select(
        # OFFSET 0 makes PostgreSQL look each customer up. Where its statistics are old it would else read
        # the whole sale, for each customer: a second a batch, and growing.
        "SELECT sale_id, customer, sum(quantity) - limit_per_customer"
        " FROM unnest(%s::text[]) AS buyer (name),"
        " LATERAL (SELECT sale_id, customer, quantity, state FROM orders_order"
        " WHERE customer = buyer.name AND sale_id = ANY(%s::uuid[]) OFFSET 0) AS bought"
        " JOIN sales_sale ON sales_sale.id = sale_id WHERE bought.state = %s"
        " GROUP BY sale_id, customer, limit_per_customer HAVING sum(quantity) > limit_per_customer",
        (_texts(set(customers)), _array(set(sale_ids)), OrderState.CONFIRMED.value),
    )
    return {(sale_id, customer): int(units) for sale_id, customer, units in rows}


def unsell(sale_id: UUID, units: int) -> int | None:
    """Takes cancelled units out of the sold ones. Those of a settled sale go back into the product whose id
    is returned, by `restock`: behind all sales of the transaction, as for everybody who needs both."""
    moved = _select(
        "UPDATE sales_sale SET sold = sold - %s, returned = returned + CASE state WHEN %s THEN %s ELSE 0 END"
        " WHERE id = %s AND sold >= %s RETURNING state, product_id",
        (units, SaleState.SETTLED.value, units, sale_id, units),
    )
    if not moved:
        raise RuntimeError(f"sale {sale_id} has sold fewer than the {units} units that are cancelled")
    [(state, product_id)] = moved
    return product_id if state == SaleState.SETTLED else None


def restock(product_id: int, units: int) -> None:
    """Adds units to a product's stock."""
    _change("UPDATE sales_product SET stock = stock + %s WHERE id = %s", (units, product_id))


def lock_in_order(sale_ids: Iterable[UUID]) -> None:
    """Takes the row locks of several sales in one order for everybody, so that nobody deadlocks."""
    for sale_id in sorted(sale_ids):
        _change("UPDATE sales_sale SET sold = sold WHERE id = %s", (sale_id,))


def refuse(order_ids: Sequence[UUID], reason: str) -> None:
    """confirmed -> refused, for orders of this very transaction."""
    moved = _change(
        "UPDATE orders_order SET state = %s, reason = %s WHERE id = ANY(%s) AND state = %s",
        (OrderState.REFUSED.value, reason, list(order_ids), OrderState.CONFIRMED.value),
    )
    if moved != len(order_ids):
        raise RuntimeError(f"{len(order_ids)} orders to refuse, {moved} were there")


def cancel(reasons: dict[UUID, str]) -> list[tuple[UUID, UUID, int]]:
    """confirmed -> cancelled. Returns (order, sale, quantity) of those that moved: the rest is terminal."""
    return _select(
        "UPDATE orders_order o SET state = %s, reason = cancel.reason "
        "FROM unnest(%s::uuid[], %s::text[]) AS cancel (id, reason) "
        "WHERE o.id = cancel.id AND o.state = %s RETURNING o.id, o.sale_id, o.quantity",
        (OrderState.CANCELLED.value, list(reasons), list(reasons.values()), OrderState.CONFIRMED.value),
    )


def states(order_ids: Iterable[UUID]) -> dict[UUID, tuple[OrderState, str]]:
    """State and reason of the orders that have a row."""
    wanted = list(order_ids)
    if not wanted:  # of most batches: every order in them is new
        return {}
    rows = _select("SELECT id, state, reason FROM orders_order WHERE id = ANY(%s)", (wanted,))
    return {order_id: (OrderState(state), reason) for order_id, state, reason in rows}


def add_events(changes: Sequence[tuple[UUID, OrderState, str]]) -> None:
    """One event per change of an order, in the same transaction as the change."""
    ids, new_states, reasons = zip(*changes, strict=True) if changes else ((), (), ())
    _change(
        "INSERT INTO orders_orderevent (order_id, state, reason) "
        "SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[])",
        (_array(ids), _array(new_states), _texts(reasons)),
    )


def park(source: Source, read: Read, cause: str) -> None:
    """Puts a record aside, whole."""
    _change(
        'INSERT INTO orders_parkedrecord (topic, incarnation, partition, "offset", key, value, headers,'
        " cause) VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb, %s) ON CONFLICT DO NOTHING",
        (
            *source,
            read.offset,
            read.key or b"",
            read.value or b"",
            json.dumps([[name, _readable(value)] for name, value in read.headers() or ()]),
            cause.replace("\0", "\\0")[:500],
        ),
    )


def parked_offsets(source: Source, first: int, following: int) -> list[int]:
    """The parked offsets in [first, following), in order."""
    rows = _select(
        'SELECT "offset" FROM orders_parkedrecord WHERE topic = %s AND incarnation = %s AND partition = %s'
        ' AND "offset" >= %s AND "offset" < %s ORDER BY "offset"',
        (*source, first, following),
    )
    return [row[0] for row in rows]


def _array(items: Iterable[Any]) -> str:
    """An array literal of UUIDs, numbers, times and states. JSON writes them as PostgreSQL reads them, and
    msgspec writes JSON ten times as fast as psycopg writes a list."""
    return "{" + msgspec.json.encode(list(items)).decode()[1:-1] + "}"


def _texts(texts: Iterable[str]) -> str:
    """An array literal of strings that somebody else chose: JSON would write a line break as `\\n`."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _readable(value: bytes | None) -> str | dict[str, str] | None:
    """A header's value as text for people, or in base64 where JSON could not give it back unchanged."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
    return {"base64": b64encode(value).decode()} if "\0" in text else text


def _select(statement: str, arguments: Sequence[Any]) -> list[Any]:
    with _cursor() as cursor:
        return cursor.execute(statement, arguments).fetchall()


def _change(statement: str, arguments: Sequence[Any]) -> int:
    with _cursor() as cursor:
        return cursor.execute(statement, arguments).rowcount


@contextmanager
def _cursor() -> Iterator[psycopg.Cursor[Any]]:
    """Arguments beside the statement: Django's own cursor quotes them into it, which costs both sides."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        yield cursor
