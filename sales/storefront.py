"""The store front at `/` and the page that documents the problem types at `/problems`.

The store front must cost next to nothing while a crowd reloads it, and must outlive PostgreSQL: the buy
path needs no database, so a page without a list would be what ends the sale. Hence one query a second for
everybody, and the last list that could be read while none can.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypedDict
from zlib import crc32

from django.core.cache import cache
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from sales.api import LISTED_DAYS
from sales.models import Sale, SaleState
from sales.phases import leads_into_line, phase
from sales.problems import CATALOGUE

# The number is that of ListedSale's fields: another release must not be handed a list that lacks some.
FRESH, LAST, ASKING = "storefront2:fresh", "storefront2:last", "storefront2:asking"
FRESH_SECONDS = 1
LAST_SECONDS = 24 * 3600
# While PostgreSQL is away, only one visitor in this many seconds waits to find that out.
AWAY_SECONDS = 5
LISTED = 200  # cards at most, as the API lists
HUES = 6  # of the cards, in fluxgate.css

# Everything is this page's own; an inline script, style or handler would not run.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥"}
WORTH_REPEATING = {
    "admission-required",
    "all-units-held",
    "body-timeout",
    "internal-error",
    "sale-not-open",
    "sale-paused",
    "temporarily-unavailable",
    "too-busy",
}
REPEAT = "Repeat it with the same Idempotency-Key, not before Retry-After: you cannot buy twice that way."
DO_NOT_REPEAT = "The same request will get the same answer."
PHASE_WORDS = {
    "upcoming": "Upcoming",
    "selling": "On sale now",
    "sold_out": "Sold out",
    "paused": "Paused",
    "closed": "Closed",
}


class ListedSale(TypedDict):
    """What the list needs of a sale, as cached: times aware UTC, price a decimal string."""

    slug: str
    state: str
    name: str
    product_name: str
    description: str
    opens_at: datetime
    closes_at: datetime
    unit_price: str
    currency: str
    limit_per_customer: int
    waiting_room: bool
    sold_out: bool


@require_safe
def storefront(request: HttpRequest) -> HttpResponse:
    """Every sale that is public, as cards; 503 with a friendly page when no list can be had."""
    try:
        sales = listed_sales()
    except (DatabaseError, InterfaceError):
        response = render(request, "storefront.html", {"unavailable": True}, status=503)
        response["Retry-After"] = str(AWAY_SECONDS)
        return _sealed(response, "no-store")
    now = timezone.now()
    cards = sorted((_card(sale, now) for sale in sales), key=_rank)
    context = {"sales": cards, "server_time": _iso(now)}
    return _sealed(render(request, "storefront.html", context), f"public, max-age={FRESH_SECONDS}")


@require_safe
def problems(request: HttpRequest) -> HttpResponse:
    """The page that the `type` of every problem+json answer leads to."""
    entries = [
        {
            "slug": entry.slug,
            "title": entry.title,
            "status": entry.status,
            # Every second piece stood between backquotes, and is code.
            "meaning": entry.meaning.split("`"),
            "what_to_do": REPEAT if entry.slug in WORTH_REPEATING else DO_NOT_REPEAT,
        }
        for entry in CATALOGUE
    ]
    return _sealed(render(request, "problems.html", {"problems": entries}), "public, max-age=300")


def listed_sales() -> list[ListedSale]:
    """The public sales, at most a second old, or the last known ones. Raises DatabaseError or InterfaceError
    without either."""
    fresh: list[ListedSale] | None = cache.get(FRESH)
    if fresh is not None:
        return fresh
    last: list[ListedSale] | None = cache.get(LAST)
    if last is not None and not cache.add(ASKING, True, AWAY_SECONDS):
        return last  # somebody asks already; a database that hangs must not hang everybody
    try:
        read = _read_sales()
    except (DatabaseError, InterfaceError):
        if last is None:
            raise
        cache.set(FRESH, last, AWAY_SECONDS)
        return last
    cache.set(FRESH, read, FRESH_SECONDS)
    cache.set(LAST, read, LAST_SECONDS)
    cache.delete(ASKING)
    return read


def _read_sales() -> list[ListedSale]:
    public = Sale.objects.exclude(state=SaleState.DRAFT).select_related("product")
    recent = public.filter(closes_at__gt=timezone.now() - timedelta(days=LISTED_DAYS))
    return [
        ListedSale(
            slug=sale.slug,
            state=sale.state,
            name=sale.name,
            product_name=sale.product.name,
            description=sale.product.description,
            opens_at=sale.opens_at,
            closes_at=sale.closes_at,
            unit_price=str(sale.unit_price),
            currency=sale.currency,
            limit_per_customer=sale.limit_per_customer,
            waiting_room=sale.admission_required,
            sold_out=sale.sold >= sale.allotment,
        )
        for sale in recent.order_by("-opens_at")[:LISTED]
    ]


def _card(sale: ListedSale, now: datetime) -> dict[str, object]:
    # As PostgreSQL knows it. The page then asks the API, which has the gate's fresher word.
    stands = phase(sale["state"], sale["opens_at"], sale["closes_at"], sold_out=sale["sold_out"], now=now)
    opens = stands == "upcoming"
    when = sale["opens_at"] if opens else sale["closes_at"]
    return {
        **sale,
        "phase": stands,
        "phase_words": PHASE_WORDS[stands],
        "price": _price(sale["unit_price"], sale["currency"]),
        "hue": crc32(sale["slug"].encode()) % HUES,
        "opens_at": _iso(sale["opens_at"]),
        "closes_at": _iso(sale["closes_at"]),
        "when": _iso(when),
        "when_words": "Opens" if opens else "Closes",
        "line": leads_into_line(sale["state"], stands, waiting_room=sale["waiting_room"]),
        "running": stands in ("upcoming", "selling", "paused"),
        "when_text": f"{when.astimezone(UTC):%a %-d %b %Y, %H:%M:%S} UTC",
    }


def _rank(card: dict[str, object]) -> tuple[int, str]:
    """What can be bought first, then what opens next, then what is over."""
    order = ["selling", "paused", "upcoming", "sold_out", "closed"]
    return order.index(str(card["phase"])), str(card["when"])


def _price(amount: str, currency: str) -> str:
    """`€1,299.00`, `CHF 1,299.00`; yen have no cents. As the page's own `money()` writes it."""
    digits = f"{Decimal(amount):,.0f}" if currency == "JPY" else f"{Decimal(amount):,.2f}"
    return f"{SYMBOLS[currency]}{digits}" if currency in SYMBOLS else f"{currency}\u00a0{digits}"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sealed(response: HttpResponse, cache_control: str) -> HttpResponse:
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cache-Control"] = cache_control
    return response
