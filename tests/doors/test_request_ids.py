"""Lines of the log name the request they come from, behind every door; and every line is one JSON object."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.doors.conftest import DOORS
from tests.doors.dialogue import Dialogue
from tests.doors.questions import an_order
from tests.doors.stages import slug, stage_of
from tests.running_site import Site, Web, eventually

SANE = ["a", "proxy-1/2:3", "~" * 128]
ODD = ["", "two words", "tab\there", "ü", "x" * 129]


@pytest.fixture(params=DOORS, scope="module")
def web(request: pytest.FixtureRequest, site: Site) -> Iterator[Web]:
    """The site behind one door after the other, talkative, with PostgreSQL out of reach."""
    web = site.another_web(
        FLUXGATE_DOOR=request.param,
        FLUXGATE_LOG_FORMAT="json",
        FLUXGATE_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
        GUNICORN_CMD_ARGS="-k tests.doors.talkative.Talkative",
    )
    web.wait("/readyz")
    yield web
    web.process.terminate()
    web.process.wait(60)
    assert all(map(json.loads, web.printed.read_text().splitlines())), (
        "to the last line, those of gunicorn too"
    )


def lines(web: Web, event: str, **facts: str) -> list[dict[str, Any]]:
    """What the process has logged so far under this event, with these facts."""
    found = map(json.loads, web.printed.read_text().splitlines())
    return [line for line in found if line["event"] == event and facts.items() <= line.items()]


def broken(web: Web, request_id: str | None) -> tuple[requests.Response, str]:
    """Asks for something that breaks. The answer, and the id of the line that it has left."""
    before = len(lines(web, "request failed"))
    headers = {} if request_id is None else {"X-Request-ID": request_id.encode("latin-1")}
    path = f"/api/v1/orders/{uuid4()}"
    answer = web.get(path, "ann", **headers)  # type: ignore[arg-type]
    eventually(lambda: len(lines(web, "request failed")) > before)
    line = lines(web, "request failed")[-1]
    assert "RuntimeError: planted" in line["exception"]
    return answer, line["request_id"]


@pytest.mark.parametrize("given", SANE)
def test_the_id_of_the_proxy_is_in_the_line_and_in_the_answer(web: Web, given: str) -> None:
    answer, logged = broken(web, given)
    assert (answer.status_code, logged) == (500, given)
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, *ODD])
def test_without_a_sane_one_there_is_a_new_one(web: Web, given: str | None) -> None:
    answer, logged = broken(web, given)
    assert re.fullmatch("[0-9a-f]{32}", logged)
    assert answer.headers["X-Request-ID"] == logged
    assert broken(web, given)[1] != logged


def test_orders_that_are_under_way_together_keep_their_ids(web: Web) -> None:
    customers = [f"asks-{uuid4().hex[:8]}" for _ in range(64)]

    def ask(customer: str) -> int:
        return web.buy(slug("open"), customer, **{"X-Request-ID": f"id-of-{customer}"}).status_code

    with ThreadPoolExecutor(16) as crowd:
        assert set(crowd.map(ask, customers)) == {202}
    for event in ("before", "after"):
        for customer in customers:
            [line] = lines(web, event, customer=customer)
            assert line["request_id"] == f"id-of-{customer}"


def test_two_lines_of_a_request_without_an_id_share_one(web: Web) -> None:
    customer = f"asks-{uuid4().hex[:8]}"
    assert web.buy(slug("open"), customer).status_code == 202
    [[before], [after]] = (lines(web, event, customer=customer) for event in ("before", "after"))
    assert before["request_id"] == after["request_id"]


def test_a_page_that_breaks_is_logged_with_its_id(web: Web) -> None:
    assert web.get("/admin/", **{"X-Request-ID": "a page", "Cookie": "sessionid=x"}).status_code >= 300
    answer = web.get("/admin/", **{"X-Request-ID": "a-page", "Cookie": f"sessionid={uuid4().hex}"})
    assert answer.status_code == 500
    eventually(lambda: lines(web, "Internal Server Error: /admin/", request_id="a-page"))


def test_what_is_logged_between_requests_has_none(web: Web) -> None:
    with Dialogue(web.port) as dialogue:
        for _ in range(3):
            dialogue.say(an_order()(stage_of("open", "")))
            answer = dialogue.hear()
            assert answer is not None
            assert answer.status == 202
    found = lines(web, "between requests")
    assert len(found) >= 3
    assert not [line for line in found if "request_id" in line]
