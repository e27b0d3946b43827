"""The line without JavaScript: a page that refreshes itself, at `/line/<sale>`.

It tells what the line's document tells, and with `?ticket=` where that ticket stands. Whoever buys without
JavaScript buys through the shop's own server, which has the buyer's token and takes the ticket for them.
"""

import math
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from sales.directory import Facts
from sales.gate import Fenced, GateUnreachable, from_ms
from sales.storefront import CONTENT_SECURITY_POLICY
from waitingroom import tickets
from waitingroom.api import described
from waitingroom.line import Line
from waitingroom.lines import Lines, Seen
from waitingroom.schedule import number_at, turn_at, turn_ends_at

REFRESH_SECONDS = 15


@require_safe
async def plain_line(request: HttpRequest, sale: str) -> HttpResponse:
    """The page; 503 with Retry-After while the gate does not answer, 404 for a sale that is not public."""
    state: dict[str, Any] = request.scope["state"]  # type: ignore[attr-defined]
    lines: Lines = state["lines"]
    try:
        facts: Facts | None = await state["turnstile"].facts(sale)
        if facts is None:
            raise Http404
        seen = await lines.see(facts) if facts.seal or facts.fenced else None
    except (GateUnreachable, Fenced):
        context: dict[str, Any] = {"refresh": REFRESH_SECONDS}
        return _answer(request, context, status=503)
    if seen and seen.required and seen.line is None:
        return _answer(request, {"refresh": REFRESH_SECONDS}, status=503)
    told = described(facts, seen, seen.clock() if seen else 0)
    context = {"line": told, "refresh": REFRESH_SECONDS}
    if seen and seen.line and told["state"] != "off":
        context |= _place(seen, seen.line, sale, request.GET.get("ticket", ""))
    return _answer(request, context)


def _place(seen: Seen, line: Line, sale: str, ticket: str) -> dict[str, Any]:
    """Where the ticket stands: `ahead` people, `turn` and its end, or that it is over."""
    found = tickets.read(ticket)
    if found is None or found[0] != sale:
        return {}
    number, now = found[2], seen.clock()
    place = line.place(number, seen.entries)
    begins = None if place is None else turn_at(line.segments, place)
    ends = None if begins is None else turn_ends_at(line.segments, begins, line.turn_seconds)
    return {
        "number": number,
        "ahead": None if place is None else max(0, math.ceil(place - number_at(line.segments, now))),
        "turn": from_ms(begins) if begins and begins > now else None,
        "is_turn": bool(begins and begins <= now and (ends is None or now < ends)),
        "missed": bool(ends and now >= ends),
    }


def _answer(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    response = render(request, "line.html", context, status=status)
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cache-Control"] = "no-store"
    if status != 200:
        response["Retry-After"] = str(REFRESH_SECONDS)
    return response
