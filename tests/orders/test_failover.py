"""A sale goes on after its gate's master is lost: armed again on the new one, with balanced books."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from orders.log import KafkaLog
from orders.models import Order
from sales import gate
from sales.gate import Fenced, GateUnreachable, Image, Verdict
from sales.models import Sale
from tests.orders.records import take
from tests.orders.test_gatekeeper import House, attempt
from tests.running_site import eventually
from tests.sentinel import SentinelCluster

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(settings: Any, own_topic: str) -> Iterator[SentinelCluster]:
    servers = SentinelCluster()
    servers.start()
    changed = {"gate_url": servers.url, "promise_seconds": 0.3}
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=changed)
    yield servers
    servers.close()


@pytest.fixture
def house(cluster: SentinelCluster, kafka_log: KafkaLog) -> Iterator[House]:
    """A gatekeeper and a consumer that are connected before anything happens."""
    with gate.connect() as client:
        opened = House(client, kafka_log)
        yield opened
        opened.consumer.close()


def fall(cluster: SentinelCluster) -> None:
    cluster.kill_master()
    cluster.wait_for_failover()


def freeze(cluster: SentinelCluster) -> None:
    """It comes back, has to learn that it is a replica, and loses what it alone had."""
    cluster.stop_master()
    cluster.wait_for_failover()
    cluster.continue_stopped()


def there_and_back(cluster: SentinelCluster) -> None:
    """Within moments the first server is the master again, and the script is still loaded there."""
    first = cluster.fail_over()
    cluster.wait_for_failover()
    cluster.fail_over()
    assert cluster.wait_for_failover() == first


LOSSES = {"fall": fall, "freeze": freeze, "there_and_back": there_and_back}


def rearm(house: House, sale: Sale) -> None:
    """As the processes do it: what fails because nobody is in charge yet is tried again."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(GateUnreachable):
            return house.rearm(sale)
    raise AssertionError("the gate has not been armed again")


def image_of(house: House, sale: Sale) -> Image | None:
    """None as long as nobody is in charge."""
    with suppress(GateUnreachable):
        return gate.image(house.gate, sale.id)
    return None


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sale_goes_on_at_the_new_master(
    open_sale: Callable[..., Sale], house: House, cluster: SentinelCluster, loss: str
) -> None:
    sale = open_sale(allotment=5, limit_per_customer=1)
    sold = take(sale, 3)
    house.append(*sold)
    house.fulfill(lambda: Order.objects.count() == 3)
    LOSSES[loss](cluster)
    with pytest.raises((Fenced, GateUnreachable)):
        attempt(sale, "late")
    rearm(house, sale)

    image = gate.image(house.gate, sale.id)
    assert image is not None
    assert (image.state, image.loaded, image.remaining, image.settled) == ("open", 5, 2, 3)
    assert attempt(sale, sold[0].user_id, sold[0].order_id).verdict is Verdict.REPLAYED
    assert attempt(sale, "ann").verdict is Verdict.CLAIMED
    assert attempt(sale, "bob").verdict is Verdict.CLAIMED
    assert attempt(sale, "eve").verdict is Verdict.SOLD_OUT


def test_a_unit_that_only_the_lost_master_knew_is_not_sold_again(
    open_sale: Callable[..., Sale], house: House, cluster: SentinelCluster
) -> None:
    """Its claim is in the log: the barrier waits for it. What a client would do that goes on without:
    tests/sales/test_sentinel.py."""
    sale = open_sale(allotment=1)
    replica = cluster.stop_replica()
    [promised] = take(sale, 1)
    cluster.kill_master()
    cluster.go_on(replica)
    cluster.wait_for_failover()
    lost = eventually(lambda: image_of(house, sale), 5)
    assert lost.remaining == 1, "the new master has never heard of it"
    house.append(promised)
    rearm(house, sale)
    assert attempt(sale, "ann").verdict is Verdict.SOLD_OUT
    answer = attempt(sale, promised.user_id, promised.order_id)
    assert (answer.verdict, answer.second) == (Verdict.REPLAYED, "s")
    assert list(Order.objects.values_list("id", "state")) == [(promised.order_id, "confirmed")]
