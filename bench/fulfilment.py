"""How many orders a second consumers write into PostgreSQL, and what each costs.

    python -m bench.fulfilment [--orders N] [--consumers 1,2,3] [--batch N] [--json]

Starts the embedded servers on free ports, arms and opens sales spread over all partitions, lets the real gate
grant every claim, appends them in the wire format and lets `manage.py run_fulfillment` write them down:
positions, events, limits, parking, settling, metrics and health file are on, and fsync is PostgreSQL's
default. The consumers stand still while the log is filled. In the same run: the bare `unnest` loop and
COPY into a table of the same columns and indexes, without foreign keys, events and positions.

CPU is microseconds per order, from /proc. The run fails when the books do not balance afterwards.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from bench import bare, consumers, prefill, shop
from bench.errors import Unbalanced, Unfit
from bench.measuring import OPEN
from bench.processes import CHECKOUT
from bench.stage import slugs

if TYPE_CHECKING:  # Django's settings come with the servers
    from sales.models import Sale

FLAME = "consumer-flame.svg"


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="fluxgate-bench-") as folder, _servers(Path(folder)) as pids:
        try:
            report = measure(options, pids, Path(folder))
        except (Unfit, Unbalanced) as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(report) if options.json else readable(report))
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=200_000)
    parser.add_argument("--consumers", default="1", help="numbers of consumers, one run each: 1,2,3")
    parser.add_argument("--sales", type=int, default=12, help="spread evenly over the 12 partitions")
    parser.add_argument("--batch", type=int, default=2000, help="FLUXGATE_FULFILLMENT_BATCH")
    parser.add_argument("--flame", metavar="PY_SPY", help=f"a py-spy that draws {FLAME} of the first run")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, pids: Mapping[str, int], folder: Path) -> dict[str, Any]:
    """On the servers that the environment names. `pids` are those whose CPU time is told.

    Raises Unfit and Unbalanced.
    """
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    connection.settings_dict["OPTIONS"].pop("pool", None)
    call_command("migrate", verbosity=0)
    runs: list[dict[str, Any]] = []
    for count in map(int, options.consumers.split(",")):
        flame = None if runs else options.flame
        runs.append(_run(count, options, pids, folder / f"{count}", flame))
    claims = bare.claims_of_nobody(min(options.orders, 100_000))
    return {
        "orders": options.orders,
        "sales": options.sales,
        "batch": options.batch,
        "cores": os.cpu_count(),
        "bare_unnest_per_second": bare.rows_per_second(claims, options.batch, bare.unnest),
        "bare_copy_per_second": bare.rows_per_second(claims, options.batch, bare.copy),
        "runs": runs,
    }


def readable(report: dict[str, Any]) -> str:
    lines = [
        f"{report['orders']:,} orders, {report['sales']} sales, batches of {report['batch']}, "
        f"{report['cores']} cores; bare unnest {report['bare_unnest_per_second']:,}/s, "
        f"bare COPY {report['bare_copy_per_second']:,}/s"
    ]
    for run in report["runs"]:
        cost = ", ".join(f"{what} {micros} µs" for what, micros in run["cpu_microseconds_per_order"].items())
        lines.append(
            f"{run['consumers']} consumers: {run['orders_per_second']:,} orders/s, "
            f"{run['orders_per_transaction']:,} in a transaction; CPU: {cost}"
        )
    return "\n".join(lines)


@contextmanager
def _servers(root: Path) -> Iterator[dict[str, int]]:
    """The embedded servers, in `os.environ` from here on. Yields their process ids."""
    from management.embedded import Stack

    stack = Stack(root=root)
    try:
        os.environ.update(
            stack.up(), DJANGO_SETTINGS_MODULE="fluxgate_site.settings", FLUXGATE_LOG_LEVEL="INFO"
        )
        yield {row.server: row.pid for row in stack.status() if row.pid is not None and row.server != "cache"}
    finally:
        stack.down(wipe=True)


def _run(
    count: int, options: argparse.Namespace, pids: Mapping[str, int], folder: Path, flame: str | None
) -> dict[str, Any]:
    """One topic, one set of sales, so many consumers."""
    from django.conf import settings

    from sales import gate, topic

    folder.mkdir()
    name = f"orders-{uuid4().hex[:8]}"
    # They stand still for longer than the session of the embedded broker lasts.
    own = {"kafka_topic": name, "kafka_group": name, "kafka_session_ms": 6000}
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=own)
    topic.ensure_topic()
    sales = _open_sales(options.sales, options.orders // options.sales)
    environment = os.environ | {f"FLUXGATE_{key.upper()}": str(value) for key, value in own.items()}
    environment["FLUXGATE_FULFILLMENT_BATCH"] = str(options.batch)
    with gate.connect() as client:
        records = [list(prefill.granted(client, sale, options.orders // options.sales)) for sale in sales]
        with consumers.running(count, environment, folder) as processes:
            with consumers.standing_still(processes):
                written = prefill.append(record for turn in zip(*records, strict=True) for record in turn)
                before = consumers.cpu_seconds(processes, pids)
            begun = time.monotonic()
            drawing = _draw(flame, processes[0].pid) if flame else None
            consumers.wait_until(lambda: _settled(client, sales) == written, processes)
            seconds = time.monotonic() - begun
            after = consumers.cpu_seconds(processes, pids)
            if drawing:
                drawing.send_signal(signal.SIGINT)
                drawing.wait(30)
    must_balance(sales, written)
    cost = {what: round(1e6 * (after[what] - before[what]) / written, 2) for what in after}
    return {
        "consumers": count,
        "seconds": round(seconds, 2),
        "orders_per_second": round(written / seconds),
        "orders_per_transaction": round(written / _transactions(sales)),
        "cpu_microseconds_per_order": cost,
        "orders_per_cpu_second_of_the_consumer": round(1e6 / max(cost["consumers"], 0.01)),
    }


def _open_sales(count: int, units: int) -> list["Sale"]:
    from sales.models import Sale

    wanted = dict.fromkeys(slugs(count), units)
    rates = dict.fromkeys(wanted, OPEN)
    shop.open_sales(wanted, rates, limit=1, ids=dict(zip(wanted, spread(count), strict=True)))
    return list(Sale.objects.filter(slug__in=wanted))


def spread(count: int) -> list[UUID]:
    """Ids of sales, of which each partition gets its turn."""
    from django.conf import settings

    from sales.topic import partition_of

    found: list[UUID] = []
    while len(found) < count:
        if partition_of(one := uuid4()) == len(found) % settings.FLUXGATE.kafka_partitions:
            found.append(one)
    return found


def _draw(py_spy: str, pid: int) -> "subprocess.Popen[bytes]":
    options = f"record --pid {pid} --output {FLAME} --rate 250 --function --nonblocking"
    return subprocess.Popen([py_spy, *options.split()], cwd=CHECKOUT)


def _settled(client: Any, sales: list["Sale"]) -> int:
    from sales.gate import image

    return sum(found.settled for sale in sales if (found := image(client, sale.id)))


def must_balance(sales: list["Sale"], written: int) -> None:
    """Raises Unbalanced."""
    from orders.models import OrderEvent, ParkedRecord

    shop.must_balance([sale.slug for sale in sales], written)
    events, parked = OrderEvent.objects.filter(order__sale__in=sales).count(), ParkedRecord.objects.count()
    if (events, parked) != (written, 0):
        raise Unbalanced(f"{written} orders have {events} events, and {parked} records are parked")


def _transactions(sales: list["Sale"]) -> int:
    from orders.models import Order

    return Order.objects.filter(sale__in=sales).values("written_at").distinct().count()


if __name__ == "__main__":
    sys.exit(main())
