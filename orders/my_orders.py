"""A buyer's own orders, newest first: what the order book has of them."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router

from orders.schemas import OrderList
from orders.status import Standings
from sales.buyers import Buyer
from sales.database import DatabaseAway
from sales.problems import Problem, problems

router = Router(tags=["orders"])


@router.get(
    "/orders",
    auth=Buyer(),
    response={200: OrderList, **problems(401, 503)},
    operation_id="list_orders",
    summary="A buyer's orders",
)
async def list_orders(request: HttpRequest) -> HttpResponse:
    """The buyer's newest 100 orders that are written down. One that is still `held` or `queued` joins
    them within moments; until then its own address knows it."""
    state: dict[str, Any] = request.scope["state"]  # type: ignore[attr-defined]
    standings: Standings = state["standings"]
    try:
        found = await standings.of_customer(request.auth)  # type: ignore[attr-defined]
    except DatabaseAway as error:
        raise Problem("temporarily-unavailable", retry_after=2) from error
    body = {"orders": [standing.body() for standing in found], "server_time": datetime.now(UTC)}
    response = HttpResponse(msgspec.json.encode(body), content_type="application/json")
    response["Cache-Control"] = "private, no-cache"
    return response
