"""The numbers of the live page: each from its source, each failure said, and nobody kept waiting."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.cache import cache
from django.db import OperationalError
from django.urls import reverse
from prometheus_client import CollectorRegistry, Counter, Histogram

from orders import claims, lag, metrics, readings
from orders.admin import live_log
from orders.consumer import Consumer
from orders.log import KafkaLog
from orders.models import ParkedRecord, ParkedState
from sales import arming
from sales.gate import image, pool_keys
from sales.models import Sale
from sales.topic import partition_of
from tests.desk import EVERYTHING, STEPS_TO, VIEWER, draft, sale_in, sign_in, until_nobody_asks_the_broker
from tests.orders.records import take
from tests.running_site import eventually, free_port
from waitingroom.crowd import Crowd, standing
from waitingroom.keeping import Keeper
from waitingroom.line import Drawn, Line, line_keys
from waitingroom.models import Room
from waitingroom.schedule import Segment, turn_at

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sale(own_topic: str) -> Sale:
    return sale_in("open")


def address(sale: Sale) -> str:
    return reverse("admin:orders_live_numbers", args=[sale.pk])


def numbers(sale: Sale, *permissions: str) -> dict[str, Any]:
    answer = sign_in(*(permissions or (EVERYTHING,))).get(address(sale))
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def test_a_settled_sale_has_a_report_instead(own_topic: str) -> None:
    sale = sale_in("closed")
    arming.settle(sale, actor="test")
    answer = sign_in(EVERYTHING).get(reverse("admin:orders_live", args=[sale.pk]))
    assert answer["Location"] == reverse("admin:orders_report", args=[sale.pk])
    assert numbers(sale)["steps"] == []


# Who


@pytest.mark.parametrize("name", ["orders_live", "orders_live_numbers"])
def test_who_may_see_it(sale: Sale, client: Any, name: str) -> None:
    asked = reverse(f"admin:{name}", args=[sale.pk])
    assert sign_in().get(asked).status_code == 403
    assert sign_in("orders.view_order").get(asked).status_code == 403
    assert sign_in("sales.view_sale").get(asked).status_code == 200
    assert sign_in("sales.change_sale").get(asked).status_code == 200
    assert client.get(asked).status_code == 302
    assert sign_in(EVERYTHING).get(reverse(f"admin:{name}", args=[uuid4()])).status_code == 404


def test_it_says_not_to_be_stored(sale: Sale) -> None:
    answer = sign_in(EVERYTHING).get(address(sale))
    assert answer["Content-Type"] == "application/json"
    assert "no-store" in answer["Cache-Control"]


def test_the_steps_are_those_that_the_operator_may_take(sale: Sale) -> None:
    steps = numbers(sale, "sales.view_sale", "sales.pause_sale", "sales.close_sale")["steps"]
    pause = reverse("admin:sales_sale_pause_step", args=[sale.pk])
    assert [step["name"] for step in steps] == ["Pause", "Close sale"]
    assert steps[0] == {"name": "Pause", "icon": "pause", "variant": "warning", "url": f"{pause}?from=live"}
    assert numbers(sale, *VIEWER, "sales.change_sale")["steps"] == []


def test_a_step_leads_back_to_the_live_page(sale: Sale) -> None:
    operator = sign_in(EVERYTHING)
    [pause, _] = numbers(sale)["steps"]
    back = reverse("admin:orders_live", args=[sale.pk])
    assert f'href="{back}"' in operator.get(pause["url"]).content.decode()
    assert operator.post(pause["url"], {"reason": "a test"})["Location"] == back


@pytest.mark.parametrize("state", STEPS_TO)
def test_every_state_has_its_page(own_topic: str, state: str) -> None:
    sale = sale_in(state)
    answer = sign_in(EVERYTHING).get(reverse("admin:orders_live", args=[sale.pk]))
    assert answer.status_code == 200
    assert address(sale) in answer.content.decode()
    own = sign_in(EVERYTHING).get(reverse("admin:sales_sale_change", args=[sale.pk])).content.decode()
    assert (reverse("admin:orders_live", args=[sale.pk]) in own) is (state not in ("draft", "scheduled"))


def test_the_list_leads_to_it(sale: Sale) -> None:
    listed = sign_in(*VIEWER).get(reverse("admin:sales_sale_changelist")).content.decode()
    assert reverse("admin:orders_live", args=[sale.pk]) in listed
    waiting = draft()
    assert reverse("admin:orders_live", args=[waiting.pk]) not in listed


# The gate and the order book


def test_units_are_those_of_the_gate_and_of_the_order_book(sale: Sale, gate: redis.Redis) -> None:
    gate.hset(pool_keys(sale.pk).gate, mapping={"remaining": 4, "held": 3, "queued": 2, "settled": 1})
    Sale.objects.filter(pk=sale.pk).update(sold=1)
    told = numbers(sale)
    standing_there = image(gate, sale.pk)
    assert standing_there is not None
    assert told["gate"] == standing_there._asdict()
    assert (told["state"], told["label"], told["sold"], told["allotment"]) == ("open", "Open", 1, 10)
    assert (told["epoch"], told["reachable"], told["sealed"], told["balanced"]) == (
        sale.epoch,
        True,
        True,
        True,
    )
    gate.hset(pool_keys(sale.pk).gate, "held", 5)
    assert numbers(sale)["balanced"] is False
    text = sign_in(EVERYTHING).get(reverse("admin:sales_sale_change", args=[sale.pk])).content.decode()
    assert "does not add up" in text


def test_claims_are_counted_by_the_gate_and_its_clock(sale: Sale, gate: redis.Redis) -> None:
    take(sale, 3)
    before = time.time() * 1000
    told = numbers(sale)
    assert told["claims"] == 3
    assert told["gate"]["held"] == 3
    assert abs(told["clock"] - before) < 60_000


def test_a_gate_that_is_away_is_a_state_and_not_an_error(sale: Sale, settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"}
    )
    Sale.objects.filter(pk=sale.pk).update(admission_required=True)
    told = numbers(sale)
    assert told["reachable"] is False
    assert [told[name] for name in ("gate", "claims", "clock", "balance", "line")] == [None] * 5
    assert told["log"]["records"] is not None or told["log"]["seconds"] is None
    assert told["sold"] == 0
    own = sign_in(EVERYTHING).get(reverse("admin:sales_sale_change", args=[sale.pk]))
    assert "The gate is unreachable" in own.content.decode()


def test_a_gate_that_was_wiped_holds_nothing_and_differs(sale: Sale, gate: redis.Redis) -> None:
    gate.delete(*pool_keys(sale.pk))
    told = numbers(sale)
    assert (told["reachable"], told["gate"], told["balanced"], told["balance"]) == (
        True,
        None,
        None,
        "differs",
    )
    own = sign_in(EVERYTHING).get(reverse("admin:sales_sale_change", args=[sale.pk]))
    assert "holds nothing" in own.content.decode()


def test_a_gate_that_was_restarted_is_fenced(sale: Sale, gate: redis.Redis) -> None:
    gate.script_flush()
    told = numbers(sale)
    assert (told["sealed"], told["balance"]) == (False, "differs")


@pytest.mark.parametrize(
    ("counters", "word"),
    [
        ({}, "balanced"),
        ({"remaining": 9, "queued": 1}, "under way"),
        ({"remaining": 9, "settled": 1}, "differs"),
        ({"remaining": 9}, "differs"),
    ],
)
def test_the_balance_in_a_word(sale: Sale, gate: redis.Redis, counters: dict[str, int], word: str) -> None:
    if counters:
        gate.hset(pool_keys(sale.pk).gate, mapping=counters)
    assert numbers(sale)["balance"] == word


def test_a_sale_without_a_gate_has_no_balance(own_topic: str) -> None:
    told = numbers(sale_in("scheduled"))
    assert (told["balance"], told["gate"], told["reachable"], told["epoch"]) == (None, None, True, 0)


# The line


def test_the_line_in_numbers(own_topic: str, gate: redis.Redis) -> None:
    sale = sale_in("open", admission_required=True)
    assert numbers(sale)["line"] is None, "nothing is published yet"
    Room.objects.create(sale=sale, turn_rate=1, turn_seconds=600)
    keeper = Keeper(gate)
    keeper.look()
    keeper.look()
    gate.hset(line_keys(sale.pk).line, "next", 5000)
    told = numbers(sale)
    assert told["has_line"] is True
    line = told["line"]
    assert (line["tickets"], line["passes"]) == (5000, False)
    assert 0 < line["waiting"] < 5000
    assert (line["rate"], line["reason"]) == (1.0, "as set by the operator")

    Room.objects.filter(sale=sale).update(passes=True)
    keeper.look()
    line = numbers(sale)["line"]
    assert (line["waiting"], line["passes"]) == (0, True)


def test_a_sale_without_a_waiting_room_has_no_line(sale: Sale) -> None:
    told = numbers(sale)
    assert (told["has_line"], told["line"]) == (False, None)


@pytest.mark.parametrize("now", [0, 999, 1000, 1999, 2000, 4000, 10_500, 11_000, 90_000])
@pytest.mark.parametrize(
    "segments",
    [
        (),
        (Segment(1000, 0, 1),),
        (Segment(1000, 0, 0),),
        (Segment(1000, 0, 2), Segment(4000, 6, 0), Segment(11_000, 6, 0.5)),
        (Segment(1000, 3.5, 3),),
    ],
)
def test_those_whose_turn_has_not_come_wait(segments: tuple[Segment, ...], now: int) -> None:
    line = Line("00", 0, 0, 60, segments, "", Drawn(""))
    turns = [turn_at(segments, place) for place in range(40)]
    waiting = sum(1 for turn in turns if turn is None or turn > now)
    begun = [segment.rate for segment in segments if segment.from_time <= now]
    rate = begun[-1] if begun else 0
    assert standing(line, 40, now, passes=False) == Crowd(40, waiting, rate, False)
    assert standing(line, 40, now, passes=True).waiting == 0


# Parked records


def test_parked_records_of_the_sale_and_of_the_shop(sale: Sale) -> None:
    def park(offset: int, key: str, state: ParkedState = ParkedState.PARKED) -> None:
        ParkedRecord.objects.create(
            topic="orders",
            partition=0,
            offset=offset,
            key=key.encode(),
            value=b"{",
            cause="not JSON",
            state=state,
        )

    park(1, f"{sale.pk}:0")
    park(2, f"{sale.pk}:0", ParkedState.DROPPED)
    park(3, f"{uuid4()}:0")
    park(4, "rubbish")
    assert numbers(sale)["parked"] == {"sale": 1, "all": 3}


# The log


@pytest.fixture
def told_anew() -> None:
    """Nothing has been said of the log, and no earlier page is about to say something."""
    until_nobody_asks_the_broker()
    cache.clear()


def known(sale: Sale) -> dict[str, Any]:
    """What is said of the log, once the broker has answered."""

    def asked() -> dict[str, Any] | None:
        told: dict[str, Any] = numbers(sale)["log"]
        return told if told["records"] is not None else None

    told: dict[str, Any] = eventually(asked)
    return told


@pytest.mark.kafka
def test_what_the_log_has_and_the_books_have_not(
    sale: Sale, kafka_log: KafkaLog, start: Callable[..., Consumer], told_anew: None
) -> None:
    partition = partition_of(sale.pk)
    assert known(sale) == {"partition": partition, "records": 0, "seconds": 0.0}
    append(kafka_log, sale, 3)
    told = eventually(lambda: (told := known(sale))["records"] == 3 and told)
    older = eventually(lambda: (again := known(sale))["seconds"] > told["seconds"] and again)
    assert older["records"] == 3
    consumer = start()

    def is_written() -> bool:
        consumer.step()
        return known(sale)["records"] == 0

    eventually(is_written)
    assert known(sale)["seconds"] == 0.0


def append(log: KafkaLog, sale: Sale, count: int) -> None:
    done: list[Exception | None] = []
    for claim in take(sale, count):
        log.append(claims.encode(claim, partition_of(sale.pk)), done.append)
    eventually(lambda: len(done) == count)
    assert done == [None] * count


def test_a_broker_that_is_away_is_not_known_and_keeps_nobody_waiting(
    sale: Sale, settings: Any, told_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_brokers": f"127.0.0.1:{free_port()}"})
    assert numbers(sale)["log"] == {"partition": partition_of(sale.pk), "records": None, "seconds": None}


def test_one_question_for_all_pages(monkeypatch: pytest.MonkeyPatch, told_anew: None) -> None:
    asked: list[set[int]] = []
    answered = threading.Event()

    def slow(partitions: set[int]) -> dict[int, lag.Reach]:
        asked.append(partitions)
        answered.wait(20)
        return {7: lag.Reach(5, 9, time.time() - 3)}

    monkeypatch.setattr(lag, "reach", slow)
    monkeypatch.setattr(live_log, "WAIT_SECONDS", 0.01)
    for name in ("FRESH_SECONDS", "OLD_SECONDS", "ASKING_SECONDS"):  # however slow this machine is
        monkeypatch.setattr(live_log, name, 60)
    assert [live_log.unread(7) for _ in range(10)] == [live_log.Unread(None, None)] * 10
    eventually(lambda: asked == [{7}])
    answered.set()
    told = eventually(lambda: (told := live_log.unread(7)).records is not None and told)
    assert told.records == 4
    assert told.seconds >= 3
    assert [live_log.unread(7) for _ in range(10)] == [told] * 10
    assert asked == [{7}]

    monkeypatch.setattr(live_log, "FRESH_SECONDS", 0)
    live_log.unread(7)
    eventually(lambda: asked == [{7}, {7}])


def test_who_asks_and_dies_is_followed(monkeypatch: pytest.MonkeyPatch, told_anew: None) -> None:
    def broken(_: set[int]) -> dict[int, lag.Reach]:
        raise OperationalError("PostgreSQL is away")

    monkeypatch.setattr(lag, "reach", broken)
    monkeypatch.setattr(live_log, "WAIT_SECONDS", 20)  # until it is dead
    assert live_log.unread(8) == live_log.Unread(None, None)
    monkeypatch.setattr(lag, "reach", lambda _: {8: lag.Reach(2, 2)})
    assert live_log.unread(8) == live_log.Unread(0, 0.0)


def test_a_cache_that_is_away_is_not_known(
    sale: Sale, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_log.cache, "get", lambda *_: None)
    monkeypatch.setattr(live_log.cache, "add", lambda *_: False)
    assert live_log.unread(partition_of(sale.pk)) == live_log.Unread(None, None)


# The host


def test_what_the_host_has_counted(sale: Sale) -> None:
    before = numbers(sale)["host"]["answers"].get("sold_out", 0)
    metrics.answers._counter.labels("sold_out").inc(4)
    host = numbers(sale)["host"]
    assert host["answers"]["sold_out"] == before + 4
    assert host["name"]
    bounds = [most for most, _ in host["acknowledgement_seconds"]]
    assert bounds[-1] is None
    assert bounds[:-1] == sorted(bounds[:-1])


def test_a_histogram_as_it_is_read() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("fluxgate_gate_call_seconds", "…", buckets=(0.1, 1), registry=registry)
    counter = Counter("fluxgate_answers_total", "…", ["verdict"], registry=registry)
    for seconds in (0.05, 0.5, 0.6, 7):
        histogram.observe(seconds)
    counter.labels("busy").inc(2)
    found = {metric.name: metric for metric in registry.collect()}
    assert readings.buckets(found["fluxgate_gate_call_seconds"]) == [(0.1, 1), (1.0, 3), (None, 4)]
    assert readings.counts(found["fluxgate_answers"], "verdict") == {"busy": 2}
    assert readings.buckets(None) is None
    assert readings.counts(None, "verdict") == {}


# What it costs


def test_a_refresh_is_cheap(sale: Sale, django_assert_max_num_queries: Any) -> None:
    operator = sign_in(EVERYTHING)
    operator.get(address(sale))
    with django_assert_max_num_queries(
        5
    ):  # session (when the cache has lost it), user, sale, its steps, parked
        operator.get(address(sale))


def test_looking_changes_nothing(sale: Sale, gate: redis.Redis) -> None:
    before = gate.hgetall(pool_keys(sale.pk).gate)
    for _ in range(3):
        numbers(sale)
    assert gate.hgetall(pool_keys(sale.pk).gate) == before
    arming.pause(sale, actor="test")
    assert numbers(sale)["state"] == "paused"
