"""HTTP/1.1 as the doors speak it: one connection, many requests, in pieces of any size.

Stock and lean stand behind uvicorn's own protocol and prove that what is expected here is right; the hot
door, which is a protocol itself, is held to the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice

import pytest
import redis

from sales.gate import pool_keys
from tests.doors.dialogue import Answer, Dialogue
from tests.doors.kernel import unread
from tests.doors.questions import an_order, at, order_of, placed_by, sale_id
from tests.doors.stages import stage_of
from tests.running_site import Web, eventually
from tests.site.hostile import GOOD, Stage, chunked, get, order

CHUNKED = ("Transfer-Encoding", "chunked")
AT_ONCE = 40  # connections; the stock door takes 3 ms for an order, and 3 s without a body end one
plain = partial(order, key="k-1", last=False)  # an order on a connection that is kept


def buyer(sale: str = "open") -> Stage:
    return stage_of(sale, "")


def is_order_of(answer: Answer | None, stage: Stage) -> bool:
    """Whether this is the 202 of the stage's own order, and of no other."""
    assert answer is not None, "the connection ended instead"
    return answer.status == 202 and answer.header("location") == f"/api/v1/orders/{order_of(stage)}"


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13, 20])
def test_orders_in_one_packet(door: Web, count: int) -> None:
    stages = [buyer() for _ in range(count)]
    with Dialogue(door.port) as dialogue:
        dialogue.say(b"".join(map(plain, stages)))
        assert [is_order_of(dialogue.hear(), stage) for stage in stages] == [True] * count


def test_orders_and_other_questions_in_one_packet(door: Web) -> None:
    """Answers come in the order of the questions, however long each of them takes."""
    kinds = [
        (an_order(), "open", 202),
        (at("/api/v1/sales/{slug}"), "open", 200),
        (an_order(), "sold-out", 409),
        (an_order(body=b"{"), "open", 400),
        (at("/livez"), "open", 200),
        (an_order(), "busy", 429),
        (at("/api/v1/orders/{order}"), "open", 404),
        (an_order(drop=("Authorization",)), "open", 401),
        (at("/api/v1/nothing"), "open", 404),
        (an_order(("Transfer-Encoding", "chunked"), body=chunked(GOOD), length=None), "open", 202),
        (at("/problems"), "open", 200),
        (an_order(("Accept", "text/html")), "busy", 302),
        (at("/api/v1/sales/x/orders", method="DELETE"), "open", 405),
    ]
    asked = [(ask, buyer(sale), status) for ask, sale, status in islice(cycle(kinds), 31)]
    with Dialogue(door.port) as dialogue:
        dialogue.say(b"".join(ask(stage) for ask, stage, _ in asked))
        for _, stage, status in asked:
            answer = dialogue.hear()
            assert answer is not None
            assert answer.status == status
            if status == 202:
                assert is_order_of(answer, stage)


def cut_at_every_byte(door: Web, whole: bytes, *stages: Stage, cuts: range | None = None) -> None:
    """Sends these orders once for each cut, all on connections of their own; every one is answered."""
    cuts = cuts or range(1, len(whole))
    for first in range(0, len(cuts), AT_ONCE):
        cut_at(door, whole, cuts[first : first + AT_ONCE], stages)


def cut_at(door: Web, whole: bytes, cuts: range, stages: Sequence[Stage]) -> None:
    dialogues = [Dialogue(door.port) for _ in cuts]
    for dialogue, cut in zip(dialogues, cuts, strict=True):
        dialogue.say(whole[:cut])
    eventually(lambda: not unread(door.port))
    for dialogue, cut in zip(dialogues, cuts, strict=True):
        dialogue.say(whole[cut:])
    for dialogue in dialogues:
        with dialogue:
            assert [is_order_of(dialogue.hear(), stage) for stage in stages] == [True] * len(stages)


def test_an_order_cut_at_every_byte(door: Web) -> None:
    stage = buyer()
    cut_at_every_byte(door, plain(stage), stage)


def test_two_orders_cut_at_every_byte(door: Web) -> None:
    """The cut goes through the body of the first, the head of the second, and between them."""
    first, second = buyer(), buyer()
    between = len(plain(first))
    cuts = range(between - 60, between + 200)
    cut_at_every_byte(door, plain(first) + plain(second), first, second, cuts=cuts)


def test_an_order_of_single_bytes(door: Web) -> None:
    stage = buyer()
    whole = plain(stage)
    with Dialogue(door.port) as dialogue:
        dialogue.say(*(whole[i : i + 1] for i in range(len(whole) - 40)))
        dialogue.say_apart(*(whole[i : i + 1] for i in range(len(whole) - 40, len(whole))))
        assert is_order_of(dialogue.hear(), stage)


CHUNKS = {
    "one": chunked(GOOD),
    "a byte each": chunked(*(GOOD[i : i + 1] for i in range(len(GOOD)))),
    "capital digits": b"0E\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "leading zeros": b"0000000e\r\n" + GOOD + b"\r\n000\r\n\r\n",
    "trailers": chunked(GOOD, end=b"0\r\nX-Checksum: 1\r\nIdempotency-Key: other\r\n\r\n"),
    "extensions": b"e;a=1;b\r\n" + GOOD + b"\r\n0;c\r\n\r\n",
    "up to the cap": chunked(GOOD, b" " * (4096 - len(GOOD))),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks(door: Web, kind: str) -> None:
    stage = buyer()
    with Dialogue(door.port) as dialogue:
        for _ in range(3):  # the connection goes on behind the last chunk
            dialogue.say(plain(stage, CHUNKS[kind], CHUNKED, length=None))
            assert is_order_of(dialogue.hear(), stage)


def test_chunks_cut_at_every_byte(door: Web) -> None:
    stage = buyer()
    cut_at_every_byte(door, plain(stage, CHUNKS["trailers"], CHUNKED, length=None), stage)


@pytest.mark.parametrize("sizes", [[4097], [4096, 1], [1000] * 5, [1] * 4097])
def test_chunks_over_the_cap(door: Web, sizes: list[int]) -> None:
    with Dialogue(door.port) as dialogue:
        dialogue.say(plain(buyer(), chunked(*(b" " * size for size in sizes)), CHUNKED, length=None))
        answer = dialogue.hear()
        assert answer is not None
        assert (answer.status, answer.header("connection")) == (413, "close")
        assert dialogue.ended()


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue"])
def test_who_waits_to_be_asked_for_the_body_is_asked(door: Web, expected: str) -> None:
    stage = buyer()
    head = plain(stage, b"", ("Expect", expected), length=str(len(GOOD)))
    with Dialogue(door.port) as dialogue:
        for turn in range(1, 4):
            dialogue.say(head)
            dialogue.hear_interim()
            assert dialogue.interim == [100] * turn
            dialogue.say(GOOD)
            assert is_order_of(dialogue.hear(), stage)
        assert dialogue.interim == [100] * 3


def test_who_does_not_wait_is_answered_all_the_same(door: Web) -> None:
    first, second = buyer(), buyer()
    with Dialogue(door.port) as dialogue:
        dialogue.say(plain(first, GOOD, ("Expect", "100-continue")) + plain(second))
        assert is_order_of(dialogue.hear(), first)
        assert is_order_of(dialogue.hear(), second)


def test_who_asks_for_too_much_is_not_asked_for_it(door: Web) -> None:
    with Dialogue(door.port) as dialogue:
        dialogue.say(plain(buyer(), b"", ("Expect", "100-continue"), length="5000"))
        answer = dialogue.hear()
        assert answer is not None
        assert (answer.status, answer.header("connection"), dialogue.interim) == (413, "close", [])
        assert dialogue.ended()


def test_a_hundred_orders_on_one_connection(door: Web) -> None:
    with Dialogue(door.port) as dialogue:
        for stage in [buyer() for _ in range(100)]:
            dialogue.say(plain(stage))
            answer = dialogue.hear()
            assert is_order_of(answer, stage)
            assert answer is not None
            assert answer.header("connection") is None


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "close, x"])
def test_a_connection_that_is_to_be_closed_is_closed(door: Web, value: str) -> None:
    stage = buyer()
    with Dialogue(door.port) as dialogue:
        dialogue.say(plain(stage, GOOD, ("Connection", value)) + plain(stage, b'{"quantity":2}'))
        answer = dialogue.hear()
        assert is_order_of(answer, stage)
        assert answer is not None
        assert answer.header("connection") == "close"
        assert dialogue.ended()  # what came behind is not answered


LAST: dict[str, Callable[[Stage], bytes]] = {
    "an order": an_order(("Connection", "close")),
    "an order refused at once": an_order(("Connection", "close"), drop=("Authorization",)),
    "a question": at("/livez", ("Connection", "close")),
    "a body too large": an_order(body=b" " * 4097),
    "HTTP/1.0": placed_by("POST /api/v1/sales/{slug}/orders HTTP/1.0"),
}


@pytest.mark.parametrize("last", LAST)
def test_what_comes_behind_the_last_request_is_not_done(door: Web, gate: redis.Redis, last: str) -> None:
    behind = buyer()
    with Dialogue(door.port) as dialogue:
        dialogue.say(LAST[last](buyer()) + plain(behind))
        answer = dialogue.hear()
        assert answer is not None
        assert answer.header("connection") == "close"
        assert dialogue.ended()
    assert door.buy(behind.slug, buyer().customer).status_code == 202  # whatever it does is done now
    assert claimed(gate, behind) is None


@pytest.mark.parametrize("value", ["", "keep-alive"])
def test_http_1_0_is_answered_once(door: Web, value: str) -> None:
    stage = buyer()
    headers = [("Connection", value)] if value else []
    with Dialogue(door.port) as dialogue:
        dialogue.say(plain(stage, GOOD, *headers, line=f"POST /api/v1/sales/{stage.slug}/orders HTTP/1.0"))
        answer = dialogue.hear()
        assert is_order_of(answer, stage)
        assert answer is not None
        assert answer.header("connection") == "close"
        assert answer.header("transfer-encoding") is None
        assert dialogue.ended()


def test_head_has_no_body(door: Web) -> None:
    stage = buyer()
    with Dialogue(door.port) as dialogue:
        for path in ("/livez", f"/api/v1/sales/{stage.slug}", f"/api/v1/sales/{stage.slug}/orders"):
            dialogue.say(get(stage, path, method="HEAD", last=False))
            answer = dialogue.hear(bodiless=True)
            assert answer is not None
            assert answer.status in (200, 405)
            assert int(answer.header("content-length") or 0) > 0
        dialogue.say(plain(stage))
        assert is_order_of(dialogue.hear(), stage)


@pytest.mark.parametrize("size", [200, 8_000, 60_000])
def test_long_headers_and_many_are_read(door: Web, size: int) -> None:
    stage = buyer()
    many = [(f"X-{i}", "x") for i in range(size // 100)]
    with Dialogue(door.port) as dialogue:
        for headers in ([("X-Long", "x" * size)], many):
            dialogue.say(plain(stage, GOOD, *headers))
            assert is_order_of(dialogue.hear(), stage)
        dialogue.say(get(stage, "/api/v1/sales/" + "a" * size, last=False))
        answer = dialogue.hear()
        assert answer is not None
        assert answer.status == 404


def test_empty_lines_between_orders(door: Web) -> None:
    first, second = buyer(), buyer()
    with Dialogue(door.port) as dialogue:
        dialogue.say(b"\r\n\r\n" + plain(first) + b"\r\n" + plain(second))
        assert is_order_of(dialogue.hear(), first)
        assert is_order_of(dialogue.hear(), second)


def claimed(gate: redis.Redis, stage: Stage) -> str | None:
    """The letter of the stage's claim in the gate: h for held, q for queued, None for no claim."""
    claim = gate.hget(pool_keys(sale_id(stage.slug)).claims, str(order_of(stage)))
    return str(claim)[0] if claim else None


@pytest.mark.parametrize("kept", [0, 1, 7, 13])
def test_a_body_that_breaks_off_is_no_order(door: Web, gate: redis.Redis, kept: int) -> None:
    stages = [buyer() for _ in range(2)]
    for stage, end in zip(stages, (Dialogue.end, Dialogue.close), strict=True):
        with Dialogue(door.port) as dialogue:
            dialogue.say_apart(plain(stage, GOOD[:kept], length=str(len(GOOD))))
            end(dialogue)
            if end is Dialogue.end:
                assert dialogue.ended()
    assert door.buy(stages[0].slug, buyer().customer).status_code == 202  # whatever it does is done now
    assert [claimed(gate, stage) for stage in stages] == [None, None]


@pytest.mark.parametrize("way", ["end", "close"])
def test_an_order_whose_client_has_gone_is_placed(door: Web, gate: redis.Redis, way: str) -> None:
    """The gate waits until the client has gone: the order is under way, and goes on to its end."""
    stages = [buyer() for _ in range(5)]
    gate.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
    try:
        dialogues = [Dialogue(door.port) for _ in stages]
        for dialogue, stage in zip(dialogues, stages, strict=True):
            dialogue.say_apart(plain(stage))
        assert door.get("/livez").status_code == 200  # it has begun with all it has read
        for dialogue in dialogues:
            getattr(dialogue, way)()
        assert door.get("/livez").status_code == 200
    finally:
        gate.execute_command("CLIENT", "UNPAUSE")
    for stage in stages:
        eventually(lambda stage=stage: claimed(gate, stage) == "q")  # type: ignore[misc]
        assert door.get(f"/api/v1/orders/{order_of(stage)}", stage.customer).status_code == 200
    for dialogue in dialogues:
        dialogue.close()
