"""Fixtures for everybody. The servers behind them are real: see tests/servers.py."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from playwright.sync_api import Browser, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from sales import arming, topic
from sales.gate import connect
from sales.models import Product, Sale
from sales.turnstile import Turnstile
from tests.desk import EVERYTHING, sign_in, until_nobody_asks_the_broker
from tests.running_site import Site
from tests.waitingroom.visitor import DESKTOP, PATIENCE_MS, Visitor

# Playwright's synchronous interface runs a loop of its own beside the tests that ask the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _nobody_asks_the_broker_any_more() -> Iterator[None]:
    """A live page leaves a thread that waits for the broker: what it logs is not a run's last word."""
    yield
    until_nobody_asks_the_broker()


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any) -> None:
    """The run's PostgreSQL is its own and new, so the site's database is the test database.

    This process does without the pool: an async test asks from contexts of its own, whose
    connections nobody returns. The processes of `site` have it.
    """
    connection.settings_dict["OPTIONS"].pop("pool")
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)


@pytest.fixture(scope="session")
def log_topic() -> str:
    """The topic exists, as arming demands."""
    return topic.ensure_topic()


@pytest.fixture
def gate() -> Iterator[redis.Redis]:
    """A synchronous client of the gate's Redis."""
    client = connect()
    yield client
    client.close()


@pytest.fixture
async def turnstile() -> AsyncIterator[Turnstile]:
    opened = Turnstile()
    yield opened
    await opened.close()


@pytest.fixture
def make_sale(transactional_db: None) -> Callable[..., Sale]:
    """Makes a draft: open window, 10 units, limit 1, price 19.90; `stock` is the product's."""

    def make(*, stock: int | None = None, **facts: Any) -> Sale:
        slug = facts.setdefault("slug", f"sale-{uuid4().hex[:8]}")
        facts = {
            "name": f"Sale {slug}",
            "opens_at": timezone.now() - timedelta(seconds=1),
            "closes_at": timezone.now() + timedelta(hours=1),
            "allotment": 10,
            "unit_price": "19.90",
            "limit_per_customer": 1,
            "admission_rate": 100_000,
            "burst": 100_000,
        } | facts
        units = facts["allotment"] if stock is None else stock
        product = Product.objects.create(sku=slug, name=f"Product of {slug}", stock=units)
        return Sale.objects.create(product=product, **facts)

    return make


@pytest.fixture
def sale(make_sale: Callable[..., Sale]) -> Sale:
    """A draft with the defaults of `make_sale`."""
    return make_sale()


@pytest.fixture
def open_sale(make_sale: Callable[..., Sale], log_topic: str) -> Callable[..., Sale]:
    """Makes a sale and takes it to `open` (or to `until`: "armed")."""

    def make(*, until: str = "open", **facts: Any) -> Sale:
        made = make_sale(**facts)
        arming.arm(made, actor="test")
        if until == "open":
            arming.open_sale(made, actor="test")
        return made

    return make


@pytest.fixture(scope="module")
def site(django_db_setup: None, django_db_blocker: Any) -> Iterator[Site]:
    """A running site for one module, on a topic of its own. Its tests must not use `db` fixtures:
    the rows are really committed, and stay until the module ends."""
    with connect() as client:
        client.flushall()  # gates that earlier tests left fallen would answer 503 for every unknown order
    with django_db_blocker.unblock():
        running = Site()
        yield running
        running.close()
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.fixture
def operator(browser: Browser, live_server: LiveServer) -> Iterator[Callable[..., Visitor]]:
    """Signed-in operators; holds at the end that no page complained."""
    visitors: list[Visitor] = []

    def make(viewport: dict[str, int] = DESKTOP) -> Visitor:
        context = browser.new_context(viewport=viewport)
        visitor = Visitor(context, live_server.url)
        session = sign_in(EVERYTHING).cookies["sessionid"].value
        context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        visitors.append(visitor)
        return visitor

    yield make
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []
