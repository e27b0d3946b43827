"""The steps of a sale day in the admin, on the real gate: confirmed, with a reason, by the permitted."""

import re
from typing import Any

import pytest
import redis
from django.test import Client
from django.urls import reverse

from sales import gate as gate_module
from sales.admin.steps import STEPS, offered
from sales.gate import image
from sales.models import Sale, SaleEvent, SaleState
from tests.desk import EVERYTHING, STEPS_TO, VIEWER, draft, said, sale_in, sign_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]

# verb, the state it starts from, the state it leads to
DAY = [
    ("schedule", "draft", "scheduled"),
    ("arm", "draft", "armed"),
    ("arm", "scheduled", "armed"),
    ("open", "armed", "open"),
    ("pause", "open", "paused"),
    ("resume", "paused", "open"),
    ("close", "armed", "closed"),
    ("close", "open", "closed"),
    ("close", "paused", "closed"),
    ("settle", "closed", "settled"),
]


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


def step(verb: str, sale: Sale) -> str:
    return reverse(f"admin:sales_sale_{verb}_step", args=[sale.pk])


def page(sale: Sale) -> str:
    return reverse("admin:sales_sale_change", args=[sale.pk])


def everything(sale: Sale) -> tuple[Any, ...]:
    """All that a step could change, in both books."""
    with_client = gate_module.connect()
    try:
        standing = image(with_client, sale.pk)
    finally:
        with_client.close()
    row = Sale.objects.filter(pk=sale.pk).values("state", "epoch", "armed_at", "sold", "product__stock").get()
    return row, SaleEvent.objects.count(), standing


@pytest.mark.parametrize(("verb", "start", "end"), DAY)
def test_a_step_is_confirmed_with_a_reason_and_remembered(
    operator: Client, verb: str, start: str, end: str
) -> None:
    sale = sale_in(start)
    before = everything(sale)
    confirmation = operator.get(step(verb, sale))
    assert confirmation.status_code == 200
    assert sale.name in confirmation.content.decode()
    assert everything(sale) == before  # a GET changes nothing

    without = operator.post(step(verb, sale), {"reason": "   "})
    assert without.status_code == 200
    assert "Say why" in without.content.decode()
    assert everything(sale) == before

    done = operator.post(step(verb, sale), {"reason": "Because it is time"}, follow=True)
    assert done.redirect_chain == [(page(sale), 302)]
    sale.refresh_from_db()
    assert sale.state == end
    assert said(done) == [f"“{sale.name}” is {sale.get_state_display().lower()} now."]
    event = SaleEvent.objects.filter(sale=sale, reason="Because it is time").get()
    assert (event.actor, event.action) == ("olivia", verb)
    assert "Because it is time" in done.content.decode()  # in the history on the page


def test_arming_moves_the_units_from_the_product_to_the_gate(operator: Client, gate: redis.Redis) -> None:
    sale = draft(stock=25)
    text = re.sub(r"<[^>]+>|\s+", " ", operator.get(step("arm", sale)).content.decode())
    assert re.search(r"Stock now\s+25", text)
    assert re.search(r"Stock afterwards\s+15", text)
    operator.post(step("arm", sale), {"reason": "go"})
    sale.product.refresh_from_db()
    assert sale.product.stock == 15
    standing = image(gate, sale.pk)
    assert standing is not None
    assert (standing.loaded, standing.remaining) == (10, 10)


@pytest.mark.parametrize("verb", STEPS)
def test_a_viewer_gets_403_by_direct_post(verb: str, gate: redis.Redis) -> None:
    start = next(start for known, start, _ in DAY if known == verb)
    sale = sale_in(start)
    before = everything(sale)
    others = [f"sales.{other}_sale" for other in ("add", "change", "delete", *STEPS) if other != verb]
    for permissions in ((), VIEWER, others):
        client = sign_in(*permissions)
        assert client.post(step(verb, sale), {"reason": "forged"}).status_code == 403
        assert client.get(step(verb, sale)).status_code == 403
    assert everything(sale) == before


@pytest.mark.parametrize("verb", STEPS)
def test_anonymous_is_led_to_the_login(client: Client, verb: str) -> None:
    sale = draft()
    for response in (client.get(step(verb, sale)), client.post(step(verb, sale), {"reason": "forged"})):
        assert response.status_code == 302
        assert response.url.startswith(reverse("admin:login"))  # type: ignore[attr-defined]
    sale.refresh_from_db()
    assert sale.state == SaleState.DRAFT


@pytest.mark.parametrize("verb", STEPS)
def test_a_step_needs_the_csrf_token(verb: str) -> None:
    start = next(start for known, start, _ in DAY if known == verb)
    sale = sale_in(start)
    before = everything(sale)
    signed_in = sign_in(EVERYTHING)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = signed_in.cookies
    assert strict.post(step(verb, sale), {"reason": "forged"}).status_code == 403
    assert everything(sale) == before


@pytest.mark.parametrize("state", STEPS_TO)
def test_only_sensible_steps_are_offered(operator: Client, state: str) -> None:
    sale = sale_in(state)
    text = operator.get(page(sale)).content.decode()
    shown = {verb for verb in STEPS if step(verb, sale) in text}
    assert shown == {known for known, start, _ in DAY if start == state}
    assert shown == {known.verb for known in offered(state)}
    for verb in set(STEPS) - shown:
        before = everything(sale)
        response = operator.get(step(verb, sale), follow=True)
        assert "is not possible now" in said(response)[0]
        assert everything(sale) == before


@pytest.mark.parametrize(
    ("verb", "state"),
    [("schedule", "open"), ("arm", "armed"), ("open", "paused"), ("pause", "armed"), ("close", "closed")],
)
def test_a_post_out_of_turn_is_refused_in_one_line(operator: Client, verb: str, state: str) -> None:
    sale = sale_in(state)
    before = everything(sale)
    response = operator.post(step(verb, sale), {"reason": "too late"}, follow=True)
    (line,) = said(response)
    assert sale.slug in line
    assert "\n" not in line
    assert everything(sale) == before


@pytest.mark.parametrize(("verb", "start", "end"), DAY)
def test_pressing_twice_is_harmless(operator: Client, verb: str, start: str, end: str) -> None:
    sale = sale_in(start)
    operator.post(step(verb, sale), {"reason": "once"})
    before = everything(sale)
    operator.post(step(verb, sale), {"reason": "twice"})
    assert everything(sale) == before
    assert before[0]["state"] == end


def test_arming_more_than_the_stock_is_refused_and_says_so_before(
    operator: Client, gate: redis.Redis
) -> None:
    sale = draft(stock=3)
    assert "7 units are missing" in operator.get(step("arm", sale)).content.decode()
    response = operator.post(step("arm", sale), {"reason": "hope"}, follow=True)
    assert said(response) == ["The product has 3 units of stock; this sale needs 10."]
    sale.refresh_from_db()
    assert sale.state == SaleState.DRAFT
    assert image(gate, sale.pk) is None


def test_a_step_without_the_gate_is_refused_in_one_line(operator: Client, settings: Any) -> None:
    sale = sale_in("open")
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"gate_url": "redis://127.0.0.1:1/0"})
    assert "The gate does not answer" in operator.get(step("pause", sale)).content.decode()
    (line,) = said(operator.post(step("pause", sale), {"reason": "help"}, follow=True))
    assert "gate" in line
    sale.refresh_from_db()
    assert sale.state == SaleState.OPEN


def test_a_step_of_a_sale_that_is_gone_leads_home(operator: Client) -> None:
    sale = draft()
    url = step("arm", sale)
    sale.delete()
    assert operator.post(url, {"reason": "go"}).status_code == 302
    assert operator.get(url.replace(str(sale.pk), "no-id-at-all")).status_code == 302
