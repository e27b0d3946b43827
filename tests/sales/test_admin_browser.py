"""The admin in a real browser: a sale day by hand, and how the pages look."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from orders.models import Order, OrderEvent, OrderState, ParkedRecord
from sales.gate import pool_keys
from sales.models import Product, Sale
from tests.desk import draft, sale_in
from tests.waitingroom.visitor import DESKTOP, PHONE, Visitor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(100),
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("log_topic"),
]


def sale_page(sale: Sale) -> str:
    return reverse("admin:sales_sale_change", args=[sale.pk])


def takes_step(page: Page, verb: str, state: str) -> None:
    """Presses a button of the sale's page, confirms with a reason, and waits for the new state."""
    page.locator(f'a[href$="/{verb}/"]').click()
    page.get_by_label("Reason").fill(f"{verb} in the test")
    page.locator("form[data-once] button").click()
    expect(page.locator('[data-live="label"]')).to_have_text(state)
    expect(page.locator(".fg-history")).to_contain_text(f"{verb} in the test")


def test_a_sale_day_by_hand(browser: Browser, live_server: LiveServer) -> None:
    User.objects.create_superuser("olivia", password="a long password")
    page = Visitor(browser.new_context(viewport=DESKTOP), live_server.url).goes_to(reverse("admin:index"))
    page.fill("#id_username", "olivia")
    page.fill("#id_password", "a long password")
    page.click("button[type=submit]")

    page.get_by_role("link", name="product", exact=True).click()  # "A sale day starts with a product"
    page.fill("#id_sku", "TEE")
    page.fill("#id_name", "Concert tee")
    page.fill("#id_stock", "25")
    page.click("button[name=_continue]")

    page.get_by_text("Add another Sale window").click()
    page.type("#id_sales-0-name", "Friday drop")
    expect(page.locator("#id_sales-0-slug")).to_have_value("friday-drop")
    now = timezone.now()
    for field, moment in (("opens_at", now), ("closes_at", now + timedelta(hours=1))):
        page.fill(f"#id_sales-0-{field}_0", moment.strftime("%d/%m/%Y"))
        page.fill(f"#id_sales-0-{field}_1", moment.strftime("%H:%M:%S"))
    page.fill("#id_sales-0-allotment", "10")
    page.fill("#id_sales-0-unit_price", "19.90")
    page.click("button[name=_continue]")

    page.get_by_role("link", name="Friday drop").click()
    takes_step(page, "schedule", "Scheduled")
    takes_step(page, "arm", "Armed")
    expect(page.locator('[data-live="remaining"]')).to_have_text("10")
    takes_step(page, "open", "Open")
    takes_step(page, "pause", "Paused")
    takes_step(page, "resume", "Open")
    takes_step(page, "close", "Closed")
    assert Product.objects.get().stock == 15
    page.context.close()


def test_a_double_click_changes_the_stock_once(operator: Callable[..., Visitor]) -> None:
    product = Product.objects.create(sku="TEE", name="Concert tee", stock=10)
    page = operator().goes_to(reverse("admin:sales_product_change_stock", args=[product.pk]))
    page.get_by_label("Change stock by").fill("5")
    page.get_by_label("Reason").fill("second delivery")
    page.locator("form[data-once] button").dblclick()
    expect(page.get_by_text("now 15 units")).to_be_visible()
    product.refresh_from_db()
    assert product.stock == 15


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_is_photographed(
    operator: Callable[..., Visitor], gate: redis.Redis, viewport: dict[str, int]
) -> None:
    written = draft(name="Autumn edition", slug="autumn", stock=50)
    running = sale_in("open", name="Saturday drop", slug="saturday", stock=140, allotment=100)
    gate.hset(pool_keys(running.pk).gate, mapping={"remaining": 37, "held": 3, "queued": 12, "settled": 48})
    Sale.objects.filter(pk=running.pk).update(sold=48)
    bought = Order.objects.create(
        id="11111111-1111-4111-8111-111111111111",
        sale=running,
        customer="ann",
        quantity=1,
        unit_price="19.90",
        currency="EUR",
        state=OrderState.CONFIRMED,
        epoch=running.epoch,
        claimed_at=timezone.now(),
    )
    OrderEvent.objects.create(order=bought, state=OrderState.CONFIRMED)
    parked = ParkedRecord.objects.create(topic="orders", partition=3, offset=42, value=b"{", cause="not JSON")
    visitor = operator(viewport)
    for name, path in {
        "index": reverse("admin:index"),
        "products": reverse("admin:sales_product_changelist"),
        "product": reverse("admin:sales_product_change", args=[running.product_id]),
        "product-add": reverse("admin:sales_product_add"),
        "stock": reverse("admin:sales_product_change_stock", args=[running.product_id]),
        "import": reverse("admin:sales_product_import"),
        "sales": reverse("admin:sales_sale_changelist"),
        "sale-add": reverse("admin:sales_sale_add"),
        "sale-draft": sale_page(written),
        "sale-open": sale_page(running),
        "confirm-arm": reverse("admin:sales_sale_arm_step", args=[written.pk]),
        "confirm-close": reverse("admin:sales_sale_close_step", args=[running.pk]),
        "events": reverse("admin:sales_saleevent_changelist"),
        "orders": reverse("admin:orders_order_changelist"),
        "order": reverse("admin:orders_order_change", args=[bought.pk]),
        "parked": reverse("admin:orders_parkedrecord_change", args=[parked.pk]),
        "users": reverse("admin:auth_user_changelist"),
    }.items():
        page = visitor.goes_to(path)
        expect(page.locator("#content")).to_be_visible()
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"{name} is wider than the window"
        visitor.photographs(f"admin-{name}")
