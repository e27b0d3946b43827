"""The steps of a sale day: what they move, what they refuse, and that a refused step changes nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from sales import arming, fence
from sales.arming import Refused
from sales.directory import DIRECTORY
from sales.fence import Arming
from sales.gate import image, pool_keys, to_ms
from sales.models import Product, Sale, SaleEvent, SaleState
from tests.running_site import CHECKOUT

pytestmark = pytest.mark.django_db(transaction=True)
MakeSale = Callable[..., Sale]


@pytest.fixture
def unchanged() -> Iterator[Callable[[Sale], None]]:
    """Remembers a sale; at the end of the test neither it nor its product nor its history has changed."""
    remembered: list[tuple[Sale, dict[str, Any], int, int]] = []

    def remember(sale: Sale) -> None:
        row = Sale.objects.filter(pk=sale.pk).values().get()
        remembered.append((sale, row, sale.events.count(), Product.objects.get(pk=sale.product_id).stock))

    yield remember
    for sale, row, events, stock in remembered:
        assert Sale.objects.filter(pk=sale.pk).values().get() == row
        assert sale.events.count() == events
        assert Product.objects.get(pk=sale.product_id).stock == stock


def test_a_whole_day(make_sale: MakeSale, gate: redis.Redis, log_topic: str) -> None:
    sale = make_sale(allotment=10, stock=25)
    states = []
    for step in (
        arming.schedule,
        arming.arm,
        arming.open_sale,
        arming.pause,
        arming.resume,
        arming.close,
    ):
        step(sale, actor="olga", reason="because")
        states.append(sale.state)
    assert states == ["scheduled", "armed", "open", "paused", "open", "closed"]
    assert Product.objects.get(pk=sale.product_id).stock == 15
    standing = image(gate, sale.id)
    assert standing is not None
    assert (standing.state, standing.loaded, standing.remaining) == ("closed", 10, 10)
    history = list(SaleEvent.objects.filter(sale=sale).order_by("id").values_list("action", flat=True))
    assert history == ["schedule", "arm", "armed", "open", "pause", "resume", "close", "closed"]
    first = SaleEvent.objects.get(sale=sale, action="pause")
    assert (first.actor, first.reason, first.detail["from"], first.detail["to"]) == (
        "olga",
        "because",
        "open",
        "paused",
    )


def test_the_gate_is_armed_with_the_facts_of_the_sale(open_sale: MakeSale, gate: redis.Redis) -> None:
    sale = open_sale(until="armed", limit_per_customer=3, admission_rate=7, burst=9)
    stored: Any = gate.hgetall(pool_keys(sale.id).gate)
    assert stored["state"] == "armed"
    assert {
        name: int(stored[name]) for name in ("opens_at", "closes_at", "limit", "rate", "burst", "epoch")
    } == {
        "opens_at": to_ms(sale.opens_at),
        "closes_at": to_ms(sale.closes_at),
        "limit": 3,
        "rate": 7,
        "burst": 9,
        "epoch": sale.epoch,
    }


def test_arming_twice_is_refused(open_sale: MakeSale, unchanged: Callable[[Sale], None]) -> None:
    sale = open_sale(until="armed")
    unchanged(sale)
    with pytest.raises(Refused, match="armed"):
        arming.arm(sale, actor="test")


def test_arming_at_the_same_moment_takes_the_stock_once(make_sale: MakeSale, log_topic: str) -> None:
    sale = make_sale(allotment=10, stock=100)

    def arm(_: int) -> str:
        try:
            arming.arm(Sale.objects.get(pk=sale.pk), actor="test")
            return "armed"
        except Refused:
            return "refused"
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as operators:
        outcomes = list(operators.map(arm, range(4)))
    assert outcomes.count("armed") >= 1
    assert Product.objects.get(pk=sale.product_id).stock == 90


def test_more_than_the_stock_is_refused(
    make_sale: MakeSale, unchanged: Callable[[Sale], None], log_topic: str
) -> None:
    sale = make_sale(allotment=10, stock=9)
    unchanged(sale)
    with pytest.raises(Refused, match="9 units"):
        arming.arm(sale, actor="test")


def test_a_window_that_is_over_is_refused(
    make_sale: MakeSale, unchanged: Callable[[Sale], None], log_topic: str
) -> None:
    past = timezone.now() - timedelta(hours=2)
    sale = make_sale(opens_at=past, closes_at=past + timedelta(hours=1))
    unchanged(sale)
    with pytest.raises(Refused, match="over"):
        arming.arm(sale, actor="test")


@pytest.mark.parametrize(
    "broken",
    [
        {"gate_url": "redis://127.0.0.1:1/0"},
        {"kafka_brokers": "127.0.0.1:1"},
        {"kafka_topic": "no-such-topic"},
    ],
    ids=["without Redis", "without Kafka", "without the topic"],
)
def test_arming_without_the_other_books_is_refused(
    make_sale: MakeSale,
    unchanged: Callable[[Sale], None],
    settings: Any,
    broken: dict[str, str],
    log_topic: str,
) -> None:
    sale = make_sale()
    unchanged(sale)
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=broken)
    with pytest.raises(Refused) as refusal:
        arming.arm(sale, actor="test")
    assert "\n" not in str(refusal.value)


def test_arming_that_crashed_half_way_is_finished_by_arming_again(
    make_sale: MakeSale, monkeypatch: pytest.MonkeyPatch, log_topic: str
) -> None:
    sale = make_sale(allotment=10, stock=30)
    with monkeypatch.context() as crash:
        crash.setattr(arming, "_build_gate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            arming.arm(sale, actor="test")
    sale.refresh_from_db()
    assert sale.state == SaleState.ARMING
    arming.arm(sale, actor="test")
    assert sale.state == SaleState.ARMED
    assert Product.objects.get(pk=sale.product_id).stock == 20


def test_arming_over_a_gate_that_stands_leaves_the_building_to_the_gatekeeper(
    open_sale: MakeSale, gate: redis.Redis
) -> None:
    """A database that lost commits may say that a sale which sells already was never armed."""
    sale = open_sale()
    granted = image(gate, sale.id)
    Sale.objects.filter(pk=sale.pk).update(state=SaleState.ARMING)
    arming.arm(sale, actor="test")
    assert sale.state == SaleState.ARMED
    assert image(gate, sale.id) == granted, "an empty gate would sell its units again"
    assert [(found.id, reason) for found, reason in fence.fallen(gate, [sale])] == [
        (sale.id, "an arming has not ended")
    ]
    with pytest.raises(Refused, match="does not stand"):
        arming.open_sale(sale, actor="test")


def test_a_pause_that_was_cut_off_can_be_repeated(open_sale: MakeSale, gate: redis.Redis) -> None:
    sale = open_sale()
    Sale.objects.filter(pk=sale.pk).update(state=SaleState.PAUSED)
    arming.pause(sale, actor="test")
    standing = image(gate, sale.id)
    assert standing is not None
    assert standing.state == "paused"


@pytest.mark.parametrize("step", ["open_sale", "pause", "resume", "close"])
def test_steps_out_of_order_are_refused(
    make_sale: MakeSale, unchanged: Callable[[Sale], None], step: str
) -> None:
    sale = make_sale()
    unchanged(sale)
    with pytest.raises(Refused, match="not possible now"):
        getattr(arming, step)(sale, actor="test")


def test_opening_a_gate_that_is_gone_is_refused(
    open_sale: MakeSale, unchanged: Callable[[Sale], None], gate: redis.Redis
) -> None:
    sale = open_sale(until="armed")
    unchanged(sale)
    gate.delete(pool_keys(sale.id).gate)
    with pytest.raises(Refused, match="does not stand"):
        arming.open_sale(sale, actor="test")


def test_closing_waits_for_claims_that_are_not_written(open_sale: MakeSale, gate: redis.Redis) -> None:
    sale = open_sale()
    gate.hset(pool_keys(sale.id).gate, "held", 1)
    arming.close(sale, actor="test")
    assert sale.state == SaleState.CLOSING
    gate.hset(pool_keys(sale.id).gate, "held", 0)
    arming.close(sale, actor="test")
    assert sale.state == SaleState.CLOSED


def test_epochs_only_rise(open_sale: MakeSale, gate: redis.Redis) -> None:
    first = open_sale(until="armed")
    assert first.epoch > to_ms(first.created_at)
    Sale.objects.filter(pk=first.pk).update(state=SaleState.SCHEDULED, epoch=0)  # a restored backup
    Product.objects.filter(pk=first.product_id).update(stock=100)
    again = Sale.objects.get(pk=first.pk)
    arming.arm(again, actor="test")
    assert again.epoch > first.epoch


def test_stock_changes_by_deltas_that_add_up(sale: Sale) -> None:
    product = sale.product

    def add(delta: int) -> None:
        try:
            arming.change_stock(Product.objects.get(pk=product.pk), delta, actor="test")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as operators:
        list(operators.map(add, [5] * 8 + [-3] * 4))
    product.refresh_from_db()
    assert product.stock == 10 + 40 - 12
    assert sum(event.detail["delta"] for event in product.events.all()) == 28


@pytest.mark.parametrize("delta", [0, -11, 2**31])
def test_impossible_deltas_are_refused(sale: Sale, delta: int) -> None:
    with pytest.raises(Refused):
        arming.change_stock(sale.product, delta, actor="test")
    sale.product.refresh_from_db()
    assert sale.product.stock == 10
    assert not sale.product.events.exists()


def test_the_directory_knows_public_sales_only(make_sale: MakeSale, gate: redis.Redis) -> None:
    sale = make_sale()
    assert not gate.hexists(DIRECTORY, sale.slug)
    arming.schedule(sale, actor="test")
    assert gate.hexists(DIRECTORY, sale.slug)


def test_oversold_is_impossible_in_the_database(sale: Sale) -> None:
    with pytest.raises(IntegrityError, match="sale_never_oversold"), transaction.atomic():
        Sale.objects.filter(pk=sale.pk).update(sold=sale.allotment + 1)


def test_nothing_locks_rows_by_select_for_update() -> None:
    """Conditional updates only (rule 3 of the house). The word itself is spelled apart here."""
    forbidden = "select_for" + "_update("
    sources = [
        path
        for app in ("sales", "orders", "waitingroom", "management", "fluxgate_site")
        for path in (CHECKOUT / app).rglob("*.py")
    ]
    assert len(sources) > 30
    assert [path for path in sources if forbidden in path.read_text()] == []


@pytest.mark.parametrize(("step", "left"), [("pause", "paused"), ("close", "closed")])
def test_a_stop_is_not_overtaken_by_somebody_who_opens(
    open_sale: MakeSale, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: str, left: str
) -> None:
    """Two operators: the one who resumes has moved the database when the other one stops the sale (I7)."""
    sale = open_sale()
    arming.pause(sale, actor="first")
    switch = fence.switch

    def overtaken(client: redis.Redis, resumed: Arming, *rest: Any) -> Any:
        monkeypatch.setattr(fence, "switch", switch)
        getattr(arming, step)(Sale.objects.get(pk=resumed.sale_id), actor="second")
        return switch(client, resumed, *rest)

    monkeypatch.setattr(fence, "switch", overtaken)
    with pytest.raises(Refused, match="Somebody else"):
        arming.resume(sale, actor="first")
    standing = image(gate, sale.id)
    assert standing is not None
    assert standing.state == left


def test_closed_is_for_good(open_sale: MakeSale, gate: redis.Redis) -> None:
    """The broken twin of the turn: a late pause or resume that asks nobody must not open it again."""
    sale = open_sale()
    arming.close(sale, actor="test")
    for state in ("open", "paused"):
        assert fence.switch(gate, Arming(sale.id, 0, sale.epoch), state) == "closed"
    standing = image(gate, sale.id)
    assert standing is not None
    assert standing.state == "closed"


@pytest.fixture
def full_gate(gate: redis.Redis) -> Iterator[None]:
    """Redis refuses every write that could grow it, as it does at maxmemory with noeviction."""
    gate.config_set("maxmemory", 1)
    yield
    gate.config_set("maxmemory", 0)


def test_a_full_gate_can_be_stopped_but_not_armed(
    open_sale: MakeSale, make_sale: MakeSale, gate: redis.Redis, request: pytest.FixtureRequest
) -> None:
    running, another = open_sale(), make_sale()
    request.getfixturevalue("full_gate")
    with pytest.raises(Refused, match="refuses"):
        arming.arm(another, actor="test")
    arming.pause(running, actor="test")
    arming.close(running, actor="test")
    assert running.state == SaleState.CLOSED


def test_a_sale_whose_gate_is_gone_is_left_closing(open_sale: MakeSale, gate: redis.Redis) -> None:
    """What that gate granted may still be in the log: the gatekeeper closes the sale when it has looked."""
    sale = open_sale()
    gate.delete(*pool_keys(sale.id))
    arming.close(sale, actor="test")
    assert sale.state == SaleState.CLOSING


@pytest.mark.parametrize(("step", "left"), [("pause", "paused"), ("close", "closed")])
def test_a_stop_reaches_a_gate_whose_epoch_the_database_has_lost(
    open_sale: MakeSale, gate: redis.Redis, step: str, left: str
) -> None:
    """I7, after a failover of PostgreSQL that lost the commit of an arming."""
    sale = open_sale()
    Sale.objects.filter(pk=sale.pk).update(epoch=sale.epoch - 1)
    getattr(arming, step)(Sale.objects.get(pk=sale.pk), actor="test")
    standing = image(gate, sale.id)
    assert standing is not None
    assert (standing.state, standing.epoch) == (left, sale.epoch)


def test_an_arming_that_was_overtaken_does_not_call_the_sale_armed(
    make_sale: MakeSale, monkeypatch: pytest.MonkeyPatch, log_topic: str
) -> None:
    """Another operator has begun a later arming and has not built its gate yet."""
    sale = make_sale()
    build = arming._build_gate

    def overtaken(client: redis.Redis, armed: Sale) -> None:
        build(client, armed)
        Sale.objects.filter(pk=armed.pk).update(epoch=armed.epoch + 1)

    with monkeypatch.context() as racing:
        racing.setattr(arming, "_build_gate", overtaken)
        with pytest.raises(Refused):
            arming.arm(sale, actor="first")
    arming.arm(sale, actor="second")
    assert sale.state == SaleState.ARMED
