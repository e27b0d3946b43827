"""The pages before and after a sale in a browser, on the run's real servers: at a desk and on a phone."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from orders.book import Source
from orders.fulfillment import fulfill
from tests.desk import sale_in
from tests.orders.records import batch_of, cancel_of, claim_of
from tests.waitingroom.visitor import DESKTOP, PHONE, Visitor
from waitingroom.models import Pace, Room

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser, pytest.mark.timeout(100)]


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_is_missing_is_seen_at_once(
    operator: Callable[..., Visitor], log_topic: str, viewport: dict[str, int]
) -> None:
    soon = timezone.now() + timedelta(minutes=5)
    sale = sale_in("armed", name="Saturday drop", opens_at=soon, closes_at=soon + timedelta(hours=1))
    visitor = operator(viewport)
    opened = visitor.goes_to(reverse("admin:sales_sale_change", args=[sale.pk]))
    opened.get_by_role("link", name="Pre-flight").click()
    expect(opened.locator(".fg-live .fg-state")).to_contain_text("ready", ignore_case=True)
    to_do = opened.get_by_role("region", name="what to do")
    expect(to_do.get_by_role("listitem").first).to_contain_text(
        "No gatekeeper runs. Start manage.py run_gatekeeper"
    )
    expect(to_do).to_contain_text("Armed, and not open. Open it: selling starts by itself with the window.")
    expect(opened.get_by_role("region", name="sale")).to_contain_text("10 units have left the product")
    visitor.does_not_scroll_sideways()
    visitor.photographs("admin-preflight")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_became_of_it(
    operator: Callable[..., Visitor], log_topic: str, viewport: dict[str, int]
) -> None:
    sale = sale_in("closed", name="Saturday drop", admission_required=True)
    room = Room.objects.create(sale=sale, entered=1287)
    for ordinal, (rate, reason) in enumerate([(50, "as set by the operator"), (0, "the sale is paused")]):
        Pace.objects.create(
            room=room, ordinal=ordinal, from_time=1_800_000_000_000 + 60_000 * ordinal,
            from_number=3000 * ordinal, rate=rate, reason=reason,
        )  # fmt: skip
    claims = [claim_of(sale) for _ in range(12)]
    fulfill(batch_of(Source(f"orders-{uuid4().hex[:8]}", "", 0), *claims, cancel_of(claims[0])))
    visitor = operator(viewport)
    opened = visitor.goes_to(reverse("admin:sales_sale_change", args=[sale.pk]))
    opened.get_by_role("link", name="Report", exact=True).click()
    expect(opened.locator(".fg-big")).to_contain_text("9 of 10")
    expect(opened.get_by_role("region", name="Orders")).to_contain_text("sold_out")
    expect(opened.get_by_role("region", name="Line")).to_contain_text("1287 took part in the draw")
    visitor.does_not_scroll_sideways()
    visitor.photographs("admin-report")
    with opened.expect_download() as downloaded:
        opened.get_by_role("link", name="CSV", exact=True).click()
    assert downloaded.value.suggested_filename == f"report-{sale.slug}.csv"
