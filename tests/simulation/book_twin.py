"""What the order book's modules ask of PostgreSQL, asked of the tables in memory.

Each function has the name and the meaning of the shipped one (test_database_twin.py runs both), and
is one statement on the wire: a place for delay, loss, freeze and death.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db import OperationalError

from orders import book, epochs, parking, repair_book
from orders.models import OrderState
from sales.fence import GATED, Known
from sales.models import Sale
from tests.simulation.database_twin import Connections
from tests.simulation.processes import AsyncProcess
from tests.simulation.tables import OrderRow, as_sale

_PUBLIC = ("scheduled", "arming", "armed", "open", "paused", "closing", "closed")


class DatabaseTwin(Connections):
    def functions(self) -> dict[Any, dict[str, Any]]:
        """What to put into which module."""
        names = {
            book: "transaction savepoint disconnect sales position move_position insert sell above_limit "
            "unsell restock lock_in_order refuse cancel states add_events park parked_offsets",
            epochs: "public_sales gated_sales begin state passed move_to known returned",
            repair_book: "summary confirmed confirmed_units positions wind_back refresh note",
            parking: "waiting still_parked",
        }
        found = {
            module: {name: getattr(self, name) for name in text.split()} for module, text in names.items()
        }
        found[repair_book]["states"] = self.bare_states
        return found

    # orders.book

    def sales(self, sale_ids: Iterable[UUID]) -> Any:
        return self.ask(lambda tables: tables.facts(sale_ids))

    def position(self, source: Any) -> int:
        return self.ask(lambda tables: tables.position(source))

    def move_position(self, source: Any, expected: int, following: int) -> None:
        self.ask(lambda tables: tables.move_position(source, expected, following), write=True)

    def insert(self, claims: Sequence[Any], state: OrderState, reasons: Sequence[str]) -> set[UUID]:
        return self.ask(lambda tables: tables.insert(claims, state, reasons), write=True)

    def sell(self, sale_id: UUID, units: int) -> bool:
        return self.ask(lambda tables: tables.sell(sale_id, units), write=True)

    def above_limit(self, sale_ids: Iterable[UUID], customers: Iterable[str]) -> Any:
        sales, wanted = set(sale_ids), set(customers)
        return self.ask(lambda tables: tables.above_limit(sales, wanted))

    def unsell(self, sale_id: UUID, units: int) -> None:
        self.ask(lambda tables: tables.unsell(sale_id, units), write=True)

    def restock(self, product_id: int, units: int) -> None:
        raise AssertionError("no sale of these days is settled")

    def lock_in_order(self, sale_ids: Iterable[UUID]) -> None:
        self.ask(lambda tables: None, write=True)

    def refuse(self, order_ids: Sequence[UUID], reason: str) -> None:
        self.ask(lambda tables: tables.refuse(order_ids, reason), write=True)

    def cancel(self, reasons: dict[UUID, str]) -> list[tuple[UUID, UUID, int]]:
        return self.ask(lambda tables: tables.cancel(reasons), write=True)

    def states(self, order_ids: Iterable[UUID]) -> Any:
        wanted = list(order_ids)
        return self.ask(lambda tables: tables.states(wanted))

    def add_events(self, changes: Sequence[Any]) -> None:
        self.ask(lambda tables: tables.add_events(changes), write=True)

    def park(self, source: Any, read: Any, cause: str) -> None:
        self.ask(lambda tables: tables.park(source, read, cause), write=True)

    def parked_offsets(self, source: Any, first: int, following: int) -> list[int]:
        return self.ask(lambda tables: tables.parked_offsets(source, first, following))

    # orders.epochs

    def public_sales(self) -> list[Sale]:
        return self.ask(lambda tables: tables.in_states(_PUBLIC))

    def gated_sales(self) -> list[Sale]:
        return self.ask(lambda tables: tables.in_states(GATED))

    def begin(self, sale: Sale, epoch: int, reason: str, actor: str) -> bool:
        return self.ask(lambda tables: tables.begin(sale.pk, sale.epoch, epoch), write=True)

    def state(self, sale_id: UUID, epoch: int) -> str | None:
        return self.ask(lambda tables: tables.state(sale_id, epoch))

    def passed(self, pools: Iterable[Any]) -> Any:
        wanted = set(pools)
        return self.ask(lambda tables: tables.passed(wanted))

    def move_to(self, barriers: dict[Any, int]) -> None:
        if barriers:
            self.ask(lambda tables: tables.move_to(barriers), write=True)

    def known(self, sale_id: UUID, pool: int, epoch: int, size: int = 500) -> Iterator[list[Known]]:
        with self.transaction():
            if self.passed([(sale_id, pool)])[sale_id, pool] < epoch:
                raise epochs.NotPassed
            orders = self.ask(lambda tables: tables.known(sale_id, pool))
            for first in range(0, len(orders), size):
                yield orders[first : first + size]

    def returned(self, sale_id: UUID, pool: int) -> list[UUID]:
        return self.ask(lambda tables: tables.returned(sale_id, pool))

    # For order status, and for operators

    def refresh(self, sale: Sale) -> None:
        sale.__dict__.update(as_sale(self.ask(lambda tables: tables.sales[sale.pk])).__dict__)

    def find_async(
        self, process: AsyncProcess, order_ids: Sequence[UUID], answer: Callable[[Any], None]
    ) -> None:
        def perform(done: Callable[[Any], None]) -> None:
            tables = self.server.committed
            rows: list[OrderRow | None] = [tables.orders.get(order_id) for order_id in order_ids]
            done([(row, tables.sales[row.sale_id]) if row else None for row in rows])

        self._network.request(process, self.server, perform, answer, OperationalError)

    # orders.repair_book, and what reconciliation asks of orders.parking

    def summary(self, sale_id: UUID) -> Any:
        return self.ask(lambda tables: tables.summary(sale_id))

    def bare_states(self, order_ids: Sequence[UUID]) -> dict[UUID, OrderState]:
        return {order_id: state for order_id, (state, _) in self.states(order_ids).items()}

    def confirmed(self, sale_id: UUID, chunk: int) -> Iterator[list[repair_book.Row]]:
        rows = self.ask(lambda tables: tables.confirmed(sale_id))
        for first in range(0, len(rows), chunk):
            yield rows[first : first + chunk]

    def confirmed_units(self, sale_id: UUID, customers: Sequence[str]) -> dict[str, int]:
        units: dict[str, int] = {}
        for row in self.ask(lambda tables: tables.confirmed(sale_id)):
            if row.customer in customers:
                units[row.customer] = units.get(row.customer, 0) + row.quantity
        return units

    def positions(self, topic: str, incarnation: str) -> dict[int, int]:
        return self.ask(
            lambda tables: {
                source.partition: at
                for source, at in tables.positions.items()
                if (source.topic, source.incarnation) == (topic, incarnation)
            }
        )

    def wind_back(self, source: Any, expected: int, to: int) -> bool:
        return self.ask(lambda tables: tables.wind_back(source, expected, to), write=True)

    def note(self, sale_id: UUID, action: str, reason: str, detail: dict[str, Any]) -> None:
        self.ask(lambda tables: None, write=True)

    def waiting(self, topic: str, incarnation: str, partition: int) -> int:
        return self.ask(lambda tables: sum(source.partition == partition for source, _ in tables.parked))

    def still_parked(self) -> int:
        # Only counted for the metrics, right after the sales were asked for: no event of its own.
        return len(self.server.committed.parked)
