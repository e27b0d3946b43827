"""Requests of one connection that resemble each other stay apart: each is its own buyer's, and whole."""

import json
import re
from uuid import uuid4

import pytest
import redis

from tests.doors.dialogue import Dialogue
from tests.doors.questions import an_order, order_of, own
from tests.doors.stages import slug
from tests.running_site import Web
from tests.site.hostile import Stage


def statuses(dialogue: Dialogue, count: int) -> list[int | None]:
    return [answer and answer.status for answer in (dialogue.hear() for _ in range(count))]


def test_each_request_of_a_connection_is_its_own_buyers(door: Web) -> None:
    buyers = [Stage(slug("open"), f"alike-{uuid4().hex[:12]}") for _ in range(3)]
    with Dialogue(door.port) as dialogue:

        def ordered(buyer: Stage, *pieces: bytes) -> str:
            dialogue.say_apart(*pieces)
            answer = dialogue.hear()
            assert answer is not None
            assert answer.status == 202, answer.body
            assert json.loads(answer.body)["order_id"] == str(order_of(buyer))
            return answer.header("idempotency-replayed") or "new"

        told = [ordered(buyer, an_order()(buyer)) for buyer in buyers * 2]
        assert told == ["new"] * 3 + ["true"] * 3
        for at in (10, 100, -20, -1):  # and in two pieces, between whole ones
            whole = an_order()(buyers[0])
            assert ordered(buyers[0], whole[:at], whole[at:]) == "true"
            assert ordered(buyers[1], an_order()(buyers[1])) == "true"


def test_a_request_inside_the_body_of_another_is_no_request(door: Web) -> None:
    """Whatever a packet looks like: here the parser is in the middle of a body."""
    buyer, other = (Stage(slug("open"), f"alike-{uuid4().hex[:12]}") for _ in range(2))
    whole, inner = an_order()(buyer), an_order()(other)
    head = whole.replace(b"Content-Length: 14", b"Content-Length: %d" % len(inner))
    assert head != whole
    head = head[: head.index(b"\r\n\r\n") + 4]
    with Dialogue(door.port) as dialogue:
        dialogue.say(whole)
        first = dialogue.hear()
        assert first is not None
        assert first.status == 202
        dialogue.say_apart(head, inner)
        second = dialogue.hear()
        assert second is not None
        assert second.status == 400, "the inner request is a body that is no JSON"
        dialogue.say(whole)
        third = dialogue.hear()
        assert third is not None
        assert third.header("idempotency-replayed") == "true"


@pytest.mark.parametrize("more", [0, 1])
def test_the_second_piece_of_a_request_is_none_by_itself(door: Web, more: int) -> None:
    """Neither alone nor with a whole request behind it."""
    whole = an_order()(Stage(slug("open"), f"alike-{uuid4().hex[:12]}"))
    piece = whole[10:] + more * whole
    with Dialogue(door.port) as dialogue:
        dialogue.say_apart(whole[:10], piece)
        assert statuses(dialogue, 1 + more) == [202] * (1 + more)
        dialogue.say(piece)
        assert statuses(dialogue, 1) == [400]


def test_a_request_waits_for_the_one_before_it(door: Web, gate: redis.Redis) -> None:
    buyer = Stage(slug("open"), f"alike-{uuid4().hex[:12]}")
    unknown = an_order(("Authorization", "Bearer x.y.z"))(buyer)
    with Dialogue(door.port) as dialogue:
        dialogue.say(unknown)
        assert statuses(dialogue, 1) == [401]
        again = re.sub(b"Bearer [!-~]+", b"Bearer " + own(buyer).encode(), unknown)
        gate.client_pause(500)
        dialogue.say_apart(again, unknown)
        assert statuses(dialogue, 2) == [202, 401]


def test_two_requests_in_one_packet_stay_two(door: Web) -> None:
    two = b"".join(an_order()(Stage(slug("sold-out"), f"alike-{number}")) for number in range(2))
    with Dialogue(door.port) as dialogue:
        for _ in range(5):
            dialogue.say(two)
            assert statuses(dialogue, 2) == [409, 409]
