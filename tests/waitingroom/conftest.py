"""Fixtures of the page tests: a shop whose orders are written down, and visitors."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from tests.running_site import Site
from tests.waitingroom.visitor import DESKTOP, Visitor


@pytest.fixture(scope="package", autouse=True)
def one_process() -> Iterator[None]:
    """The site is one web process here: two see a change of the line up to a second apart, and a test that
    asks twice would be about which of them answers. test_tickets.py has a test about two."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLUXGATE_WEB_WORKERS", "1")
        yield


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
