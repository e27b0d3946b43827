"""One person with a browser, and what a test may ask of them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Route,
    ViewportSize,
    expect,
)

from sales.models import Sale
from tests.running_site import CHECKOUT, Site

PATIENCE_MS = 30_000
PAGES = "/static/waitingroom"
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
ORDERS = re.compile(r"/api/v1/sales/[^/]+/orders$")


class Visitor:
    """A browser with its own cookies and storage. Notes what the pages complained about and sent."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.context = context
        self.complaints: list[str] = []
        self.orders_sent: list[Request] = []
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._listen)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("request", self._note)
        self.page = context.new_page()

    def goes_to(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def finds(self, sale: Sale) -> Locator:
        """The sale's card on the store front, whose list may be as old as its cache."""
        self.goes_to("/")
        card = self.page.locator(f"article[data-slug='{sale.slug}']")
        for _ in range(20):
            if card.count():
                break
            self.page.wait_for_timeout(250)
            self.page.reload()
        expect(card).to_be_visible()
        return card

    def buys(self, sale: Sale) -> Locator:
        """Presses Buy on the store front."""
        card = self.finds(sale)
        card.get_by_role("button", name="Buy for").click()
        return card

    def arrives(self, name: str) -> dict[str, str]:
        """Waits for the page of this name; returns the parameters of its address."""
        self.page.wait_for_url(f"**{PAGES}/{name}.html**")
        return {key: values[0] for key, values in parse_qs(urlsplit(self.page.url).query).items()}

    def sees(self, heading: str) -> None:
        expect(self.page.locator("[data-heading]")).to_have_text(heading)

    def keys_sent(self) -> set[str]:
        return {request.headers["idempotency-key"] for request in self.orders_sent}

    def does_not_scroll_sideways(self) -> None:
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert self.page.viewport_size is not None
        assert width <= self.page.viewport_size["width"], f"{self.page.url} is {width} px wide"

    def photographs(self, name: str) -> None:
        """The whole page as a PNG in FLUXGATE_SCREENSHOTS, named after the page and its width."""
        assert self.page.viewport_size is not None
        folder = Path(os.environ.get("FLUXGATE_SCREENSHOTS", CHECKOUT / ".fluxgate" / "screenshots"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{self.page.viewport_size['width']}.png"
        self.page.screenshot(path=path, full_page=True, animations="disabled")

    def _listen(self, message: ConsoleMessage) -> None:
        # Chromium writes every 4xx and 5xx to the console, but a refusal is an answer, not a defect.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _note(self, request: Request) -> None:
        if request.method == "POST" and ORDERS.search(request.url):
            self.orders_sent.append(request)


def crowding(site: Site, sale: Sale, attempts: int) -> Callable[[Route], None]:
    """A route handler: right before each of the first attempts, others take all that the door lets through.

    The sale needs an admission rate of 1 a second, so that nothing is left for a moment afterwards.
    """
    left = [attempts]

    def handle(route: Route) -> None:
        if left[0] > 0:
            left[0] -= 1
            while site.buy(sale.slug, "crowd", key=uuid4().hex).status_code in (202, 409):
                pass
        route.continue_()

    return handle
