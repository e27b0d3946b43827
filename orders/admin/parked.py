"""Parked records on the desk: what could not be used, why, and what has become of it."""

import json
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from orders.admin.lists import EstimatedPaginator, History
from orders.admin.parked_steps import STEPS, confirm, offered
from orders.admin.payload import readable
from orders.models import ParkedRecord, ParkedRecordEvent, ParkedState
from sales.admin.moments import moment
from sales.admin.readonly import ReadOnlyAdmin

STATE_COLOURS = {
    ParkedState.PARKED: "warning",
    ParkedState.REPLAYED: "success",
    ParkedState.DROPPED: "danger",
}


class ParkedRecordEvents(History):
    model = ParkedRecordEvent
    verbose_name_plural = "What was done with it"
    fields = readonly_fields = ("when", "step", "actor", "reason", "outcome")


@admin.register(ParkedRecord)
class ParkedRecordAdmin(ReadOnlyAdmin):
    """To look at with the view permission; who may change parked records may replay them, and who may
    delete them may drop them. No row is changed by its form or deleted, whoever asks."""

    list_display = ("where", "state_label", "cause", "attempts", "parked")
    list_filter = (("state", ChoicesDropdownFilter), "topic")
    list_filter_submit = True
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    paginator = EstimatedPaginator
    ordering = ("-parked_at", "-id")
    sortable_by = ()
    actions = ("replay_selected", "drop_selected")
    actions_detail = ("replay_step", "drop_step")
    inlines = (ParkedRecordEvents,)
    fields = (
        ("topic", "partition", "offset"),
        ("state", "attempts"),
        "cause",
        ("parked", "tried"),
        "shown_key",
        "shown_value",
        "shown_headers",
    )
    readonly_fields = ("parked", "tried", "shown_key", "shown_value", "shown_headers")

    class Media:
        css = {"all": ("sales/admin.css",)}

    # The list

    @display(description="Record")
    def where(self, record: ParkedRecord) -> str:
        return str(record)

    @display(description="State", label=STATE_COLOURS)
    def state_label(self, record: ParkedRecord) -> tuple[str, str]:
        return record.state, record.get_state_display()

    @display(description="Parked at")
    def parked(self, record: ParkedRecord) -> str:
        return moment(record.parked_at)

    @display(description="Last tried at")
    def tried(self, record: ParkedRecord) -> str:
        return moment(record.tried_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        # Django would answer an action that somebody may not take with the list.
        if request.method == "POST":
            mine = self.get_actions(request)
            if not mine or set(request.POST.getlist("action")) - {"", *mine}:
                raise PermissionDenied
        return super().changelist_view(request, extra_context)

    @action(description="Replay selected records", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[ParkedRecord]) -> HttpResponse:
        return confirm(self, request, queryset, STEPS["replay"], "replay_selected")

    @action(description="Drop selected records", permissions=["drop"])
    def drop_selected(self, request: HttpRequest, queryset: QuerySet[ParkedRecord]) -> HttpResponse:
        return confirm(self, request, queryset, STEPS["drop"], "drop_selected")

    # The page of one

    @display(description="Key")
    def shown_key(self, record: ParkedRecord) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', readable(bytes(record.key)))

    @display(description="Value")
    def shown_value(self, record: ParkedRecord) -> str:
        return format_html('<pre class="fg-payload">{}</pre>', readable(bytes(record.value)))

    @display(description="Headers")
    def shown_headers(self, record: ParkedRecord) -> str:
        lines = (
            f"{name}: {value if isinstance(value, str) else json.dumps(value)}"
            for name, value in record.headers
        )
        return format_html('<pre class="fg-payload">{}</pre>', readable("\n".join(lines).encode()))

    @action(
        description="Replay",
        url_path="replay",
        icon="replay",
        variant=ActionVariant.PRIMARY,
        permissions=["replay"],
    )
    def replay_step(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(request, object_id, "replay")

    @action(
        description="Drop",
        url_path="drop",
        icon="delete",
        variant=ActionVariant.DANGER,
        permissions=["drop"],
    )
    def drop_step(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._step(request, object_id, "drop")

    def _step(self, request: HttpRequest, object_id: str, verb: str) -> HttpResponse:
        record = self.get_object(request, object_id)
        if record is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return confirm(self, request, ParkedRecord.objects.filter(pk=record.pk), STEPS[verb])

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[UnfoldAction]:
        try:
            state = ParkedRecord.objects.filter(pk=object_id).values_list("state", flat=True).first()
        except ValueError:  # an address that names no record: the page says so
            state = None
        names = {f"orders_parkedrecord_{step.verb}_step" for step in offered(state or "")}
        return [each for each in super().get_actions_detail(request, object_id) if each.action_name in names]

    def has_replay_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("orders.change_parkedrecord")

    def has_drop_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("orders.delete_parkedrecord")
