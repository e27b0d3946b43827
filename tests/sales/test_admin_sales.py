"""A sale window in the admin: its form, what is frozen by arming, what may be deleted."""

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sales import arming
from sales.admin.sale_windows import SaleAdmin
from sales.directory import DIRECTORY
from sales.models import Product, Sale, SaleEvent, SaleState
from tests.desk import EVERYTHING, VIEWER, draft, said, sale_in, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]

LIST = reverse("admin:sales_sale_changelist")
ADD = reverse("admin:sales_sale_add")


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


@pytest.fixture
def sale(db: None) -> Sale:
    return draft()


def page(sale: Sale) -> str:
    return reverse("admin:sales_sale_change", args=[sale.pk])


def typed(of: Product, **changes: Any) -> dict[str, Any]:
    """What a browser sends for the form of a sale."""
    opens_at = timezone.now() + timedelta(hours=1)
    closes_at = changes.pop("closes_at", opens_at + timedelta(hours=1))
    opens_at = changes.pop("opens_at", opens_at)
    return {
        "name": "Friday drop",
        "slug": "friday-drop",
        "product": of.pk,
        "opens_at_0": opens_at.strftime("%d/%m/%Y"),
        "opens_at_1": opens_at.strftime("%H:%M:%S"),
        "closes_at_0": closes_at.strftime("%d/%m/%Y"),
        "closes_at_1": closes_at.strftime("%H:%M:%S"),
        "allotment": 10,
        "unit_price": "19.90",
        "currency": "EUR",
        "limit_per_customer": 1,
        "admission_rate": 2000,
        "burst": 4000,
    } | changes


def retyped(sale: Sale, **changes: Any) -> dict[str, Any]:
    known = {"name": sale.name, "slug": sale.slug, "opens_at": sale.opens_at, "closes_at": sale.closes_at}
    return typed(sale.product, **(known | changes))


def errors(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


def test_a_draft_is_written_and_remembered(operator: Client) -> None:
    product = Product.objects.create(sku="TEE", name="Tee", stock=10)
    response = operator.post(ADD, typed(product), follow=True)
    assert response.status_code == 200
    sale = Sale.objects.get(slug="friday-drop")
    assert (sale.state, sale.sold, sale.epoch, sale.allotment) == (SaleState.DRAFT, 0, 0, 10)
    event = SaleEvent.objects.get()
    assert (event.actor, event.action, event.product, event.sale) == ("olivia", "draft", product, None)
    assert event.detail["sale_id"] == str(sale.pk)
    assert "friday-drop" in operator.get(page(sale)).content.decode()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"allotment": 0}, "allotment", "greater than or equal to 1"),
        ({"allotment": -5}, "allotment", "greater than or equal to"),
        ({"allotment": 11}, "allotment", "The product has 10 units that no sale has taken."),
        ({"allotment": 10**12}, "allotment", "less than or equal to"),
        ({"allotment": "NaN"}, "allotment", "whole number"),
        ({"unit_price": "-1"}, "unit_price", "greater than or equal to 0"),
        ({"unit_price": "NaN"}, "unit_price", "number"),
        ({"unit_price": "1.999"}, "unit_price", "2 decimal places"),
        ({"currency": "E1"}, "currency", "Three capital letters"),
        ({"limit_per_customer": 0}, "limit_per_customer", "greater than or equal to 1"),
        ({"limit_per_customer": 11}, "limit_per_customer", "More than the 10 units"),
        ({"slug": "taken"}, "slug", "already exists"),
        ({"slug": "two words"}, "slug", "valid"),
        ({"product": 999_999}, "product", "valid choice"),
        ({"opens_at_0": "soon"}, "opens_at", "valid date"),
        ({"opens_at_1": ""}, "opens_at", "required"),
        ({"opens_at_1": "25:00"}, "opens_at", "valid time"),
    ],
)
def test_bad_input_gets_one_clear_line(
    operator: Client, changes: dict[str, Any], field: str, message: str
) -> None:
    draft(slug="taken")
    product = Product.objects.create(sku="TEE", name="Tee", stock=10)
    response = operator.post(ADD, typed(product, **changes))
    assert response.status_code == 200
    assert message in " ".join(errors(response)[field])
    assert not Sale.objects.exclude(slug="taken").exists()
    assert not SaleEvent.objects.exists()


def test_a_window_that_ends_before_it_begins(operator: Client) -> None:
    product = Product.objects.create(sku="TEE", name="Tee", stock=10)
    now = timezone.now()
    backwards = typed(product, opens_at=now + timedelta(hours=2), closes_at=now + timedelta(hours=1))
    assert errors(operator.post(ADD, backwards)) == {"closes_at": ["The window must close after it opens."]}
    over = typed(product, opens_at=now - timedelta(hours=2), closes_at=now - timedelta(hours=1))
    assert "This moment has passed" in errors(operator.post(ADD, over))["closes_at"][0]


def test_state_epoch_and_sold_are_never_typed(operator: Client, sale: Sale) -> None:
    forged = retyped(sale, name="New name", state="open", epoch=99, sold=5, armed_at_0="01/01/2030")
    operator.post(page(sale), forged)
    sale.refresh_from_db()
    assert (sale.name, sale.state, sale.epoch, sale.sold) == ("New name", SaleState.DRAFT, 0, 0)


def test_an_edit_is_remembered_with_before_and_after(operator: Client) -> None:
    sale = draft(stock=50)
    operator.post(page(sale), retyped(sale, allotment=20))
    sale.refresh_from_db()
    assert sale.allotment == 20
    event = SaleEvent.objects.get(action="edit")
    assert event.detail["before"]["allotment"] == 10
    assert event.detail["after"]["allotment"] == 20
    assert "allotment: 10 → 20" in operator.get(page(sale)).content.decode()


def test_an_edit_that_changes_nothing_is_not_an_event(operator: Client, sale: Sale) -> None:
    response = operator.post(page(sale), retyped(sale), follow=True)
    assert response.status_code == 200
    assert not SaleEvent.objects.exists()


def test_a_public_sale_keeps_its_key_and_product_and_its_facts_are_told_again(
    operator: Client, gate: redis.Redis
) -> None:
    sale, other = draft(stock=50), draft()
    arming.schedule(sale, actor="test")
    told = gate.hget(DIRECTORY, sale.slug)
    operator.post(page(sale), retyped(sale, slug="another", product=other.product_id, unit_price="5.00"))
    slug, product = sale.slug, sale.product_id
    sale.refresh_from_db()
    assert (sale.slug, sale.product_id, str(sale.unit_price)) == (slug, product, "5.00")
    assert gate.hget(DIRECTORY, sale.slug) != told
    assert '"5.00"' in str(gate.hget(DIRECTORY, sale.slug))


FORGED = {
    "name": "Forged",
    "slug": "forged",
    "allotment": 999,
    "unit_price": "0.01",
    "limit_per_customer": 99,
    "currency": "USD",
    "admission_rate": 1,
    "burst": 1,
    "admission_required": "on",
    "state": "draft",
    "sold": 0,
    "epoch": 0,
}


@pytest.mark.parametrize("until", ["armed", "open"])
def test_an_armed_sale_cannot_be_changed_by_a_forged_post(operator: Client, until: str) -> None:
    sale, other = sale_in(until), draft()
    before = Sale.objects.filter(pk=sale.pk).values().get()
    later = timezone.now() + timedelta(days=9)
    response = operator.post(page(sale), typed(other.product, opens_at=later, closes_at=later, **FORGED))
    assert response.status_code == 403
    assert Sale.objects.filter(pk=sale.pk).values().get() == before
    assert 'name="allotment"' not in operator.get(page(sale)).content.decode()


def test_arming_between_form_and_save_wins(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one moment a check of the state cannot cover: the form was valid, then somebody armed."""
    sale = draft(stock=50)
    save = SaleAdmin.save_model

    def armed_meanwhile(self: Any, request: Any, obj: Sale, form: Any, change: bool) -> None:
        Sale.objects.filter(pk=obj.pk).update(state=SaleState.ARMING)
        save(self, request, obj, form, change)

    monkeypatch.setattr(SaleAdmin, "save_model", armed_meanwhile)
    response = operator.post(page(sale), retyped(sale, allotment=20), follow=True)
    assert said(response) == ["Somebody armed this sale meanwhile: nothing was changed."]
    sale.refresh_from_db()
    assert sale.allotment == 10
    assert not SaleEvent.objects.exists()


def test_only_drafts_are_deleted(operator: Client) -> None:
    mistyped, public, armed = draft(), sale_in("scheduled"), sale_in("armed")
    for sale, status in ((mistyped, 302), (public, 403), (armed, 403)):
        response = operator.post(reverse("admin:sales_sale_delete", args=[sale.pk]), {"post": "yes"})
        assert response.status_code == status
    assert set(Sale.objects.all()) == {public, armed}
    assert SaleEvent.objects.get(action="delete_draft").detail["sale"] == mistyped.slug


def test_a_written_draft_with_events_can_still_be_deleted(operator: Client) -> None:
    product = Product.objects.create(sku="TEE", name="Tee", stock=10)
    operator.post(ADD, typed(product))
    sale = Sale.objects.get()
    operator.post(page(sale), retyped(sale, allotment=5))
    operator.post(reverse("admin:sales_sale_delete", args=[sale.pk]), {"post": "yes"})
    assert not Sale.objects.exists()
    assert {event.action for event in SaleEvent.objects.all()} == {"draft", "edit", "delete_draft"}


def test_the_list_shows_states_numbers_and_next_steps(operator: Client) -> None:
    written, running = draft(name="A draft"), sale_in("open", name="It runs")
    text = operator.get(LIST).content.decode()
    assert "A draft" in text
    assert "It runs" in text
    for sale, verb, there in [
        (written, "arm", True),
        (written, "pause", False),
        (running, "pause", True),
        (running, "arm", False),
    ]:
        assert (reverse(f"admin:sales_sale_{verb}_step", args=[sale.pk]) in text) is there
    assert "It runs" not in operator.get(LIST, {"q": "A draft"}).content.decode()
    assert "A draft" not in operator.get(LIST, {"state__exact": "open"}).content.decode()


def test_a_viewer_sees_and_changes_nothing(sale: Sale) -> None:
    viewer = sign_in(*VIEWER)
    text = viewer.get(LIST).content.decode()
    assert sale.name in text
    assert reverse("admin:sales_sale_arm_step", args=[sale.pk]) not in text
    assert viewer.get(page(sale)).status_code == 200
    assert viewer.post(page(sale), retyped(sale, name="Other")).status_code == 403
    assert viewer.post(ADD, typed(sale.product)).status_code == 403
    sale.refresh_from_db()
    assert sale.name != "Other"


@pytest.mark.parametrize(
    "name", ["index", "sales_sale_changelist", "sales_sale_add", "sales_product_changelist"]
)
def test_anonymous_is_led_to_the_login(client: Client, db: None, name: str) -> None:
    url = reverse(f"admin:{name}")
    response = client.get(url)
    assert response.status_code == 302
    assert response.url == f"{reverse('admin:login')}?next={url}"  # type: ignore[attr-defined]


def test_nobody_writes_events_in_the_admin(operator: Client, sale: Sale) -> None:
    event = SaleEvent.objects.create(
        sale=sale, actor="ann", action="pause", reason="why", detail={"x": "<b>"}
    )
    one = [event.pk]
    assert operator.get(reverse("admin:sales_saleevent_changelist")).status_code == 200
    shown = operator.get(reverse("admin:sales_saleevent_change", args=one)).content.decode()
    assert "&lt;b&gt;" in shown
    assert operator.get(reverse("admin:sales_saleevent_add")).status_code == 403
    assert (
        operator.post(reverse("admin:sales_saleevent_change", args=one), {"reason": "x"}).status_code == 403
    )
    assert (
        operator.post(reverse("admin:sales_saleevent_delete", args=one), {"post": "yes"}).status_code == 403
    )
    event.refresh_from_db()
    assert event.reason == "why"


def test_the_first_page_shows_what_runs_and_what_happened(operator: Client) -> None:
    sale = sale_in("open", name="It runs")
    SaleEvent.objects.create(sale=sale, actor="ann", action="note", reason="Watch the price")
    text = operator.get(reverse("admin:index")).content.decode()
    assert "It runs" in text
    assert "Watch the price" in text
    nobody = sign_in()
    text = nobody.get(reverse("admin:index")).content.decode()
    assert "It runs" not in text
    assert "Watch the price" not in text
    assert User.objects.filter(is_superuser=False).count() == 1
