"""The waiting room's API: the line, the same for everybody, and a place in it for each.

A page reads the line again and again and computes its turn by itself (waitingroom/schedule.py); it asks
for its ticket when it comes, and when its turn has come.
"""

import hashlib
import math
import time
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from sales.buyers import Buyer
from sales.database import DatabaseAway
from sales.directory import Facts
from sales.gate import Fenced, GateUnreachable, from_ms
from sales.phases import units_left
from sales.problems import Problem, problems
from sales.reply import Reply
from sales.turnstile import Turnstile
from waitingroom import tickets
from waitingroom.admission import admit
from waitingroom.draws import Draws
from waitingroom.line import Line
from waitingroom.lines import Lines, Seen
from waitingroom.schedule import number_at
from waitingroom.schemas import LineFacts, LineState, TicketFacts, TicketRequest

router = Router(tags=["waiting room"])

# Not everybody who has a turn buys. Up to so many people per unit that is left, there is still a chance.
HOPE = 3


@router.get(
    "/sales/{sale}/line",
    response={200: LineFacts, 304: None, **problems(404, 503)},
    operation_id="get_line",
    summary="The line of a sale",
)
async def get_line(request: HttpRequest, sale: str) -> HttpResponse:
    """Everything a page needs to know where anybody in line stands. Cacheable for a second."""
    facts = await _facts(request, sale)
    seen = await _seen(request, facts)
    now = seen.clock() if seen else time.time_ns() // 1_000_000
    unchanging = described(facts, seen, now)
    written = msgspec.json.encode(unchanging)
    etag = f'W/"{hashlib.sha1(written, usedforsecurity=False).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=1"}
    if request.headers.get("If-None-Match") == etag:
        return Reply(304, b"", headers)
    body = written[:-1] + b',"server_time":' + msgspec.json.encode(from_ms(now)) + b"}"
    return Reply(200, body, headers | {"Content-Type": "application/json"})


@router.post(
    "/sales/{sale}/tickets",
    auth=Buyer(),
    response={200: TicketFacts, **problems(400, 401, 404, 408, 409, 410, 413, 422, 503)},
    operation_id="take_ticket",
    summary="Take a place in line",
)
async def take_ticket(request: HttpRequest, sale: str, body: TicketRequest) -> HttpResponse:
    """The customer's ticket: the same as often as it is asked for, until its turn was missed."""
    customer: str = request.auth  # type: ignore[attr-defined]
    facts = await _facts(request, sale)
    seen = await _seen(request, facts)
    if facts.over:
        raise Problem("sale-closed")
    if seen is None or not seen.required:
        raise Problem("no-waiting-room")
    line = _line(seen)
    state = _line_state(seen, line, seen.clock())
    if state == "closed":
        raise Problem("sale-closed")
    tag = line.tag(customer)
    shown = tickets.number_of(body.ticket, sale, tag) if body.ticket else None
    missed: int | None = None
    while True:
        now = seen.clock()
        # Never behind the clock: a quiet hour would leave room for a stampede.
        lowest = math.ceil(number_at(line.segments, now))
        try:
            number, entries = await _lines(request).join(
                facts, tag, lowest=lowest, missed=missed, shown=shown
            )
        except GateUnreachable as error:
            raise _unavailable() from error
        turn = line.turn(number, entries)
        if missed is not None or not turn.is_over(now):
            break
        missed = number  # at the end of the line there is another one
    yours = turn.has_begun(now)
    until = now + 1000 * line.turn_seconds if turn.ends is None else turn.ends
    answer = {
        "sale": sale,
        "ticket": tickets.sign(sale, tag, number),
        "number": number,
        "entry": tag,
        "place": turn.place,
        "state": "your_turn" if yours else "prequeue" if now < line.opens_at else "waiting",
        "missed": missed is not None,
        "turn_at": turn.begins and from_ms(turn.begins),
        "turn_ends_at": (yours or None) and from_ms(until),
        # On the clock that will look at it: only the line and the window live on the gate's.
        "admission": admit(sale, customer, until=time.time() + (until - now) / 1000) if yours else None,
        "server_time": from_ms(now),
    }
    return Reply(
        200, msgspec.json.encode(answer), {"Content-Type": "application/json", "Cache-Control": "no-store"}
    )


@router.get(
    "/sales/{sale}/entries",
    response={200: None, **problems(404, 503)},
    operation_id="list_entries",
    summary="The entries of a draw",
    openapi_extra={"responses": {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}},
)
async def list_entries(request: HttpRequest, sale: str) -> HttpResponse:
    """The list that was frozen at the opening: a tag a line, in the order of the numbers, from 0."""
    draws: Draws = _state(request)["draws"]
    await _facts(request, sale)  # made-up keys must not reach PostgreSQL
    try:
        entries = await draws.entries(sale)
    except DatabaseAway as error:
        raise _unavailable() from error
    if entries is None:
        raise Problem("not-found", "There has been no draw for this sale.")
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "public, max-age=86400"}
    return Reply(200, entries, headers)


def described(facts: Facts, seen: Seen | None, now: int) -> dict[str, Any]:
    """LineFacts but for the time; `now` is Unix ms on the gate's clock. `seen` is None before the arming
    and once the sale is settled."""
    line = _line(seen) if seen and (seen.required or seen.line) else None
    told: dict[str, Any] = {
        "sale": facts.slug,
        "state": "closed" if facts.over else "off",
        "opens_at": from_ms(facts.opens_at),
        "closes_at": from_ms(facts.closes_at),
        "turn_seconds": 0,
        "segments": [],
        "tickets": 0,
        "units_left": units_left(seen.remaining, seen.loaded) if seen else "unknown",
        "units_about": _about(seen.remaining) if seen else None,
        "odds": None,
        "draw": line.draw if line else None,
        "message": "",
    }
    if seen is None or line is None or not seen.required:
        return told
    had_a_turn = math.floor(number_at(line.segments, now))
    return told | {
        "state": _line_state(seen, line, now),
        "turn_seconds": line.turn_seconds,
        "segments": [
            {"from_time": from_ms(each.from_time), "from_number": each.from_number, "rate": each.rate}
            for each in line.segments
        ],
        "tickets": seen.tickets,
        "odds": {
            "likely_below": had_a_turn + seen.remaining,
            "possible_below": had_a_turn + HOPE * seen.remaining,
        },
        "message": line.message,
    }


def _line_state(seen: Seen, line: Line, now: int) -> LineState:
    if seen.state == "closed" or now >= line.closes_at:
        return "closed"
    if seen.state == "paused":
        return "paused"
    if seen.state != "arming" and seen.remaining == 0:
        return "sold_out"
    return "prequeue" if now < line.opens_at else "waiting"


def _about(units: int) -> int:
    """1,287 becomes 1,200: enough to decide by, too little to race by."""
    step = 10 ** max(0, len(str(units)) - 2)
    return units // step * step


def _line(seen: Seen) -> Line:
    if seen.line is None:
        raise _unavailable()
    return seen.line


async def _facts(request: HttpRequest, sale: str) -> Facts:
    turnstile: Turnstile = _state(request)["turnstile"]
    try:
        facts = await turnstile.facts(sale) if "\0" not in sale else None
    except (GateUnreachable, Fenced) as error:
        raise _unavailable() from error
    if facts is None:
        raise Problem("sale-not-found")
    return facts


async def _seen(request: HttpRequest, facts: Facts) -> Seen | None:
    """None: the sale is not armed yet, or settled, and has no line."""
    if not (facts.seal or facts.fenced):
        return None
    try:
        return await _lines(request).see(facts)
    except GateUnreachable as error:
        raise _unavailable() from error


def _unavailable() -> Problem:
    return Problem("temporarily-unavailable", retry_after=1)


def _state(request: HttpRequest) -> dict[str, Any]:
    state: dict[str, Any] = request.scope["state"]  # type: ignore[attr-defined]
    return state


def _lines(request: HttpRequest) -> Lines:
    lines: Lines = _state(request)["lines"]
    return lines
