"""`manage.py run_gatekeeper` as a process: it leads or stands by, repairs, and ends when it is told to."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests
from django.conf import settings as django_settings
from django.db import connection

from orders.leadership import LOCK, SILENCE_SECONDS
from orders.models import Order
from sales import arming, fence
from sales import gate as gate_module
from sales.models import Sale, SaleState
from tests.orders.records import take
from tests.running_site import eventually, free_port, start

pytestmark = pytest.mark.django_db(transaction=True)

Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(own_topic: str, tmp_path: Path, gate: redis.Redis) -> Iterator[Run]:
    """Starts a command of ours on the topic of this test, with a short promise."""
    gate.flushall()
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> "subprocess.Popen[bytes]":
        flux = django_settings.FLUXGATE
        own = {
            f"FLUXGATE_{name.upper()}": str(getattr(flux, name))
            for name in ("kafka_topic", "kafka_group", "kafka_partitions", "kafka_session_ms")
        }
        own |= {"FLUXGATE_PROMISE_SECONDS": "0.4", "FLUXGATE_SWEEP_AFTER_SECONDS": "0.5"}
        process = start(["manage.py", *arguments], os.environ | own, tmp_path / f"{len(started)}.log")
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
    gate.flushall()


def leaders() -> set[int]:
    """Backends of PostgreSQL that hold the leaders' lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [LOCK])
        return {row[0] for row in cursor.fetchall()}


def stands(client: redis.Redis, sale: Sale) -> bool:
    return not fence.fallen(client, [Sale.objects.get(pk=sale.pk)])


def test_a_wiped_gate_sells_again_by_itself(
    open_sale: Callable[..., Sale], run: Run, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=3)
    run("run_fulfillment")
    run("run_gatekeeper")
    take(sale, 2)  # granted by the gate, and then their web process died: the sweeper
    eventually(lambda: Order.objects.count() == 2)
    gate.flushall()
    eventually(lambda: stands(gate, sale))
    image = gate_module.image(gate, sale.id)
    assert image is not None
    assert (image.state, image.remaining, image.settled) == ("open", 1, 2)


def test_one_leads_the_other_stands_by_and_follows(
    open_sale: Callable[..., Sale], run: Run, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=3)
    run("run_fulfillment")
    first = run("run_gatekeeper")
    eventually(lambda: len(leaders()) == 1)
    leader = leaders()
    second = run("run_gatekeeper")
    gate.script_flush()
    eventually(lambda: stands(gate, sale))
    assert leaders() == leader
    first.kill()
    eventually(lambda: leaders() not in (leader, set()))
    gate.script_flush()
    eventually(lambda: stands(gate, sale))
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    eventually(lambda: leaders() == set())


def test_a_leader_that_stands_still_is_followed(
    open_sale: Callable[..., Sale], run: Run, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=3)
    run("run_fulfillment")
    first = run("run_gatekeeper")
    eventually(lambda: len(leaders()) == 1)
    leader = leaders()
    run("run_gatekeeper")
    first.send_signal(signal.SIGSTOP)
    gate.script_flush()
    eventually(lambda: stands(gate, sale), seconds=SILENCE_SECONDS + 30)
    assert leaders() not in (leader, set())


def test_a_closing_sale_is_closed_when_its_last_claim_is_written(
    open_sale: Callable[..., Sale], run: Run
) -> None:
    sale = open_sale()
    take(sale, 1)
    arming.close(sale, actor="test")
    assert sale.state == SaleState.CLOSING
    run("run_gatekeeper")
    run("run_fulfillment")
    eventually(lambda: Sale.objects.get(pk=sale.pk).state == SaleState.CLOSED)
    assert Order.objects.filter(state="confirmed").count() == 1


def test_it_has_metrics(open_sale: Callable[..., Sale], run: Run) -> None:
    port = free_port()
    run("run_gatekeeper", "--metrics-port", str(port))

    def told() -> str:
        try:
            return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except requests.ConnectionError:
            return ""

    assert "fluxgate_fenced_gates 0.0" in eventually(told)


def test_without_its_topic_it_says_so_in_one_line(run: Run, tmp_path: Path, settings: object) -> None:
    django_settings.FLUXGATE = django_settings.FLUXGATE.model_copy(update={"kafka_topic": "nowhere"})
    assert run("run_gatekeeper").wait(30) == 1
    [line] = (tmp_path / "0.log").read_text().splitlines()
    assert "topic nowhere does not exist" in line
