"""The pre-flight page in a browser, on the run's real servers: readable at a desk and on a phone."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from tests.desk import sale_in
from tests.waitingroom.visitor import DESKTOP, PHONE, Visitor

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
