"""The pre-flight page: what a sale needs before it opens, each with what to do, and one verdict."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.urls import reverse
from django.utils import timezone

from orders.admin import preflight
from orders.admin.preflight import judge
from orders.doctor import Finding, Level
from orders.doctor.sale import examine
from sales.gate import pool_keys
from sales.models import Product, Sale
from tests.desk import EVERYTHING, draft, sale_in, sign_in
from waitingroom.models import Room

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]


def page(sale: Sale) -> str:
    return reverse("admin:orders_preflight", args=[sale.pk])


def found(sale: Sale) -> dict[str, Level]:
    return {finding.text: finding.level for finding in examine(sale.pk)}


def failing(sale: Sale, level: Level = Level.FAIL) -> list[Finding]:
    return [finding for finding in examine(sale.pk) if finding.level == level]


def test_a_sale_that_only_waits_for_its_opening_has_nothing_to_object_to() -> None:
    sale = sale_in(
        "open", opens_at=timezone.now() + timedelta(hours=2), closes_at=timezone.now() + timedelta(hours=3)
    )
    assert set(found(sale).values()) == {Level.OK}
    assert "10 units have left the product, 0 of them are sold" in found(sale)
    assert "its gate stands" in found(sale)


def test_what_keeps_a_sale_from_selling_fails_with_what_to_do() -> None:
    sale = draft(stock=10)
    Product.objects.filter(pk=sale.product_id).update(stock=9)
    [stock] = failing(sale)
    assert stock.text == "the product has 9 units, this sale needs 10"
    assert "Change stock" in stock.hint
    Sale.objects.filter(pk=sale.pk).update(
        opens_at=timezone.now() - timedelta(hours=2), closes_at=timezone.now() - timedelta(hours=1)
    )
    assert [each.text for each in failing(sale)] == [stock.text, "the window is over"]


@pytest.mark.parametrize(
    ("state", "opens_in", "said"),
    [
        ("draft", 60, "nobody sees this sale yet"),
        ("armed", 60, "armed, and not open"),
        ("scheduled", -60, "the window is open and the sale is not"),
        ("draft", 3600, None),
        ("open", -60, None),
    ],
)
def test_what_is_late_is_warned_of(state: str, opens_in: float, said: str | None) -> None:
    sale = sale_in(state, opens_at=timezone.now() + timedelta(seconds=opens_in))
    warned = [each.text for each in failing(sale, Level.WARN)]
    assert (said in warned) if said else warned == []


@pytest.mark.parametrize(
    ("settings", "level", "said"),
    [
        ({"turn_rate": 5}, Level.OK, "5 turns a second: one for each unit within 1.0 minutes"),
        ({"turn_rate": 0}, Level.FAIL, "the line stands still by its setting"),
        ({"passes": True}, Level.WARN, "everybody passes the line"),
        (None, Level.OK, "the line begins with the defaults when the sale is armed"),
    ],
)
def test_the_line(settings: dict[str, Any] | None, level: Level, said: str) -> None:
    sale = draft(stock=300, allotment=300, admission_required=True)
    if settings is not None:
        Room.objects.create(sale=sale, **settings)
    assert found(sale)[said] == level
    assert said not in found(draft())


def test_a_gate_that_has_fallen_fails(gate: redis.Redis) -> None:
    sale = sale_in("armed")
    gate.delete(pool_keys(sale.id).gate)
    assert any(each.text.startswith("its gate does not stand: ") for each in failing(sale))


def test_the_verdict() -> None:
    ok, warn, fail = (Finding("sale", level, "text") for level in (Level.OK, Level.WARN, Level.FAIL))
    assert judge([ok, ok]) == ("Ready", "success")
    assert judge([ok, warn]) == ("Ready, with 1 to look at", "warning")
    assert judge([ok, warn, fail, fail]) == ("Not ready: 2 of 4 checks fail", "danger")


def test_the_page_shows_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sale's are its own here: a check in a thread of its own does not see a test's transaction."""
    told = [
        Finding("sale", Level.FAIL, "the product has <9> units", "add some"),
        Finding("Kafka", Level.OK, "three brokers"),
    ]
    monkeypatch.setattr(preflight, "examine", lambda checks, seconds: told)
    sale = draft()
    text = sign_in(EVERYTHING).get(page(sale)).content.decode()
    assert "Not ready: 1 of 2 checks fail" in text
    assert "The product has &lt;9&gt; units." in text
    assert "Add some." in text
    assert "Three brokers." in text


def test_who_may_see_it_and_of_which_sales() -> None:
    sale, over = draft(), sale_in("closed")
    viewer = sign_in("sales.view_sale", "orders.view_order")
    assert viewer.get(page(over)).status_code == 404
    assert viewer.get(reverse("admin:orders_preflight", args=[uuid4()])).status_code == 404
    for permissions in ((), ("sales.view_sale",), ("orders.view_order",)):
        assert sign_in(*permissions).get(page(sale)).status_code == 403
    change = reverse("admin:sales_sale_change", args=[sale.pk])
    assert page(sale) in viewer.get(change).content.decode()
    assert page(sale) not in sign_in("sales.view_sale").get(change).content.decode()
