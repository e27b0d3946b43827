"""Orders a second into PostgreSQL with its default fsync: our consumer against one that writes row by row.

Both find their orders in the log and have the service's core to themselves. The clock runs from the first
orders seen in the order book to the last one, so that starting and joining a group do not count.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import node, prefill, shop
from bench.errors import Unbalanced, Unfit
from bench.ground import Ground
from bench.machine import cpu_seconds, pinned
from bench.measuring import OPEN
from bench.processes import Process
from bench.stage import slugs

WORKER = "reference, worker"
CONSUMER = "ours, consumer"
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Durable:
    side: str
    orders: int
    per_second: float
    per_cpu_second: float
    busy: float


def ours(ground: Ground, orders: int, sales: int) -> Durable:
    """Raises Unfit and Unbalanced."""
    ground.new_run()
    wanted = dict.fromkeys(slugs(sales), orders // sales)
    shop.open_sales(wanted, dict.fromkeys(wanted, OPEN))
    filled = prefill.fill(wanted)
    command = pinned(ground.cores.service, sys.executable, "manage.py", "run_fulfillment")
    process = Process(CONSUMER, command, ground.environment, ground.logs / "consumer.log")
    try:
        found = _watch(CONSUMER, process, filled, lambda: _sum("sold", "sales_sale"))
    finally:
        process.stop()
    shop.must_balance(wanted, filled)
    return found


def reference(ground: Ground, orders: int, sales: int) -> Durable:
    """Raises Unfit and Unbalanced."""
    from django.db import connection

    ground.new_run()
    wanted = dict.fromkeys(slugs(sales), orders // sales)
    with connection.cursor() as cursor:
        # What the original's tables have: a stock row per sale, an order with its index by customer.
        cursor.execute("CREATE TABLE reference_stock (sale text PRIMARY KEY, allotment int, sold int)")
        cursor.execute(
            "CREATE TABLE reference_orders (id uuid PRIMARY KEY, sale text NOT NULL, customer text NOT NULL, "
            "quantity int NOT NULL, state text NOT NULL, created_at timestamptz NOT NULL)"
        )
        cursor.execute("CREATE INDEX ON reference_orders (customer)")
        rows = [(sale, units, 0) for sale, units in wanted.items()]
        cursor.executemany("INSERT INTO reference_stock VALUES (%s, %s, %s)", rows)
    filled = prefill.fill_reference(wanted)
    own = {
        "NODE_ENV": "production",
        "REFERENCE_DATABASE": ground.environment["FLUXGATE_DATABASE_URL"],
        "REFERENCE_BROKERS": ground.environment["FLUXGATE_KAFKA_BROKERS"],
        "REFERENCE_TOPIC": ground.environment["FLUXGATE_KAFKA_TOPIC"],
    }
    command = pinned(ground.cores.service, "node", "worker.js")
    log = ground.logs / "reference-worker.log"
    process = Process(WORKER, command, ground.environment | own, log, node.installed())
    try:
        found = _watch(WORKER, process, filled, lambda: _sum("sold", "reference_stock"))
    finally:
        process.stop()
    if (written := _sum("1", "reference_orders")) != filled:
        raise Unbalanced(f"the worker was given {filled} orders and has written {written}")
    return found


def _watch(name: str, process: Process, orders: int, written: Callable[[], int]) -> Durable:
    """From the first orders that are seen to the last one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    first, begun, used = 0, 0.0, 0.0
    while (now := written()) < orders:
        process.check()
        if time.monotonic() > deadline:
            raise Unfit(f"{name} has written {now} of {orders} orders after {_PATIENCE_SECONDS:g} s")
        if now and not first:
            first, begun, used = now, time.monotonic(), cpu_seconds(process.pid)
        time.sleep(_POLL_SECONDS)
    if not first or first == orders:
        raise Unfit(f"{name} was too quick for the clock: more orders are needed than {orders}")
    seconds, cpu = time.monotonic() - begun, cpu_seconds(process.pid) - used
    count = orders - first
    return Durable(name, orders, count / seconds, count / cpu, cpu / seconds)


def _sum(what: str, table: str) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT coalesce(sum({what}), 0) FROM {table}")
        return int(cursor.fetchone()[0])
