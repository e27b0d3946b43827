"""A refusal that a process repeats is repeated to nobody who asks for something else.

While a sale refuses everybody, a process answers from what it knows, and the hot door with the very
bytes it has written before. So each of these requests comes between others that are refused, in one
packet with them and in one of its own, and must be answered as it is when it comes alone.
"""

import json
import time
from uuid import uuid4

import pytest
import redis

from sales.gate import POOL, release
from tests.doors.conftest import web_behind
from tests.doors.dialogue import Dialogue
from tests.doors.questions import KEY, Asking, an_order, at, by, order_of, placed_by, sale_id
from tests.doors.questions_verdicts import ADMISSION
from tests.doors.stages import HELD_BY, stage_of
from tests.orders.test_decision_table import forged
from tests.running_site import Site, Web, eventually
from tests.site.hostile import GOOD, Stage, chunked

TURNS = 5  # what is repeated is repeated for milliseconds only

# Of a sale: what is asked in between, and the status and problem that are right.
BETWEEN: dict[str, dict[str, tuple[Asking, int, str]]] = {
    "sold-out": {
        "the same": (an_order(), 409, "sold-out"),
        "for a page": (an_order(("Accept", "text/html")), 409, "sold-out"),
        "a quoted key": (an_order(key='"k-1"'), 409, "sold-out"),
        "in chunks": (
            an_order(("Transfer-Encoding", "chunked"), body=chunked(GOOD), length=None), 409, "sold-out",
        ),
        "with white space": (an_order(body=b' {"quantity": 1}'), 409, "sold-out"),
        "two units": (an_order(body=b'{"quantity":2}'), 409, "limit-reached"),
        "the holder's key": (by(HELD_BY, an_order(key=KEY)), 202, ""),
        "the holder's key for two units": (
            by(HELD_BY, an_order(key=KEY, body=b'{"quantity":2}')), 422, "idempotency-key-reused",
        ),
        "the holder, another key": (by(HELD_BY, an_order(key="k-2")), 409, "limit-reached"),
        "no token": (an_order(drop=("Authorization",)), 401, "unauthorized"),
        "another scheme": (an_order(("Authorization", "Basic x")), 401, "unauthorized"),
        "a token of nobody": (an_order(("Authorization", "Bearer x.y.z")), 401, "unauthorized"),
        "no key": (an_order(drop=("Idempotency-Key",)), 400, "idempotency-key-missing"),
        "no valid key": (an_order(key="k" * 256), 400, "idempotency-key-invalid"),
        "two keys": (an_order(("Idempotency-Key", "k-2")), 400, "idempotency-key-invalid"),
        "another type": (an_order(("Content-Type", "text/plain")), 415, "unsupported-media-type"),
        "no type": (an_order(drop=("Content-Type",)), 415, "unsupported-media-type"),
        "no JSON": (an_order(body=b"{"), 400, "malformed-request"),
        "no quantity": (an_order(body=b"{}"), 422, "invalid-request"),
        "no body": (an_order(body=b""), 422, "invalid-request"),
        "a forged admission": (an_order((ADMISSION, "x")), 403, "admission-invalid"),
        "DELETE": (placed_by("DELETE /api/v1/sales/{slug}/orders HTTP/1.1"), 405, "method-not-allowed"),
        "another sale": (placed_by("POST /api/v1/sales/doors-open/orders HTTP/1.1"), 202, ""),
        "GET": (placed_by("GET /api/v1/sales/{slug}/orders HTTP/1.1"), 405, "method-not-allowed"),
        "no sale": (placed_by("POST /api/v1/sales/unknown/orders HTTP/1.1"), 404, "sale-not-found"),
        "a slash": (placed_by("POST /api/v1/sales/{slug}/orders/ HTTP/1.1"), 404, "not-found"),
        "the facts": (at("/api/v1/sales/{slug}"), 200, ""),
    },
    "busy": {
        "the same": (an_order(), 429, "too-busy"),
        "for a page": (an_order(("Accept", "text/html")), 302, ""),
        "for anybody": (an_order(drop=("Accept",)), 302, ""),
        "two units": (an_order(body=b'{"quantity":2}'), 429, "too-busy"),
        "no token": (an_order(drop=("Authorization",)), 401, "unauthorized"),
        "no key": (an_order(drop=("Idempotency-Key",)), 400, "idempotency-key-missing"),
        "a forged admission": (an_order((ADMISSION, "x")), 403, "admission-invalid"),
    },
}  # fmt: skip
CASES = [(sale, name) for sale, cases in BETWEEN.items() for name in cases]
REFUSED = {"sold-out": (409, "sold-out"), "busy": (429, "too-busy")}


def spoken(dialogue: Dialogue) -> tuple[int, str]:
    answer = dialogue.hear()
    assert answer is not None, "the connection ended instead"
    body = answer.body
    return answer.status, json.loads(body)["type"].partition("#")[2] if b'"/problems#' in body else ""


@pytest.mark.parametrize(("sale", "name"), CASES)
def test_who_asks_for_something_else_is_told_something_else(door: Web, sale: str, name: str) -> None:
    told = between(door, sale, *BETWEEN[sale][name])
    assert told == []


def between(web: Web, sale: str, ask: Asking, *right: object) -> list[list[tuple[int, str]]]:
    """What was answered in the turns in which the request between the others, or another, was told wrong."""
    # Tokens that were seen before are the ones a repeated answer is given to.
    strangers = [stage_of(sale, f"stranger {i}") for i in range(3)]
    usual = [an_order()(stage) for stage in strangers]
    wrong = []
    with Dialogue(web.port) as dialogue:
        for _ in range(TURNS):
            for one in usual:
                dialogue.say(one)
                assert spoken(dialogue) == REFUSED[sale]
            dialogue.say(usual[0] + usual[1] + ask(strangers[2]) + usual[2])
            found = [spoken(dialogue) for _ in range(4)]
            dialogue.say(ask(strangers[2]))  # by itself, as the others were
            if (alone := spoken(dialogue)) != right:
                wrong.append([alone])
            if found != [REFUSED[sale], REFUSED[sale], right, REFUSED[sale]]:
                wrong.append(found)
    return wrong


def test_a_token_that_expires_meanwhile_is_refused(door: Web) -> None:
    ends = int(time.time()) + 2
    stage = stage_of("sold-out", "")
    order = an_order(("Authorization", f"Bearer {forged(sub=stage.customer, exp=ends)}"))(stage)
    with Dialogue(door.port) as dialogue:

        def answer() -> tuple[float, tuple[int, str]]:
            asked = time.time()
            dialogue.say(order)
            return asked, spoken(dialogue)

        while (found := answer())[1] != (401, "unauthorized"):
            assert found[1] == REFUSED["sold-out"]
            assert found[0] < ends
    assert time.time() >= ends


def test_a_key_that_another_process_was_granted_is_not_refused(
    site: Site, doors: dict[str, Web], gate: redis.Redis, door: Web
) -> None:
    """A unit comes back and is sold elsewhere, while this process still says that there is none (I5)."""
    slug = f"last-unit-{uuid4().hex[:8]}"
    site.sell(slug, id=sale_id(slug), allotment=1)
    strangers = [an_order()(Stage(slug, f"stranger {i}")) for i in range(2)]
    with Dialogue(door.port) as dialogue, Dialogue(doors["lean"].port) as elsewhere:

        def told(order: bytes, to: Dialogue) -> int:
            to.say(order)
            return spoken(to)[0]

        holder = Stage(slug, "the first")
        assert told(an_order()(holder), elsewhere) == 202
        for turn in range(TURNS):
            for order in strangers * 2:  # from here on it knows that all is sold
                assert told(order, dialogue) == 409
            assert release(gate, sale_id(slug), POOL, [order_of(holder)]) == 1
            holder = Stage(slug, f"holder {turn}")
            eventually(lambda holder=holder: told(an_order()(holder), elsewhere) == 202)  # type: ignore[misc]
            assert told(an_order()(holder), dialogue) == 202


@pytest.fixture(scope="module")
def parrot(site: Site) -> Web:
    return web_behind(site, "Parrot", "hot")


@pytest.mark.parametrize(
    "name", ["the holder's key", "no token", "no key", "a forged admission", "no JSON", "two units"]
)
def test_twin_that_repeats_to_everybody_is_seen(parrot: Web, name: str) -> None:
    assert between(parrot, "sold-out", *BETWEEN["sold-out"][name]) != []
