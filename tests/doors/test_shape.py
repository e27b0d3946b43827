"""A request is read without the parser only where the parser would read the same."""

import json
import re
from typing import Any
from uuid import uuid4

import httptools
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxgate_site import hot_shape
from fluxgate_site.hot_shape import Shape, shape_of
from tests.doors.dialogue import Dialogue
from tests.doors.questions import an_order, order_of, own
from tests.doors.stages import slug
from tests.running_site import Web
from tests.site.hostile import Stage

KEY_FIRST = (
    b"POST /api/v1/sales/s/orders HTTP/1.1\r\nHost: x\r\nidempotency-key: k-1\r\nX-Note: between\r\n"
    b"AUTHORIZATION: Bearer aaa.bbb.ccc\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    b'{"quantity":1}'
)
TOKEN_FIRST = (
    b"POST /api/v1/sales/s/orders HTTP/1.1\r\nAuthorization: Bearer aaa.bbb.ccc\r\nHost: x\r\n"
    b'Content-Length: 14\r\nIdempotency-Key: "k 1\\""\r\nIdempotency-Key-Of: nobody\r\n\r\n{"quantity":1}'
).replace(b'"k 1\\""', b'"k-1"')


class Read:
    """What httptools makes of bytes."""

    def __init__(self, data: bytes) -> None:
        self.begun = self.ended = 0
        self.url, self.body = b"", b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)
        self.error = ""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.error = str(error)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1

    def whole(self) -> tuple[Any, ...]:
        kept = self.ended and self.parser.should_keep_alive()
        return self.error, self.begun, self.ended, kept, self.url, self.headers, self.body


def shape(data: bytes) -> Shape:
    read = Read(data)
    made = shape_of(data, "a route", dict(read.headers), read.body)
    assert made is not None
    return made


def must_be_read_alike(first: bytes, second: bytes) -> None:
    fields = shape(first).fields_of(second)
    if fields is not None:
        one = Read(first)
        assert Read(second).whole() == ("", 1, 1, True, one.url, list(fields.items()), one.body)


VALUES = st.binary(max_size=40) | st.sampled_from(
    [
        b"a\r\nTransfer-Encoding: chunked",
        b"a\nb",
        b"a\r\n",
        b" a",
        b"a b",
        b"",
        b"a\0",
        b"\xff",
        b"a\tb",
        b"a\x7f",
    ]
)


@settings(max_examples=400)
@given(st.sampled_from([KEY_FIRST, TOKEN_FIRST]), VALUES, VALUES)
def test_other_values_are_read_as_the_parser_reads_them(first: bytes, token: bytes, key: bytes) -> None:
    must_be_read_alike(first, first.replace(b"aaa.bbb.ccc", token).replace(b"k-1", key))


@settings(max_examples=400)
@given(
    st.sampled_from([KEY_FIRST, TOKEN_FIRST]), st.integers(0, 250), st.integers(0, 12), st.binary(max_size=20)
)
def test_a_request_that_was_changed_anywhere_is_read_as_the_parser_reads_it(
    first: bytes, at: int, gone: int, come: bytes
) -> None:
    must_be_read_alike(first, first[:at] + come + first[at + gone :])


@pytest.mark.parametrize("first", [KEY_FIRST, TOKEN_FIRST])
def test_a_client_that_asks_again_is_known(first: bytes) -> None:
    again = first.replace(b"aaa.bbb.ccc", b"ddd.e-e_e.f").replace(b"k-1", b"another")
    fields = shape(first).fields_of(again)
    assert fields is not None
    assert (fields[b"authorization"], fields[b"idempotency-key"].strip(b'"')) == (
        b"Bearer ddd.e-e_e.f",
        b"another",
    )
    assert list(fields.items()) == Read(again).headers


@pytest.mark.parametrize(
    "data",
    [
        KEY_FIRST.replace(b"Bearer aaa", b"bearer aaa"),
        KEY_FIRST.replace(b"Bearer aaa", b"Bearer  aaa"),
        KEY_FIRST.replace(b"aaa.bbb.ccc", b"aaa "),
        KEY_FIRST.replace(b"k-1", b"k 1"),
        KEY_FIRST.replace(b"idempotency-key", b"other-key"),
    ],
)
def test_what_is_written_in_another_way_has_no_shape(data: bytes) -> None:
    assert shape_of(data, "a route", {}, b"") is None


def test_without_its_guard_a_key_ends_the_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: a value may be anything, and a second request hides in it."""
    monkeypatch.setattr(hot_shape, "_VALUE", re.compile(b"(?s:.+)"))
    with pytest.raises(AssertionError):
        must_be_read_alike(KEY_FIRST, KEY_FIRST.replace(b"k-1", b"k\r\nTransfer-Encoding: chunked"))


def statuses(dialogue: Dialogue, count: int) -> list[int | None]:
    return [answer and answer.status for answer in (dialogue.hear() for _ in range(count))]


def test_each_request_of_a_connection_is_its_own_buyers(door: Web) -> None:
    buyers = [Stage(slug("open"), f"shape-{uuid4().hex[:12]}") for _ in range(3)]
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
    buyer, other = (Stage(slug("open"), f"shape-{uuid4().hex[:12]}") for _ in range(2))
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
    whole = an_order()(Stage(slug("open"), f"shape-{uuid4().hex[:12]}"))
    piece = whole[10:] + more * whole
    with Dialogue(door.port) as dialogue:
        dialogue.say_apart(whole[:10], piece)
        assert statuses(dialogue, 1 + more) == [202] * (1 + more)
        dialogue.say(piece)
        assert statuses(dialogue, 1) == [400]


def test_a_request_waits_for_the_one_before_it(door: Web, gate: redis.Redis) -> None:
    buyer = Stage(slug("open"), f"shape-{uuid4().hex[:12]}")
    unknown = an_order(("Authorization", "Bearer x.y.z"))(buyer)
    with Dialogue(door.port) as dialogue:
        dialogue.say(unknown)
        assert statuses(dialogue, 1) == [401]
        again = re.sub(b"Bearer [!-~]+", b"Bearer " + own(buyer).encode(), unknown)
        gate.client_pause(500)
        dialogue.say_apart(again, unknown)
        assert statuses(dialogue, 2) == [202, 401]


def test_two_requests_in_one_packet_stay_two(door: Web) -> None:
    two = b"".join(an_order()(Stage(slug("sold-out"), f"shape-{number}")) for number in range(2))
    with Dialogue(door.port) as dialogue:
        for _ in range(5):
            dialogue.say(two)
            assert statuses(dialogue, 2) == [409, 409]
