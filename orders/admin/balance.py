"""The balance of one sale as a page: three books side by side, what differs, and what repairs it."""

from contextlib import closing
from typing import Any, NamedTuple
from uuid import UUID

import redis
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.admin import ModelAdmin

from orders.balance import Balance, many
from orders.reconciliation import read
from sales import gate
from sales.models import Sale

# A page does not compare a million claims: then it says how many, and `reconcile` has no such bound.
SECONDS = 3.0
VERDICT_COLOURS = {"balanced": "success", "under way": "warning", "differs": "danger"}


class Side(NamedTuple):
    """One book: its name, what it is, and its counts."""

    name: str
    about: str
    counts: list[tuple[str, Any]]


def balance_page(admin: ModelAdmin, request: HttpRequest, sale_id: UUID) -> HttpResponse:
    """Whoever may see sales and orders sees it. It changes nothing."""
    if not (admin.has_view_permission(request) and request.user.has_perm("sales.view_sale")):
        raise PermissionDenied
    sale = Sale.objects.filter(pk=sale_id).first()
    if sale is None:
        raise Http404
    found, away = None, ""
    try:
        with closing(gate.connect()) as client:
            [found] = read(client, [sale], seconds=SECONDS)
    except (gate.GateUnreachable, redis.RedisError) as error:
        away = str(error)
    return TemplateResponse(
        request,
        "admin/orders/balance.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"Balance of “{sale.name}”",
            "opts": Sale._meta,
            "original": sale,
            "sale": sale,
            "found": found,
            "away": away,
            "colour": VERDICT_COLOURS[found.verdict] if found else "danger",
            "sides": _sides(found) if found else [],
            "command": f"manage.py reconcile --sale {sale.slug} --fix --wait 30",
            "at": timezone.now(),
        },
    )


def _sides(found: Balance) -> list[Side]:
    image, log, book, claims = found.gate, found.log, found.book, found.claims
    gate_counts: list[tuple[str, Any]] = []
    if image is not None:
        gate_counts = [
            (name.capitalize(), getattr(image, name))
            for name in ("loaded", "remaining", "held", "queued", "settled", "released")
        ]
    compared = f"; {many(claims.compared, 'claim')} compared with their rows" if claims else ""
    return [
        Side("Gate", f"Redis: who gets a unit, now{compared}", gate_counts),
        Side(
            "Log",
            "Kafka: what was granted, in which order",
            [("Unread", "not known" if log.unread is None else log.unread), ("Parked", log.parked)]
            + ([("Lost", log.lost)] if log.lost else []),
        ),
        Side(
            "Order book",
            "PostgreSQL: stock and orders",
            [
                ("Allotment", book.allotment),
                ("Sold", book.sold),
                ("Confirmed", book.confirmed),
                ("Orders confirmed", book.confirmed_orders),
                ("Orders refused", book.refused_orders),
                ("Orders cancelled", book.cancelled_orders),
            ],
        ),
    ]
