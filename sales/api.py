"""Public facts of sales: what is sold, when, at what price, and roughly how much is left.

A snapshot per process, at most a second old: the cost for PostgreSQL and the gate is the same
for a hundred visitors as for a million, and a database that is down leaves the last one standing.
"""

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import structlog
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from ninja import Router, Schema
from pydantic import Field

from sales.database import Database, DatabaseAway
from sales.directory import facts
from sales.gate import GateUnreachable
from sales.models import Sale, SaleState
from sales.phases import Phase, UnitsLeft, phase, units_left
from sales.problems import Problem, problems
from sales.turnstile import Turnstile

router = Router(tags=["sales"])
logger = structlog.get_logger(__name__)

SNAPSHOT_SECONDS = 1.0
LISTED_DAYS = 7  # how long a closed sale stays on the list; its own address answers for ever


class ProductFacts(Schema):
    name: str
    description: str


class SaleFacts(Schema):
    """One sale in public. `units_left` is a band, never a number that could be raced."""

    slug: str
    name: str
    product: ProductFacts
    state: str
    phase: Phase
    opens_at: datetime
    closes_at: datetime
    unit_price: str
    currency: str
    limit_per_customer: int
    allotment: int
    units_left: UnitsLeft
    waiting_room: bool = Field(description="Buyers wait in line at `room_url`, from the arming on.")
    orders_url: str
    room_url: str
    server_time: datetime = Field(description="Set countdowns by this clock.")


class SaleList(Schema):
    sales: list[SaleFacts]
    server_time: datetime


class Snapshots:
    """The public facts of sales, remembered for SNAPSHOT_SECONDS. One per process."""

    def __init__(self, turnstile: Turnstile, database: Database) -> None:
        self._turnstile = turnstile
        self._database = database
        self._known: dict[str | None, tuple[float, list[dict[str, Any]]]] = {}
        self._loading: dict[str | None, asyncio.Future[list[dict[str, Any]]]] = {}

    async def get(self, slug: str | None = None) -> list[dict[str, Any]]:
        """The sale with this key, or the list of current ones; [] when there is none.

        Raises Problem when nothing is known and the database does not answer.
        """
        at, known = self._known.get(slug, (float("-inf"), None))
        if known is not None and time.monotonic() - at < SNAPSHOT_SECONDS:
            return known
        loading = self._loading.get(slug)
        if loading is None:  # one of many asks, the others find its answer
            loading = self._loading[slug] = asyncio.ensure_future(self._load(slug))
            loading.add_done_callback(partial(self._loaded, slug))
        try:
            return await asyncio.shield(loading)
        except DatabaseAway as error:
            if known is None:
                raise Problem("temporarily-unavailable", retry_after=2) from error
            return known

    def _loaded(self, slug: str | None, loading: asyncio.Future[list[dict[str, Any]]]) -> None:
        del self._loading[slug]
        if loading.cancelled():
            return
        if (error := loading.exception()) is not None:
            logger.warning("sale facts not refreshed", error=str(error))
        elif (found := loading.result()) or slug is None:  # made-up keys must not fill the memory
            self._known[slug] = (time.monotonic(), found)

    async def _load(self, slug: str | None) -> list[dict[str, Any]]:
        public = Sale.objects.exclude(state=SaleState.DRAFT).select_related("product")
        if slug is None:
            public = public.filter(closes_at__gt=timezone.now() - timedelta(days=LISTED_DAYS))
        else:
            public = public.filter(slug=slug)
        found = await self._database.ask(lambda: list(public.order_by("opens_at", "slug")[:200]))
        try:
            remaining = await self._turnstile.units_remaining([facts(sale) for sale in found])
        except GateUnreachable:
            remaining = [None] * len(found)
        return [_describe(sale, units) for sale, units in zip(found, remaining, strict=True)]


def _describe(sale: Sale, remaining: int | None) -> dict[str, Any]:
    if sale.state == SaleState.SETTLED:  # without a gate, and what has sold out stays so
        remaining = sale.allotment - sale.sold
    return {
        "slug": sale.slug,
        "name": sale.name,
        "product": {"name": sale.product.name, "description": sale.product.description},
        "state": sale.state,
        "opens_at": sale.opens_at.astimezone(UTC),
        "closes_at": sale.closes_at.astimezone(UTC),
        "unit_price": f"{sale.unit_price:.2f}",
        "currency": sale.currency,
        "limit_per_customer": sale.limit_per_customer,
        "allotment": sale.allotment,
        "units_left": units_left(remaining, sale.allotment),
        "waiting_room": sale.admission_required,
        "orders_url": f"/api/v1/sales/{sale.slug}/orders",
        "room_url": f"/static/waitingroom/room.html?sale={sale.slug}",
    }


def _links(sale: str) -> dict[str, Any]:
    """Where a machine goes from an answer; `sale` is the JSON pointer to a sale's key in it."""
    return {
        name: {"operationId": name, "parameters": {"sale": f"$response.body#{sale}"}}
        for name in ("get_sale", "place_order")
    }


@router.get(
    "/sales",
    response={200: SaleList, 304: None, **problems(503)},
    operation_id="list_sales",
    summary="Current sales",
    openapi_extra={"responses": {200: {"links": _links("/sales/0/slug")}}},
)
async def list_sales(request: HttpRequest) -> HttpResponse:
    """Sales that are coming, running, or closed within the last week. Cacheable for a second."""
    known = await _snapshots(request).get()
    now = datetime.now(UTC)
    return _cacheable(request, {"sales": [_at(sale, now) for sale in known], "server_time": now})


@router.get(
    "/sales/{sale}",
    response={200: SaleFacts, 304: None, **problems(404, 503)},
    operation_id="get_sale",
    summary="One sale",
    openapi_extra={"responses": {200: {"links": _links("/slug")}}},
)
async def get_sale(request: HttpRequest, sale: str) -> HttpResponse:
    """The public facts of one sale. Cacheable for a second."""
    known = await _snapshots(request).get(sale) if "\0" not in sale else []
    if not known:
        raise Problem("sale-not-found")
    return _cacheable(request, _at(known[0], datetime.now(UTC)))


def _snapshots(request: HttpRequest) -> Snapshots:
    snapshots: Snapshots = request.scope["state"]["snapshots"]  # type: ignore[attr-defined]
    return snapshots


def _at(known: dict[str, Any], now: datetime) -> dict[str, Any]:
    current = phase(
        known["state"],
        known["opens_at"],
        known["closes_at"],
        sold_out=known["units_left"] == "none",
        now=now,
    )
    return known | {"phase": current, "server_time": now}


def _cacheable(request: HttpRequest, body: dict[str, Any]) -> HttpResponse:
    # The tag leaves server_time out: an unchanged sale is unchanged whatever the clock says.
    unchanging = msgspec.json.encode(_without_time(body))
    etag = f'W/"{hashlib.sha1(unchanging, usedforsecurity=False).hexdigest()[:20]}"'
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponse(status=304)
    else:
        response = HttpResponse(msgspec.json.encode(body), content_type="application/json")
    response["ETag"] = etag
    response["Cache-Control"] = "public, max-age=1"
    return response


def _without_time(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _without_time(value) for name, value in body.items() if name != "server_time"}
    return [_without_time(item) for item in body] if isinstance(body, list) else body
