"""The live page in a browser, on a running site: its numbers are those of `/metrics` and of the books."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import redis
import requests
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, Request, ViewportSize, expect
from prometheus_client.parser import text_string_to_metric_families

from sales import arming
from sales.gate import image
from sales.models import Sale
from tests.proxy import Proxy
from tests.running_site import Site, Web, eventually, free_port
from tests.waitingroom.standing import queue_up
from tests.waitingroom.test_axe_browser import objections
from tests.waitingroom.visitor import DESKTOP, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]

WALL: ViewportSize = {"width": 1920, "height": 1080}
PASSWORD = "a long password"
# Keeps what the page was told, for the tests to hold against what it shows.
LISTEN = """
window.told = [];
const ask = window.fetch;
window.fetch = async (...question) => {
    const answer = await ask(...question);
    if (answer.ok) window.told.push(await answer.clone().json());
    return answer;
};
"""
_names = count()


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with somebody who writes the orders down, and somebody who keeps the lines."""
    site.consumer()
    site.gatekeeper()
    User.objects.create_superuser("olivia", password=PASSWORD)
    return site


@pytest.fixture
def watch(browser: Browser, shop: Site) -> Iterator[Callable[..., Visitor]]:
    """Operators, signed in by hand, in front of a live page. Holds at the end that no page complained."""
    visitors: list[Visitor] = []

    def make(sale: Sale, viewport: ViewportSize = DESKTOP, web: Web = shop, **options: Any) -> Visitor:
        visitor = Visitor(browser.new_context(viewport=viewport, **options), web.url)
        visitors.append(visitor)
        visitor.context.add_init_script(LISTEN)
        address = reverse("admin:orders_live", args=[sale.pk])
        page = visitor.goes_to(f"{reverse('admin:login')}?next={address}")
        page.fill("#id_username", "olivia")
        page.fill("#id_password", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url(f"**{address}")
        return visitor

    yield make
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


def buy(shop: Site, sale: Sale, times: int) -> None:
    with ThreadPoolExecutor(4) as crowd:
        for answer in crowd.map(lambda _: shop.buy(sale.slug, f"buyer-{next(_names)}"), range(times)):
            assert answer.status_code in (202, 409, 429), answer.text


def shown(page: Page, name: str) -> str:
    return page.locator(f'[data-show="{name}"]').inner_text()


def number(text: str) -> int:
    return int(text.replace(",", ""))


def verdicts(page: Page) -> dict[str, int]:
    cells = page.locator("[data-total]")
    found = cells.evaluate_all("cells => cells.map(cell => [cell.dataset.total, cell.textContent])")
    return {verdict: total for verdict, text in found if (total := number(text))}


def metrics(shop: Web) -> dict[str, int]:
    """Answers by verdict as `/metrics` has them, without those that nobody has got yet."""
    text = requests.get(f"http://127.0.0.1:{shop.metrics_port}/metrics", timeout=10).text
    return {
        sample.labels["verdict"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "fluxgate_answers_total" and sample.value
    }


def refreshes(page: Page) -> None:
    """Until the page shows an answer to a question that it asks from now on."""
    with page.expect_request("**/numbers/"):
        pass
    told = page.evaluate("window.told.length")
    page.wait_for_function("before => window.told.length > before", arg=told)
    page.wait_for_timeout(50)  # the page has its answer one tick after we have


def test_numbers_are_those_of_the_metrics_and_the_books(
    shop: Site, watch: Callable[..., Visitor], gate: redis.Redis
) -> None:
    sale = shop.sell(allotment=150)
    page = watch(sale).page
    load = ThreadPoolExecutor(1).submit(buy, shop, sale, 250)
    under_load = 0
    while not load.done():
        before, standing = metrics(shop), image(gate, sale.pk)
        refreshes(page)
        seen = verdicts(page)
        remaining, sold = number(shown(page, "remaining")), number(shown(page, "sold"))
        after, left, books = metrics(shop), image(gate, sale.pk), Sale.objects.get(pk=sale.pk)
        assert standing
        assert left
        assert left.remaining <= remaining <= standing.remaining
        assert sold <= books.sold
        assert all(before[verdict] <= seen.get(verdict, 0) for verdict in before)
        assert all(total <= after[verdict] for verdict, total in seen.items())
        under_load += 1
    load.result()
    assert under_load >= 1
    eventually(lambda: Sale.objects.get(pk=sale.pk).sold == 150)
    refreshes(page)
    refreshes(page)  # the web processes tell their metrics ten times a second, not at once
    told = metrics(shop)
    assert verdicts(page) == told
    assert (told["claimed"], told["sold_out"]) >= (150, 100)
    expect(page.locator('[data-show="balance"]')).to_have_text("balanced")
    assert [number(shown(page, name)) for name in ("remaining", "held", "queued", "sold")] == [0, 0, 0, 150]
    assert shown(page, "balance-sum") == "150 loaded = 0 + 0 + 0 + 150"
    expect(page.locator('[data-show="unread"]')).to_have_text("0")
    expect(page.locator('[data-show="behind"]')).to_have_text("0 s")
    assert shown(page, "parked") == "0"
    assert shown(page, "epoch") == str(sale.epoch)
    for name in ("claims-chart", "verdicts-chart"):
        most = re.search(
            r", ([\d.,]+) at most", page.locator(f'[data-show="{name}"]').get_attribute("aria-label") or ""
        )
        assert most
        assert float(most[1].replace(",", "")) > 0


def test_rates_and_percentiles_follow_from_the_answers(shop: Site, watch: Callable[..., Visitor]) -> None:
    sale = shop.sell(allotment=5000)
    page = watch(sale).page
    enough = threading.Event()
    load = ThreadPoolExecutor(1).submit(lambda: [buy(shop, sale, 4) for _ in iter(enough.is_set, True)])
    refreshes(page)
    refreshes(page)

    def agree() -> bool:
        """Whether what is shown is what Python makes of the last answers."""
        refreshes(page)
        before, now, shown_claims, shown_claimed = page.evaluate(
            """() => [...window.told.slice(-2), ...["claims-rate", "rate-0"].map(
                (name) => document.querySelector(`[data-show="${name}"]`).textContent
            )]"""
        )
        claims = (now["claims"] - before["claims"]) * 1000 / (now["clock"] - before["clock"])
        one, other = before["host"], now["host"]
        claimed = other["answers"].get("claimed", 0) - one["answers"].get("claimed", 0)
        claimed = claimed * 1000 / (other["at"] - one["at"])
        return claims > 0 < claimed and (shown_claims, shown_claimed) == (spoken(claims), spoken(claimed))

    try:
        eventually(agree)
    finally:
        enough.set()
        load.result()
    p50, p99 = shown(page, "acknowledgement_seconds-p50"), shown(page, "acknowledgement_seconds-p99")
    assert re.fullmatch(r"[\d.,]+ m?s", p50)
    assert re.fullmatch(r"[\d.,]+ m?s", p99)


def spoken(rate: float) -> str:
    """As the page writes a rate: one digit after the point below ten, none above."""
    text = f"{rate + 1e-9:,.1f}" if rate < 10 else f"{rate + 1e-9:,.0f}"
    return text.removesuffix(".0")


def test_percentiles_are_those_of_prometheus(shop: Site, watch: Callable[..., Visitor]) -> None:
    page = watch(shop.sell()).page
    script = """async ([share, before, after]) => {
        const { quantile } = await import("/static/orders/live_rates.js");
        return quantile(share, before, after);
    }"""
    bounds = [0.1, 0.5, 1, None]

    def ask(share: float, after: list[int], before: list[int] | None = None) -> Any:
        begun = [list(each) for each in zip(bounds, before, strict=True)] if before else None
        return page.evaluate(script, [share, begun, [list(each) for each in zip(bounds, after, strict=True)]])

    assert ask(0.5, [10, 10, 10, 10]) == {"seconds": 0.05, "above": False}
    assert ask(0.5, [0, 4, 4, 4]) == {"seconds": pytest.approx(0.3), "above": False}
    assert ask(0.99, [50, 99, 100, 100]) == {"seconds": pytest.approx(0.5), "above": False}
    assert ask(0.99, [0, 0, 1, 9]) == {"seconds": 1, "above": True}
    assert ask(0.5, [7, 9, 9, 9], before=[7, 7, 7, 7]) == {"seconds": pytest.approx(0.3), "above": False}
    assert ask(0.5, [7, 7, 7, 7], before=[7, 7, 7, 7]) is None


def test_a_step_from_the_page_and_back(shop: Site, watch: Callable[..., Visitor]) -> None:
    sale = shop.sell()
    page = watch(sale).page
    refreshes(page)
    since = page.locator("[data-since]").first.inner_text()
    page.get_by_role("navigation", name="Steps of this sale").get_by_role("link", name="Pause").click()
    page.get_by_label("Reason").fill("the shop asked for it")
    page.locator("form[data-once] button").click()
    page.wait_for_url(f"**{reverse('admin:orders_live', args=[sale.pk])}")
    expect(page.locator('[data-show="label"]')).to_have_text("Paused")
    expect(page.locator('[data-show="gate-state"]')).to_have_text("paused")
    assert Sale.objects.get(pk=sale.pk).state == "paused"
    assert page.locator("[data-since]").first.inner_text() == since, "the charts have begun anew"
    expect(page.get_by_text("is paused now.")).to_be_visible()
    assert objections(page) == []
    steps = page.get_by_role("navigation", name="Steps of this sale").get_by_role("link")
    expect(steps).to_contain_text(["Resume", "Close sale"])
    # What somebody else does is seen, without a reload.
    page.evaluate("window.here = true")
    arming.resume(Sale.objects.get(pk=sale.pk), actor="test")
    expect(page.locator('[data-show="label"]')).to_have_text("Open")
    expect(steps).to_contain_text(["Pause", "Close sale"])
    assert page.evaluate("window.here") is True


def test_a_line_in_front_of_the_sale(shop: Site, watch: Callable[..., Visitor]) -> None:
    sale = queue_up(shop, 12, room={"turn_rate": 0, "turn_seconds": 600}, allotment=50)
    page = watch(sale).page
    expect(page.locator('[data-show="waiting"]')).to_have_text("12")
    expect(page.locator('[data-show="turns"]')).to_have_text("0 turns a second")
    expect(page.locator('[data-show="line-note"]')).to_contain_text("12 tickets")


@pytest.fixture
def lines_cut(shop: Site) -> Iterator[tuple[Web, Proxy, Proxy]]:
    """Another web process whose gate and PostgreSQL can be taken away."""
    flux = settings.FLUXGATE
    proxies, changed = [], {}
    for name in ("gate_url", "database_url"):
        address = getattr(flux, name)
        [port] = re.findall(r":(\d+)/", address)
        proxy = Proxy(free_port(), int(port))
        proxy.up()
        proxies.append(proxy)
        changed[f"FLUXGATE_{name.upper()}"] = address.replace(f":{port}/", f":{proxy.port}/")
    web = shop.another_web(**changed)
    web.wait("/readyz")
    yield web, proxies[0], proxies[1]
    for proxy in proxies:
        proxy.down()


def test_what_is_away_is_said_and_comes_back(
    shop: Site, watch: Callable[..., Visitor], lines_cut: tuple[Web, Proxy, Proxy]
) -> None:
    web, gate, database = lines_cut
    sale = shop.sell(allotment=40)
    visitor = watch(sale, web=web)
    page = visitor.page
    alarm, units = page.locator('[data-show="alarm"]'), page.locator(".fgl-units div[data-source=gate]").first
    expect(page.locator('[data-show="remaining"]')).to_have_text("40")
    expect(alarm).to_be_hidden()

    gate.down()
    expect(alarm).to_contain_text("The gate is unreachable")
    expect(units).to_have_class(re.compile("fgl-old"))
    expect(page.locator('[data-show="remaining"]')).to_have_text("40")
    expect(page.locator(".fgl-foot [data-age]")).to_contain_text(re.compile(r"not known now, \d+ s old"))
    expect(page.locator('[data-show="sold"]')).to_have_text("0")
    visitor.photographs("live-page-gate-away")
    gate.up()
    expect(alarm).to_be_hidden()
    expect(units).not_to_have_class(re.compile("fgl-old"))
    expect(page.locator(".fgl-foot [data-age]")).to_be_empty()

    database.down()
    expect(alarm).to_contain_text("the site or PostgreSQL does not answer")
    expect(page.locator('[data-show="remaining"]')).to_have_text("40")
    database.up()
    expect(alarm).to_be_hidden()


def test_who_is_signed_out_is_told_and_the_page_stops_asking(
    shop: Site, watch: Callable[..., Visitor]
) -> None:
    visitor = watch(shop.sell())
    page = visitor.page
    expect(page.locator('[data-show="remaining"]')).to_have_text("10")
    visitor.context.clear_cookies()
    expect(page.locator('[data-show="alarm"]')).to_contain_text("You are signed out")
    expect(page.get_by_role("link", name="Open this page again")).to_be_visible()
    expect(page.locator('[data-show="remaining"]')).to_have_text("10")
    assert asked_within(page, 5000) == 0


def test_a_page_that_nobody_sees_asks_nothing(shop: Site, watch: Callable[..., Visitor]) -> None:
    page = watch(shop.sell()).page
    refreshes(page)
    page.evaluate("""() => {
        window.unseen = true;
        Object.defineProperty(document, "hidden", { get: () => window.unseen });
    }""")
    page.wait_for_timeout(2500)  # what it may still have asked
    assert asked_within(page, 5000) == 0
    with page.expect_request("**/numbers/"):
        page.evaluate("""() => {
            window.unseen = false;
            document.dispatchEvent(new Event("visibilitychange"));
        }""")
    refreshes(page)


def asked_within(page: Page, milliseconds: int) -> int:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/numbers/" in request.url else None)
    page.wait_for_timeout(milliseconds)
    return len(asked)


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP, WALL], ids=["phone", "desktop", "wall"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_shuts_nobody_out_and_is_photographed(
    shop: Site, watch: Callable[..., Visitor], viewport: ViewportSize, scheme: str
) -> None:
    sale = shop.sell(f"saturday-{uuid4().hex[:4]}", allotment=120, name="Saturday drop")
    visitor = watch(sale, viewport, color_scheme=scheme)
    page = visitor.page
    for times in (4, 16, 10):
        buy(shop, sale, times)
        refreshes(page)
    expect(page.locator(".fgl-chart canvas")).to_have_count(2)
    visitor.does_not_scroll_sideways()
    visitor.photographs(f"live-page-{scheme}")
    assert objections(page) == []
    page.locator("summary").click()
    assert objections(page) == []
    visitor.does_not_scroll_sideways()
