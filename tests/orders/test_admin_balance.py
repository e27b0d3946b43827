"""The balance of a sale in the admin: who may see it, what it says, and how it looks."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.urls import reverse
from playwright.sync_api import Browser, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from orders import comparison
from orders.models import Order
from sales.gate import mark_queued, pool_keys
from sales.models import Sale
from tests.desk import EVERYTHING, sale_in, sign_in
from tests.orders.records import take
from tests.running_site import free_port
from tests.waitingroom.visitor import DESKTOP, PATIENCE_MS, PHONE, Visitor

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sale(own_topic: str) -> Sale:
    return sale_in("open", name="Saturday drop", slug="saturday", stock=140, allotment=100)


@pytest.fixture(autouse=True)
def a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SECOND_LOOK_SECONDS", 0.05)


def page(sale: Sale, *permissions: str) -> Any:
    return sign_in(*permissions).get(reverse("admin:orders_balance", args=[sale.pk]))


def lose(gate: redis.Redis, sale: Sale, count: int = 2) -> None:
    """Claims that the log has acknowledged and lost."""
    placed = take(sale, count)
    mark_queued(gate, sale.id, 0, sale.epoch, [claim.order_id for claim in placed])


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        ((), 403),
        (("sales.view_sale",), 403),
        (("orders.view_order",), 403),
        (("sales.view_sale", "orders.view_order"), 200),
        ((EVERYTHING,), 200),
    ],
)
def test_who_may_see_it(sale: Sale, permissions: tuple[str, ...], status: int) -> None:
    assert page(sale, *permissions).status_code == status


def test_nobody_sees_it_without_signing_in(sale: Sale, client: Any) -> None:
    answer = client.get(reverse("admin:orders_balance", args=[sale.pk]))
    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("admin:login"))


def test_a_sale_that_does_not_exist(sale: Sale) -> None:
    address = reverse("admin:orders_balance", args=[uuid4()])
    assert sign_in(EVERYTHING).get(address).status_code == 404


@pytest.mark.parametrize(
    ("permission", "linked"), [("orders.view_order", True), ("sales.view_product", False)]
)
def test_the_sales_page_leads_to_it(sale: Sale, permission: str, linked: bool) -> None:
    address = reverse("admin:orders_balance", args=[sale.pk])
    answer = sign_in("sales.view_sale", permission).get(reverse("admin:sales_sale_change", args=[sale.pk]))
    assert (address in answer.content.decode()) is linked


def test_books_that_agree(sale: Sale) -> None:
    text = page(sale, EVERYTHING).content.decode()
    assert "All three books agree." in text
    assert "reconcile" not in text


def test_what_differs_with_the_command_that_repairs_it(sale: Sale, gate: redis.Redis) -> None:
    lose(gate, sale)
    text = page(sale, EVERYTHING).content.decode()
    assert "I3: without a row in the order book, and nothing is left to read: 2 claims (2 units)" in text
    assert "manage.py reconcile --sale saturday --fix --wait 30" in text


def test_what_no_command_repairs(sale: Sale) -> None:
    Sale.objects.filter(pk=sale.pk).update(sold=1)
    text = page(sale, EVERYTHING).content.decode()
    assert "I1: the sale says 1 units sold, its confirmed orders 0" in text
    assert "No command repairs this" in text


def test_what_is_under_way(sale: Sale) -> None:
    take(sale, 1)
    text = page(sale, EVERYTHING).content.decode()
    assert "1 units are held, 0 queued" in text
    assert "goes on by itself" in text


def test_a_gate_that_is_away(sale: Sale, settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"}
    )
    answer = page(sale, EVERYTHING)
    assert answer.status_code == 200
    assert "Nothing could be compared" in answer.content.decode()


def test_looking_changes_nothing(sale: Sale, gate: redis.Redis) -> None:
    lose(gate, sale)
    before = gate.hgetall(pool_keys(sale.id).gate)
    page(sale, EVERYTHING)
    assert gate.hgetall(pool_keys(sale.id).gate) == before
    assert Order.objects.count() == 0
    address = reverse("admin:orders_balance", args=[sale.pk])
    assert sign_in("sales.change_sale").post(address).status_code == 403


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.mark.browser
@pytest.mark.timeout(100)
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_and_is_photographed(
    browser: Browser, live_server: LiveServer, sale: Sale, gate: redis.Redis, viewport: Any
) -> None:
    context = browser.new_context(viewport=viewport)
    visitor = Visitor(context, live_server.url)
    session = sign_in(EVERYTHING).cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
    opened = visitor.goes_to(reverse("admin:sales_sale_change", args=[sale.pk]))
    opened.get_by_role("link", name="Balance").click()
    expect(opened.locator(".fg-balance")).to_contain_text("All three books agree")
    visitor.does_not_scroll_sideways()
    visitor.photographs("admin-balance")

    with ThreadPoolExecutor(1) as other:  # playwright runs a loop in this thread
        other.submit(lose, gate, sale, 3).result()
    gate.hincrby(pool_keys(sale.id).gate, "remaining", -1)
    opened.get_by_role("link", name="Look again").click()
    expect(opened.locator(".fg-balance .fg-state")).to_have_text("differs")
    expect(opened.locator("pre")).to_be_visible()
    visitor.does_not_scroll_sideways()
    visitor.photographs("admin-balance-differs")
    context.close()
    assert visitor.complaints == []
