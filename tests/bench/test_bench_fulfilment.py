"""The write side measured: the bare loops and one small run, on the tests' own servers."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from bench import bare, fulfilment
from bench.errors import Unbalanced
from orders.models import Order, OrderEvent
from sales.models import Sale
from sales.topic import partition_of

REPORT = {
    "orders": 200_000,
    "sales": 12,
    "batch": 2000,
    "cores": 2,
    "bare_unnest_per_second": 50_000,
    "bare_copy_per_second": 80_000,
    "runs": [
        {
            "consumers": 2,
            "orders_per_second": 21_000,
            "orders_per_transaction": 1_900,
            "cpu_microseconds_per_order": {"consumers": 14.5, "postgres": 20.0},
        }
    ],
}


@pytest.fixture
def own_topic(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> None:
    """A run takes another topic; afterwards the settings are what they were."""
    monkeypatch.setattr(settings, "FLUXGATE", settings.FLUXGATE)


# The bare loops


@pytest.mark.parametrize("write", [bare.unnest, bare.copy])
def test_a_bare_loop_writes_every_row_into_a_table_like_the_orders(
    write: Any, transactional_db: None
) -> None:
    claims, seen = bare.claims_of_nobody(50), []

    def counted(cursor: Any, batch: list[tuple[Any, ...]]) -> None:
        write(cursor, batch)
        seen.append(cursor.execute("SELECT count(*), count(DISTINCT customer) FROM bare").fetchone())

    assert bare.rows_per_second(claims, 20, counted) > 0
    assert seen == [(20, 20), (40, 40), (50, 50)]
    assert not Order.objects.exists()


def test_a_bare_loop_can_run_again_after_one_that_failed(transactional_db: None) -> None:
    def fails(cursor: Any, batch: list[tuple[Any, ...]]) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        bare.rows_per_second(bare.claims_of_nobody(1), 1, fails)
    assert bare.rows_per_second(bare.claims_of_nobody(1), 1, bare.unnest) > 0


# Consumers


def test_sales_are_spread_over_the_partitions_in_turn() -> None:
    count = settings.FLUXGATE.kafka_partitions
    assert [partition_of(sale) for sale in fulfilment.spread(count + 1)] == [*range(count), 0]


@pytest.mark.kafka
def test_consumers_write_down_what_waits_in_the_log(tmp_path: Path, own_topic: None) -> None:
    options = fulfilment.parse(["--orders", "240", "--sales", "4", "--consumers", "1", "--batch", "50"])
    report = fulfilment.measure(options, {"this": os.getpid()}, tmp_path)
    [run] = report["runs"]
    assert set(run["cpu_microseconds_per_order"]) == {"consumers", "this"}
    assert run["cpu_microseconds_per_order"]["consumers"] > 0
    assert run["orders_per_second"] > 0
    assert 0 < run["orders_per_transaction"] <= 50
    assert Order.objects.filter(state="confirmed").count() == OrderEvent.objects.count() == 240
    assert set(Sale.objects.values_list("sold", flat=True)) == {60}

    again = OrderEvent.objects.all()[0]
    again.pk = None
    again.save()
    with pytest.raises(Unbalanced, match="240 orders have 241 events, and 0 records are parked"):
        fulfilment.must_balance(list(Sale.objects.all()), 240)


def test_a_report_is_a_line_for_each_run() -> None:
    assert fulfilment.readable(REPORT).splitlines() == [
        "200,000 orders, 12 sales, batches of 2000, 2 cores; bare unnest 50,000/s, bare COPY 80,000/s",
        "2 consumers: 21,000 orders/s, 1,900 in a transaction; CPU: consumers 14.5 µs, postgres 20.0 µs",
    ]
