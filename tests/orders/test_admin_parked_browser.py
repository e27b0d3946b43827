"""Parked records in a real browser: dropped and replayed by hand, and how the pages look."""

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from orders.models import Order, ParkedRecord
from sales.models import Sale
from tests.desk import draft
from tests.orders.records import claim_of, reads
from tests.waitingroom.visitor import DESKTOP, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100), pytest.mark.django_db(transaction=True)]

LIST = reverse("admin:orders_parkedrecord_changelist")


def park(sale: Sale, offset: int, value: bytes | None = None) -> ParkedRecord:
    [read] = reads(value or claim_of(sale, user_id=f"customer {offset}"))
    return ParkedRecord.objects.create(
        topic="orders",
        partition=3,
        offset=offset,
        key=read.key,
        value=read.value,
        headers=[[name, text.decode()] for name, text in read.headers() or () if text],
        cause="priced 17.90 EUR, the sale says 19.90 EUR" if value is None else "Input data was truncated",
    )


def confirms(page: Page, reason: str) -> None:
    page.get_by_label("Reason").fill(reason)
    page.locator("form[data-once] button").click()


def test_records_are_replayed_and_dropped_by_hand(operator: Callable[..., Visitor]) -> None:
    sale = draft()
    for offset in (7, 8, 9):
        park(sale, offset)
    broken = park(sale, 10, b"{")
    page = operator().goes_to(reverse("admin:index"))
    page.get_by_role("link", name="4 parked records").click()
    page.get_by_role("link", name="orders/3@7").click()
    page.get_by_role("link", name="Replay").click()
    confirms(page, "the price was corrected")
    expect(page.get_by_text("is confirmed.")).to_be_visible()
    expect(page.get_by_text("the price was corrected")).to_be_visible()

    page.goto(page.url.split("/admin/")[0] + LIST + "?state__exact=parked")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("replay_selected")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("heading", name="Replay 3 records?")).to_be_visible()
    confirms(page, "the price was corrected")
    expect(page.get_by_text("is still parked: Input data was truncated")).to_be_visible()
    assert Order.objects.count() == 3

    page.get_by_role("link", name=str(broken)).click()
    page.get_by_role("link", name="Drop").click()
    confirms(page, "half a record")
    expect(page.get_by_text("dropped.")).to_be_visible()
    broken.refresh_from_db()
    assert broken.state == "dropped"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_is_photographed(
    operator: Callable[..., Visitor], viewport: dict[str, int]
) -> None:
    sale = draft()
    records = [park(sale, offset) for offset in range(40, 47)]
    broken = park(sale, 99, b"{")
    visitor = operator(viewport)

    def look(name: str) -> None:
        page = visitor.page
        expect(page.locator("#content")).to_be_visible()
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"{name} is wider than the window"
        visitor.photographs(f"admin-parked-{name}")

    def step(record: ParkedRecord, verb: str) -> str:
        return reverse(f"admin:orders_parkedrecord_{verb}_step", args=[record.pk])

    for name, path in {
        "replay": step(records[0], "replay"),
        "drop": step(records[0], "drop"),
    }.items():
        visitor.goes_to(path)
        look(name)
    for record, verb in ((broken, "replay"), (records[1], "replay"), (records[2], "drop")):
        confirms(visitor.goes_to(step(record, verb)), "the price of the sale was typed wrong at first")
        look(f"after-{verb}-{record.offset}")
    page = visitor.goes_to(LIST)
    look("list")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("drop_selected")
    look("selected")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("heading", name="Drop 8 records?")).to_be_visible()
    look("drop-many")
