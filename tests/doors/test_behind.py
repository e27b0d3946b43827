"""What an order leaves behind a door: the same record in the log, and the same counts in the metrics."""

import re
from collections import Counter
from typing import Any
from uuid import UUID

import msgspec
import requests
from confluent_kafka import Consumer, KafkaError, TopicPartition
from django.conf import settings

from orders import claims
from sales import topic
from tests.doors.conftest import DOORS
from tests.doors.dialogue import Dialogue
from tests.doors.questions import Asking, an_order, by, order_of, sale_id
from tests.doors.questions_verdicts import TRACE
from tests.doors.stages import slug, stage_of
from tests.running_site import Web, eventually
from tests.site.hostile import GOOD, Stage, chunked

# Ways for one and the same order to come, and the trace that its record must carry.
ARRIVALS: dict[str, tuple[Asking, str | None]] = {
    "whole": (an_order(), None),
    "with a trace": (an_order(("traceparent", TRACE)), TRACE),
    "with a broken trace": (an_order(("traceparent", TRACE[:-1])), None),
    "with two traces": (an_order(("traceparent", TRACE), ("traceparent", TRACE)), None),
    "in chunks, with a trace": (
        an_order(("Transfer-Encoding", "chunked"), ("traceparent", TRACE), body=chunked(GOOD), length=None),
        TRACE,
    ),
}


def records(partition: int) -> dict[UUID, tuple[claims.Claim, dict[str, str]]]:
    """The claims in one partition of the site's topic, with their headers, by order."""
    options: dict[str, Any] = {"group.id": "a reader", "enable.partition.eof": True, "fetch.wait.max.ms": 20}
    consumer = Consumer(topic.client_config() | options)
    consumer.assign([TopicPartition(settings.FLUXGATE.kafka_topic, partition, 0)])
    found = {}
    try:
        while (message := consumer.poll(10)) is not None:
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return found
            claim = claims.decode(message.value())
            headers = {name: value.decode() for name, value in message.headers()}
            if isinstance(claim, claims.Claim):
                found[claim.order_id] = (claim, headers)
        raise AssertionError("the end of the partition was not reached")
    finally:
        consumer.close()


def test_the_record_in_the_log_is_the_same(doors: dict[str, Web]) -> None:
    placed: dict[tuple[str, str], Stage] = {}
    for door in DOORS:
        for arrival, (ask, _) in ARRIVALS.items():
            stage = placed[door, arrival] = stage_of("open", "")
            with Dialogue(doors[door].port) as dialogue:
                dialogue.say(ask(stage))
                answer = dialogue.hear()
                assert answer is not None
                assert answer.status == 202
    found = records(topic.partition_of(sale_id(slug("open"))))
    for (door, arrival), stage in placed.items():
        claim, headers = found[order_of(stage)]
        assert claim.user_id == stage.customer, door
        assert headers.get("traceparent") == ARRIVALS[arrival][1], (door, arrival)
        alike = msgspec.structs.asdict(found[order_of(placed["stock", arrival])][0])
        mine = {"order_id", "user_id", "claimed_at"}
        assert {k: v for k, v in msgspec.structs.asdict(claim).items() if k not in mine} == {
            k: v for k, v in alike.items() if k not in mine
        }
        assert set(headers) == set(found[order_of(placed["stock", arrival])][1]), (door, arrival)


# What is asked in one packet, and the word it is counted under; None where no unit was asked for.
COUNTED: list[tuple[str, Asking, str | None]] = [
    ("open", an_order(), "claimed"),
    ("open", an_order(), "replayed"),
    ("open", an_order(body=b'{"quantity":2}'), "key_reused"),
    ("open", an_order(key="k-2", body=b'{"quantity":30}'), "limit_reached"),
    *[("sold-out", an_order(), "sold_out")] * 9,
    *[("busy", an_order(), "busy")] * 9,
    ("sold-out", an_order(drop=("Authorization",)), None),
    ("sold-out", an_order(body=b"{"), None),
    ("closed", an_order(), "closed"),
    ("paused", an_order(), "paused"),
    ("unarmed", an_order(), None),
    ("unknown", an_order(), None),
]


def counts(web: Web) -> Counter[str]:
    """Answers that the web process has counted so far, by their word."""
    text = requests.get(f"http://127.0.0.1:{web.metrics_port}/metrics", timeout=10).text
    found = re.findall(r'^fluxgate_answers_total\{verdict="(\w+)"\} ([\d.e+]+)$', text, re.M)
    return Counter({verdict: int(float(number)) for verdict, number in found})


def test_every_answer_is_counted_once_by_its_word(door: Web) -> None:
    before = counts(door)
    customer = stage_of("open", "").customer
    with Dialogue(door.port) as dialogue:
        for sale, ask, _ in COUNTED:  # one by one, so that what may be repeated is
            dialogue.say(ask(stage_of(sale, customer)))
            assert dialogue.hear() is not None
    expected = Counter(word for _, _, word in COUNTED if word)
    eventually(lambda: (counts(door) - before).total() >= expected.total())
    assert counts(door) - before == expected


def test_a_packet_of_repeated_refusals_is_counted_once_each(door: Web) -> None:
    before = counts(door)
    refused = by("one who is known", an_order())(stage_of("sold-out", ""))
    with Dialogue(door.port) as dialogue:
        for size in (1, 1, 100):
            dialogue.say(refused * size)
            statuses = []
            for _ in range(size):
                answer = dialogue.hear()
                assert answer is not None
                statuses.append(answer.status)
            assert statuses == [409] * size
    eventually(lambda: (counts(door) - before).total() >= 102)
    assert counts(door) - before == Counter(sold_out=102)
