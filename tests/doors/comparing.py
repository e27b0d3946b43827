"""What of an answer must be the same behind every door, and what of it may differ."""

import re
from typing import NamedTuple

import redis

from sales.gate import pool_keys
from tests.doors.dialogue import Answer, Dialogue
from tests.doors.questions import Question, order_of, sale_id
from tests.doors.stages import stage_of
from tests.running_site import Web, eventually
from tests.site.hostile import Probe, Reply, Stage, exchange

# The clock of the answer, and of the claim that was made for it; a ticket is signed with the time in it.
_TIMES = re.compile(rb'"(server_time|claimed_at|ticket)":"[^"]*"')
_IDS = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")  # of orders
_CLOCKS = {"date"}


class Seen(NamedTuple):
    """An answer without what must differ, and whether the connection went on."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    retry_after: int | None
    went_on: bool


def ask(web: Web, question: Question, gate: redis.Redis) -> tuple[Answer, Seen]:
    """Asks one question at one door, as a customer who has not been at another."""
    stage = stage_of(question.sale, question.customer)
    for earlier in question.before:
        with Dialogue(web.port) as dialogue:
            dialogue.say(earlier(stage))
            assert dialogue.hear() is not None
        # The log's acknowledgement is told to the gate off the path: from then on the order is queued.
        eventually(lambda: gate.zscore(pool_keys(sale_id(stage.slug)).pending, str(order_of(stage))) is None)
    asked = question.ask(stage)
    with Dialogue(web.port) as dialogue:
        dialogue.say(asked)
        answer = dialogue.hear(bodiless=asked.startswith(b"HEAD "))
        assert answer is not None, "no answer"
        dialogue.say(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        after = dialogue.hear()
        assert after is None or after.status == 200, after
    return answer, _seen(answer, question, stage, went_on=after is not None)


def _seen(answer: Answer, question: Question, stage: Stage, *, went_on: bool) -> Seen:
    mine = str(order_of(stage, question.key))
    headers, retry_after = [], None
    for name, value in answer.headers:
        if name == "retry-after":
            retry_after = int(value)
            value = ""
        elif name == "content-length" and answer.body:
            assert int(value) == len(answer.body)
            value = ""
        elif name in _CLOCKS:
            value = ""
        headers.append((name, value.replace(mine, "<mine>")))
    body = _TIMES.sub(rb'"\1":""', answer.body).replace(mine.encode(), b"<mine>")
    return Seen(answer.line, sorted(headers), body, retry_after, went_on)


def differences(one: Seen, other: Seen, *, drift: int = 0) -> list[str]:
    """What differs, as text; Retry-After may by `drift` seconds."""
    found = []
    if one.retry_after is not None and other.retry_after is not None:
        if abs(one.retry_after - other.retry_after) > drift:
            found.append(f"retry-after: {one.retry_after} and {other.retry_after}")
        other = other._replace(retry_after=one.retry_after)
    for name, mine, its in zip(Seen._fields, one, other, strict=True):
        if mine != its:
            found.append(f"{name}: {mine!r} and {its!r}")
    return found


def hostile_answers(web: Web, probe: Probe, stage: Stage) -> tuple[list[Reply], list[object]]:
    """The replies to one of tests/site's probes, and the same without what must differ."""
    found = exchange(web.port, probe.send(stage))
    bare: list[object] = []
    for reply in found:
        headers = {
            name: "" if name in ("date", "content-length") else _IDS.sub("<id>", value)
            for name, value in reply.headers.items()
        }
        body = _TIMES.sub(rb'"\1":""', _IDS.sub("<id>", reply.body.decode("latin-1")).encode("latin-1"))
        bare.append((reply.status, sorted(headers.items()), body))
    return found, bare
