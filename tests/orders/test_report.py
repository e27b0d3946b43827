"""The report of a sale: its figures are those of the order book, and a changed one is seen."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from orders.book import Source
from orders.fulfillment import fulfill
from orders.report import Unverified, report, rows, verify
from sales import arming
from sales.models import Sale
from tests.desk import EVERYTHING, draft, sale_in, sign_in
from tests.orders.records import batch_of, cancel_of, claim_of
from tests.running_site import free_port
from waitingroom.models import Pace, Room

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sold(open_sale: Callable[..., Sale]) -> Sale:
    """Four units: three are sold, one was cancelled, two orders refused. The gate was not asked."""
    sale = open_sale(allotment=4, limit_per_customer=2)
    ann = [claim_of(sale, user_id="ann") for _ in range(3)]
    bob, eve, late = (claim_of(sale, user_id=name) for name in ("bob", "eve", "late"))
    source = Source(f"orders-{uuid4().hex[:8]}", "", 0)
    fulfill(batch_of(source, *ann, bob, eve, late, cancel_of(eve)))
    sale.refresh_from_db()
    return sale


def test_its_figures_are_those_of_the_order_book(sold: Sale) -> None:
    told = report(sold)
    assert told["units"] == {
        "allotment": 4, "sold": 3, "returned": 0, "unsold": 1, "revenue": "59.70",
    }  # fmt: skip
    assert [(each["state"], each["reason"], each["orders"], each["units"]) for each in told["orders"]] == [
        ("cancelled", "buyer", 1, 1),
        ("confirmed", "", 3, 3),
        ("refused", "limit_reached", 1, 1),
        ("refused", "sold_out", 1, 1),
    ]
    assert told["customers"] == 2
    assert told["claims"]["busiest_second_orders"] in range(1, 7)
    seconds = told["written_after_seconds"]
    assert 0 <= seconds["p50"] <= seconds["p90"] <= seconds["p99"] <= seconds["max"]
    assert [(step["actor"], step["step"]) for step in told["steps"]] == [
        ("test", "arm"),
        ("test", "armed"),
        ("test", "open"),
    ]
    assert told["balance"]["verdict"] == "differs", "these claims never came through the gate"


def test_nobody_bought(open_sale: Callable[..., Sale]) -> None:
    sale = open_sale()
    arming.close(sale, actor="olga", reason="rain")
    arming.settle(sale, actor="olga", reason="the day is over")
    told = report(sale)
    assert (told["orders"], told["customers"], told["line"]) == ([], 0, None)
    assert told["units"]["returned"] == 10
    assert told["claims"]["first_at"] is None
    assert set(told["written_after_seconds"].values()) == {None}
    assert told["balance"]["verdict"] == "balanced"
    assert told["steps"][-1]["reason"] == "the day is over"


def test_the_line_and_its_paces(sold: Sale) -> None:
    room = Room.objects.create(sale=sold, entered=7, digest="ab")
    Pace.objects.create(
        room=room, ordinal=0, from_time=1_800_000_000_500, from_number=0, rate=50, reason="as set"
    )
    told = report(sold)["line"]
    assert (told["draw_entries"], told["draw_commitment"]) == (7, room.commitment)
    assert told["paces"] == [{"at": "2027-01-15T08:00:00.500Z", "turns_per_second": 50.0, "reason": "as set"}]
    assert bytes(room.secret).hex() not in json.dumps(report(sold))


def test_a_gate_that_is_away_does_not_stop_it(sold: Sale, settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"}
    )
    told = report(sold)
    assert (told["balance"]["verdict"], told["units"]["sold"]) == ("not known", 3)


def test_a_report_that_was_passed_on_is_ours_and_unchanged(sold: Sale, settings: Any) -> None:
    told = report(sold)
    assert verify(json.dumps(told, indent=8)) == told
    for changed, said in (
        (told | {"customers": 3}, "changed"),
        (told | {"digest": "0" * 64}, "changed"),
        (told | {"signature": "x"}, "not made here"),
        ({"customers": 3}, "no digest"),
        ([told], "no digest"),
    ):
        with pytest.raises(Unverified, match=said):
            verify(json.dumps(changed))
    twice = json.dumps(told).replace('"customers": 2', '"customers": 9, "customers": 2')
    for text, said in (
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (twice, "a name comes twice"),
        (json.dumps(told | {"version": "\ud800"}), "changed"),
    ):
        with pytest.raises(Unverified, match=said):
            verify(text)


def test_a_changed_report_with_a_new_digest_lacks_the_signature(sold: Sale) -> None:
    from orders import report as module

    told = report(sold)
    forged = {name: value for name, value in told.items() if name not in ("digest", "signature")}
    forged["customers"] = 3
    forged |= {"digest": module._digest(forged), "signature": told["signature"]}
    with pytest.raises(Unverified, match="not made here"):
        verify(json.dumps(forged))


def test_as_a_table_no_cell_is_a_formula(sold: Sale) -> None:
    Sale.objects.filter(pk=sold.pk).update(name="=HYPERLINK(1)")
    sold.refresh_from_db()
    found = {(section, name): value for section, name, value in rows(report(sold))}
    assert found["sale", "name"] == "'=HYPERLINK(1)"
    assert found["units", "sold"] == "3"
    assert json.loads(found["orders", "2"])["state"] == "confirmed"


def test_the_command(sold: Sale, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        out = StringIO()
        call_command("report", *arguments, stdout=out)
        return out.getvalue()

    file = tmp_path / "report.json"
    file.write_text(run(sold.slug))
    assert "is ours and unchanged" in run("--verify", str(file))
    table = list(csv.reader(run(sold.slug, "--csv").splitlines()))
    assert table[0] == ["section", "name", "value"]
    assert ["units", "sold", "3"] in table
    file.write_text(file.read_text().replace('"sold": 3', '"sold": 2'))
    for arguments, said in (
        (("--verify", str(file)), "does not hold: it has been changed"),
        (("--verify", str(tmp_path / "none")), "cannot be read"),
        (("no-such-sale",), "there is no sale"),
        ((draft().slug,), "was never armed"),
    ):
        with pytest.raises(CommandError, match=said):
            run(*arguments)


def test_who_may_see_it_and_how(log_topic: str) -> None:
    sale = sale_in("closed")
    page = reverse("admin:orders_report", args=[sale.pk])
    for permissions in ((), ("sales.view_sale",), ("orders.view_order",)):
        assert sign_in(*permissions).get(page).status_code == 403
    client = sign_in(EVERYTHING)
    assert client.get(reverse("admin:orders_report", args=[draft().pk])).status_code == 404
    assert client.get(reverse("admin:orders_report", args=[uuid4()])).status_code == 404
    text = client.get(page).content.decode()
    assert "balanced" in text
    assert "Nobody ordered." in text
    assert page in client.get(reverse("admin:sales_sale_change", args=[sale.pk])).content.decode()
    as_json = client.get(page, {"as": "json"})
    assert as_json["Content-Disposition"] == f'attachment; filename="report-{sale.slug}.json"'
    assert verify(as_json.content.decode())["sale"]["key"] == sale.slug
    as_csv = client.get(page, {"as": "csv"}).content.decode()
    assert f"sale,key,{sale.slug}" in as_csv.splitlines()
