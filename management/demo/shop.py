"""What is in the shop: the operator's account, products, sales."""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model

from sales import arming
from sales.models import Product, Sale
from waitingroom.models import Room

ADMIN = "admin"
ACTOR = "demo"  # in the history of sales
WINDOW = timedelta(hours=2)


def admin_account() -> str:
    """Makes the superuser anew and returns its password, which nobody else knows."""
    password = secrets.token_urlsafe(12)
    user, _ = get_user_model().objects.update_or_create(
        username=ADMIN, defaults={"is_staff": True, "is_superuser": True, "is_active": True}
    )
    user.set_password(password)
    user.save()
    return password


def new_slug(name: str) -> str:
    """Fresh per run, so that earlier runs on the same data are other sales."""
    return f"{name}-{secrets.token_hex(3)}"


def open_sale(
    slug: str,
    *,
    name: str,
    product: str,
    description: str,
    opens_at: datetime,
    units: int,
    limit: int,
    price: str,
    rate: int = 2000,
    burst: int = 4000,
    room: dict[str, Any] | None = None,
) -> Sale:
    """A product with these units, and its sale: armed and opened, so that it sells from `opens_at` on.

    With `room`, the settings of a waiting room, buyers stand in line for it.

    Raises sales.arming.Refused.
    """
    made = Product.objects.create(sku=slug.upper(), name=product, description=description, stock=units)
    sale = Sale.objects.create(
        slug=slug,
        name=name,
        product=made,
        opens_at=opens_at,
        closes_at=opens_at + WINDOW,
        allotment=units,
        unit_price=Decimal(price),
        limit_per_customer=limit,
        admission_rate=rate,
        burst=burst,
        admission_required=room is not None,
    )
    if room is not None:
        Room.objects.create(sale=sale, **room)
    reason = "manage.py demo"
    arming.schedule(sale, actor=ACTOR, reason=reason)
    arming.arm(sale, actor=ACTOR, reason=reason)
    arming.open_sale(sale, actor=ACTOR, reason=reason)
    return sale


def close(sales: Iterable[Sale]) -> None:
    """The end of their day. A gate that is gone keeps nobody from ending the demo."""
    for sale in sales:
        try:
            arming.close(sale, actor=ACTOR, reason="the demo ends")
        except arming.Refused:
            continue
