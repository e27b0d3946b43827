"""I1 to I8, from what the buyers saw, from SQL, and from the balance of the three books."""

import io
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

import requests

from tests.chaos import history
from tests.chaos.history import Attempt, History

PATIENCE_SECONDS = 20.0
MOST_NAMED = 3  # of the orders in one line


class Row(NamedTuple):
    """An order as PostgreSQL has it."""

    state: str
    reason: str
    customer: str
    quantity: int
    epoch: int


class Books(NamedTuple):
    """The order book at the end of a row. Units, except `rows`."""

    allotment: int
    sold: int
    limit: int
    epoch: int
    rows: dict[UUID, Row]

    @property
    def confirmed(self) -> int:
        return sum(row.quantity for row in self.rows.values() if row.state == "confirmed")


def written(sale_id: UUID) -> int:
    """How many orders of the sale have a row, whatever became of them."""
    return int(_ask("SELECT count(*) FROM orders_order WHERE sale_id = %s", sale_id)[0][0])


def read_to_the_end(sale_id: UUID) -> bool:
    """Whether the order book has every record of the sale's partition."""
    from orders import reconciliation
    from sales.models import Sale

    return reconciliation.read_to_the_end(Sale.objects.get(pk=sale_id))


def read(sale_id: UUID) -> Books:
    facts = _ask("SELECT allotment, sold, limit_per_customer, epoch FROM sales_sale WHERE id = %s", sale_id)[
        0
    ]
    rows = _ask(
        "SELECT id, state, reason, customer, quantity, epoch FROM orders_order WHERE sale_id = %s", sale_id
    )
    allotment, sold, limit, epoch = facts
    return Books(allotment, sold, limit, epoch, {row[0]: Row(*row[1:]) for row in rows})


def reconciled(slug: str, seconds: float) -> list[str]:
    """What `manage.py reconcile --json` says once nothing is under way any more; empty when it balances."""
    from django.core.management import CommandError, call_command
    from django.db import connection

    deadline = time.monotonic() + seconds
    while True:
        connection.close()
        printed = io.StringIO()
        try:
            call_command("reconcile", sale=slug, json=True, stdout=printed)
            return []
        except SystemExit:
            found = json.loads(printed.getvalue())["sales"][0]
            lines = [*found["differences"], *(f"under way: {line}" for line in found["under_way"])]
        except CommandError as error:
            lines = [str(error)]
        if time.monotonic() > deadline:
            return [f"reconcile: {line}" for line in lines] or ["reconcile: does not balance"]
        time.sleep(0.2)


def judge(books: Books, seen: History, *, sold_out: bool) -> list[str]:
    """Every invariant that is broken, a line each. `sold_out`: there was demand for every unit."""
    lines: list[str] = []
    if books.sold > books.allotment or books.confirmed != books.sold:
        lines.append(f"I1: {books.sold} of {books.allotment} units sold, {books.confirmed} confirmed")
    lines += _promises(books, seen)
    lines += _keys_and_limits(books, seen.attempts)
    lines += _refusals(books, seen.attempts)
    strange = [str(each) for each, row in books.rows.items() if not 0 < row.epoch <= books.epoch]
    if strange:
        lines.append(f"I6: {len(strange)} orders of an epoch the sale never had ({_some(strange)})")
    if sold_out and books.sold != books.allotment:
        lines.append(f"I8: {books.sold} of {books.allotment} units sold, though there was demand for all")
    errors = {what: count for what, count in seen.answers.items() if what.startswith(history.BROKEN)}
    if errors:
        lines.append(f"answers of 5xx that are not 503: {errors}")
    return lines


def lost(books: Books, seen: History) -> list[Attempt]:
    """Promised to their buyers, and neither confirmed nor cancelled by them."""
    return [
        attempt
        for attempt in seen.attempts
        if attempt.promised_at is not None and not attempt.cancelled and not _confirmed(books, attempt)
    ]


def unlike_status(url: str, books: Books, attempts: Iterable[Attempt], most: int = 60) -> list[str]:
    """Orders for which the status endpoint says something else than the row. A sample, evenly spread."""
    from sales.identity import mint

    chosen = [attempt for attempt in attempts if attempt.order_ids]
    lines = []
    with requests.Session() as session:
        for attempt in chosen[:: max(1, len(chosen) // most)]:
            for order_id in attempt.order_ids:
                answer = session.get(
                    f"{url}/api/v1/orders/{order_id}",
                    headers={"Authorization": f"Bearer {mint(attempt.customer)}"}, timeout=10,
                )  # fmt: skip
                row = books.rows.get(order_id)
                says = answer.json().get("state") if answer.status_code == 200 else answer.status_code
                if says != (row.state if row else 404):
                    lines.append(f"{order_id} is {row.state if row else 'unknown'}, its status says {says}")
    return [f"status: {len(lines)} orders differ ({_some(lines)})"] if lines else []


def _confirmed(books: Books, attempt: Attempt) -> bool:
    return any(
        (row := books.rows.get(order_id)) is not None and row.state == "confirmed"
        for order_id in attempt.order_ids
    )


def _promises(books: Books, seen: History) -> list[str]:
    broken = lost(books, seen)
    if not broken:
        return []
    became: Counter[str] = Counter()
    for attempt in broken:
        rows = [books.rows[each] for each in attempt.order_ids if each in books.rows]
        became[f"{rows[0].state} {rows[0].reason}".strip() if rows else "no order"] += 1
    named = _some([f"{attempt.customer}/{attempt.key}" for attempt in broken])
    return [f"I3: {len(broken)} promises broken: {dict(became)} ({named})"]


def _keys_and_limits(books: Books, attempts: list[Attempt]) -> list[str]:
    several = [attempt.key for attempt in attempts if len(attempt.order_ids) > 1]
    units: defaultdict[str, int] = defaultdict(int)
    for row in books.rows.values():
        if row.state == "confirmed":
            units[row.customer] += row.quantity
    above = [customer for customer, count in units.items() if count > books.limit]
    lines = [f"I4: {len(several)} keys with more than one order ({_some(several)})"] if several else []
    return lines + ([f"I4: {len(above)} customers above their limit ({_some(above)})"] if above else [])


def _refusals(books: Books, attempts: list[Attempt]) -> list[str]:
    """A refused key has no order; whoever asked with an unknown outcome before has it under the same id."""
    from orders.claims import order_id
    from sales.models import Sale

    sale_id = Sale.objects.values_list("id", flat=True).get()
    wrong = []
    for attempt in attempts:
        if not attempt.refused or attempt.cancelled:
            continue
        row = books.rows.get(UUID(order_id(sale_id, attempt.customer, attempt.key)))
        if row is not None and row.state == "confirmed":
            wrong.append(f"{attempt.key}: {attempt.said[-1].what}")
    return [f"I5: {len(wrong)} refused keys have an order ({_some(wrong)})"] if wrong else []


def _some(items: list[str]) -> str:
    return ", ".join(items[:MOST_NAMED]) + (", ..." if len(items) > MOST_NAMED else "")


def have_rows(order_ids: set[UUID]) -> bool:
    """Whether each of these orders has its row."""
    found = _ask("SELECT count(*) FROM orders_order WHERE id = ANY(%s)", list(order_ids))
    return bool(found[0][0] == len(order_ids))


def _ask(statement: str, *arguments: Any) -> list[Any]:
    """The rows. A PostgreSQL that was killed a moment ago is waited for."""
    from django.db import InterfaceError, OperationalError, connection

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.fetchall()
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > deadline:
                raise
