"""The event log of the supply side: who did what to a sale or a stock, when and why."""

import json
from typing import Any, NamedTuple

from django.contrib import admin
from django.db.models import Q
from django.utils.html import format_html
from unfold.decorators import display

from sales.admin.moments import moment
from sales.admin.readonly import ReadOnlyAdmin
from sales.models import Product, Sale, SaleEvent


def record_draft(sale: Sale, action: str, actor: str, detail: dict[str, Any]) -> SaleEvent:
    """Write an event about a sale that is still being written.

    It hangs on the product, not on the sale: the log is append-only and its foreign keys protect
    what they point to, so an event on the sale itself would make every mistyped draft immortal.
    """
    return SaleEvent.objects.create(
        product_id=sale.product_id,
        actor=actor,
        action=action,
        detail={"sale": sale.slug, "sale_id": str(sale.pk), **detail},
    )


class Line(NamedTuple):
    """One event as the history of a page shows it."""

    what: str
    about: str
    summary: str
    event: SaleEvent


def line(event: SaleEvent) -> Line:
    detail, summary = event.detail, ""
    if "to" in detail:
        summary = f"{detail.get('from', '')} → {detail['to']}"
    elif "delta" in detail:
        summary = f"{detail['delta']:+d} units, then {detail.get('stock')} in stock"
    elif "after" in detail:
        before = detail.get("before", {})
        summary = ", ".join(
            f"{name}: {before.get(name)} → {value}" for name, value in detail["after"].items()
        )
    return Line(event.action.replace("_", " "), about(event), summary, event)


def about(event: SaleEvent) -> str:
    """The sale, also one that was a draft then and may be gone now; else the product."""
    return str(event.sale or event.detail.get("sale") or event.product or "")


def history_of(sale: Sale, limit: int = 50) -> list[Line]:
    """The newest events of one sale, those of its time as a draft included."""
    events = SaleEvent.objects.filter(
        Q(sale=sale) | Q(sale=None, detail__sale_id=str(sale.pk))
    ).select_related("sale", "product")
    return [line(event) for event in events[:limit]]


def history_of_stock(product: Product, limit: int = 50) -> list[Line]:
    """The newest events that name the product, those of its sales included."""
    events = SaleEvent.objects.filter(Q(product=product) | Q(sale__product=product)).select_related(
        "sale", "product"
    )
    return [line(event) for event in events[:limit]]


@admin.register(SaleEvent)
class SaleEventAdmin(ReadOnlyAdmin):
    list_display = ("when", "what", "subject", "actor", "reason")
    list_filter = ("action",)
    search_fields = ("actor", "sale__slug", "sale__name", "product__sku", "product__name", "reason")
    list_select_related = ("sale", "product")
    list_per_page = 50
    fields = ("when", "action", "actor", "reason", "sale", "product", "particulars")
    readonly_fields = ("when", "particulars")
    actions = None

    @display(description="When", ordering="at")
    def when(self, event: SaleEvent) -> str:
        return moment(event.at)

    @display(description="What", ordering="action", label=True)
    def what(self, event: SaleEvent) -> str:
        return line(event).what

    @display(description="About")
    def subject(self, event: SaleEvent) -> str:
        return about(event)

    @display(description="Detail")
    def particulars(self, event: SaleEvent) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', json.dumps(event.detail, indent=2))
