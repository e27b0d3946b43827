"""The two steps of parked records, as pages: a GET says what will happen, a POST with a reason does it.

Whether a step is taken is decided by `orders.parking` alone, record by record, so a page that has
gone stale, or a button pressed twice, harms nothing.
"""

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import redis
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin

from orders import parking
from orders.models import ParkedRecord, ParkedState
from sales import gate
from sales.admin.moments import moment
from sales.admin.steps import Explanation
from sales.forms import ReasonForm

AT_ONCE = 200  # records of one press; each takes its own transaction, and a browser waits for all of them
SHOWN = 5  # lines of one result that are worth reading


class Step(NamedTuple):
    verb: str
    past: str
    offered_in: frozenset[str]
    perform: Callable[[ParkedRecord, redis.Redis, str, str], str]
    explain: Callable[[bool], Explanation]
    danger: bool


def _replay(record: ParkedRecord, client: redis.Redis, actor: str, reason: str) -> str:
    done = parking.replay(record.pk, client=client, actor=actor, reason=reason)
    if not done.told:
        return f"{done.line}. The gate did not answer: replay it again when it does."
    return f"{done.line}."


def _drop(record: ParkedRecord, client: redis.Redis, actor: str, reason: str) -> str:
    parking.drop(record.pk, actor=actor, reason=reason)
    return "dropped."


def _explain_replay(again: bool) -> Explanation:
    if again:
        return Explanation(["It was replayed before. Nothing is written again; the gate is told again."], [])
    return Explanation(
        [
            "What was parked is fulfilled again, by the rules of the log: an order, a cancel or a rearming "
            "that came meanwhile wins over it.",
            "What the order book then says is told to the gate. Doing it twice writes once.",
            "What still cannot be used stays parked, and the attempt is counted.",
        ],
        [],
    )


def _explain_drop(again: bool) -> Explanation:
    return Explanation(
        [
            "What is dropped is never replayed: an order that was promised in it is never written.",
            "It stays in the list, whole, with your reason.",
        ],
        [],
    )


STEPS = {
    "replay": Step(
        "replay",
        "replayed",
        frozenset({ParkedState.PARKED, ParkedState.REPLAYED}),
        _replay,
        _explain_replay,
        danger=False,
    ),
    "drop": Step("drop", "dropped", frozenset({ParkedState.PARKED}), _drop, _explain_drop, danger=True),
}


def offered(state: str) -> list[Step]:
    return [step for step in STEPS.values() if state in step.offered_in]


def confirm(
    admin: ModelAdmin,
    request: HttpRequest,
    records: QuerySet[ParkedRecord],
    step: Step,
    list_action: str | None = None,
) -> HttpResponse:
    """The confirmation page of a step, or what comes of it."""
    back = reverse("admin:orders_parkedrecord_changelist")
    chosen = list(records.order_by("topic", "incarnation", "partition", "offset")[: AT_ONCE + 1])
    if len(chosen) > AT_ONCE:
        messages.error(
            request, f"At most {AT_ONCE} at once here; `manage.py parked` takes any number. Nothing was done."
        )
        return HttpResponseRedirect(back)
    if list_action is None:
        back = reverse("admin:orders_parkedrecord_change", args=[chosen[0].pk])
        if request.method != "POST" and chosen[0].state not in step.offered_in:
            messages.warning(request, f"{chosen[0]} is {chosen[0].state}: “{step.verb}” is not possible now.")
            return HttpResponseRedirect(back)
    # A list sends its first POST without a reason: it asks for this page.
    answered = request.method == "POST" and (list_action is None or "reason" in request.POST)
    form = ReasonForm(request.POST if answered else None)
    if form.is_valid():
        _perform(request, chosen, step, form.cleaned_data["reason"])
        return HttpResponseRedirect(back)
    return TemplateResponse(
        request,
        "admin/sales/confirm.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"{step.verb.capitalize()} {_name(chosen)}?",
            "opts": admin.opts,
            "original": chosen[0] if list_action is None else None,
            "explanation": step.explain(list_action is None and chosen[0].state == ParkedState.REPLAYED),
            "facts": _facts(chosen),
            "form": form,
            "hidden": _selection(chosen, list_action) if list_action else [],
            "button": f"{step.verb.capitalize()} {'this record' if len(chosen) == 1 else 'these records'}",
            "danger": step.danger,
            "back": back,
        },
    )


def _perform(request: HttpRequest, records: list[ParkedRecord], step: Step, reason: str) -> None:
    done, refused = [], []
    with closing(gate.connect()) as client:
        for record in records:
            try:
                line = step.perform(record, client, request.user.get_username(), reason)
            except parking.StillUnusable as error:
                refused.append(f"{record} is still parked: {error}")
            except parking.Refused as error:
                refused.append(f"{record}: {error}")
            except (OperationalError, InterfaceError):
                refused.append(f"{record}: PostgreSQL did not answer; have a look before you try again.")
                break
            else:
                done.append(f"{record}: {line}")
    if len(done) > SHOWN:
        messages.success(request, f"{len(done)} records {step.past}.")
    else:
        for line in done:
            messages.success(request, line)
    for line in refused[:SHOWN]:
        messages.error(request, line)
    if len(refused) > SHOWN:
        messages.error(request, f"… and {len(refused) - SHOWN} more.")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _selection(records: list[ParkedRecord], list_action: str) -> list[tuple[str, object]]:
    """What makes Django's list run the same action on the same records again."""
    return [("action", list_action), *((ACTION_CHECKBOX_NAME, record.pk) for record in records)]


def _name(records: list[ParkedRecord]) -> str:
    return str(records[0]) if len(records) == 1 else f"{len(records)} records"


def _facts(records: list[ParkedRecord]) -> list[tuple[str, object]]:
    if len(records) == 1:
        [record] = records
        return [
            ("Cause", record.cause),
            ("State", record.get_state_display()),
            ("Tried", f"{_times(record.attempts)}, last on {moment(record.tried_at)}"),
            ("Parked", moment(record.parked_at)),
        ]
    shown: list[tuple[str, object]] = [(str(record), record.cause) for record in records[:SHOWN]]
    if len(records) > SHOWN:
        shown.append(("…", f"and {len(records) - SHOWN} more"))
    return shown
