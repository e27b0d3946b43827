"""The orders API: place, look at, cancel. HTTP in, HTTP out; `orders.placing` does the work.

The answers come in the order of the decision table of docs/api.md, and tests walk it row by
row. Nothing on the way to a 202 opens a database connection.
"""

import re
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from orders import idempotency, metrics
from orders.cancelling import cancel
from orders.claims import order_id as make_order_id
from orders.log import Acknowledgements, LogUnavailable
from orders.placing import Placed, place
from orders.quick import quick
from orders.schemas import LINKS, PLACING_HEADERS, OrderAccepted, OrderRequest, OrderStatus
from orders.status import Standing, Standings
from sales.buyers import Buyer, customer_of
from sales.database import DatabaseAway
from sales.directory import Facts
from sales.gate import Answer, Attempt, Fenced, GateUnreachable, Verdict, from_ms, to_ms
from sales.problems import Problem, problems
from sales.refusals import Refusals
from sales.reply import Reply
from sales.turnstile import Turnstile
from waitingroom import admission, shedding

router = Router(tags=["orders"])

_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_POLL_SECONDS = {"held": 2, "queued": 1}


class BuyerWithKey(Buyer):
    """Rows 1 and 2: they are decided before the body is looked at, and so is this."""

    def check(self, request: HttpRequest) -> str:
        customer = customer_of(request)
        header = request.headers.get("Idempotency-Key")
        if header is None:
            raise Problem("idempotency-key-missing")
        if "," in header and _times(request, b"idempotency-key") > 1:  # Django joins them into a third key
            raise Problem("idempotency-key-invalid", "The key cannot be used: there are several headers.")
        try:
            request.idempotency_key = idempotency.parse(header)  # type: ignore[attr-defined]
        except idempotency.KeyInvalid as error:
            raise Problem("idempotency-key-invalid", f"The key cannot be used: {error}.") from None
        if request.content_type != "application/json":
            raise Problem("unsupported-media-type")
        return customer


@router.post(
    "/sales/{sale}/orders",
    auth=BuyerWithKey(),
    response={
        202: OrderAccepted,
        302: None,
        **problems(400, 401, 403, 404, 408, 409, 410, 413, 415, 422, 429, 503),
    },
    operation_id="place_order",
    summary="Place an order",
    openapi_extra={
        "parameters": PLACING_HEADERS,
        "responses": {202: {"links": LINKS}},
    },
)
@quick
async def place_order(request: HttpRequest, sale: str, body: OrderRequest) -> HttpResponse:
    """Asks for units of a sale. Repeat with the same key after any doubt: it names the same order.

    With more traffic than the sale admits, clients that do not ask for JSON are sent to the
    waiting room by a 302.
    """
    state = _state(request)
    turnstile: Turnstile = state["turnstile"]
    log: Acknowledgements = state["log"]
    customer: str = request.auth  # type: ignore[attr-defined]
    key: str = request.idempotency_key  # type: ignore[attr-defined]
    admitted = _is_admitted(request, sale, customer)
    try:
        facts = await turnstile.facts(sale)
        if facts is None:
            raise Problem("sale-not-found")
        attempt = Attempt(
            make_order_id(facts.sale_id, customer, key),
            customer,
            body.quantity,
            admitted,
        )
        if facts.over:
            return await _after_settling(request, facts, attempt)
        if not (facts.seal or facts.fenced):  # public, but not armed: there is no gate to ask yet
            raise await _not_open(turnstile, facts)
        placed = await place(turnstile, log, facts, attempt, traceparent=_traceparent(request))
    except (GateUnreachable, Fenced, LogUnavailable, DatabaseAway) as error:
        metrics.answers.count("unavailable")
        raise Problem("temporarily-unavailable", retry_after=1) from error
    metrics.answers.count(placed.answer.verdict)
    if placed.state is None:
        return _refuse(request, facts, placed, turnstile.repeating(facts, placed.answer))
    return _accept(facts, placed, body.quantity)


@router.get(
    "/orders/{order_id}",
    auth=Buyer(),
    response={200: OrderStatus, 304: None, **problems(401, 404, 503)},
    operation_id="order_status",
    summary="State of an order",
    openapi_extra={"responses": {200: {"links": LINKS}}},
)
async def order_status(request: HttpRequest, order_id: str) -> HttpResponse:
    """The order's state from the moment of the 202 on. Poll after `Retry-After` until `final`."""
    standing = await _mine(request, order_id)
    etag = f'W/"{standing.state}"'
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponse(status=304)
    else:
        response = _json(standing.body(), 200)
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    if not standing.final:
        response["Retry-After"] = str(_POLL_SECONDS[standing.state])
    return response


@router.post(
    "/orders/{order_id}/cancel",
    auth=Buyer(),
    response={200: OrderStatus, 202: OrderStatus, **problems(401, 404, 408, 413, 503)},
    operation_id="cancel_order",
    summary="Cancel an order",
    openapi_extra={"responses": {200: {"links": LINKS}, 202: {"links": LINKS}}},
)
async def cancel_order(request: HttpRequest, order_id: str) -> HttpResponse:
    """Gives the units back, exactly once. 202 until the order book says so, 200 when all is done."""
    standing = await _mine(request, order_id)
    if standing.state in ("refused", "cancelled"):
        return _json(standing.body(), 200)
    state = _state(request)
    try:
        await cancel(state["turnstile"], state["log"], standing)
    except (GateUnreachable, Fenced, LogUnavailable) as error:
        raise Problem("temporarily-unavailable", retry_after=1) from error
    response = _json(standing.body() | {"final": False}, 202)  # it will be cancelled: ask again
    response["Retry-After"] = "1"
    return response


def _state(request: HttpRequest) -> dict[str, Any]:
    """The process's clients, made in the lifespan of fluxgate_site.asgi."""
    return cast(dict[str, Any], request.scope["state"])  # type: ignore[attr-defined]


def _times(request: HttpRequest, name: bytes) -> int:
    """How often the request carries this header; the name in lower case."""
    return [each for each, _ in request.scope["headers"]].count(name)  # type: ignore[attr-defined]


def _is_admitted(request: HttpRequest, sale: str, customer: str) -> bool:
    token = request.headers.get(admission.HEADER)
    if token is None:
        return False
    try:
        return admission.is_live(token, sale, customer)
    except admission.AdmissionInvalid as error:
        raise Problem("admission-invalid", f"The admission was not accepted: {error}.") from None


def _traceparent(request: HttpRequest) -> str | None:
    """The W3C trace context of the caller, if it is one: it travels on with the claim."""
    value = request.headers.get("traceparent")
    return value if value and _TRACEPARENT.fullmatch(value) else None


async def _mine(request: HttpRequest, order_id: str) -> Standing:
    """The order, if it is this buyer's. Foreign ids and unknown ones look the same."""
    try:
        wanted = UUID(order_id)
    except ValueError:
        raise Problem("order-not-found") from None
    try:
        standings: Standings = _state(request)["standings"]
        standing = await standings.find(wanted)
    except (GateUnreachable, Fenced, DatabaseAway) as error:
        raise Problem("temporarily-unavailable", retry_after=1) from error
    if standing is None or standing.customer != request.auth:  # type: ignore[attr-defined]
        raise Problem("order-not-found")
    return standing


def _status_url(order_id: UUID | str) -> str:
    return f"/api/v1/orders/{order_id}"


def _accept(facts: Facts, placed: Placed, quantity: int) -> HttpResponse:
    # server_time is the claim's own, so that a replay repeats the original body to the byte.
    body = {
        "order_id": placed.order_id,
        "state": placed.state,
        "sale": facts.slug,
        "quantity": quantity,
        "status_url": (url := _status_url(placed.order_id)),
        "server_time": from_ms(placed.answer.first),
    }
    headers = {
        "Content-Type": "application/json",
        "Location": url,
        "Cache-Control": "no-store",
    }
    if placed.answer.verdict is Verdict.REPLAYED:
        headers["Idempotency-Replayed"] = "true"
    if placed.state == "held":
        headers["Retry-After"] = str(_POLL_SECONDS["held"])
    return Reply(202, msgspec.json.encode(body), headers)


def _refuse(request: HttpRequest, facts: Facts, placed: Placed, refusals: Refusals | None) -> HttpResponse:
    """The verdict as an answer: rows 5 and 7 to 12 of the decision table."""
    verdict, first, _, now = placed.answer
    common: dict[str, Any] = {"server_time": from_ms(now)}
    match verdict:
        case Verdict.KEY_REUSED:
            raise Problem("idempotency-key-reused", **common)
        case Verdict.NOT_OPEN:
            raise _opens_later(facts, now)
        case Verdict.CLOSED:
            raise Problem("sale-closed", **common)
        case Verdict.PAUSED:
            raise Problem("sale-paused", retry_after=shedding.retry_after(2000), **common)
        case Verdict.ADMISSION_REQUIRED:
            raise Problem("admission-required", room_url=shedding.room_url(facts.slug), **common)
        case Verdict.BUSY:
            return _turn_away(request, facts, float(first), common, refusals)
        case Verdict.LIMIT_REACHED:
            if not first:
                raise Problem("limit-reached", "So many units are above the limit.", order_url=None, **common)
            raise Problem("limit-reached", order_url=_status_url(first), **common)
        case Verdict.SOLD_OUT if int(first) > 0:
            # Held for as long as an acknowledgement takes: milliseconds, or until the sweeper comes.
            raise Problem("all-units-held", retry_after=1, refusals=refusals, **common)
        case _:
            raise Problem("sold-out", refusals=refusals, **common)


def _turn_away(
    request: HttpRequest, facts: Facts, wait_ms: float, common: dict[str, Any], refusals: Refusals | None
) -> HttpResponse:
    room, seconds = shedding.room_url(facts.slug), shedding.retry_after(wait_ms)
    if shedding.wants_json(request):
        raise Problem("too-busy", retry_after=seconds, room_url=room, refusals=refusals, **common)
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Location": room,
        "Retry-After": str(seconds),
        "Cache-Control": "no-store",
    }
    return Reply(302, b"", headers, refusals)


async def _after_settling(request: HttpRequest, facts: Facts, attempt: Attempt) -> HttpResponse:
    """The gate is gone with the claims it knew. Who repeats a key must still never hear “no” for an order
    that exists (I5), so the order book is asked: the only order that waits for PostgreSQL."""
    standings: Standings = _state(request)["standings"]
    standing = await standings.written(UUID(attempt.order_id))
    now = to_ms(datetime.now(UTC))
    verdict = Verdict.CLOSED
    if standing is not None:
        same = standing.quantity == attempt.quantity
        verdict = Verdict.REPLAYED if same else Verdict.KEY_REUSED
    metrics.answers.count(verdict)
    claimed = str(to_ms(standing.claimed_at)) if standing else ""
    placed = Placed(Answer(verdict, claimed, "", now), attempt.order_id, "queued")
    if verdict is Verdict.REPLAYED:
        return _accept(facts, placed, attempt.quantity)
    return _refuse(request, facts, placed, None)


async def _not_open(turnstile: Turnstile, facts: Facts) -> Problem:
    return _opens_later(facts, await turnstile.now_ms())


def _opens_later(facts: Facts, now: int) -> Problem:
    # An operator opens the sale by hand: when the window is open already, ask again soon.
    seconds = max(1, -(-(facts.opens_at - now) // 1000))
    return Problem(
        "sale-not-open",
        retry_after=seconds,
        opens_at=from_ms(facts.opens_at),
        server_time=from_ms(now),
    )


def _json(body: dict[str, Any], status: int) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(body), content_type="application/json", status=status)
