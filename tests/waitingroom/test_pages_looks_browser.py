"""How the pages look and what they say when things are missing. Leaves a screenshot of every page."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import ViewportSize, expect

from sales import arming
from sales.models import Product, Sale
from sales.problems import CATALOGUE
from tests.running_site import Site
from tests.waitingroom.visitor import DESKTOP, ORDERS, PAGES, PHONE, Visitor, crowding

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]

LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverleihungsurkunde"
MISSING = {
    "countdown.html": "There is no such sale",
    "countdown.html?sale=nothing-here": "There is no such sale",
    "countdown.html?sale=%3Cscript%3E": "There is no such sale",
    "room.html": "There is no such sale",
    "room.html?sale=nothing-here&quantity=1": "There is no such sale",
    "room.html?sale=nothing-here&quantity=-3": "There is no such sale",
    "order.html": "No order named",
    "order.html?order=nothing-here": "We do not know this order",
    "order.html?order=11111111-1111-4111-8111-111111111111": "We do not know this order",
}


@pytest.fixture(scope="module")
def window(shop: Site) -> dict[str, Sale]:
    """A shop window with something in every state, and names that no designer had in mind."""

    def show(product: str, description: str = "", **facts: Any) -> Sale:
        sale = shop.sell(**facts)
        Product.objects.filter(pk=sale.product_id).update(name=product, description=description)
        return sale

    window = {
        "selling": show(
            "Aurora headphones",
            "Closed-back, tuned by hand, made once. Numbered on the inside of the band.",
            allotment=40,
            limit=3,
            name="Saturday drop",
            unit_price="349.00",
        ),
        "crowded": show(
            "Risograph poster", name="Print run 7", allotment=99, limit=99, admission_rate=1, burst=1
        ),
        "paused": show("Field jacket", "Waxed cotton.", name="Members’ night", unit_price="480.00"),
        "upcoming": show("Stoneware mug", "Thrown by hand.", name="Autumn edition", opens_in=3_000, limit=4),
        "far": show(
            LONG,
            name=f"A name that is too long: {LONG}",
            opens_in=400_000,
            closes_in=500_000,
            unit_price="9999999999.99",
        ),
        "over": show("Ceramic lamp", name="Friday drop", allotment=1, unit_price="220.00"),
    }
    assert shop.buy(window["over"].slug, "faster").status_code == 202
    arming.pause(window["paused"], actor="test")
    return window


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_is_photographed(
    shop: Site,
    window: dict[str, Sale],
    visit: Callable[..., Visitor],
    viewport: ViewportSize,
    scheme: str,
) -> None:
    visitor = visit(viewport, color_scheme=scheme)
    page = visitor.page

    def keep(name: str) -> None:
        visitor.does_not_scroll_sideways()
        visitor.photographs(f"{name}-{scheme}")

    expect(visitor.finds(window["over"]).get_by_text("Sold out", exact=True)).to_be_visible()
    keep("storefront")

    for name in ("upcoming", "far"):
        visitor.goes_to(f"{PAGES}/countdown.html?sale={window[name].slug}")
        expect(page.get_by_role("timer")).to_be_visible()
        keep(f"countdown-{name}")
    visitor.goes_to(f"{PAGES}/countdown.html?sale={window['selling'].slug}")
    expect(page.get_by_role("button", name="Buy for")).to_be_visible()
    keep("countdown-open")

    visitor.context.route(ORDERS, crowding(shop, window["crowded"], attempts=2))
    visitor.buys(window["crowded"])
    visitor.arrives("room")
    expect(page.locator("[data-next]")).to_have_text(re.compile(r"^in \d+ s$"))
    keep("room")
    visitor.arrives("order")
    visitor.context.unroute(ORDERS)

    visitor.buys(window["selling"])
    visitor.arrives("order")
    visitor.sees("Confirmed")
    keep("order")

    visitor.goes_to("/problems")
    keep("problems")


def test_every_problem_type_is_documented(visitor: Visitor) -> None:
    page = visitor.goes_to("/problems")
    for problem in CATALOGUE:
        entry = page.locator(f"#{problem.slug}")
        expect(entry.get_by_role("heading")).to_have_text(problem.title)
        expect(entry.locator(".status")).to_have_text(str(problem.status))


@pytest.mark.parametrize(("address", "heading"), MISSING.items())
def test_what_is_missing_is_said_kindly(visitor: Visitor, address: str, heading: str) -> None:
    page = visitor.goes_to(f"{PAGES}/{address}")
    expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.get_by_role("link", name="See all sales")).to_be_visible()


def test_an_order_of_somebody_else_is_not_shown(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell()
    order = shop.buy(sale.slug, "somebody-else").json()["order_id"]
    page = visitor.goes_to(f"{PAGES}/order.html?order={order}")
    expect(page.get_by_role("heading", name="We do not know this order")).to_be_visible()


def test_names_are_text_and_never_markup(shop: Site, visitor: Visitor) -> None:
    name = "<img src=x onerror=alert(1)> & co"
    sale = shop.sell(name=name, opens_in=3_000)
    expect(visitor.finds(sale).get_by_text(name)).to_be_visible()
    page = visitor.goes_to(f"{PAGES}/countdown.html?sale={sale.slug}")
    expect(page.get_by_text(name)).to_be_visible()
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("path", ["/", *(f"{PAGES}/{name}.html" for name in ("countdown", "room", "order"))])
def test_without_javascript_a_page_says_what_does_not_work(visit: Callable[..., Visitor], path: str) -> None:
    visitor = visit(PHONE, java_script_enabled=False)
    page = visitor.goes_to(path)
    # Playwright's text selectors skip what is inside <noscript>; people do not.
    note = page.locator("noscript .note")
    expect(note).to_be_visible()
    expect(note).to_contain_text("needs JavaScript")
    visitor.does_not_scroll_sideways()


def test_without_javascript_the_sales_can_be_read(shop: Site, visit: Callable[..., Visitor]) -> None:
    sale = shop.sell(opens_in=3_000, limit=2)
    card = visit(java_script_enabled=False).finds(sale)
    expect(card.get_by_role("heading", name=sale.product.name)).to_be_visible()
    expect(card.get_by_text("each, up to 2 per customer")).to_be_visible()
    expect(card.get_by_text(f"{sale.opens_at:%H:%M:%S} UTC")).to_be_visible()
    expect(card.get_by_role("button", name="Buy")).to_be_hidden()


def test_who_asked_for_less_motion_gets_none(visit: Callable[..., Visitor]) -> None:
    visitor = visit(reduced_motion="reduce")
    page = visitor.goes_to(f"{PAGES}/room.html?sale=any")
    assert page.locator(".gate i").first.evaluate("arch => getComputedStyle(arch).animationName") == "none"
