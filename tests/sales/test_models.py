"""The database keeps its own rules: every CHECK and trigger, asked by plain SQL."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from sales.models import Product, Sale, SaleEvent, SaleState
from tests.desk import draft

pytestmark = pytest.mark.django_db


@pytest.fixture
def sale(db: None) -> Sale:
    return draft()


def sql(statement: str, *parameters: Any) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


@pytest.mark.parametrize(
    ("assignment", "constraint"),
    [
        ("closes_at = opens_at", "sale_closes_after_opening"),
        ("closes_at = opens_at - interval '1 second'", "sale_closes_after_opening"),
        ("allotment = 0", "sale_allotment_positive"),
        ("sold = allotment + 1", "sale_never_oversold"),
        ("sold = -1", "sale_"),  # Django's own check of a positive column may speak first
        ("unit_price = -0.01", "sale_price_not_negative"),
        ("limit_per_customer = 0", "sale_limit_positive"),
        ("admission_rate = 0", "sale_admission_positive"),
        ("burst = 0", "sale_admission_positive"),
        ("state = 'ajar'", "sale_state_known"),
    ],
)
def test_a_sale_is_refused_by_the_database(sale: Sale, assignment: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        sql(f"UPDATE sales_sale SET {assignment} WHERE id = %s", sale.pk)
    before = {name: getattr(sale, name) for name in ("allotment", "sold", "state", "burst")}
    sale.refresh_from_db()
    assert {name: getattr(sale, name) for name in before} == before


def test_the_whole_allotment_may_be_sold(sale: Sale) -> None:
    assert sql("UPDATE sales_sale SET sold = allotment WHERE id = %s", sale.pk) == 1


def test_stock_is_never_negative(sale: Sale) -> None:
    with pytest.raises(IntegrityError, match="stock"):
        sql("UPDATE sales_product SET stock = -1 WHERE id = %s", sale.product_id)


def test_keys_and_skus_are_unique() -> None:
    first, second = draft(slug="first"), draft(slug="second")
    with pytest.raises(IntegrityError, match="slug"):
        sql("UPDATE sales_sale SET slug = 'first' WHERE id = %s", second.pk)
    with pytest.raises(IntegrityError, match="sku"):
        sql("UPDATE sales_product SET sku = 'first' WHERE id = %s", second.product_id)
    assert first.product.sku == "first"


@pytest.mark.parametrize(
    "statement", ["UPDATE sales_saleevent SET reason = 'other'", "DELETE FROM sales_saleevent"]
)
def test_events_are_append_only(sale: Sale, statement: str) -> None:
    event = SaleEvent.objects.create(sale=sale, actor="ann", action="pause", reason="why")
    with pytest.raises(IntegrityError, match="sales_saleevent is append-only"):
        sql(statement)
    event.refresh_from_db()
    assert event.reason == "why"


def test_what_an_event_is_about_cannot_be_deleted(sale: Sale) -> None:
    SaleEvent.objects.create(sale=sale, actor="ann", action="pause")
    sql("SET CONSTRAINTS ALL IMMEDIATE")  # otherwise the refusal comes with the commit
    with pytest.raises(IntegrityError, match="foreign key"):
        sql("DELETE FROM sales_sale WHERE id = %s", sale.pk)
    assert Sale.objects.filter(pk=sale.pk).exists()


def test_clean_speaks_before_the_database_does(sale: Sale) -> None:
    sale.closes_at = sale.opens_at
    with pytest.raises(ValidationError, match="must close after it opens"):
        sale.clean()
    sale.closes_at = sale.opens_at + timedelta(hours=1)
    sale.allotment = sale.product.stock + 1
    with pytest.raises(ValidationError, match="units that no sale has taken"):
        sale.clean()
    sale.state = SaleState.ARMED  # its units have left the stock: the comparison would be wrong now
    sale.clean()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allotment", 0),
        ("allotment", -1),
        ("unit_price", "-0.01"),
        ("unit_price", "NaN"),
        ("unit_price", "Infinity"),
        ("currency", "eur"),
        ("currency", "EURO"),
        ("slug", "two words"),
        ("slug", ""),
        ("limit_per_customer", 0),
        ("admission_rate", 0),
        ("burst", 0),
    ],
)
def test_full_clean_names_the_field(sale: Sale, field: str, value: Any) -> None:
    setattr(sale, field, value)
    with pytest.raises(ValidationError) as caught:
        sale.full_clean()
    assert field in caught.value.message_dict


def test_a_sale_without_events_and_a_product_without_sales_can_go(sale: Sale) -> None:
    product: Product = sale.product
    sale.delete()
    product.delete()
    assert not Product.objects.filter(pk=product.pk).exists()
