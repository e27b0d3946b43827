"""A settled sale over HTTP: its gate is gone, and the order book answers for it."""

from uuid import uuid4

import pytest
import requests

from sales import arming
from sales.directory import DIRECTORY
from sales.gate import connect
from sales.identity import mint
from sales.models import Product, Sale
from tests.running_site import Site, eventually


def settles(sale: Sale) -> bool:
    """Not at once: the gate is told a moment after the order book."""
    try:
        arming.settle(sale, actor="test")
    except arming.Refused:
        return False
    return True


@pytest.fixture(scope="module")
def settled(site: Site) -> tuple[Sale, str, str]:
    """A sale of three units, one of which ann has bought, with her key and her order."""
    site.consumer()
    sale = site.sell(allotment=3)
    key = uuid4().hex
    order = site.buy(sale.slug, "ann", key).json()["order_id"]
    eventually(lambda: site.get(f"/api/v1/orders/{order}", "ann").json()["state"] == "confirmed")
    arming.close(sale, actor="test")
    eventually(lambda: settles(sale))
    # Each web process believes what it knows of a sale for a second.
    eventually(lambda: all(site.buy(sale.slug, uuid4().hex).status_code == 410 for _ in range(12)))
    return sale, key, order


def test_nobody_buys_any_more(site: Site, settled: tuple[Sale, str, str]) -> None:
    sale, _, _ = settled
    answer = site.buy(sale.slug, "bob")
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems#sale-closed")
    facts = site.get(f"/api/v1/sales/{sale.slug}").json()
    assert (facts["state"], facts["phase"]) == ("settled", "closed")


def test_a_key_that_has_its_order_still_names_it(site: Site, settled: tuple[Sale, str, str]) -> None:
    """I5: no refusal for a key whose order exists."""
    sale, key, order = settled
    again = site.buy(sale.slug, "ann", key)
    assert (again.status_code, again.json()["order_id"]) == (202, order)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = site.buy(sale.slug, "ann", key, quantity=2)
    assert other.json()["type"] == "/problems#idempotency-key-reused"
    assert site.buy(sale.slug, "bob", key).status_code == 410


def test_what_has_sold_out_stays_so(site: Site, settled: tuple[Sale, str, str]) -> None:
    sale = site.sell(allotment=1)
    assert site.buy(sale.slug, "ann").status_code == 202
    eventually(lambda: Sale.objects.get(pk=sale.pk).sold == 1)
    arming.close(sale, actor="test")
    eventually(lambda: settles(sale))
    told = eventually(
        lambda: (facts := site.get(f"/api/v1/sales/{sale.slug}").json())["state"] == "settled" and facts
    )
    assert (told["phase"], told["units_left"]) == ("sold_out", "none")


def test_a_buyer_finds_the_order_in_the_list_of_orders(site: Site, settled: tuple[Sale, str, str]) -> None:
    _, _, order = settled
    listed = site.get("/api/v1/orders", "ann").json()["orders"]
    assert order in [each["order_id"] for each in listed]
    assert site.get("/api/v1/orders", "eve").json()["orders"] == []


def test_its_line_is_closed(site: Site, settled: tuple[Sale, str, str]) -> None:
    sale, _, _ = settled
    assert site.get(f"/api/v1/sales/{sale.slug}/line").json()["state"] == "closed"
    asked = requests.post(
        f"{site.url}/api/v1/sales/{sale.slug}/tickets",
        json={},
        headers={"Authorization": f"Bearer {mint('bob')}"},
        timeout=30,
    )
    assert asked.json()["type"] == "/problems#sale-closed"
    assert "This sale is closed" in site.get(f"/line/{sale.slug}").text


def test_its_orders_can_be_cancelled_and_the_unit_is_the_products(
    site: Site, settled: tuple[Sale, str, str]
) -> None:
    sale, _, order = settled
    assert Product.objects.get(pk=sale.product_id).stock == 2
    with connect() as gate:  # as when it was settled long ago
        gate.hdel(DIRECTORY, sale.slug)
    eventually(lambda: all(site.buy(sale.slug, "bob").status_code == 404 for _ in range(12)))
    asked = requests.post(
        f"{site.url}/api/v1/orders/{order}/cancel",
        headers={"Authorization": f"Bearer {mint('ann')}"},
        timeout=30,
    )
    assert asked.status_code == 202, asked.text
    eventually(lambda: site.get(f"/api/v1/orders/{order}", "ann").json()["state"] == "cancelled")
    assert Product.objects.get(pk=sale.product_id).stock == 3
    sale.refresh_from_db()
    assert (sale.sold, sale.returned) == (0, 3)
