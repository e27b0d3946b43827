"""axe-core looks at every page in every state, at two widths, light and dark: it finds nothing to object to.

The pages run nothing but their own files, so axe is not loaded by them: the browser's devtools evaluate it.
"""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from sales import arming
from sales.models import Product, Sale
from tests.running_site import Site, eventually
from tests.waitingroom.standing import join, line, queue_up, stands, win
from tests.waitingroom.visitor import DESKTOP, PAGES, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with somebody who writes the orders down, and somebody who keeps the lines."""
    site.consumer()
    site.gatekeeper()
    return site


@pytest.fixture(scope="module")
def sales(shop: Site) -> dict[str, Sale]:
    """One sale for each state in which a page can be found."""
    far = {"opens_in": 3_000}
    slow: dict[str, Any] = {"room": {"turn_rate": 1, "turn_seconds": 600}, "allotment": 500}
    sales = {
        "selling": shop.sell(limit=3),
        "upcoming": shop.sell(**far),
        "over": shop.sell(allotment=1),
        "prequeue": queue_up(shop, 3, **far),
        "waiting": queue_up(shop, 90, **slow),
        "turn": queue_up(
            shop, limit=3, allotment=50, room={"turn_seconds": 600, "message": "Tea is served."}
        ),
        "sold_out": queue_up(shop, allotment=1, room={"turn_seconds": 600}),
        "paused": queue_up(shop, 5, **slow),
        "closed": queue_up(shop),
        "drawn": queue_up(shop, 3, opens_in=4, **slow),
    }
    described = "Closed-back, tuned by hand, made once."
    Product.objects.filter(pk=sales["selling"].product_id).update(description=described)
    assert shop.buy(sales["over"].slug, "faster").status_code == 202
    win(shop, sales["sold_out"], "faster")
    arming.pause(sales["paused"], actor="test")
    arming.close(sales["closed"], actor="test")
    eventually(lambda: line(shop, sales["drawn"])["draw"]["seed"])
    return sales


def objections(page: Page, without: str | None = None) -> list[str]:
    """What axe objects to, with all its rules but one: rule, how bad, where."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if without:
        options["rules"] = {without: {"enabled": False}}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{each['id']} ({each['impact']}): {node['target']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_shuts_anybody_out(
    shop: Site,
    sales: dict[str, Sale],
    visit: Callable[..., Visitor],
    viewport: ViewportSize,
    scheme: str,
) -> None:
    visitor = visit(viewport, color_scheme=scheme)
    page = visitor.page
    found: dict[str, list[str]] = {}

    def look(name: str, without: str | None = None) -> None:
        visitor.does_not_scroll_sideways()
        visitor.photographs(f"axe-{name}-{scheme}")
        found[name] = objections(page, without)

    visitor.finds(sales["drawn"])
    expect(page.locator(f"#{sales['prequeue'].slug} [data-clock]")).not_to_be_empty()
    look("storefront")
    for name in ("selling", "upcoming", "prequeue", "waiting", "paused", "over"):
        visitor.goes_to(f"{PAGES}/countdown.html?sale={sales[name].slug}")
        expect(page.locator("[data-panel]")).to_be_visible()
        look(f"countdown-{name}")

    for name, heading in {
        "prequeue": "You are here in time",
        "paused": "The shop has paused this sale",
        "sold_out": "Sold out",
        "closed": "This sale is closed",
        "selling": "The waiting room",
    }.items():
        stands(visitor, sales[name])
        visitor.sees(heading)
        look(f"room-{name}")
    join(shop, sales["waiting"], 40)
    stands(visitor, sales["waiting"])
    visitor.sees("You are in line")
    look("room-waiting")
    stands(visitor, sales["turn"])
    visitor.sees("It is your turn")
    expect(page.locator("[data-message-box]")).to_be_visible()
    look("room-turn")

    page.get_by_role("button", name="Buy for").click()
    visitor.arrives("order")
    visitor.sees("Confirmed")
    look("order")
    visitor.goes_to(f"{PAGES}/order.html?order=nothing-here")
    expect(page.get_by_role("heading", name="We do not know this order")).to_be_visible()
    look("order-missing")

    visitor.goes_to(f"{PAGES}/draw.html?sale={sales['prequeue'].slug}")
    visitor.sees("The draw has not been made yet")
    look("draw-before")
    visitor.goes_to(f"{PAGES}/draw.html?sale={sales['drawn'].slug}")
    visitor.sees("Everything holds")
    for summary in page.locator("summary:visible").all():
        summary.click()
    look("draw-after")

    # Without JavaScript a page can only load itself again to follow a line. Who minds can stop it.
    visitor.goes_to(f"/line/{sales['waiting'].slug}")
    look("plain", without="meta-refresh")
    page.get_by_role("link", name="Ask only when I reload it").click()
    look("plain-still")
    for name, path in {"problems": "/problems", "nowhere": "/nothing-here"}.items():
        visitor.goes_to(path)
        look(name)
    assert {name: each for name, each in found.items() if each} == {}


def test_what_is_planted_is_seen(shop: Site, sales: dict[str, Sale], visitor: Visitor) -> None:
    page = visitor.goes_to(f"{PAGES}/countdown.html?sale={sales['upcoming'].slug}")
    expect(page.locator("[data-panel]")).to_be_visible()
    assert objections(page) == []
    page.evaluate(
        """() => {
            const pale = document.createElement("p");
            pale.textContent = "Hard to read";
            Object.assign(pale.style, { color: "#999", background: "#bbb" });
            document.querySelector("main").append(new Image(20, 20), document.createElement("button"), pale);
        }"""
    )
    rules = {each.partition(" ")[0] for each in objections(page)}
    assert rules == {"image-alt", "button-name", "color-contrast"}
