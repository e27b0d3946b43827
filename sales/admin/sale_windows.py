"""The sale window in the admin: its form while it is a draft, its numbers once it is armed."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import display

from sales import arming
from sales.admin.events import history_of, record_draft
from sales.admin.live import WITH_GATE, live
from sales.admin.moments import moment, window
from sales.admin.steps import may_take, offered, permitted, step_action, step_url
from sales.forms import SaleForm
from sales.models import Sale, SaleState

STATE_COLOURS = {
    SaleState.DRAFT: "default",
    SaleState.SCHEDULED: "info",
    SaleState.ARMING: "warning",
    SaleState.ARMED: "primary",
    SaleState.OPEN: "success",
    SaleState.PAUSED: "warning",
    SaleState.CLOSING: "warning",
    SaleState.CLOSED: "danger",
    SaleState.SETTLED: "default",
}

# What comes next, in words, under the state of the sale's page.
HINTS = {
    SaleState.DRAFT: "Nobody sees this sale yet. Schedule it to make it public, or arm it at once.",
    SaleState.SCHEDULED: "Public, with a countdown. Arm it before it opens, or nothing will be sold.",
    SaleState.ARMING: "An arming did not finish: arm it again.",
    SaleState.ARMED: "The gate stands and refuses everybody until you open the sale.",
    SaleState.OPEN: "",
    SaleState.PAUSED: "No new claim is granted. Resume it, or close it for good.",
    SaleState.CLOSING: "The gate is shut. The last claims are being written down.",
    SaleState.CLOSED: "The sale is over. Settle it to put the units nobody bought back into the product.",
    SaleState.SETTLED: "The sale is over, and its unsold units are back in the product.",
}

STEP_LINK = '<a class="fg-link" href="{}">{}</a>'

BEFORE_ARMING = (SaleState.DRAFT, SaleState.SCHEDULED)
BEFORE_SELLING = (*BEFORE_ARMING, SaleState.ARMING, SaleState.ARMED)


class Overtaken(Exception):
    """The sale was armed, or went, between the reading of its form and the writing."""


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """A form's values as an event keeps them: numbers, texts, and everything else as a text."""
    return {
        name: value if isinstance(value, bool | int | str) else str(value) for name, value in values.items()
    }


def typed_facts(sale: Sale) -> dict[str, Any]:
    """What an operator has typed about a sale, field by field."""
    return {name: getattr(sale, name) for name in SaleForm.Meta.fields}


@admin.register(Sale)
class SaleAdmin(ModelAdmin):
    form = SaleForm
    change_form_template = "admin/sales/sale_page.html"
    list_display = ("name", "product", "state_label", "window", "allotment", "sold", "left", "live_page")
    list_filter = (("state", ChoicesDropdownFilter), ("product", AutocompleteSelectFilter))
    list_filter_submit = True
    list_select_related = ("product",)
    list_per_page = 50
    search_fields = ("name", "slug", "product__name", "product__sku")
    search_help_text = "Name, key or product"
    autocomplete_fields = ("product",)
    prepopulated_fields = {"slug": ("name",)}
    actions = None  # nothing is deleted or changed by the dozen on a sale day
    actions_detail = (
        "schedule_step",
        "arm_step",
        "open_step",
        "pause_step",
        "resume_step",
        "close_step",
        "settle_step",
    )
    warn_unsaved_form = True

    schedule_step = step_action("schedule")
    arm_step = step_action("arm")
    open_step = step_action("open")
    pause_step = step_action("pause")
    resume_step = step_action("resume")
    close_step = step_action("close")
    settle_step = step_action("settle")

    has_schedule_permission = may_take("schedule")
    has_arm_permission = may_take("arm")
    has_open_permission = may_take("open")
    has_pause_permission = may_take("pause")
    has_resume_permission = may_take("resume")
    has_close_permission = may_take("close")
    has_settle_permission = may_take("settle")

    class Media:
        css = {"all": ("sales/admin.css",)}

    # The list

    @display(description="State", ordering="state", label=STATE_COLOURS)
    def state_label(self, sale: Sale) -> tuple[str, str]:
        return sale.state, sale.get_state_display()

    @display(description="Window", ordering="opens_at")
    def window(self, sale: Sale) -> SafeString:
        return format_html('<span class="fg-line">{}</span>', window(sale.opens_at, sale.closes_at))

    @display(description="Opens at")
    def opening(self, sale: Sale) -> str:
        return moment(sale.opens_at)

    @display(description="Closes at")
    def closing(self, sale: Sale) -> str:
        return moment(sale.closes_at)

    @display(description="Remaining")
    def left(self, sale: Sale) -> int:
        return sale.unsold

    @display(description="Live")
    def live_page(self, sale: Sale) -> SafeString:
        if sale.state in BEFORE_ARMING:
            return SafeString()
        return format_html(STEP_LINK, reverse("admin:orders_live", args=[sale.pk]), "Live page")

    def get_list_display(self, request: HttpRequest) -> tuple[Any, ...]:
        mine = permitted(request.user)

        @display(description="Next")
        def next_steps(sale: Sale) -> SafeString:
            steps = (step for step in offered(sale.state) if step in mine)
            links = ((step_url(sale, step), step.verb.capitalize()) for step in steps)
            return format_html('<span class="fg-line">{}</span>', format_html_join(" · ", STEP_LINK, links))

        return (*self.list_display, next_steps) if mine else self.list_display

    # Who may do what, and until when

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Facts may change until the sale is armed."""
        allowed: bool = super().has_change_permission(request)
        return allowed and (not isinstance(obj, Sale) or obj.is_draft)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Drafts only: whatever was public once stays, with its events."""
        allowed: bool = super().has_delete_permission(request)
        return allowed and (not isinstance(obj, Sale) or obj.state == SaleState.DRAFT)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[UnfoldAction]:
        try:
            state = Sale.objects.filter(pk=object_id).values_list("state", flat=True).first()
        except ValidationError:  # an address that names no sale: the page says so
            state = None
        names = {f"sales_sale_{step.verb}_step" for step in offered(state or "")}
        return [
            action for action in super().get_actions_detail(request, object_id) if action.action_name in names
        ]

    # The form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        armed = obj is not None and not obj.is_draft
        units = ("allotment", "returned") if obj and obj.state == SaleState.SETTLED else ("allotment",)
        return (
            (None, {"fields": ("name", "slug", "product")}),
            (
                "Window",
                {
                    "description": f"Times are {settings.TIME_ZONE}, on the gate's clock.",
                    "fields": ("opening", "closing") if armed else ("opens_at", "closes_at"),
                },
            ),
            (
                "Units and price",
                {"fields": (*units, "limit_per_customer", ("unit_price", "currency"))},
            ),
            ("Admission", {"fields": ("admission_rate", "burst", "admission_required")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # The web processes know a public sale by its key, and its product by the sale.
        shown = ("opening", "closing", "returned")
        return ("slug", "product", *shown) if obj and obj.state != SaleState.DRAFT else shown

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {} if obj and obj.state != SaleState.DRAFT else super().get_prepopulated_fields(request, obj)

    def save_model(self, request: HttpRequest, obj: Sale, form: Any, change: bool) -> None:
        """A new draft is inserted; a change writes the changed columns only, and only while nobody has
        armed the sale. Saving the whole row would put back a state, an epoch or a count of units."""
        if not change:
            super().save_model(request, obj, form, change)
            record_draft(obj, "draft", request.user.get_username(), plain(typed_facts(obj)))
            return
        if not form.changed_data:
            return
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        moved = Sale.objects.filter(pk=obj.pk, state__in=BEFORE_ARMING).update(
            **values, updated_at=timezone.now()
        )
        if not moved:
            raise Overtaken
        before = {name: form.initial.get(name) for name in values}
        record_draft(
            obj, "edit", request.user.get_username(), {"before": plain(before), "after": plain(values)}
        )
        obj.refresh_from_db()
        arming.republish(obj)

    def delete_model(self, request: HttpRequest, obj: Sale) -> None:
        record_draft(obj, "delete_draft", request.user.get_username(), {"name": obj.name})
        deleted, _ = Sale.objects.filter(pk=obj.pk, state=SaleState.DRAFT).delete()
        if not deleted:
            raise Overtaken

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Overtaken:
            return self._refuse(request, "Somebody armed this sale meanwhile: nothing was changed.")
        except arming.Refused as refusal:
            return self._refuse(request, f"Nothing was changed. {refusal}")

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except Overtaken:
            return self._refuse(request, "This sale is not a draft any more: nothing was deleted.")

    def _refuse(self, request: HttpRequest, line: str) -> HttpResponse:
        messages.error(request, line)
        return HttpResponseRedirect(reverse("admin:sales_sale_changelist"))

    # The sale's page

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        extra = dict(extra_context or {})
        sale = self.get_object(request, object_id)
        if sale and request.method == "GET" and self.has_view_permission(request, sale):
            extra |= {
                "live": live(sale),
                "state_colour": STATE_COLOURS.get(SaleState(sale.state), "default"),
                "history": history_of(sale),
                "before_selling": sale.state in BEFORE_SELLING,
                "hint": HINTS[SaleState(sale.state)],
                "numbers": sale.state in WITH_GATE or sale.state == SaleState.SETTLED,
            }
        return super().change_view(request, object_id, form_url, extra)
