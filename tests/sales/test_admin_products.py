"""Products in the admin: stock by deltas only, sale windows on the product's page."""

import re
import threading
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse

from sales import arming
from sales.admin.products import ProductAdmin
from sales.models import Product, Sale, SaleEvent
from tests.desk import EVERYTHING, VIEWER, draft, said, sale_in, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]

LIST = reverse("admin:sales_product_changelist")
ADD = reverse("admin:sales_product_add")


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


@pytest.fixture
def product(db: None) -> Product:
    return Product.objects.create(sku="TEE", name="Concert tee", stock=10)


def page(product: Product) -> str:
    return reverse("admin:sales_product_change", args=[product.pk])


def stock_page(product: Product) -> str:
    return reverse("admin:sales_product_change_stock", args=[product.pk])


def typed(**changes: Any) -> dict[str, Any]:
    return {"sku": "TEE", "name": "Concert tee", "description": "", "stock": 0} | changes


def no_sales() -> dict[str, Any]:
    """The empty inline of a page whose product has no sale yet."""
    return {"sales-TOTAL_FORMS": 0, "sales-INITIAL_FORMS": 0}


def delta(units: Any, reason: str = "counted again") -> dict[str, Any]:
    return {"delta": units, "reason": reason, "once": str(uuid4())}


def test_a_new_product_starts_with_an_event_for_its_stock(operator: Client) -> None:
    operator.post(ADD, typed(stock=25))
    product = Product.objects.get(sku="TEE")
    assert product.stock == 25
    event = SaleEvent.objects.get()
    assert (event.actor, event.product, event.detail["delta"]) == ("olivia", product, 25)
    assert event.reason == "Initial stock"


def test_a_new_product_without_stock_is_no_event_and_may_be_deleted(operator: Client) -> None:
    operator.post(ADD, typed())
    product = Product.objects.get()
    assert not SaleEvent.objects.exists()
    assert (
        operator.post(reverse("admin:sales_product_delete", args=[product.pk]), {"post": "yes"}).status_code
        == 302
    )
    assert not Product.objects.exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stock": -1}, "stock"),
        ({"stock": 2**31}, "stock"),
        ({"stock": "NaN"}, "stock"),
        ({"sku": ""}, "sku"),
        ({"sku": "x" * 65}, "sku"),
        ({"sku": "TAKEN"}, "sku"),
        ({"name": " "}, "name"),
        ({"name": "NUL\x00"}, "name"),
    ],
)
def test_bad_input_names_the_field(operator: Client, changes: dict[str, Any], field: str) -> None:
    Product.objects.create(sku="TAKEN", name="Taken")
    response = operator.post(ADD, typed(**changes))
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == [field]
    assert Product.objects.count() == 1


def test_stock_is_not_typed_into_an_existing_product(operator: Client, product: Product) -> None:
    assert 'name="stock"' not in operator.get(page(product)).content.decode()
    operator.post(page(product), typed(name="New name", stock=999) | no_sales())
    product.refresh_from_db()
    assert (product.name, product.stock) == ("New name", 10)


def test_saving_a_form_does_not_put_back_the_stock_of_a_moment_ago(
    operator: Client, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form read 10; another operator adds 5 before it is written."""
    save = ProductAdmin.save_model

    def meanwhile(self: Any, request: Any, obj: Product, form: Any, change: bool) -> None:
        arming.change_stock(Product.objects.get(pk=obj.pk), 5, actor="bob", reason="meanwhile")
        save(self, request, obj, form, change)

    monkeypatch.setattr(ProductAdmin, "save_model", meanwhile)
    operator.post(page(product), typed(name="New name") | no_sales())
    product.refresh_from_db()
    assert (product.name, product.stock) == ("New name", 15)


def test_a_delta_is_confirmed_and_remembered(operator: Client, product: Product) -> None:
    form = operator.get(stock_page(product))
    assert form.status_code == 200
    assert 'name="delta"' in form.content.decode()
    assert not SaleEvent.objects.exists()
    response = operator.post(stock_page(product), delta("+30", "second delivery"), follow=True)
    assert said(response) == ["TEE: stock changed by +30, now 40 units."]
    event = SaleEvent.objects.get()
    assert (event.actor, event.reason, event.detail) == (
        "olivia",
        "second delivery",
        {"delta": 30, "stock": 40},
    )
    assert "second delivery" in response.content.decode()
    operator.post(stock_page(product), delta(-40))
    product.refresh_from_db()
    assert product.stock == 0


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (0, "changes nothing"),
        ("", "required"),
        ("1.5", "whole number"),
        ("NaN", "whole number"),
        ("1e3", "whole number"),
        (2**31, "less than or equal"),
        (-(2**31), "greater than or equal"),
    ],
)
def test_a_bad_delta_is_refused_at_the_field(
    operator: Client, product: Product, units: Any, message: str
) -> None:
    response = operator.post(stock_page(product), delta(units))
    assert response.status_code == 200
    assert message in str(response.context["form"].errors["delta"])
    assert not SaleEvent.objects.exists()


@pytest.mark.parametrize("units", [-11, 2**31 - 1])
def test_a_delta_beyond_the_limits_is_refused_and_nothing_changes(
    operator: Client, product: Product, units: int
) -> None:
    (line,) = said(operator.post(stock_page(product), delta(units), follow=True))
    assert line == f"TEE has 10 units of stock; it cannot change by {units:+d}."
    product.refresh_from_db()
    assert product.stock == 10
    assert not SaleEvent.objects.exists()


def test_a_delta_needs_a_reason(operator: Client, product: Product) -> None:
    response = operator.post(stock_page(product), delta(5, reason=" "))
    assert "Say why" in str(response.context["form"].errors["reason"])
    product.refresh_from_db()
    assert product.stock == 10


def test_the_same_form_sent_twice_counts_once(operator: Client, product: Product) -> None:
    page_view = re.search(r'name="once" value="([^"]+)"', operator.get(stock_page(product)).content.decode())
    assert page_view
    sent = delta(5) | {"once": page_view[1]}
    operator.post(stock_page(product), sent)
    again = operator.post(stock_page(product), sent, follow=True)
    assert said(again)[-1] == "This change was made already; it was not made twice."
    product.refresh_from_db()
    assert product.stock == 15


def test_a_form_that_was_refused_may_be_corrected_and_sent_again(operator: Client, product: Product) -> None:
    """The browser's Back brings the same page view: nothing was made, so it is not "already made"."""
    sent = delta(-50)
    operator.post(stock_page(product), sent)
    operator.post(stock_page(product), sent | {"delta": -5})
    product.refresh_from_db()
    assert product.stock == 5


def test_a_cache_that_is_down_does_not_stop_a_delta(
    operator: Client, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cache._connections["default"]), "add", lambda *_, **__: None)  # type: ignore[attr-defined]
    operator.post(stock_page(product), delta(5))
    product.refresh_from_db()
    assert product.stock == 15


@pytest.mark.django_db(transaction=True)
def test_deltas_of_two_operators_add_up(transactional_db: None) -> None:
    product = Product.objects.create(sku="TEE", name="Concert tee", stock=100)
    hands = [(sign_in(EVERYTHING), units) for units in (7, -3)]

    def work(client: Client, units: int) -> None:
        for _ in range(10):
            client.post(stock_page(product), delta(units))
        connection.close()

    threads = [threading.Thread(target=work, args=hand) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    product.refresh_from_db()
    assert product.stock == 100 + 10 * (7 - 3)
    assert SaleEvent.objects.count() == 20


def test_who_may_not_change_products_changes_no_stock(product: Product, client: Client) -> None:
    for permissions in ((), VIEWER, ("sales.add_product", "sales.change_product")):
        assert sign_in(*permissions).post(stock_page(product), delta(5)).status_code == 403
    assert client.post(stock_page(product), delta(5)).status_code == 302
    product.refresh_from_db()
    assert product.stock == 10


def test_the_list_shows_units_in_running_sales(operator: Client) -> None:
    sale = sale_in("open", stock=25)
    Sale.objects.filter(pk=sale.pk).update(sold=4)
    draft(name="Not running", slug="idle")
    rows = {
        product.sku: (product.stock, product.units_in_sales)
        for product in operator.get(LIST).context["cl"].result_list
    }
    assert rows == {sale.slug: (15, 6), "idle": (10, 0)}
    assert "idle" not in operator.get(LIST, {"q": sale.slug}).content.decode()


def test_a_product_with_sales_or_events_is_not_deleted(operator: Client) -> None:
    sale = draft()
    url = reverse("admin:sales_product_delete", args=[sale.product_id])
    assert operator.post(url, {"post": "yes"}).status_code == 403
    assert Product.objects.filter(pk=sale.product_id).exists()
