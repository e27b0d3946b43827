"""Parked records in the admin: replayed and dropped with a reason, by the permitted, one or many."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.test import Client
from django.urls import reverse

from orders import parking
from orders.admin import parked_steps
from orders.models import Order, ParkedRecord
from sales.models import Sale
from tests.desk import EVERYTHING, draft, said, sign_in
from tests.orders.records import claim_of, reads
from tests.running_site import free_port

LIST = reverse("admin:orders_parkedrecord_changelist")

# With real commits: a replay is a transaction of its own.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


@pytest.fixture
def sale(db: None) -> Sale:
    return draft()


@pytest.fixture
def parked(sale: Sale) -> Callable[..., ParkedRecord]:
    """A record in the parking table; a claim of the sale, if no value is given."""

    def make(value: bytes | None = None) -> ParkedRecord:
        [read] = reads(value or claim_of(sale))
        return ParkedRecord.objects.create(
            topic="orders",
            partition=3,
            offset=ParkedRecord.objects.count(),
            key=b"a key",
            value=read.value,
            cause="the sale had another price",
        )

    return make


def page(record: ParkedRecord, step: str = "change") -> str:
    name = step if step == "change" else f"{step}_step"
    return reverse(f"admin:orders_parkedrecord_{name}", args=[record.pk])


def everything() -> tuple[Any, ...]:
    """All that a step could change in the order book."""
    records = ParkedRecord.objects.order_by("pk").values("state", "attempts", "events__step")
    return list(records), Order.objects.count()


@pytest.mark.parametrize(("step", "state"), [("replay", "replayed"), ("drop", "dropped")])
def test_a_step_is_confirmed_with_a_reason_and_remembered(
    operator: Client, parked: Callable[..., ParkedRecord], step: str, state: str
) -> None:
    record, before = parked(), None
    before = everything()
    confirmation = operator.get(page(record, step))
    assert confirmation.status_code == 200
    assert "the sale had another price" in confirmation.content.decode()
    assert "Say why" in operator.post(page(record, step), {"reason": " "}).content.decode()
    assert everything() == before, "a GET changes nothing, nor does a POST without a reason"

    done = operator.post(page(record, step), {"reason": "It is <b>right</b>"}, follow=True)
    assert done.redirect_chain == [(page(record), 302)]
    record.refresh_from_db()
    assert record.state == state
    event = record.events.get()
    assert (event.step, event.actor, event.reason) == (state, "olivia", "It is <b>right</b>")
    assert "It is &lt;b&gt;right" in done.content.decode(), "in the history on the page"
    assert Order.objects.count() == (1 if step == "replay" else 0)
    [line] = said(done)
    assert line.startswith(str(record))


def test_the_buttons_are_those_that_make_sense(operator: Client, parked: Callable[..., ParkedRecord]) -> None:
    record = parked()
    text = operator.get(page(record)).content.decode()
    assert page(record, "replay") in text
    assert page(record, "drop") in text
    operator.post(page(record, "replay"), {"reason": "now"})
    text = operator.get(page(record)).content.decode()
    assert page(record, "replay") in text, "the gate may be told again"
    assert page(record, "drop") not in text
    other = parked()
    operator.post(page(other, "drop"), {"reason": "now"})
    text = operator.get(page(other)).content.decode()
    assert page(other, "replay") not in text
    assert "not possible now" in said(operator.get(page(other, "replay"), follow=True))[0]


def test_twice_writes_once(operator: Client, parked: Callable[..., ParkedRecord]) -> None:
    record = parked()
    assert "Nothing is written again" not in operator.get(page(record, "replay")).content.decode()
    first, second = (
        said(operator.post(page(record, "replay"), {"reason": "now"}, follow=True)) for _ in range(2)
    )
    assert first == second
    assert Order.objects.count() == 1
    assert "Nothing is written again" in operator.get(page(record, "replay")).content.decode()
    refused = operator.post(page(record, "drop"), {"reason": "now"}, follow=True)
    assert said(refused) == [f"{record}: record {record.pk} is replayed: only a parked one can be dropped"]


def test_what_still_cannot_be_used_stays(operator: Client, parked: Callable[..., ParkedRecord]) -> None:
    record = parked(b"{")
    done = operator.post(page(record, "replay"), {"reason": "try"}, follow=True)
    assert said(done) == [f"{record} is still parked: Input data was truncated"]
    record.refresh_from_db()
    assert (record.state, record.attempts) == ("parked", 2)


def test_a_gate_that_was_not_told(
    operator: Client, parked: Callable[..., ParkedRecord], settings: Any
) -> None:
    record = parked()
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"}
    )
    [line] = said(operator.post(page(record, "replay"), {"reason": "now"}, follow=True))
    assert "The gate did not answer: replay it again when it does." in line
    assert Order.objects.count() == 1


# Many at once, from the list


def select(client: Client, step: str, *records: ParkedRecord, **more: str) -> Any:
    data = {"action": f"{step}_selected", "_selected_action": [record.pk for record in records]} | more
    return client.post(LIST, data, follow=True)


@pytest.mark.parametrize(("step", "state"), [("replay", "replayed"), ("drop", "dropped")])
def test_the_list_asks_before_it_does(
    operator: Client, parked: Callable[..., ParkedRecord], step: str, state: str
) -> None:
    records, left = [parked() for _ in range(7)], parked()
    before = everything()
    asked = select(operator, step, *records, index="0")
    text = asked.content.decode()
    assert "7 records?" in text
    assert "and 2 more" in text
    assert "Say why" not in text
    for record in records:
        assert f'name="_selected_action" value="{record.pk}"' in text
    assert "Say why" in select(operator, step, *records, reason="").content.decode()
    assert everything() == before
    done = select(operator, step, *records, reason="the price was corrected")
    assert said(done) == [f"7 records {state}."]
    assert set(ParkedRecord.objects.exclude(pk=left.pk).values_list("state", flat=True)) == {state}
    left.refresh_from_db()
    assert left.state == "parked"
    assert Order.objects.count() == (7 if step == "replay" else 0)


def test_some_of_many_can_be_replayed(operator: Client, parked: Callable[..., ParkedRecord]) -> None:
    good, bad, dropped = parked(), parked(b"{"), parked()
    parking.drop(dropped.pk, actor="somebody", reason="quicker")
    lines = said(select(operator, "replay", good, bad, dropped, reason="try"))
    assert lines[0].startswith(f"{good}: order ")
    assert lines[1:] == [
        f"{bad} is still parked: Input data was truncated",
        f"{dropped}: record {dropped.pk} is dropped: only a parked one can be replayed",
    ]


def test_too_many_at_once_are_refused(
    operator: Client, parked: Callable[..., ParkedRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_steps, "AT_ONCE", 2)
    records = [parked() for _ in range(3)]
    before = everything()
    assert "At most 2 at once" in said(select(operator, "drop", *records, reason="all"))[0]
    assert everything() == before


# Who may


@pytest.mark.parametrize("step", ["replay", "drop"])
def test_who_may_not_gets_403_by_direct_post(
    parked: Callable[..., ParkedRecord], gate: redis.Redis, step: str
) -> None:
    record = parked()
    before = everything()
    for permissions in ((), ("orders.view_parkedrecord",), ("orders.change_order", "sales.change_sale")):
        client = sign_in(*permissions)
        assert client.get(page(record, step)).status_code == 403
        assert client.post(page(record, step), {"reason": "forged"}).status_code == 403
        assert select(client, step, record, reason="forged").status_code == 403
    anonymous = Client()
    assert anonymous.post(page(record, step), {"reason": "forged"}).url.startswith(reverse("admin:login"))
    assert everything() == before


def test_a_viewer_sees_no_buttons_and_a_decider_does(parked: Callable[..., ParkedRecord]) -> None:
    record = parked()
    viewer = sign_in("orders.view_parkedrecord")
    for path in (LIST, page(record)):
        response = viewer.get(path)
        assert response.status_code == 200
        assert "replay" not in response.content.decode().lower().replace("replayed", "")
    decider = sign_in("orders.view_parkedrecord", "orders.change_parkedrecord", "orders.delete_parkedrecord")
    assert page(record, "replay") in decider.get(page(record)).content.decode()
    assert "replay_selected" in decider.get(LIST).content.decode()
    assert decider.post(page(record), {"state": "dropped", "cause": "x"}).status_code == 403
    assert decider.post(page(record, "drop"), {"reason": "rubbish"}).status_code == 302
    record.refresh_from_db()
    assert record.state == "dropped"


@pytest.mark.parametrize("step", ["replay", "drop"])
def test_a_step_needs_the_csrf_token(parked: Callable[..., ParkedRecord], step: str) -> None:
    record = parked()
    client = sign_in(EVERYTHING)
    client.handler.enforce_csrf_checks = True
    assert client.post(page(record, step), {"reason": "forged"}).status_code == 403
    record.refresh_from_db()
    assert record.state == "parked"


@pytest.mark.parametrize("which", ["999999", "x", "9" * 40])
def test_an_address_that_names_no_record(operator: Client, which: str) -> None:
    for step in ("replay", "drop"):
        address = reverse(f"admin:orders_parkedrecord_{step}_step", args=[which])
        response = operator.post(address, {"reason": "x"}, follow=True)
        assert response.status_code == 200
        assert "exist" in said(response)[0]


def test_the_first_page_counts_what_is_still_parked(
    operator: Client, parked: Callable[..., ParkedRecord]
) -> None:
    waiting, done = parked(), parked()
    parking.drop(done.pk, actor="o", reason="rubbish")
    text = operator.get(reverse("admin:index")).content.decode()
    assert "1 parked record:" in text
    assert [row.pk for row in operator.get(f"{LIST}?state__exact=parked").context["cl"].result_list] == [
        waiting.pk
    ]
    parking.drop(waiting.pk, actor="o", reason="rubbish")
    assert "could not use" not in operator.get(reverse("admin:index")).content.decode()
