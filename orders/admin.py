"""The order book in the admin: to look at only, and quick with millions of orders in it."""

import json
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display

from orders.models import Order, OrderEvent, OrderState, ParkedRecord, Position
from sales.admin.moments import moment
from sales.admin.readonly import ReadOnlyAdmin

STATE_COLOURS = {
    OrderState.CONFIRMED: "success",
    OrderState.REFUSED: "danger",
    OrderState.CANCELLED: "warning",
}
MAX_PAYLOAD = 16_384  # bytes of a parked record that are shown


class EstimatedPaginator(Paginator):
    """Counts no more than a page needs.

    `count(*)` reads the whole table. A list that is not narrowed down shows PostgreSQL's own
    estimate (of the last ANALYZE); one that is narrowed down is counted up to `exact_up_to`, and
    what lies behind is reached by narrowing down further.
    """

    exact_up_to = 10_000

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        if not rows.query.where:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
                    [rows.model._meta.db_table],
                )
                estimate = int(cursor.fetchone()[0])
            if estimate > self.exact_up_to:
                return estimate
        return int(rows.order_by()[: self.exact_up_to].count())

    @cached_property
    def num_pages(self) -> int:
        """Pages that are offered: PostgreSQL walks over every row before the one a page begins with."""
        return min(super().num_pages, -(-self.exact_up_to // self.per_page))


class OrderEvents(TabularInline):
    model = OrderEvent
    fields = readonly_fields = ("when", "state", "reason")
    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True

    @display(description="When")
    def when(self, event: OrderEvent) -> str:
        return moment(event.at)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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


@admin.register(ParkedRecord)
class ParkedRecordAdmin(ReadOnlyAdmin):
    list_display = ("topic", "partition", "offset", "cause", "parked")
    list_display_links = ("topic", "partition", "offset")
    list_filter = ("topic",)
    list_per_page = 50
    show_full_result_count = False
    paginator = EstimatedPaginator
    ordering = ("-parked_at", "-id")
    sortable_by = ()
    actions = None
    fields = (("topic", "partition", "offset"), "cause", "parked", "shown_key", "shown_value", "headers")
    readonly_fields = ("parked", "shown_key", "shown_value")

    class Media:
        css = {"all": ("sales/admin.css",)}

    @display(description="Parked at")
    def parked(self, record: ParkedRecord) -> str:
        return moment(record.parked_at)

    @display(description="Key")
    def shown_key(self, record: ParkedRecord) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', readable(bytes(record.key)))

    @display(description="Value")
    def shown_value(self, record: ParkedRecord) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', readable(bytes(record.value)))


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin):
    list_display = ("topic", "incarnation", "partition", "next_offset")
    ordering = ("topic", "incarnation", "partition")
    actions = None


def readable(payload: bytes) -> str:
    """A payload that nobody could read, as text: indented JSON, else UTF-8, else a hex dump.

    Never raises, and never returns markup: the caller escapes it. Long payloads are cut.
    """
    shown = payload[:MAX_PAYLOAD]
    rest = f"\n… {len(payload) - len(shown)} more bytes" if len(payload) > len(shown) else ""
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        dump = (
            f"{start:06x}  {shown[start : start + 16].hex(' '):<47}  {_printable(shown[start : start + 16])}"
            for start in range(0, len(shown), 16)
        )
        return "\n".join(dump) + rest
    if not rest:
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return "".join(map(_visible, text)) + rest


def _visible(sign: str) -> str:
    return sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}"


def _printable(line: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
