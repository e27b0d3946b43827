"""A corpus of hostile requests on the running site: no fault, no hang, and nothing held afterwards.

The corpus is in tests/site/hostile*.py; hostile_twins.py removes one guard each, which it must see.
"""

import json
from collections import defaultdict
from typing import Any
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
import pytest

from orders.models import Order
from sales.gate import connect, image, pool_keys
from sales.models import Sale
from tests.running_site import Site, Web, eventually
from tests.site import hostile, hostile_twins
from tests.site.hostile import Sent, Stage, exchange, order, wrong
from tests.site.hostile_bodies import BODIES
from tests.site.hostile_frames import FRAMES
from tests.site.hostile_requests import CUSTOMERS, REQUESTS

PROBES = BODIES | FRAMES | REQUESTS


class Ground:
    """An open sale with a consumer behind it, and what the site has promised about it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sale = site.sell(allotment=100_000, limit=30_000)
        site.consumer()
        self.workers = workers(site)
        self.promised: set[str] = set()

    def stage(self, customer: str | None = None) -> Stage:
        return Stage(self.sale.slug, customer or f"buyer-{uuid4().hex[:12]}")

    def send(self, sent: bytes | Sent, web: Web | None = None, **named: Any) -> list[hostile.Reply]:
        found = exchange((web or self.site).port, sent, **named)
        for reply in found:
            if reply.status == 202:
                self.promised.add(json.loads(reply.body)["order_id"])
        return found


def workers(site: Site) -> set[int]:
    return {child.pid for child in psutil.Process(site.process.pid).children()}


@pytest.fixture(scope="module")
def ground(site: Site) -> Ground:
    return Ground(site)


@pytest.mark.parametrize("name", PROBES)
def test_the_corpus(ground: Ground, name: str) -> None:
    stage = ground.stage()
    assert wrong(PROBES[name], ground.send(PROBES[name].send(stage))) is None


@pytest.mark.parametrize("twin", hostile_twins.TWINS)
def test_twin_a_guard_that_is_missing_is_seen(ground: Ground, twin: str) -> None:
    web = ground.site.another_web(kind=Twin, FLUXGATE_WEB_WORKERS="1", **{hostile_twins.VARIABLE: twin})
    web.wait()
    for name in hostile_twins.TWINS[twin][1]:
        assert seen_by(PROBES[name], ground, web), name


class Twin(Web):
    application = "tests.site.hostile_twins:application"


def seen_by(probe: hostile.Probe, ground: Ground, web: Web) -> bool:
    """Whether this probe finds the web process out: by a wrong answer, or by one that does not come."""
    try:
        return wrong(probe, ground.send(probe.send(ground.stage()), web, deadline=3.0)) is not None
    except TimeoutError:
        return True


@pytest.fixture(scope="module")
def impatient(ground: Ground) -> Web:
    """A web process that waits for bodies a quarter of a second."""
    web = ground.site.another_web(FLUXGATE_WEB_WORKERS="1", FLUXGATE_BODY_SECONDS="0.25")
    web.wait()
    return web


STALLS = {
    "no body": lambda stage: order(stage, b"", length="14"),
    "half a body": lambda stage: order(stage, b'{"quan', length="14"),
    "half a chunk": lambda stage: order(stage, b"e\r\n{", ("Transfer-Encoding", "chunked"), length=None),
    "no last chunk": lambda stage: order(
        stage, hostile.chunked(hostile.GOOD, end=b""), ("Transfer-Encoding", "chunked"), length=None
    ),
    "asked to go on": lambda stage: order(stage, b"", ("Expect", "100-continue"), length="14"),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_body_that_never_ends_is_408(ground: Ground, impatient: Web, stall: str) -> None:
    (reply,) = ground.send(STALLS[stall](ground.stage()), impatient)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert json.loads(reply.body)["type"] == "/problems#body-timeout"


def test_twin_without_the_limit_it_would_wait(ground: Ground) -> None:
    """The site itself has ten seconds: it does not answer in one."""
    with pytest.raises(TimeoutError):
        ground.send(STALLS["half a body"](ground.stage()), deadline=1.0)


@pytest.mark.parametrize("customer", CUSTOMERS)
def test_a_customer_of_any_name_can_order_look_and_cancel(ground: Ground, customer: str) -> None:
    site, slug = ground.site, ground.sale.slug
    placed = site.buy(slug, customer)
    assert placed.status_code == 202
    ground.promised.add(placed.json()["order_id"])
    url = placed.headers["Location"]
    assert site.get(url, "somebody else").status_code == 404
    eventually(lambda: site.get(url, customer).json()["state"] == "confirmed", 60)


def test_a_crowd_that_hangs_up_leaves_orders_or_nothing(ground: Ground) -> None:
    """Fifty buyers gone at every byte of the body; each order is placed or not, and none stays half."""
    for cut in range(len(hostile.GOOD) + 1):
        stage = ground.stage()
        whole = order(stage)
        ground.send(Sent([whole[: len(whole) - cut]], "hang-up"))
    assert ground.send(order(ground.stage()))[0].status == 202


def test_afterwards_the_processes_live_and_the_books_balance(ground: Ground) -> None:
    site, sale = ground.site, ground.sale
    assert workers(site) == ground.workers
    printed = site.printed.read_text()
    assert "Traceback" not in printed
    assert "request failed" not in printed
    fresh = site.buy(sale.slug, "fresh")
    assert fresh.status_code == 202
    ground.promised.add(fresh.json()["order_id"])
    with connect() as gate:

        def settled() -> bool:
            standing = image(gate, sale.id)
            assert standing is not None
            return standing.held == standing.queued == 0

        eventually(settled, 60)
        standing = image(gate, sale.id)
        counts: Any = gate.hgetall(pool_keys(sale.id).customers)
        pending = gate.zcard(pool_keys(sale.id).pending)
    assert standing is not None
    rows = Order.objects.filter(sale=sale)
    assert {row.state for row in rows} == {"confirmed"}
    assert ground.promised <= {str(row.id) for row in rows}
    bought: dict[str, int] = defaultdict(int)
    for row in rows:
        bought[row.customer] += row.quantity
    assert {customer: int(count.partition(":")[0]) for customer, count in counts.items()} == bought
    assert (standing.remaining, pending) == (standing.loaded - sum(bought.values()), 0)
    assert Sale.objects.get(pk=sale.pk).sold == sum(bought.values())
