"""Fallen gates are armed again, on real servers: nothing is sold twice, no promise is broken."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest
import redis
from django.db import InterfaceError, InternalError, OperationalError, connections
from django.utils import timezone

from orders import claims, epochs
from orders.closing import finish_closing
from orders.consumer import Consumer
from orders.gatekeeper import Gatekeeper
from orders.log import AppendUnknown, KafkaLog
from orders.models import Barrier, Order, OrderState
from orders.sweeper import claim_of
from sales import arming, directory, fence
from sales import gate as gate_module
from sales.gate import Answer, Attempt, Fenced, Verdict
from sales.models import Sale, SaleEvent
from sales.topic import partition_of
from sales.turnstile import Turnstile
from tests.orders.records import cancel_of, take
from tests.running_site import eventually

pytestmark = pytest.mark.django_db(transaction=True)

Lose = Callable[[redis.Redis], Any]
LOSSES: dict[str, Lose] = {
    "restarted": lambda gate: gate.script_flush(),
    "wiped": lambda gate: (gate.flushall(), gate.script_flush()),
    "flushed": lambda gate: gate.flushall(),
}


@pytest.fixture(autouse=True)
def _quick(settings: Any, own_topic: str) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"promise_seconds": 0.3})


@pytest.fixture(autouse=True)
def _clean(gate: redis.Redis) -> Iterator[None]:
    gate.flushall()
    yield
    gate.flushall()


@pytest.fixture
def house(gate: redis.Redis, kafka_log: KafkaLog) -> Iterator["House"]:
    opened = House(gate, kafka_log)
    yield opened
    opened.consumer.close()


class House:
    """A gatekeeper and a consumer, one step at a time."""

    def __init__(self, gate: redis.Redis, log: KafkaLog) -> None:
        self.gate, self.log = gate, log
        self.gatekeeper = Gatekeeper(gate, log)
        self.consumer = Consumer(gate)

    def fulfill(self, until: Callable[[], Any]) -> None:
        def stepped() -> Any:
            self.consumer.step(0.05)
            return until()

        eventually(stepped)

    def rearm(self, sale: Sale, seconds: float = 30, leave: Sale | None = None) -> None:
        """Steps both until the sale's gate stands again, and every other one but `leave`'s."""
        self.gatekeeper._look_at = 0.0
        deadline = time.monotonic() + seconds
        while (self.gatekeeper.step() and leave is None) or fence.fallen(
            self.gate, [Sale.objects.get(pk=sale.pk)]
        ):
            self.consumer.step(0.02)
            assert time.monotonic() < deadline, "the gate has not been armed again"

    def append(self, *messages: claims.Message) -> None:
        reports: list[Exception | None] = []
        for message in messages:
            self.log.append(claims.encode(message, partition_of(claims.sale_in(message))), reports.append)
        eventually(lambda: len(reports) == len(messages))
        assert reports == [None] * len(messages)


def held_as_claims(gate: redis.Redis, sale: Sale) -> list[claims.Claim]:
    """What a web process would append for the claims that are held."""
    return [claim_of(Sale.objects.get(pk=sale.pk), held) for held in gate_module.all_held(gate, sale.id, 0)]


def attempt(sale: Sale, customer: str, order_id: UUID | None = None, quantity: int = 1) -> Answer:
    async def ask() -> Answer:
        turnstile = Turnstile()
        try:
            facts = await turnstile.facts(sale.slug)
            assert facts is not None
            if facts.fenced:
                raise Fenced("published as fenced")
            return await turnstile.attempt(facts, Attempt(str(order_id or uuid4()), customer, quantity))
        finally:
            await turnstile.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_fallen_gate_sells_on_with_balanced_books(
    open_sale: Callable[..., Sale], house: House, loss: str
) -> None:
    sale = open_sale(allotment=5, limit_per_customer=1)
    sold = take(sale, 3)
    house.append(*sold)
    house.fulfill(lambda: Order.objects.count() == 3)
    LOSSES[loss](house.gate)
    with pytest.raises(Fenced):
        attempt(sale, "late")
    house.rearm(sale)

    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.state, image.loaded, image.remaining, image.settled) == ("open", 5, 2, 3)
    assert image.epoch > sale.epoch
    again = attempt(sale, sold[0].user_id, sold[0].order_id)
    assert (again.verdict, again.second) == (Verdict.REPLAYED, "s")
    assert again.first == str(gate_module.to_ms(sold[0].claimed_at)), "the very moment of the original"
    assert attempt(sale, sold[0].user_id).verdict is Verdict.LIMIT_REACHED
    assert attempt(sale, "ann").verdict is Verdict.CLAIMED
    assert attempt(sale, "bob").verdict is Verdict.CLAIMED
    assert attempt(sale, "eve").verdict is Verdict.SOLD_OUT
    assert SaleEvent.objects.filter(sale=sale, action="rearm", actor="gatekeeper").count() == 1


def test_what_was_promised_and_not_yet_written_is_waited_for(
    open_sale: Callable[..., Sale], house: House
) -> None:
    """The log has the claims, the order book does not: the gate must not sell those units again."""
    sale = open_sale(allotment=4)
    promised = take(sale, 3)
    house.append(*promised)
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.remaining, image.settled) == (1, 3)
    assert Order.objects.filter(state=OrderState.CONFIRMED).count() == 3


def test_without_the_barrier_promised_units_would_be_sold_again(
    open_sale: Callable[..., Sale], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: a gatekeeper that does not wait for fulfillment loads a gate with too many units."""
    monkeypatch.setattr(
        epochs, "passed", lambda pools: {pool: Sale.objects.get(pk=pool[0]).epoch for pool in pools}
    )
    monkeypatch.setattr(house.consumer, "step", lambda *arguments: False)
    sale = open_sale(allotment=4)
    house.append(*take(sale, 3))
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert image.remaining == 4


def test_what_the_lost_gate_still_held_is_appended_before_the_barrier(
    open_sale: Callable[..., Sale], house: House
) -> None:
    """A restart that kept the data: those buyers were told that a unit is set aside for them."""
    sale = open_sale(allotment=4)
    held = take(sale, 2)
    LOSSES["restarted"](house.gate)
    house.rearm(sale)
    assert set(Order.objects.values_list("id", "state")) == {(claim.order_id, "confirmed") for claim in held}


class Shaky:
    """Within the contract of the log: while `broken`, an append is reported unknown and is not in it."""

    def __init__(self, log: KafkaLog) -> None:
        self.log, self.broken = log, True

    def available(self) -> bool:
        return True

    def close(self) -> None: ...

    def append(self, record: claims.Record, reported: Any) -> None:
        if self.broken:
            reported(AppendUnknown("timed out"))
        else:
            self.log.append(record, reported)


def test_the_barrier_waits_until_what_was_held_is_in_the_log(
    open_sale: Callable[..., Sale], house: House
) -> None:
    sale = open_sale(allotment=4)
    take(sale, 2)
    shaky = Shaky(house.log)
    house.gatekeeper = Gatekeeper(house.gate, shaky)
    LOSSES["restarted"](house.gate)
    house.gatekeeper.step()
    [rearming] = house.gatekeeper._under_way.values()
    eventually(lambda: house.gatekeeper.step() and rearming.held)
    for _ in range(3):
        house.gatekeeper.step()
    assert rearming.barrier_at is None
    shaky.broken = False
    house.rearm(sale)
    assert Order.objects.filter(state="confirmed").count() == 2


def test_a_claim_behind_the_barrier_is_dropped_and_its_key_can_be_used_again(
    open_sale: Callable[..., Sale], house: House
) -> None:
    """A web process that stood still for long appends a claim of an epoch that is over."""
    sale = open_sale(allotment=1)
    [late] = take(sale, 1)
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    answer = attempt(sale, late.user_id, late.order_id)
    assert answer.verdict is Verdict.CLAIMED
    house.append(late)
    epoch = Sale.objects.get(pk=sale.pk).epoch
    new = claims.Claim(
        **{
            **{name: getattr(late, name) for name in late.__struct_fields__},
            "epoch": epoch,
            "claimed_at": gate_module.from_ms(answer.first),
        }
    )
    house.append(new)
    house.fulfill(lambda: Order.objects.exists())
    order = Order.objects.get()
    assert (order.id, order.state, order.epoch) == (late.order_id, "confirmed", epoch)


def test_cancelled_and_refused_keys_stay_known(open_sale: Callable[..., Sale], house: House) -> None:
    sale = open_sale(allotment=3)
    one, other = take(sale, 2)
    house.append(one, other, cancel_of(one))
    house.fulfill(lambda: Order.objects.filter(state="cancelled").exists())
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    answer = attempt(sale, one.user_id, one.order_id)
    assert (answer.verdict, answer.second) == (Verdict.REPLAYED, "r")
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.remaining, image.settled, image.released) == (2, 1, 1)
    assert attempt(sale, one.user_id).verdict is Verdict.CLAIMED, "cancelled units do not count for the limit"


@pytest.mark.parametrize(("guarded", "remaining"), [(True, 2), (False, 1)])
def test_a_cancel_fulfilled_while_the_gate_is_loaded_returns_its_unit(
    open_sale: Callable[..., Sale],
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
    remaining: int,
) -> None:
    """Its broken twin does not look for such orders after loading: the unit is lost to the sale."""
    sale = open_sale(allotment=2)
    [claim] = take(sale, 1)
    house.append(claim)
    house.fulfill(lambda: Order.objects.exists())
    load = fence.load

    def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(fence, "load", load)
        house.append(cancel_of(claim))

        def fulfill() -> None:  # on a connection of its own, as another process
            house.fulfill(lambda: Order.objects.filter(state="cancelled").exists())
            connections.close_all()

        thread = threading.Thread(target=fulfill)
        thread.start()
        thread.join(30)
        return load(*arguments)

    LOSSES["wiped"](house.gate)
    monkeypatch.setattr(fence, "load", overtaken)
    if not guarded:
        monkeypatch.setattr(epochs, "returned", lambda *arguments: [])
    house.rearm(sale)
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.remaining, image.settled) == (remaining, 2 - remaining)


@pytest.mark.parametrize(("step", "left"), [("pause", "paused"), ("close", "closed")])
@pytest.mark.parametrize("moment", ["fallen", "loading", "switching"])
def test_an_operator_who_stops_a_fallen_sale_is_obeyed(
    open_sale: Callable[..., Sale],
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    left: str,
    moment: str,
) -> None:
    """I7, at every moment of a rearming: when the step has returned, nothing is sold any more."""
    sale = open_sale()
    LOSSES["wiped"](house.gate)

    def stop() -> None:
        getattr(arming, step)(Sale.objects.get(pk=sale.pk), actor="test")

    if moment == "fallen":
        stop()
    else:
        where, name = {"loading": (fence, "raise_seal"), "switching": (epochs, "state")}[moment]
        real = getattr(where, name)

        def overtaken(*arguments: Any) -> Any:
            monkeypatch.setattr(where, name, real)
            if moment == "switching":  # the database was asked before the operator came
                answer = real(*arguments)
                stop()
                return answer
            stop()
            return real(*arguments)

        monkeypatch.setattr(where, name, overtaken)
    house.rearm(sale)
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert image.state == left
    expected = {"paused": Verdict.PAUSED, "closed": Verdict.CLOSED}[left]
    assert attempt(sale, "ann").verdict is expected


@pytest.mark.parametrize(("step", "left"), [("pause", "paused"), ("close", "closed")])
def test_an_operator_who_stood_still_between_gate_and_database_is_obeyed(
    open_sale: Callable[..., Sale],
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    left: str,
) -> None:
    """A whole rearming goes through meanwhile, and opens what the database still calls open."""
    sale = open_sale()
    move = arming._move

    def stalled(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(arming, "_move", move)
        LOSSES["restarted"](house.gate)
        house.rearm(sale)
        move(*arguments, **named)

    monkeypatch.setattr(arming, "_move", stalled)
    getattr(arming, step)(sale, actor="test")
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert image.state == left


@pytest.mark.parametrize(
    ("gate_says", "state", "left"),
    [
        ("open", "paused", "paused"),
        ("open", "closing", "closed"),
        ("paused", "open", "open"),
        ("open", "armed", "armed"),
    ],
)
def test_a_gate_follows_what_the_database_says(
    open_sale: Callable[..., Sale], house: House, gate_says: str, state: str, left: str
) -> None:
    """A step of an operator that was cut off between the two, or a commit that was lost."""
    sale = open_sale()
    house.gate.hset(gate_module.pool_keys(sale.id).gate, "state", gate_says)
    Sale.objects.filter(pk=sale.pk).update(state=state)
    house.gatekeeper.look()
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.state, image.epoch) == (left, sale.epoch)


def test_an_operator_who_resumes_at_that_moment_is_obeyed(
    open_sale: Callable[..., Sale], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = open_sale()
    arming.pause(sale, actor="test")
    differing = fence.differing

    def overtaken(client: redis.Redis, sales: list[Sale]) -> list[Sale]:
        arming.resume(Sale.objects.get(pk=sale.pk), actor="test")
        return differing(client, sales)

    monkeypatch.setattr(fence, "differing", overtaken)
    house.gatekeeper.look()
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert image.state == "open"


def test_a_gatekeeper_that_was_overtaken_cannot_open(open_sale: Callable[..., Sale], house: House) -> None:
    """Two gatekeepers: the one with the lower epoch finds its gate taken over."""
    sale = open_sale()
    LOSSES["wiped"](house.gate)
    house.gatekeeper.look()
    slow = next(iter(house.gatekeeper._under_way.values()))
    other = Gatekeeper(house.gate, house.log)
    another = Sale.objects.get(pk=sale.pk)
    assert another.epoch == slow.arming.epoch
    other._begin(another, "a second look")
    assert not house.gatekeeper._build(slow)
    assert gate_module.epoch(house.gate, sale.id) > slow.arming.epoch


def test_two_who_both_believe_they_lead_come_to_an_end(open_sale: Callable[..., Sale], house: House) -> None:
    """A pooler that shares sessions: the lock says nothing, they overtake each other, but not for ever."""
    sale = open_sale()
    other = Gatekeeper(house.gate, house.log)
    LOSSES["wiped"](house.gate)
    deadline = time.monotonic() + 30
    house.gatekeeper.step()
    while fence.fallen(house.gate, [Sale.objects.get(pk=sale.pk)]):
        for each in (house.gatekeeper, other):
            each.step()
            house.consumer.step(0.02)
        assert time.monotonic() < deadline, "they never end"
    assert attempt(sale, "ann").verdict is Verdict.CLAIMED


def test_a_database_that_forgot_an_arming_does_not_bring_its_barrier_back_over_us(
    open_sale: Callable[..., Sale], house: House
) -> None:
    """A failover that lost commits, a lost gate, and a clock that was set back: all in one."""
    sale = open_sale(allotment=3)
    forgotten = sale.epoch + 3_600_000  # an hour ahead of our clock
    house.append(claims.Barrier(v=1, sale_id=sale.id, pool=0, epoch=forgotten, at=timezone.now()))
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    assert Sale.objects.get(pk=sale.pk).epoch > forgotten
    answer = attempt(sale, "ann", order_id := uuid4())
    assert answer.verdict is Verdict.CLAIMED
    house.append(*held_as_claims(house.gate, sale))
    house.fulfill(lambda: Order.objects.filter(pk=order_id, state="confirmed").exists())


def test_a_sale_that_cannot_be_armed_does_not_keep_the_others_down(
    open_sale: Callable[..., Sale], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, healthy = open_sale(), open_sale()
    for sale in (broken, healthy):
        house.append(*take(sale, 1))
    house.fulfill(lambda: Order.objects.count() == 2)
    load = fence.load

    def full(client: redis.Redis, arming: Any, orders: Any) -> bool:
        if arming.sale_id == broken.id:
            raise redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
        return load(client, arming, orders)

    monkeypatch.setattr(fence, "load", full)
    LOSSES["wiped"](house.gate)
    house.rearm(healthy, leave=broken)
    monkeypatch.setattr(fence, "load", load)
    house.rearm(broken)


def test_a_closing_sale_on_a_wiped_redis_is_closed_in_the_end(
    open_sale: Callable[..., Sale], house: House
) -> None:
    sale = open_sale()
    house.append(*take(sale, 1))
    LOSSES["wiped"](house.gate)
    house.gatekeeper.look()
    arming.close(Sale.objects.get(pk=sale.pk), actor="test")
    assert finish_closing(house.gate) == 0
    house.rearm(sale)
    assert finish_closing(house.gate) == 1
    assert Sale.objects.get(pk=sale.pk).state == "closed"
    assert Order.objects.filter(state="confirmed").count() == 1


def test_a_settling_that_was_cut_off_is_healed_and_repeated(
    open_sale: Callable[..., Sale], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = open_sale(allotment=10, stock=10)
    house.append(*take(sale, 2))
    house.fulfill(lambda: Order.objects.count() == 2)
    arming.close(sale, actor="test")
    with monkeypatch.context() as patched:
        patched.setattr(arming, "_move", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            arming.settle(sale, actor="test")
    assert gate_module.image(house.gate, sale.id) is None
    house.rearm(sale)
    arming.settle(sale, actor="test")
    sale.refresh_from_db()
    assert (sale.state, sale.sold, sale.returned, sale.product.stock) == ("settled", 2, 8, 8)


def test_another_loss_in_the_middle_begins_again(open_sale: Callable[..., Sale], house: House) -> None:
    sale = open_sale(allotment=3)
    house.append(*take(sale, 1))
    LOSSES["wiped"](house.gate)
    house.gatekeeper.look()
    first = Sale.objects.get(pk=sale.pk).epoch
    LOSSES["wiped"](house.gate)
    house.rearm(sale)
    assert Sale.objects.get(pk=sale.pk).epoch >= first
    image = gate_module.image(house.gate, sale.id)
    assert image is not None
    assert (image.state, image.remaining, image.settled) == ("open", 2, 1)


def test_a_wiped_directory_comes_back_whole(
    open_sale: Callable[..., Sale], make_sale: Callable[..., Sale], house: House
) -> None:
    running, announced = open_sale(), make_sale()
    arming.schedule(announced, actor="test")
    LOSSES["wiped"](house.gate)
    third = make_sale()
    arming.schedule(third, actor="test")  # the first to publish after the loss is not the gatekeeper
    told = directory.published(house.gate, [running.slug, announced.slug, third.slug])
    assert [facts.fenced for facts in told if facts] == [True, False, False]
    with pytest.raises(Fenced):
        attempt(running, "ann")
    house.rearm(running)
    assert attempt(running, "ann").verdict is Verdict.CLAIMED


def test_nobody_is_told_that_an_order_does_not_exist_while_a_gate_is_down(
    open_sale: Callable[..., Sale], house: House
) -> None:
    sale = open_sale()
    [claim] = take(sale, 1)

    async def ask(order_id: UUID) -> Any:
        turnstile = Turnstile()
        try:
            return await turnstile.claim_of(order_id, await turnstile.published())
        finally:
            await turnstile.close()

    assert asyncio.run(ask(uuid4())) is None
    for lose in (LOSSES["restarted"], LOSSES["wiped"]):
        lose(house.gate)
        with pytest.raises(Fenced):
            asyncio.run(ask(uuid4()))
    house.gatekeeper.look()
    with pytest.raises(Fenced):
        asyncio.run(ask(claim.order_id))
    house.rearm(sale)
    assert asyncio.run(ask(uuid4())) is None


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
def test_a_database_that_is_away_is_waited_for(
    open_sale: Callable[..., Sale], house: House, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """InternalError is what a standby says that has not been promoted yet: it is read-only."""
    sale = open_sale()
    LOSSES["wiped"](house.gate)
    begin = epochs.begin

    def away(*arguments: Any) -> bool:
        monkeypatch.setattr(epochs, "begin", begin)
        raise error("cannot execute UPDATE in a read-only transaction")

    monkeypatch.setattr(epochs, "begin", away)
    assert house.gatekeeper.step() is False
    house.rearm(sale)


def test_the_same_epoch_is_never_given_twice(open_sale: Callable[..., Sale], gate: redis.Redis) -> None:
    sale = open_sale()
    stale = Sale.objects.get(pk=sale.pk)
    assert epochs.begin(Sale.objects.get(pk=sale.pk), sale.epoch + 1, "one", "test")
    assert not epochs.begin(stale, sale.epoch + 2, "other", "test")


def test_barriers_only_rise(open_sale: Callable[..., Sale]) -> None:
    sale = open_sale()
    for epoch in (5, 9, 7):
        epochs.move_to({(sale.id, 0): epoch})
    assert Barrier.objects.get(sale=sale).epoch == 9
