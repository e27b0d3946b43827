"""Sales for a run, and the balance of their books after it."""

import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

from bench.errors import Unbalanced
from bench.ground import Ground
from bench.machine import pinned
from bench.processes import Process
from bench.sides import LIMIT

BALANCE_SECONDS = 30.0


def open_sales(sales: Mapping[str, int], rate: int, limit: int = LIMIT) -> None:
    """Armed and open, as an operator would have them. `rate` is attempts a second, units by slug."""
    from django.utils import timezone

    from sales import arming
    from sales.models import Product, Sale

    now = timezone.now()
    for slug, units in sales.items():
        product = Product.objects.create(sku=slug, name=slug, stock=units)
        sale = Sale.objects.create(
            slug=slug,
            name=slug,
            product=product,
            opens_at=now - timedelta(seconds=1),
            closes_at=now + timedelta(hours=2),
            allotment=units,
            unit_price="19.90",
            limit_per_customer=limit,
            admission_rate=rate,
            burst=rate,
        )
        arming.arm(sale, actor="bench")
        arming.open_sale(sale, actor="bench")


def drain(ground: Ground, seconds: float = 300.0) -> None:
    """Fulfillment to the end of the log, by our own consumer. Raises Unfit."""
    import sys

    command = pinned(ground.cores.service, sys.executable, "manage.py", "run_fulfillment", "--drain")
    process = Process("the drain", command, ground.environment, ground.logs / "drain.log")
    process.wait(seconds)


def rows() -> int:
    from orders.models import Order

    return Order.objects.filter(state="confirmed").count()


def must_balance(slugs: Iterable[str], accepted: int) -> None:
    """Gate, log and order book of these sales agree, and hold what was promised. Raises Unbalanced."""
    from orders import reconciliation
    from sales import gate
    from sales.models import Sale

    sales = list(Sale.objects.filter(slug__in=list(slugs)))
    with gate.connect() as client:
        deadline = time.monotonic() + BALANCE_SECONDS
        while True:
            balances = reconciliation.read(client, sales)
            wrong = [line for found in balances for line in (*found.differences, *found.under_way)]
            if not wrong or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    if wrong:
        raise Unbalanced(f"the books do not balance: {wrong[0]}")
    written = sum(found.book.confirmed_orders for found in balances)
    if written != accepted:
        raise Unbalanced(f"{accepted} orders were answered 202, and {written} are in the order book")


def reference_must_balance(ground: Ground, sales: Mapping[str, int], accepted: int) -> None:
    """What the reference has accepted is what is missing from its stock. Raises Unbalanced."""
    with ground.gate_client() as client:
        taken = sum(units - int(client.get(f"stock:{sale}") or 0) for sale, units in sales.items())
    if taken != accepted:
        raise Unbalanced(f"the reference has accepted {accepted} orders and taken {taken} units")
