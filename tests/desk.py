"""The admin's tests: operators with exactly these permissions, and sales in every state.

Nothing here needs real commits, so most of these tests roll back instead of emptying every
table, which makes them ten times as quick. The gate does not roll back: its sales have new ids.
"""

import threading
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from sales import arming
from sales.models import Product, Sale

EVERYTHING = "*"
VIEWER = ("sales.view_product", "sales.view_sale", "sales.view_saleevent")


def sign_in(*permissions: str, name: str | None = None) -> Client:
    """A browser of a new member of staff; EVERYTHING makes a superuser."""
    superuser = EVERYTHING in permissions
    user = User.objects.create(
        username=name or f"op-{uuid4().hex[:8]}", is_staff=True, is_superuser=superuser
    )
    for permission in () if superuser else permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client = Client()
    client.force_login(user)
    return client


def said(response: object) -> list[str]:
    """The messages on the page that a followed response has led to."""
    return [str(message) for message in response.context["messages"]]  # type: ignore[attr-defined]


def draft(*, stock: int = 10, **facts: Any) -> Sale:
    """A draft of 10 units at 19.90 whose window is open for an hour; `stock` is its product's."""
    slug = facts.setdefault("slug", f"sale-{uuid4().hex[:8]}")
    product = Product.objects.create(sku=slug, name=f"Product of {slug}", stock=stock)
    now = timezone.now()
    return Sale.objects.create(
        product=product,
        **{
            "name": f"Sale {slug}",
            "opens_at": now - timedelta(seconds=1),
            "closes_at": now + timedelta(hours=1),
            "allotment": 10,
            "unit_price": "19.90",
        }
        | facts,
    )


def until_nobody_asks_the_broker() -> None:
    """Waits for the threads that live pages leave behind, which wait for the broker."""
    for thread in threading.enumerate():
        if thread.name == "live-log":
            thread.join(30)


STEPS_TO = {
    "draft": (),
    "scheduled": (arming.schedule,),
    "armed": (arming.arm,),
    "open": (arming.arm, arming.open_sale),
    "paused": (arming.arm, arming.open_sale, arming.pause),
    "closed": (arming.arm, arming.open_sale, arming.close),
}


def sale_in(state: str, **facts: Any) -> Sale:
    """A sale that has been taken to this state step by step, on the real gate. Needs `log_topic`."""
    sale = draft(**facts)
    for step in STEPS_TO[state]:
        step(sale, actor="test")
    return sale
