"""Sales for a run, and the balance of their books after it."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from bench.errors import Unbalanced, Unfit
from bench.ground import Ground
from bench.sides import LIMIT

if TYPE_CHECKING:  # Django's settings come with the ground
    from orders.balance import Balance

BALANCE_SECONDS = 30.0
CLAIMS_COMPARED = 50_000  # one costs about 40 µs; a million would take longer than selling them


def open_sales(
    sales: Mapping[str, int],
    rates: Mapping[str, int],
    *,
    limit: int = LIMIT,
    ids: Mapping[str, UUID] | None = None,
    line: bool = False,
) -> None:
    """Armed and open, as an operator would have them: units by slug, and attempts a second by slug.

    `limit` is units per customer; `ids`, where given, is of each sale by its slug. With `line` buyers
    wait in line first.
    """
    from django.utils import timezone

    from sales import arming
    from sales.models import Product, Sale

    now = timezone.now()
    for slug, units in sales.items():
        product = Product.objects.create(sku=slug, name=slug, stock=units)
        sale = Sale.objects.create(
            id=ids[slug] if ids else uuid4(),
            slug=slug,
            name=slug,
            product=product,
            opens_at=now - timedelta(seconds=1),
            closes_at=now + timedelta(hours=2),
            allotment=units,
            unit_price="19.90",
            limit_per_customer=limit,
            admission_rate=rates[slug],
            burst=rates[slug],
            admission_required=line,
        )
        arming.arm(sale, actor="bench")
        arming.open_sale(sale, actor="bench")


def drain(ground: Ground, seconds: float = 300.0) -> None:
    """Fulfillment to the end of the log, by our own consumer in this process. Raises Unfit.

    The service has ended by now: its core is free.
    """
    from orders.consumer import Consumer
    from sales import gate

    deadline = time.monotonic() + seconds
    os.sched_setaffinity(0, {ground.cores.service})
    try:
        with gate.connect() as client, closing(Consumer(client)) as consumer:
            while not consumer.drained():
                consumer.step()
                if time.monotonic() > deadline:
                    raise Unfit(f"the log is not drained after {seconds:g} s: {consumer.standing.trouble}")
    finally:
        os.sched_setaffinity(0, {ground.cores.load})


def held(slugs: Iterable[str]) -> int:
    """Units that the gate has set aside and that are not promised yet."""
    from sales import gate
    from sales.models import Sale

    with gate.connect() as client:
        images = [gate.image(client, sale.id) for sale in Sale.objects.filter(slug__in=list(slugs))]
    return sum(image.held for image in images if image)


def must_balance(slugs: Iterable[str], accepted: int) -> None:
    """Gate, log and order book of these sales agree, and hold what was promised. Raises Unbalanced.

    Claim by claim up to CLAIMS_COMPARED orders; beyond, their counters and the number of rows.
    """
    from orders import reconciliation
    from sales import gate
    from sales.models import Sale

    sales = list(Sale.objects.filter(slug__in=list(slugs)))
    deadline = time.monotonic() + BALANCE_SECONDS
    claims = accepted <= CLAIMS_COMPARED
    with gate.connect() as client:
        balances = reconciliation.read(client, sales, claims=claims)
        while time.monotonic() < deadline and any(found.verdict == "under way" for found in balances):
            time.sleep(0.2)
            balances = reconciliation.read(client, sales, claims=claims)
    judge(balances, accepted)


def judge(balances: Iterable["Balance"], accepted: int) -> None:
    """Raises Unbalanced when books differ, or answers of 202 and rows do."""
    written = 0
    for found in balances:
        if wrong := [*found.differences, *found.under_way]:
            raise Unbalanced(f"the books of {found.sale} do not balance: {wrong[0]}")
        written += found.book.confirmed_orders
    if written != accepted:
        raise Unbalanced(f"{accepted} orders were answered 202, and {written} are in the order book")


def reference_taken(ground: Ground, sales: Mapping[str, int]) -> int:
    """Units that are missing from the reference's stock."""
    with ground.gate_client() as client:
        return sum(units - int(client.get(f"stock:{sale}") or 0) for sale, units in sales.items())


def reference_must_balance(ground: Ground, sales: Mapping[str, int], accepted: int) -> None:
    """What the reference has accepted is what is missing from its stock. Raises Unbalanced."""
    if (taken := reference_taken(ground, sales)) != accepted:
        raise Unbalanced(f"the reference has accepted {accepted} orders and taken {taken} units")
