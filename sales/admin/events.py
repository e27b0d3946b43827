"""The event log of the supply side: who did what to a sale or a stock, when and why."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

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


def history_of(sale: Sale, limit: int = 50) -> QuerySet[SaleEvent]:
    """The newest events of one sale, those of its time as a draft included."""
    return SaleEvent.objects.filter(Q(sale=sale) | Q(sale=None, detail__sale_id=str(sale.pk)))[:limit]


def history_of_stock(product: Product, limit: int = 50) -> QuerySet[SaleEvent]:
    """The newest events that name the product, sales of it included."""
    return SaleEvent.objects.filter(Q(product=product) | Q(sale__product=product)).select_related("sale")[:limit]


@admin.register(SaleEvent)
class SaleEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "what", "subject", "actor", "reason")
    list_filter = ("action",)
    search_fields = ("actor", "sale__slug", "sale__name", "product__sku", "product__name", "reason")
    list_select_related = ("sale", "product")
    list_per_page = 50
    date_hierarchy = None
    fields = ("at", "action", "actor", "reason", "sale", "product", "particulars")
    readonly_fields = ("particulars",)
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[SaleEvent]:
        return super().get_queryset(request)

    @display(description="What", ordering="action", label=True)
    def what(self, event: SaleEvent) -> str:
        return event.action.replace("_", " ")

    @display(description="About")
    def subject(self, event: SaleEvent) -> str:
        return str(event.sale or event.product or "")

    @display(description="Detail")
    def particulars(self, event: SaleEvent) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', json.dumps(event.detail, indent=2))
