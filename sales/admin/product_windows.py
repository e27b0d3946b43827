"""The sale windows on a product's page: those that exist to look at, new ones to write."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import StackedInline, TabularInline
from unfold.decorators import display

from sales.admin.moments import window
from sales.admin.sale_windows import STATE_COLOURS, STEP_LINK
from sales.forms import SaleForm
from sales.models import Sale, SaleState


class SaleWindows(TabularInline):
    """The product's sales, to look at: each is changed on its own page, where its rules stand."""

    model = Sale
    verbose_name_plural = "Sale windows"
    fields = ("page", "state_label", "when", "units", "sold")
    readonly_fields = fields
    ordering = ("-opens_at",)
    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True
    per_page = 10

    @display(description="Name")
    def page(self, sale: Sale) -> SafeString:
        url = reverse("admin:sales_sale_change", args=[sale.pk])
        return format_html(STEP_LINK, url, sale.name)

    @display(description="Window")
    def when(self, sale: Sale) -> str:
        return window(sale.opens_at, sale.closes_at)

    @display(description="Allotment")
    def units(self, sale: Sale) -> int:
        return sale.allotment

    @display(description="State")
    def state_label(self, sale: Sale) -> SafeString:
        colour = STATE_COLOURS.get(SaleState(sale.state), "default")
        return format_html('<span class="fg-state fg-{}">{}</span>', colour, sale.get_state_display())

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class NewSaleWindows(StackedInline):
    """Adds drafts, and shows none: what exists stands in the table above."""

    model = Sale
    form = SaleForm
    verbose_name = "sale window"
    verbose_name_plural = "New sale windows"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "slug",
                    "opens_at",
                    "closes_at",
                    "allotment",
                    "limit_per_customer",
                    ("unit_price", "currency"),
                )
            },
        ),
    )
    extra = 0
    can_delete = False

    class Media:
        js = ("sales/slug.js",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sale]:
        queryset: QuerySet[Sale] = super().get_queryset(request)
        return queryset.none()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.has_add_permission(request, obj))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
