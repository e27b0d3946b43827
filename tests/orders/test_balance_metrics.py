"""The balance as metrics: what is summed up, what differs only for a moment, what is away."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY

from orders import balance_metrics
from orders.balance import glance
from orders.balance_metrics import BalanceMetrics
from sales import arming
from sales import gate as gates
from sales.gate import Image, mark_queued, pool_keys
from sales.models import Sale
from tests.orders.records import kill_this_connection, take
from tests.running_site import free_port

pytestmark = pytest.mark.django_db(transaction=True)
IMAGE = Image(epoch=5, state="open", loaded=10, remaining=4, held=0, queued=0, settled=6, released=1)


@pytest.fixture
def metrics(gate: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> BalanceMetrics:
    monkeypatch.setattr(balance_metrics, "EVERY_SECONDS", 0.0)
    return BalanceMetrics(gate)


def sales() -> dict[str, float | None]:
    return {
        verdict: REGISTRY.get_sample_value("fluxgate_balance_sales", {"verdict": verdict})
        for verdict in ("balanced", "under way", "differs")
    }


def units(book: str, kind: str) -> float | None:
    return REGISTRY.get_sample_value("fluxgate_balance_units", {"book": book, "kind": kind})


@pytest.mark.parametrize(
    ("image", "fallen", "verdict"),
    [
        (IMAGE, "", "balanced"),
        (IMAGE, "Redis has restarted", "differs"),
        (None, "", "differs"),
        (IMAGE._replace(epoch=4), "", "differs"),
        (IMAGE._replace(epoch=6, state="arming"), "an arming has not ended", "under way"),
        (IMAGE._replace(remaining=3, queued=1), "", "under way"),
        (IMAGE._replace(remaining=3, settled=7), "", "differs"),
        (IMAGE._replace(remaining=5, settled=5), "", "differs"),
        (IMAGE._replace(remaining=5), "", "differs"),
    ],
)
def test_a_glance_at_the_counters(image: Image | None, fallen: str, verdict: str) -> None:
    assert glance(5, 4, image, fallen) == verdict


def test_units_are_summed_over_the_sales_that_are_not_over(
    metrics: BalanceMetrics, gate: redis.Redis, open_sale: Callable[..., Sale]
) -> None:
    first, second, over = open_sale(allotment=10), open_sale(allotment=20), open_sale(allotment=40)
    arming.close(over, actor="test")
    _, queued = take(first, 2)
    mark_queued(gate, first.id, 0, first.epoch, [queued.order_id])
    assert metrics.step() is True
    assert sales() == {"balanced": 1, "under way": 1, "differs": 0}
    assert [units("gate", kind) for kind in ("remaining", "held", "queued", "settled")] == [28, 1, 1, 0]
    assert (units("order_book", "sold"), units("order_book", "left")) == (0, 30)
    assert second.allotment == 20


def test_a_difference_counts_when_it_stays(
    metrics: BalanceMetrics, gate: redis.Redis, open_sale: Callable[..., Sale]
) -> None:
    sale = open_sale()
    gate.hincrby(pool_keys(sale.id).gate, "remaining", -1)
    metrics.step()
    assert sales() == {"balanced": 0, "under way": 1, "differs": 0}
    metrics.step()
    assert sales() == {"balanced": 0, "under way": 0, "differs": 1}
    gate.hincrby(pool_keys(sale.id).gate, "remaining", 1)
    metrics.step()
    assert sales() == {"balanced": 1, "under way": 0, "differs": 0}


def test_servers_that_are_away_leave_the_metrics_old(
    metrics: BalanceMetrics, open_sale: Callable[..., Sale], settings: Any
) -> None:
    open_sale()
    before = time.time()
    assert metrics.step() is True
    read = REGISTRY.get_sample_value("fluxgate_balance_read_timestamp_seconds")
    assert read is not None
    assert read >= before
    kill_this_connection()
    assert metrics.step() is False
    assert metrics.step() is True  # on a new connection
    url = f"redis://127.0.0.1:{free_port()}/0"
    gone = BalanceMetrics(gates.connect(url))
    read = REGISTRY.get_sample_value("fluxgate_balance_read_timestamp_seconds")
    assert gone.step() is False
    assert REGISTRY.get_sample_value("fluxgate_balance_read_timestamp_seconds") == read


def test_it_reads_every_few_seconds_only(gate: redis.Redis, open_sale: Callable[..., Sale]) -> None:
    metrics = BalanceMetrics(gate)
    assert [metrics.step(), metrics.step()] == [True, False]


def test_one_that_stands_by_publishes_nothing(
    metrics: BalanceMetrics, open_sale: Callable[..., Sale]
) -> None:
    open_sale()
    metrics.step()
    metrics.forget()
    assert sales() == {"balanced": None, "under way": None, "differs": None}
    assert units("gate", "remaining") is None
