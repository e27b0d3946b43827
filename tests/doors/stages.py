"""The sales that the questions are about: one for each thing a gate can say, in a state that stays."""

import time
from datetime import timedelta
from uuid import uuid4

import redis
from django.utils import timezone

from orders.claims import order_id
from orders.models import Order
from sales import arming
from sales.gate import pool_keys
from sales.models import Product, Sale
from tests.doors.dialogue import Dialogue
from tests.doors.questions import KEY, sale_id
from tests.doors.questions_others import DONE, REGULAR, a_ticket
from tests.running_site import Site, eventually
from tests.site.hostile import Stage
from waitingroom.keeping import Keeper
from waitingroom.models import Room

SLUG = "doors-{}"
HELD_BY = "the one who came first"


def slug(sale: str) -> str:
    return SLUG.format(sale)


def make_sales(site: Site, gate: redis.Redis) -> None:
    """Every sale that a question names, but `unknown`. No consumer may run: claims stay queued."""

    def sell(name: str, **facts: object) -> Sale:
        found: Sale = site.sell(slug(name), **({"id": sale_id(slug(name))} | facts))  # type: ignore[arg-type]
        return found

    sell("over", closes_in=0.5)
    sell("open", allotment=100_000, limit=30)
    sell("one", allotment=100_000)
    Room.objects.create(sale=sell("room", allotment=100_000, admission_required=True), turn_rate=0)
    for _ in range(3):  # publishes, freezes the draw, publishes that: the line stands still for good
        Keeper(gate).look()
    with Dialogue(site.port) as dialogue:  # whoever asks for a ticket has it already: the line stays as it is
        dialogue.say(a_ticket()(stage_of("room", REGULAR)))
        answer = dialogue.hear()
        assert answer is not None
        assert answer.status == 200
    sell("future", opens_in=100_000, closes_in=200_000)
    sell("armed", open_now=False)
    arming.pause(sell("paused"), actor="test")
    arming.close(sell("closed"), actor="test")
    # A thousandth of an order a second: nothing fills this bucket while the tests run.
    gate.hset(
        pool_keys(sell("busy").id).gate,
        mapping={"rate": "0.001", "burst": "1", "tokens": "0", "tokens_at": int(time.time() * 1000)},
    )
    for name in ("sold-out", "held"):
        sale = sell(name, allotment=1)
        assert site.buy(sale.slug, HELD_BY, KEY).status_code == 202
        eventually(lambda sale=sale: gate.zcard(pool_keys(sale.id).pending) == 0)  # type: ignore[misc]
    gate.hset(pool_keys(sale.id).gate, mapping={"held": 1, "queued": 0})  # as if acknowledged late
    _draft("draft")
    arming.schedule(_draft("unarmed"), actor="test")
    for state in ("confirmed", "refused", "cancelled"):
        done = sell(state, allotment=100_000)
        Order.objects.create(
            id=order_id(done.id, DONE, KEY),
            sale=done,
            customer=DONE,
            quantity=1,
            unit_price=done.unit_price,
            currency=done.currency,
            state=state,
            reason="" if state == "confirmed" else "a reason",
            epoch=1,
            claimed_at=timezone.now(),
        )


def _draft(name: str) -> Sale:
    product = Product.objects.create(sku=slug(name), name=f"Product of {name}", stock=10)
    return Sale.objects.create(
        id=sale_id(slug(name)),
        slug=slug(name),
        name=f"Sale {name}",
        product=product,
        opens_at=timezone.now() + timedelta(days=1),
        closes_at=timezone.now() + timedelta(days=2),
        allotment=10,
        unit_price="19.90",
    )


def stage_of(sale: str, customer: str) -> Stage:
    """A buyer at a sale; one nobody has seen when `customer` is empty."""
    return Stage(slug(sale), customer or f"buyer-{uuid4().hex[:12]}")
