"""PostgreSQL's tables in memory: what each statement of `orders.book` and `orders.epochs` does.

Rows are immutable, so that a copy of all tables is cheap: a transaction works on a copy, a
savepoint is a copy, and a failover that loses commits goes back to an earlier one.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError

from orders.balance import OrderBook
from orders.book import Read, SaleFacts, Source, Zombie
from orders.claims import Claim
from orders.models import OrderState
from orders.repair_book import Row
from sales.fence import GATED, Known
from sales.gate import ClaimLetter, to_ms
from sales.models import Sale

Pool = tuple[UUID, int]


class SaleRow(NamedTuple):
    id: UUID
    slug: str
    product_id: int
    allotment: int
    unit_price: Decimal
    currency: str
    limit_per_customer: int
    opens_at: datetime
    closes_at: datetime
    admission_rate: int
    burst: int
    sold: int = 0
    state: str = "draft"
    epoch: int = 0


class OrderRow(NamedTuple):
    id: UUID
    sale_id: UUID
    customer: str
    quantity: int
    unit_price: Decimal
    currency: str
    state: str
    reason: str
    pool: int
    epoch: int
    claimed_at: datetime


class Tables:
    """One state of the database. Methods that change return what the statement returns."""

    NAMES = ("sales", "orders", "events", "positions", "parked", "barriers", "history", "wrong")

    def __init__(self) -> None:
        self.sales: dict[UUID, SaleRow] = {}
        self.orders: dict[UUID, OrderRow] = {}
        self.events: list[tuple[UUID, str, str]] = []
        self.positions: dict[Source, int] = {}
        self.parked: dict[tuple[Source, int], tuple[Read, str]] = {}
        self.barriers: dict[Pool, int] = {}
        self.history: list[tuple[UUID, str, str]] = []  # (sale, state before, state after)
        self.wrong: list[str] = []  # what no run may show

    def copy(self) -> "Tables":
        other = Tables.__new__(Tables)
        for name in self.NAMES:
            setattr(other, name, getattr(self, name).copy())
        return other

    def check(self) -> None:
        """What a commit may not leave behind: nothing in PostgreSQL refuses it, no code may do it."""
        if any(order_id not in self.orders for order_id, _, _ in self.events):
            self.wrong.append("an event of an order that is not there")
        if any(row.sale_id not in self.sales for row in self.orders.values()):
            self.wrong.append("an order of a sale that is not there")

    # orders.book

    def facts(self, sale_ids: Iterable[UUID]) -> dict[UUID, SaleFacts]:
        found = [self.sales[sale_id] for sale_id in sale_ids if sale_id in self.sales]
        return {
            row.id: SaleFacts(row.product_id, row.unit_price, row.currency, row.limit_per_customer)
            for row in found
        }

    def position(self, source: Source) -> int:
        return self.positions.get(source, 0)

    def move_position(self, source: Source, expected: int, following: int) -> None:
        known = self.positions.get(source)
        if known != expected and not (known is None and expected == 0):
            raise Zombie(f"{source.topic}/{source.partition} is not at {expected} any more")
        self.positions[source] = following

    def insert(self, claims: Sequence[Claim], state: OrderState, reasons: Sequence[str]) -> set[UUID]:
        new = set()
        for claim, reason in zip(claims, reasons, strict=True):
            if claim.order_id in self.orders:
                continue
            self.orders[claim.order_id] = OrderRow(
                claim.order_id, claim.sale_id, claim.user_id, claim.quantity, claim.unit_price,
                claim.currency, str(state), reason, claim.pool, claim.epoch, claim.claimed_at,
            )  # fmt: skip
            new.add(claim.order_id)
        return new

    def sell(self, sale_id: UUID, units: int) -> bool:
        row = self.sales.get(sale_id)
        if row is None or units > row.allotment - row.sold:
            return False
        self.put_sale(row._replace(sold=row.sold + units))
        return True

    def unsell(self, sale_id: UUID, units: int) -> None:
        row = self.sales.get(sale_id)
        if row is None or row.sold < units:
            raise RuntimeError(f"sale {sale_id} has sold fewer than the {units} units that are cancelled")
        self.put_sale(row._replace(sold=row.sold - units))

    def put_sale(self, row: SaleRow) -> None:
        if not 0 <= row.sold <= row.allotment:
            raise IntegrityError('violates check constraint "sale_never_oversold"')
        self.sales[row.id] = row

    def above_limit(self, sale_ids: Iterable[UUID], customers: Iterable[str]) -> dict[tuple[UUID, str], int]:
        sales, wanted = set(sale_ids), set(customers)
        units: dict[tuple[UUID, str], int] = {}
        for row in self.orders.values():
            if row.sale_id in sales and row.customer in wanted and row.state == OrderState.CONFIRMED:
                key = (row.sale_id, row.customer)
                units[key] = units.get(key, 0) + row.quantity
        above = {key: count - self.sales[key[0]].limit_per_customer for key, count in units.items()}
        return {key: count for key, count in above.items() if count > 0}

    def refuse(self, order_ids: Sequence[UUID], reason: str) -> None:
        moved = self._change(order_ids, OrderState.REFUSED, lambda order_id: reason)
        for row in moved:
            sale = self.sales[row.sale_id]
            if reason == "sold_out" and row.quantity <= sale.allotment - sale.sold:
                self.wrong.append(f"I8 order {row.id} was refused, though its units were there")
        if len(moved) != len(order_ids):
            raise RuntimeError(f"{len(order_ids)} orders to refuse, {len(moved)} were there")

    def cancel(self, reasons: dict[UUID, str]) -> list[tuple[UUID, UUID, int]]:
        moved = self._change(list(reasons), OrderState.CANCELLED, reasons.__getitem__)
        return [(row.id, row.sale_id, row.quantity) for row in moved]

    def _change(
        self, order_ids: Sequence[UUID], state: OrderState, reason: Callable[[UUID], str]
    ) -> list[OrderRow]:
        moved = []
        for order_id in order_ids:
            row = self.orders.get(order_id)
            if row is not None and row.state == OrderState.CONFIRMED:
                self.orders[order_id] = row._replace(state=str(state), reason=reason(order_id))
                moved.append(row)
        return moved

    def states(self, order_ids: Iterable[UUID]) -> dict[UUID, tuple[OrderState, str]]:
        found = [self.orders[order_id] for order_id in order_ids if order_id in self.orders]
        return {row.id: (OrderState(row.state), row.reason) for row in found}

    def add_events(self, changes: Sequence[tuple[UUID, OrderState, str]]) -> None:
        for order_id, state, reason in changes:
            self.events.append((order_id, str(state), reason))

    def park(self, source: Source, read: Read, cause: str) -> None:
        self.parked.setdefault((source, read.offset), (read, cause))

    def parked_offsets(self, source: Source, first: int, following: int) -> list[int]:
        return sorted(offset for at, offset in self.parked if at == source and first <= offset < following)

    # orders.epochs, and the steps of `sales.arming`

    def in_states(self, states: Iterable[str]) -> list[Sale]:
        wanted = set(states)
        return [as_sale(row) for row in self.sales.values() if row.state in wanted]

    def begin(self, sale_id: UUID, expected: int, epoch: int) -> bool:
        row = self.sales[sale_id]
        if row.epoch != expected or row.state not in GATED:
            return False
        self.put_sale(row._replace(epoch=epoch))
        return True

    def state(self, sale_id: UUID, epoch: int) -> str | None:
        row = self.sales.get(sale_id)
        return row.state if row is not None and row.epoch == epoch else None

    def passed(self, pools: Iterable[Pool]) -> dict[Pool, int]:
        return {pool: self.barriers.get(pool, 0) for pool in pools}

    def move_to(self, barriers: dict[Pool, int]) -> None:
        for pool, epoch in barriers.items():
            self.barriers[pool] = max(epoch, self.barriers.get(pool, 0))

    def known(self, sale_id: UUID, pool: int) -> list[Known]:
        return [
            Known(
                row.id,
                ClaimLetter.SETTLED if row.state == OrderState.CONFIRMED else ClaimLetter.RELEASED,
                row.quantity,
                to_ms(row.claimed_at),
                row.epoch,
                row.customer,
            )
            for row in self.orders.values()
            if (row.sale_id, row.pool) == (sale_id, pool)
        ]

    def returned(self, sale_id: UUID, pool: int) -> list[UUID]:
        rows = [row for row in self.orders.values() if (row.sale_id, row.pool) == (sale_id, pool)]
        return [row.id for row in rows if row.state != OrderState.CONFIRMED]

    # orders.repair_book

    def summary(self, sale_id: UUID) -> OrderBook:
        sale = self.sales[sale_id]
        rows = [row for row in self.orders.values() if row.sale_id == sale_id]
        confirmed = self.confirmed(sale_id)
        count = [sum(row.state == state for row in rows) for state in ("confirmed", "refused", "cancelled")]
        other = sum((row.unit_price, row.currency) != (sale.unit_price, sale.currency) for row in rows)
        above = self.above_limit([sale_id], [row.customer for row in confirmed])
        units = sum(row.quantity for row in confirmed)
        return OrderBook(sale.allotment, sale.sold, units, *count, len(above), other, 0)

    def confirmed(self, sale_id: UUID) -> list[Row]:
        rows = [row for row in self.orders.values() if row.sale_id == sale_id]
        return [Row(row.id, row.customer, row.quantity) for row in rows if row.state == OrderState.CONFIRMED]

    def wind_back(self, source: Source, expected: int, to: int) -> bool:
        if self.positions.get(source) != expected or expected <= to:
            return False
        self.positions[source] = to
        return True

    def move_sale(
        self, sale_id: UUID, sources: Iterable[str], target: str, expected_epoch: int | None, **values: Any
    ) -> bool:
        row = self.sales[sale_id]
        if row.state not in set(sources) or expected_epoch not in (None, row.epoch):
            return False
        self.put_sale(row._replace(state=str(target), **values))
        self.history.append((sale_id, row.state, str(target)))
        return True


_sales: dict[SaleRow, Sale] = {}  # making a model is dear, and a row is often read


def as_sale(row: SaleRow) -> Sale:
    """A fresh instance, which its reader may change."""
    made = _sales.get(row)
    if made is None:
        if len(_sales) > 1000:
            _sales.clear()
        made = _sales[row] = Sale(**row._asdict())
    sale = Sale.__new__(Sale)
    sale.__dict__.update(made.__dict__)
    return sale
