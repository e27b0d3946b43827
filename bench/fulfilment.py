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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bench import bare

CHECKOUT = Path(__file__).resolve().parents[1]
TICK = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 240.0
ATTEMPTS = 120  # in one call of the gate
FLAME = "consumer-flame.svg"
SERVERS = ("postgres", "gate", "kafka")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="fluxgate-bench-") as folder, _servers(Path(folder)) as pids:
        os.environ["FLUXGATE_FULFILLMENT_BATCH"] = str(options.batch)
        report = _measure(options, pids, Path(folder))
    sys.stdout.write(json.dumps(report) + "\n" if options.json else _readable(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=200_000)
    parser.add_argument("--consumers", default="1", help="numbers of consumers, one run each: 1,2,3")
    parser.add_argument("--sales", type=int, default=12, help="spread evenly over the 12 partitions")
    parser.add_argument("--batch", type=int, default=2000, help="FLUXGATE_FULFILLMENT_BATCH")
    parser.add_argument("--flame", metavar="PY_SPY", help=f"a py-spy that draws {FLAME} of the first run")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


@contextmanager
def _servers(root: Path) -> Iterator[dict[str, int]]:
    """The embedded servers, in `os.environ` from here on. Yields their process ids."""
    from management.embedded import Stack

    stack = Stack(root=root)
    try:
        os.environ.update(
            stack.up(), DJANGO_SETTINGS_MODULE="fluxgate_site.settings", FLUXGATE_LOG_LEVEL="INFO"
        )
        yield {row.server: row.pid for row in stack.status() if row.pid is not None}
    finally:
        stack.down(wipe=True)


def _measure(options: argparse.Namespace, pids: dict[str, int], folder: Path) -> dict[str, Any]:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    connection.settings_dict["OPTIONS"].pop("pool")
    call_command("migrate", verbosity=0)
    runs = [_run(int(n), options, pids, folder / f"{n}", flame=i == 0) for i, n in
            enumerate(options.consumers.split(","))]  # fmt: skip
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


def _run(
    consumers: int, options: argparse.Namespace, pids: dict[str, int], folder: Path, *, flame: bool
) -> dict[str, Any]:
    """One topic, one set of sales, so many consumers."""
    from django.conf import settings

    from sales import gate, topic

    folder.mkdir()
    name = f"orders-{uuid4().hex[:8]}"
    own = {"kafka_topic": name, "kafka_group": name, "kafka_session_ms": 6000}
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=own)
    topic.ensure_topic()
    sales = _open_sales(options.sales, options.orders)
    client = gate.connect()
    records = [_granted(client, sale, options.orders // len(sales)) for sale in sales]
    environment = os.environ | {f"FLUXGATE_{key.upper()}": str(value) for key, value in own.items()}
    with _consuming(consumers, environment, folder) as processes:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        _append(name, [record for round_ in zip(*records, strict=True) for record in round_])
        before = _cpu(pids, processes)
        for process in processes:
            process.send_signal(signal.SIGCONT)
        begun = time.monotonic()
        drawing = _draw(options.flame, processes[0].pid) if flame and options.flame else None
        written = sum(map(len, records))
        _until(lambda: _settled(client, sales) == written, processes, 0.05)
        seconds = time.monotonic() - begun
        after = _cpu(pids, processes)
        if drawing:
            drawing.send_signal(signal.SIGINT)
            drawing.wait(30)
    _check_the_books(client, sales, written // len(sales))
    cost = {what: round(1e6 * (after[what] - before[what]) / written, 2) for what in after}
    return {
        "consumers": consumers,
        "seconds": round(seconds, 2),
        "orders_per_second": round(written / seconds),
        "orders_per_transaction": round(written / _transactions(sales)),
        "cpu_microseconds_per_order": cost,
        "orders_per_cpu_second_of_the_consumer": round(1e6 / cost["consumers"]),
    }


def _open_sales(count: int, orders: int) -> list[Any]:
    from django.utils import timezone

    from sales import arming, topic
    from sales.models import Product, Sale

    sales: list[Any] = []
    while len(sales) < count:
        sale_id = uuid4()
        if topic.partition_of(sale_id) != len(sales) % 12:
            continue
        units = orders // count
        product = Product.objects.create(sku=f"bench-{sale_id.hex}", name="A product", stock=units)
        sale = Sale.objects.create(
            id=sale_id, slug=f"bench-{sale_id.hex}", name="A sale", product=product, allotment=units,
            opens_at=timezone.now() - timedelta(seconds=1), closes_at=timezone.now() + timedelta(hours=1),
            unit_price="19.90", limit_per_customer=1, admission_rate=10**6, burst=10**6,
        )  # fmt: skip
        arming.arm(sale, actor="bench")
        arming.open_sale(sale, actor="bench")
        sales.append(Sale.objects.get(pk=sale_id))
    return sales


def _granted(client: Any, sale: Any, count: int) -> list[Any]:
    """Records of claims that the gate has granted and knows as queued."""
    from orders import claims
    from sales import directory, gate, topic

    [facts] = directory.published(client, [sale.slug])
    assert facts is not None
    keys = gate.pool_keys(sale.id)
    partition = topic.partition_of(sale.id)
    records = []
    for first in range(0, count, ATTEMPTS):
        attempts = [
            _claim(sale.id, sale.product_id, f"customer-{number:08d}", sale.epoch)
            for number in range(first, min(first + ATTEMPTS, count))
        ]
        arguments = [word for claim in attempts for word in (str(claim.order_id), claim.user_id, 1, "0")]
        reply: Any = client.evalsha(facts.seal, 4, *keys, *arguments)
        assert reply[1::3] == ["claimed"] * len(attempts), reply[:4]
        gate.mark_queued(client, sale.id, 0, sale.epoch, [claim.order_id for claim in attempts])
        records += [claims.encode(claim, partition) for claim in attempts]
    return records


def _claim(sale_id: UUID, product_id: int, customer: str, epoch: int) -> Any:
    from decimal import Decimal

    from orders import claims

    return claims.Claim(
        v=1, order_id=claims.order_id(sale_id, customer, "a-key"), sale_id=sale_id, product_id=product_id,
        user_id=customer, quantity=1, unit_price=Decimal("19.90"), currency="EUR", pool=0, epoch=epoch,
        claimed_at=datetime.now(UTC),
    )  # fmt: skip


def _append(topic: str, records: list[Any]) -> None:
    from confluent_kafka import Producer

    from sales.topic import client_config

    options = {"acks": "all", "enable.idempotence": True, "linger.ms": 5}
    producer = Producer({**client_config(), **options, "queue.buffering.max.messages": len(records)})
    for record in records:
        producer.produce(topic, record.value, record.key, record.partition, headers=record.headers)
    if producer.flush(PATIENCE_SECONDS):
        raise SystemExit("the log does not take the records")


@contextmanager
def _consuming(count: int, environment: dict[str, str], folder: Path) -> Iterator[list[Any]]:
    """So many processes of `run_fulfillment` that have begun their partitions, each its share."""
    outputs = [folder / f"consumer-{number}" for number in range(count)]
    processes = []
    for output in outputs:
        command = [sys.executable, "manage.py", "run_fulfillment", "--health-file", f"{output}.health"]
        with output.open("w") as file:
            processes.append(
                subprocess.Popen(
                    command, cwd=CHECKOUT, env=environment, stdout=file, stderr=subprocess.STDOUT
                )
            )
    try:
        _until(lambda: sum(_begun(output) for output in outputs) == 12, processes, 0.2)
        yield processes
        for process in processes:
            process.send_signal(signal.SIGTERM)
        if codes := [code for process in processes if (code := process.wait(30))]:
            raise SystemExit(f"consumers ended with {codes}: {outputs[0].read_text()[-2000:]}")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _begun(output: Path) -> int:
    """How many partitions the consumer that prints there has begun, and still has."""
    try:
        said = json.loads(Path(f"{output}.health").read_text())
    except (OSError, ValueError):
        return 0
    return len(said["partitions"]) if said["state"] == "ok" else 0


def _draw(py_spy: str, pid: int) -> Any:
    options = f"record --pid {pid} --output {FLAME} --rate 250 --function --nonblocking"
    return subprocess.Popen([py_spy, *options.split()], cwd=CHECKOUT)


def _settled(client: Any, sales: list[Any]) -> int:
    from sales.gate import image

    return sum(found.settled for sale in sales if (found := image(client, sale.id)))


def _until(done: Callable[[], bool], processes: list[Any], seconds: float) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise SystemExit("the consumers do not get there: see what they print")
        time.sleep(seconds)


def _cpu(pids: dict[str, int], processes: list[Any]) -> dict[str, float]:
    """CPU seconds so far. A server's are those of its process and of its children, the dead ones included."""
    stat = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        stat[int(path.parent.name)] = int(fields[1]), [int(ticks) / TICK for ticks in fields[11:15]]
    found = {"consumers": sum(sum(stat[process.pid][1]) for process in processes)}
    for server in SERVERS:
        own = sum(stat[pids[server]][1])
        found[server] = own + sum(sum(ticks[:2]) for parent, ticks in stat.values() if parent == pids[server])
    return found


def _check_the_books(client: Any, sales: list[Any], units: int) -> None:
    from orders.models import Order, OrderEvent, ParkedRecord
    from sales.gate import image
    from sales.models import Sale

    for sale in sales:
        found = image(client, sale.id)
        assert found is not None
        orders = Order.objects.filter(sale=sale, state="confirmed").count()
        events = OrderEvent.objects.filter(order__sale=sale).count()
        book = (Sale.objects.get(pk=sale.pk).sold, orders, events, ParkedRecord.objects.count())
        gates = (found.settled, found.held + found.queued, found.remaining)
        if (book, gates) != ((units, units, units, 0), (units, 0, 0)):
            raise SystemExit(f"the books do not balance: sold, orders, events, parked {book}, gate {gates}")


def _transactions(sales: list[Any]) -> int:
    from orders.models import Order

    return Order.objects.filter(sale__in=sales).values("written_at").distinct().count()


def _readable(report: dict[str, Any]) -> str:
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
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
