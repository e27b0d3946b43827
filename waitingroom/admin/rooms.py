"""The waiting room in the admin: pace, length of a turn, and what everybody in line is told."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from sales.admin.events import record_draft
from sales.gate import from_ms
from sales.models import Sale, SaleEvent
from waitingroom.models import Pace, Room

SETTINGS = ("turn_rate", "turn_seconds", "steers", "least_rate", "most_rate", "passes", "message")
BEACON = ("beacon_name", "beacon")
# For whoever may change a room without being one who may make it.
OPERATED = ("turn_rate", "steers", "least_rate", "most_rate", "message")
NOT_OPERATED = tuple(name for name in (*SETTINGS, *BEACON) if name not in OPERATED)


class Paces(TabularInline):
    """Why the line went faster or slower: the newest first."""

    model = Pace
    ordering = ("-ordinal",)
    fields = readonly_fields = ("since", "number", "turns", "reason")
    hide_title = True
    extra = max_num = 0
    can_delete = False
    per_page = 20
    verbose_name_plural = "pace of the line"

    @display(description="Since (UTC)")
    def since(self, pace: Pace) -> str:
        return f"{from_ms(pace.from_time):%Y-%m-%d %H:%M:%S}"

    @display(description="From number")
    def number(self, pace: Pace) -> str:
        return f"{pace.from_number:,.0f}"

    @display(description="Turns per second")
    def turns(self, pace: Pace) -> str:
        return f"{pace.rate:g}"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Room)
class RoomAdmin(ModelAdmin):
    list_display = ("sale", "turn_rate", "steers", "passes", "turn_seconds", "message", "entered")
    list_filter = (("sale", AutocompleteSelectFilter),)
    list_filter_submit = True
    list_select_related = ("sale",)
    search_fields = ("sale__slug", "sale__name")
    autocomplete_fields = ("sale",)
    fieldsets = (
        (None, {"fields": ("sale", ("turn_rate", "turn_seconds"), "message", "passes")}),
        ("Steering", {"fields": ("steers", ("least_rate", "most_rate"))}),
        ("The draw", {"fields": ("beacon_name", "beacon", "commitment", "entered", "digest")}),
    )
    readonly_fields = ("commitment", "entered", "digest")
    inlines = (Paces,)
    actions = None

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("entries")  # megabytes

    def get_readonly_fields(self, request: HttpRequest, obj: Room | None = None) -> Any:
        if obj is None or obj.entered is None:
            fixed: tuple[str, ...] = BEACON if obj and obj.beacon_name else ("beacon",)
        else:  # the entries are frozen: an announced beacon may get its value, and nothing else
            fixed = ("beacon_name",) if obj.beacon_name and not obj.beacon else BEACON
        if not self.has_add_permission(request):
            fixed = NOT_OPERATED
        return (*self.readonly_fields, *fixed) if obj is None else ("sale", *self.readonly_fields, *fixed)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Room, form: Any, change: bool) -> None:
        """Only what the form has: the draw may be frozen between the reading of the page and its saving."""
        after = {name: form.cleaned_data[name] for name in form.changed_data if name in (*SETTINGS, *BEACON)}
        before = {name: form.initial.get(name) for name in after}
        with transaction.atomic():
            if change:
                for name in BEACON:
                    if name in after and not self._announced(obj, name, after[name]):
                        after.pop(name)
                        self.message_user(
                            request,
                            "A beacon that was announced stays, and so does its value.",
                            messages.WARNING,
                        )
                obj.save(update_fields=[name for name in after if name not in BEACON])
            else:
                super().save_model(request, obj, form, change)
            if after:
                self._record(obj.sale, request.user.get_username(), {"before": before, "after": after})

    @staticmethod
    def _announced(room: Room, name: str, value: str) -> bool:
        """A name before the freeze, its value behind it, each once: whatever the page has shown."""
        stands = Room.objects.filter(pk=room.pk, entered__isnull=name == "beacon_name", **{name: ""})
        if name == "beacon":
            stands = stands.exclude(beacon_name="")
        return bool(stands.update(**{name: value}))

    @staticmethod
    def _record(sale: Sale, actor: str, detail: dict[str, Any]) -> None:
        if sale.is_draft:
            record_draft(sale, "waiting_room", actor, detail)
        else:
            SaleEvent.objects.create(sale=sale, actor=actor, action="waiting_room", detail=detail)
