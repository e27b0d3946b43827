"""The order book in the admin: to look at only, with a million orders as with ten."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from orders.admin.lists import EstimatedPaginator
from orders.admin.payload import MAX_PAYLOAD, readable
from orders.models import Order, OrderEvent, OrderState, ParkedRecord, Position
from sales.models import Sale
from tests.desk import EVERYTHING, draft, sign_in

pytestmark = pytest.mark.django_db

LIST = reverse("admin:orders_order_changelist")


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING)


@pytest.fixture
def sale(db: None) -> Sale:
    return draft()


def order(sale: Sale, customer: str = "ann", minutes_ago: int = 0, **facts: Any) -> Order:
    return Order.objects.create(
        **{
            "id": uuid4(),
            "sale": sale,
            "customer": customer,
            "quantity": 1,
            "unit_price": "19.90",
            "currency": "EUR",
            "state": OrderState.CONFIRMED,
            "epoch": 1,
            "claimed_at": timezone.now() - timedelta(minutes=minutes_ago),
        }
        | facts
    )


def listed(response: Any) -> list[UUID]:
    return [row.pk for row in response.context["cl"].result_list]


def test_an_order_with_its_events(operator: Client, sale: Sale) -> None:
    bought = order(sale, customer="<b>ann</b>")
    OrderEvent.objects.create(order=bought, state=OrderState.CONFIRMED)
    text = operator.get(reverse("admin:orders_order_change", args=[bought.pk])).content.decode()
    assert str(bought.pk) in text
    assert "&lt;b&gt;ann" in text
    assert "<b>ann" not in text
    assert "Confirmed" in text


@pytest.mark.parametrize("model", ["order", "parkedrecord", "position"])
def test_nobody_writes_the_order_book_in_the_admin(operator: Client, sale: Sale, model: str) -> None:
    row: Any = {
        "order": lambda: order(sale),
        "parkedrecord": lambda: ParkedRecord.objects.create(topic="orders", partition=0, offset=1, cause="?"),
        "position": lambda: Position.objects.create(topic="orders", partition=0, next_offset=7),
    }[model]()
    before = type(row).objects.values().get(pk=row.pk)
    assert operator.get(reverse(f"admin:orders_{model}_changelist")).status_code == 200
    assert operator.get(reverse(f"admin:orders_{model}_change", args=[row.pk])).status_code == 200
    assert operator.get(reverse(f"admin:orders_{model}_add")).status_code == 403
    for page in ("change", "delete"):
        url = reverse(f"admin:orders_{model}_{page}", args=[row.pk])
        assert operator.post(url, {"post": "yes", "next_offset": 99, "state": "refused"}).status_code == 403
    assert type(row).objects.values().get(pk=row.pk) == before


def test_without_permission_there_is_nothing_to_see(sale: Sale, client: Client) -> None:
    bought = order(sale)
    assert client.get(LIST).status_code == 302
    nobody = sign_in("sales.view_sale")
    assert nobody.get(LIST).status_code == 403
    assert nobody.get(reverse("admin:orders_order_change", args=[bought.pk])).status_code == 403
    assert sign_in("orders.view_order").get(LIST).status_code == 200


def test_search_by_id_and_by_customer(operator: Client, sale: Sale) -> None:
    old, new, other = order(sale, minutes_ago=5), order(sale), order(sale, customer="bob")
    assert listed(operator.get(LIST, {"q": f" {other.pk} "})) == [other.pk]
    assert listed(operator.get(LIST, {"q": "ann"})) == [new.pk, old.pk]  # newest first
    assert listed(operator.get(LIST, {"q": "an"})) == []
    assert operator.get(LIST, {"q": "ann\x00"}).status_code == 200
    assert len(listed(operator.get(LIST))) == 3


def test_filters(operator: Client, sale: Sale) -> None:
    mine, refused = order(sale), order(sale, state=OrderState.REFUSED, reason="excess")
    elsewhere = order(draft())
    assert set(listed(operator.get(LIST, {"sale__id__exact": str(sale.pk)}))) == {mine.pk, refused.pk}
    assert listed(operator.get(LIST, {"state__exact": "refused"})) == [refused.pk]
    assert elsewhere.pk in listed(operator.get(LIST))


def test_the_list_reads_no_whole_table(operator: Client, sale: Sale) -> None:
    order(sale)
    with CaptureQueriesContext(connection) as queries:
        operator.get(LIST)
    asked = [query["sql"] for query in queries if "orders_order" in query["sql"]]
    for statement in asked:
        assert "COUNT(*)" not in statement or "LIMIT 10000" in statement
        if "ORDER BY" in statement:
            assert '"orders_order"."id" ASC' in statement


def test_the_paginator_believes_the_statistics_and_counts_what_is_narrowed_down(
    sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(30):
        order(sale)
    order(sale, customer="bob")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE orders_order")
    monkeypatch.setattr(EstimatedPaginator, "exact_up_to", 20)
    everything = Order.objects.order_by("id")
    assert EstimatedPaginator(everything, 10).count == 31  # the estimate
    assert EstimatedPaginator(everything, 10).num_pages == 2  # no page that walks over a million rows
    assert EstimatedPaginator(everything.filter(customer="ann"), 10).count == 20  # cut off
    assert EstimatedPaginator(everything.filter(customer="bob"), 10).count == 1
    monkeypatch.setattr(EstimatedPaginator, "exact_up_to", 1000)
    assert EstimatedPaginator(everything, 10).count == 31  # a small table is counted


def test_a_parked_record_is_shown_safely(operator: Client) -> None:
    record = ParkedRecord.objects.create(
        topic="orders",
        partition=3,
        offset=42,
        key=b"sale:0",
        value=b'{"v":1,"user_id":"<script>alert(1)</script>"}',
        headers=[["ce_type", "x<script>"]],
        cause="unknown field <i>",
    )
    text = operator.get(reverse("admin:orders_parkedrecord_change", args=[record.pk])).content.decode()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text
    assert "x<script>" not in text
    assert "<i>" not in text.split("unknown field")[1][:10]
    assert "1 parked record" in operator.get(reverse("admin:index")).content.decode()
    assert "parked record" not in sign_in().get(reverse("admin:index")).content.decode().replace(
        "Parked records", ""
    )


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", ""),
        (b'{"b":1,"a":[2]}', '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}'),
        (b'"\xc3\xbc"', '"ü"'),
        (b"not json", "not json"),
        (b"bell\x07", "bell\\x07"),
        (b"\xff\xfe\x00A", "000000  ff fe 00 41                                      ...A"),
        (b"NaN", "NaN"),
    ],
)
def test_readable(payload: bytes, shown: str) -> None:
    assert readable(payload) == shown


@pytest.mark.parametrize(
    "payload", [b"x" * (MAX_PAYLOAD + 5), b"\xff" * (MAX_PAYLOAD + 5), b"[" * MAX_PAYLOAD]
)
def test_readable_is_bounded_and_never_raises(payload: bytes) -> None:
    text = readable(payload)
    assert len(text) < 6 * MAX_PAYLOAD
    assert ("5 more bytes" in text) is (len(payload) > MAX_PAYLOAD)


@pytest.mark.parametrize(
    "statement", ["UPDATE orders_orderevent SET reason = 'x'", "DELETE FROM orders_orderevent"]
)
def test_order_events_are_append_only(sale: Sale, statement: str) -> None:
    event = OrderEvent.objects.create(order=order(sale), state=OrderState.CONFIRMED)
    with (
        pytest.raises(IntegrityError, match="orders_orderevent is append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert OrderEvent.objects.filter(pk=event.pk, reason="").exists()


@pytest.mark.parametrize(
    ("facts", "constraint"),
    [({"quantity": 0}, "quantity"), ({"state": "perhaps"}, "order_state_known")],
)
def test_the_database_checks_orders(sale: Sale, facts: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        order(sale, **facts)
