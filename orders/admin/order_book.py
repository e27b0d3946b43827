"""The order book in the admin: to look at only, and quick with millions of orders in it."""

from functools import partial
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display

from orders.admin.balance import balance_page
from orders.admin.lists import EstimatedPaginator, History
from orders.admin.live_page import live_numbers, live_page
from orders.admin.preflight import preflight_page
from orders.admin.report import report_page
from orders.models import Order, OrderEvent, OrderState, Position
from sales.admin.moments import moment
from sales.admin.readonly import ReadOnlyAdmin

STATE_COLOURS = {
    OrderState.CONFIRMED: "success",
    OrderState.REFUSED: "danger",
    OrderState.CANCELLED: "warning",
}


# Of one sale, by its id: the sale's own page links to them where it finds them.
PAGES = (
    ("balance", balance_page),
    ("live", live_page),
    ("preflight", preflight_page),
    ("report", report_page),
)


class OrderEvents(History):
    model = OrderEvent
    fields = readonly_fields = ("when", "state", "reason")


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = ("id", "sale", "customer", "quantity", "state_label", "reason", "claimed")
    list_filter = (("sale", AutocompleteSelectFilter), ("state", ChoicesDropdownFilter))
    list_filter_submit = True
    list_select_related = ("sale",)
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each would count the whole table
    paginator = EstimatedPaginator
    ordering = ("id",)  # the one order that has an index; `get_search_results` knows another
    sortable_by = ()
    search_fields = ("id", "customer")
    search_help_text = "Order id or customer, in full"
    inlines = (OrderEvents,)
    actions = None
    fields = (
        "id",
        "sale",
        "customer",
        ("quantity", "unit_price", "currency"),
        ("state", "reason"),
        ("pool", "epoch"),
        ("claimed", "written"),
    )
    readonly_fields = ("claimed", "written")

    @display(description="State", label=STATE_COLOURS)
    def state_label(self, order: Order) -> tuple[str, str]:
        return order.state, order.get_state_display()

    @display(description="Claimed at")
    def claimed(self, order: Order) -> str:
        return moment(order.claimed_at)

    @display(description="Written at")
    def written(self, order: Order) -> str:
        return moment(order.written_at)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        pages = [
            path(f"{name}/<uuid:sale_id>/", view(partial(page, self)), name=f"orders_{name}")
            for name, page in PAGES
        ]
        numbers = path("live/<uuid:sale_id>/numbers/", view(live_numbers), name="orders_live_numbers")
        return [*pages, numbers, *super().get_urls()]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        """Whole ids and whole customers: both have an index, a part of a word has none."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            return queryset.filter(customer=term).order_by("-claimed_at"), False


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin):
    list_display = ("topic", "incarnation", "partition", "next_offset")
    ordering = ("topic", "incarnation", "partition")
    actions = None
