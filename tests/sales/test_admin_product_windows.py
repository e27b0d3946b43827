"""The sale windows on a product's page: drafts are added there, what exists is only shown."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sales.models import Product, Sale, SaleEvent, SaleState
from tests.desk import EVERYTHING, sale_in, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


@pytest.fixture
def product(db: None) -> Product:
    return Product.objects.create(sku="TEE", name="Concert tee", stock=10)


def page(product: Product) -> str:
    return reverse("admin:sales_product_change", args=[product.pk])


def typed(product: Product) -> dict[str, Any]:
    """The product's own fields, unchanged."""
    return {"sku": product.sku, "name": product.name, "description": ""}


def draft_row(prefix: str, **changes: Any) -> dict[str, Any]:
    soon = timezone.now() + timedelta(hours=1)
    later = soon + timedelta(hours=1)
    row = {
        "name": "Friday drop",
        "slug": "friday-drop",
        "opens_at_0": soon.strftime("%d/%m/%Y"),
        "opens_at_1": soon.strftime("%H:%M:%S"),
        "closes_at_0": later.strftime("%d/%m/%Y"),
        "closes_at_1": later.strftime("%H:%M:%S"),
        "allotment": 10,
        "unit_price": "19.90",
        "currency": "EUR",
        "limit_per_customer": 1,
    } | changes
    return {f"{prefix}-0-{name}": value for name, value in row.items()} | {
        f"{prefix}-TOTAL_FORMS": 1,
        f"{prefix}-INITIAL_FORMS": 0,
    }


def test_a_draft_is_added_on_the_products_page(operator: Client, product: Product) -> None:
    response = operator.post(page(product), typed(product) | draft_row("sales"), follow=True)
    assert response.status_code == 200
    sale = Sale.objects.get()
    assert (sale.product, sale.state, sale.slug) == (product, SaleState.DRAFT, "friday-drop")
    event = SaleEvent.objects.get()
    assert (event.action, event.actor, event.detail["sale_id"]) == ("draft", "olivia", str(sale.pk))
    assert reverse("admin:sales_sale_change", args=[sale.pk]) in operator.get(page(product)).content.decode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allotment": 11}, "The product has 10 units"),
        ({"allotment": 0}, "greater than"),
        ({"slug": ""}, "required"),
    ],
)
def test_a_bad_draft_on_the_products_page(
    operator: Client, product: Product, changes: dict[str, Any], message: str
) -> None:
    response = operator.post(page(product), typed(product) | draft_row("sales", **changes))
    assert message in response.content.decode()
    assert not Sale.objects.exists()


def test_sales_on_the_products_page_cannot_be_changed_or_deleted_there(operator: Client) -> None:
    sale = sale_in("armed", stock=25)
    before = Sale.objects.filter(pk=sale.pk).values().get()
    product = sale.product
    forged = (
        typed(product)
        | {"sales-TOTAL_FORMS": 1, "sales-INITIAL_FORMS": 1, "sales-0-id": str(sale.pk)}
        | {"sales-0-allotment": 1, "sales-0-name": "Forged", "sales-0-DELETE": "on"}
        | {"sales-2-TOTAL_FORMS": 0, "sales-2-INITIAL_FORMS": 0}
    )
    assert operator.post(page(product), forged).status_code == 302
    assert Sale.objects.filter(pk=sale.pk).values().get() == before
