"""The line without JavaScript: a page that refreshes itself, at `/line/<sale>`.

It tells what the line's document tells, and with `?ticket=` where that ticket stands. Whoever buys without
JavaScript buys through the shop's own server, which has the buyer's token and takes the ticket for them.
"""

import math
from typing import Any

from asgiref.sync import sync_to_async
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
from waitingroom.schedule import number_at

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
        return await _answer(request, {}, status=503)
    if seen and seen.required and seen.line is None:
        return await _answer(request, {}, status=503)
    told = described(facts, seen, seen.clock() if seen else 0)
    context: dict[str, Any] = {"line": told}
    if seen and seen.line and told["state"] != "off":
        context |= _place(seen, seen.line, sale, request.GET.get("ticket", ""))
    return await _answer(request, context)


def _place(seen: Seen, line: Line, sale: str, ticket: str) -> dict[str, Any]:
    """Where the ticket stands: `ahead` people, `turn` and its end, or that it is over."""
    found = tickets.read(ticket)
    if found is None or found[0] != sale:
        return {}
    number, now = found[2], seen.clock()
    turn = line.turn(number, seen.entries)
    ahead = None if turn.place is None else max(0, math.ceil(turn.place - number_at(line.segments, now)))
    return {
        "number": number,
        "ahead": ahead,
        "turn": from_ms(turn.begins) if turn.begins and turn.begins > now else None,
        "is_turn": turn.has_begun(now) and not turn.is_over(now),
        "missed": turn.is_over(now),
    }


async def _answer(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    still = "still" in request.GET
    given = {"ticket": request.GET.get("ticket", ""), "refresh": None if still else REFRESH_SECONDS}
    # In a thread: the page's frame may ask the cache, and PostgreSQL, for the brand.
    response = await sync_to_async(render)(request, "line.html", context | given, status=status)
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cache-Control"] = "no-store"
    if status != 200:
        response["Retry-After"] = str(REFRESH_SECONDS)
    return response
