"""Metrics that alerts ask for: what they say while something is wrong, and when it is well again."""

import asyncio
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from prometheus_client import REGISTRY

import waitingroom.metrics  # noqa: F401  # registers what this file looks for
from orders import metrics
from orders.balance_metrics import BalanceMetrics
from orders.gatekeeper import Gatekeeper
from orders.log import KafkaLog
from orders.memory_log import MemoryLog
from orders.models import ParkedRecord
from orders.parking import drop
from sales import gate as gates
from sales.gate import Attempt, GateUnreachable
from sales.metrics import RELEASE
from sales.models import Sale
from sales.turnstile import Turnstile
from tests.running_site import eventually, free_port

pytestmark = pytest.mark.django_db(transaction=True)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def log() -> Iterator[MemoryLog]:
    opened = MemoryLog()
    yield opened
    opened.close()


@pytest.mark.kafka
def test_a_process_says_that_its_log_is_down(settings: Any, own_topic: str) -> None:
    well = settings.FLUXGATE
    settings.FLUXGATE = well.model_copy(update={"kafka_brokers": "127.0.0.1:1", "promise_seconds": 0.2})
    down = KafkaLog()
    eventually(lambda: value("fluxgate_log_down") == 1)
    down.close()
    settings.FLUXGATE = well
    up = KafkaLog()
    eventually(lambda: value("fluxgate_log_down") == 0)
    up.close()


async def test_a_call_to_the_gate_is_timed_once_for_all_who_share_it(
    open_sale: Callable[..., Sale], turnstile: Turnstile
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    before = value("fluxgate_gate_call_seconds_count") or 0
    asked = [turnstile.attempt(facts, Attempt(str(uuid4()), f"buyer-{n}", 1)) for n in range(5)]
    await asyncio.gather(*asked)
    assert value("fluxgate_gate_call_seconds_count") == before + 1


async def test_a_call_that_is_given_up_is_timed_as_well(open_sale: Callable[..., Sale]) -> None:
    sale = open_sale()
    known = Turnstile()
    facts = await known.facts(sale.slug)
    await known.close()
    assert facts is not None
    before = value("fluxgate_gate_call_seconds_count") or 0
    lost = Turnstile(nowhere())
    with pytest.raises(GateUnreachable):
        await lost.attempt(facts, Attempt(str(uuid4()), "ann", 1))
    await lost.close()
    assert value("fluxgate_gate_call_seconds_count") == before + 1


def test_the_leader_says_that_the_gate_is_down(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    open_sale()
    Gatekeeper(gates.connect(nowhere()), log).step()
    assert value("fluxgate_gate_down") == 1
    Gatekeeper(gate, log).step()
    assert value("fluxgate_gate_down") == 0


def test_between_two_looks_a_gate_that_is_down_stays_down(
    open_sale: Callable[..., Sale], log: MemoryLog
) -> None:
    open_sale()
    gatekeeper = Gatekeeper(gates.connect(nowhere()), log)
    for _ in range(2):  # the second one asks nobody
        gatekeeper.step()
        assert value("fluxgate_gate_down") == 1


def test_one_that_does_not_lead_any_more_says_nothing_of_gates(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    open_sale()
    gate.flushall()
    gatekeeper = Gatekeeper(gate, log)
    assert gatekeeper.step() is True
    assert value("fluxgate_fenced_gates") == 1
    metrics.gate_down.set(1)
    gatekeeper.forget()
    assert (value("fluxgate_fenced_gates"), value("fluxgate_gate_down")) == (0, 0)


def test_records_that_wait_are_counted_until_somebody_has_looked(db: None, gate: redis.Redis) -> None:
    balance = BalanceMetrics(gate)
    records = [ParkedRecord.objects.create(topic="t", partition=0, offset=n, cause="planted") for n in (1, 2)]
    balance.read()
    assert value("fluxgate_parked_waiting_records") == 2
    drop(records[0].pk, actor="test", reason="planted")
    balance.read()
    assert value("fluxgate_parked_waiting_records") == 1
    balance.forget()
    assert value("fluxgate_parked_waiting_records") == 0


def test_every_gauge_forgets_workers_that_have_died() -> None:
    modes = {
        name: collector._multiprocess_mode  # type: ignore[attr-defined]
        for collector, [name, *_] in REGISTRY._collector_to_names.items()
        if name.startswith("fluxgate_") and collector._type == "gauge"  # type: ignore[attr-defined]
    }
    assert len(modes) > 10
    assert {name: mode for name, mode in modes.items() if mode not in ("livesum", "livemax")} == {}


def test_the_release_is_that_of_the_project() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert project["version"] == RELEASE
    assert value("fluxgate_build_info", version=RELEASE) == 1
