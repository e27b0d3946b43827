"""Fixtures of the page tests: Chromium, a shop whose orders are written down, and visitors."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from tests.running_site import Site
from tests.waitingroom.visitor import DESKTOP, PATIENCE_MS, Visitor


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


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with somebody who writes the orders down."""
    site.consumer()
    return site


@pytest.fixture
def visit(browser: Browser, shop: Site) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors; holds at the end that no page complained: no error, no policy violated."""
    visitors: list[Visitor] = []

    def make(viewport: ViewportSize = DESKTOP, **options: Any) -> Visitor:
        visitors.append(Visitor(browser.new_context(viewport=viewport, **options), shop.url))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.context.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    """Somebody at a desk."""
    return visit()
