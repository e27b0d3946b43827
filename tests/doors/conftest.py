"""One site for all suites of the doors: the same gate, log and database behind each of them."""

import resource
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.management import call_command

from sales.gate import connect
from tests.doors.stages import make_sales, slug
from tests.running_site import Site, Web

DOORS = ("stock", "lean", "hot")
BODY_SECONDS = 3


@pytest.fixture(scope="package")
def site(django_db_setup: None, django_db_blocker: Any) -> Iterator[Site]:
    """A running site whose own web process has the hot door, with the sales of tests/doors/stages.py."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for this process and those it starts
    with connect() as gate, django_db_blocker.unblock(), pytest.MonkeyPatch.context() as environment:
        gate.flushall()
        environment.setenv("FLUXGATE_DOOR", "hot")
        environment.setenv("FLUXGATE_WEB_WORKERS", "1")
        environment.setenv("FLUXGATE_BODY_SECONDS", str(BODY_SECONDS))
        environment.setenv("FLUXGATE_GATE_TIMEOUT_MS", "5000")  # some tests make the gate wait
        running = Site()
        try:
            make_sales(running, gate)
            yield running
        finally:
            running.close()
            call_command("flush", interactive=False, verbosity=0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="package")
def doors(site: Site) -> dict[str, Web]:
    """The web process of each door, one worker each."""
    webs: dict[str, Web] = {door: site.another_web(FLUXGATE_DOOR=door) for door in ("stock", "lean")}
    for web in webs.values():
        web.wait("/readyz")
    return webs | {"hot": site}


@pytest.fixture(scope="package")
def gate(site: Site) -> Iterator[redis.Redis]:
    with connect() as client:
        yield client


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, doors: dict[str, Web]) -> Iterator[Web]:
    """The web process of one door after the other; it still sells when the test is over."""
    web = doors[request.param]
    yield web
    answer = web.buy(slug("open"), f"afterwards-{uuid4().hex[:12]}")
    assert answer.status_code == 202, answer.text


def web_behind(site: Site, worker: str, door: str = "lean") -> Web:
    """A door behind another worker of tests/doors/other_workers.py."""
    web = site.another_web(FLUXGATE_DOOR=door, GUNICORN_CMD_ARGS=f"-k tests.doors.other_workers.{worker}")
    web.wait("/readyz")
    return web
