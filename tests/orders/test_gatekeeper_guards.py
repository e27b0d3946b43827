"""What keeps a rearming safe, guard by guard: each test fails when its guard is taken out."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import redis

from fluxgate_site.shop_door import ShopDoor
from orders import claims, epochs, gatekeeper
from orders.closing import finish_closing
from orders.gatekeeper import Gatekeeper
from orders.log import Acknowledgements
from orders.models import Order, OrderState
from orders.placing import place
from orders.status import Standings
from sales import arming, directory, fence
from sales import gate as gate_module
from sales.database import Database
from sales.fence import Arming
from sales.gate import Attempt, ClaimLetter, Fenced, Image, Verdict, pool_keys
from sales.identity import Identity, mint
from sales.models import Sale, SaleEvent
from sales.turnstile import Turnstile
from tests.orders.records import cancel_of, take
from tests.orders.test_gatekeeper import LOSSES, House, _clean, _quick, attempt, house
from tests.orders.test_placing import ScriptedLog
from tests.running_site import eventually

__all__ = ["_clean", "_quick", "house"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True)
OpenSale = Callable[..., Sale]


def image_of(house: House, sale: Sale) -> Image:
    found = gate_module.image(house.gate, sale.id)
    assert found is not None
    return found


def epoch_of(sale: Sale) -> int:
    return Sale.objects.get(pk=sale.pk).epoch


class Clock:
    """The gatekeeper's, which stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of the armings that have switched a gate on."""
    found: list[int] = []
    switch = fence.switch

    def spied(client: redis.Redis, arming: Arming, *arguments: Any, **named: Any) -> Any:
        switched = switch(client, arming, *arguments, **named)
        if switched == "switched":
            found.append(arming.epoch)
        return switched

    monkeypatch.setattr(fence, "switch", spied)
    return found


def once(patch: pytest.MonkeyPatch, where: Any, name: str, first: Callable[[], object]) -> None:
    """The next call of that function finds that `first` has happened before it."""
    real = getattr(where, name)

    def overtaken(*arguments: Any, **named: Any) -> Any:
        patch.setattr(where, name, real)
        first()
        return real(*arguments, **named)

    patch.setattr(where, name, overtaken)


# --- the promise and the barrier


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replaced = Clock()
    monkeypatch.setattr(gatekeeper, "time", replaced)
    return replaced


def test_the_barrier_comes_after_the_end_of_every_promise(
    open_sale: OpenSale, house: House, clock: Clock
) -> None:
    """A web process appends at the last moment of its promise, and answers "queued"."""
    sale = open_sale(allotment=2)
    [promised] = take(sale, 1)
    LOSSES["wiped"](house.gate)
    house.gatekeeper.step()
    clock.now += 0.3 + gatekeeper.MARGIN_SECONDS - 0.001
    for _ in range(3):
        house.gatekeeper.step()
    house.append(promised)
    clock.now += 0.002
    house.rearm(sale)
    assert Order.objects.get(pk=promised.order_id).state == OrderState.CONFIRMED
    assert image_of(house, sale).remaining == 1


class Jumping(ScriptedLog):
    """Acknowledges in time, to a process that stands still from the append on and reads it too late."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def append(self, record: claims.Record, reported: Any) -> None:
        super().append(record, reported)
        loop = asyncio.get_running_loop()
        real = loop.time

        def stood_still() -> None:
            loop.time = lambda: real() + self.seconds  # type: ignore[method-assign]
            reported(None)

        loop.call_soon(stood_still)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "queued"), (10.0, "held")])
async def test_nothing_is_promised_after_the_end_of_the_promise(
    open_sale: OpenSale, turnstile: Turnstile, settings: Any, seconds: float, told: str
) -> None:
    """A rearming waits no longer for it: the claim may stand behind the barrier, and be dropped."""
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"promise_seconds": 5.0})
    facts = await turnstile.facts(open_sale().slug)
    assert facts is not None
    log = Acknowledgements(Jumping(seconds))
    placed = await place(turnstile, log, facts, Attempt(str(uuid4()), "ann", 1))
    assert (placed.answer.verdict, placed.state) == (Verdict.CLAIMED, told)


async def test_facts_that_are_fenced_take_nothing(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis
) -> None:
    """Also where their seal would still open the gate."""
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    log = ScriptedLog()
    fenced = msgspec.structs.replace(facts, fenced=True)
    with pytest.raises(Fenced):
        await place(turnstile, Acknowledgements(log), fenced, Attempt(str(uuid4()), "ann", 1))
    standing = gate_module.image(gate, sale.id)
    assert standing is not None
    assert (standing.held, log.records) == (0, [])


class Forgetful:
    """A log that loses its tail: what it acknowledges is not there, until it is well again."""

    def __init__(self, house: House) -> None:
        self.log, self.lost, self.well = house.log, 0, False

    def available(self) -> bool:
        return True

    def close(self) -> None: ...

    def append(self, record: claims.Record, reported: Any) -> None:
        if self.well:
            self.log.append(record, reported)
        else:
            self.lost += 1
            reported(None)


def test_a_barrier_that_was_lost_is_repeated_with_all_that_is_held(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeper, "REPEAT_SECONDS", 0.2)
    sale = open_sale(allotment=4)
    held = take(sale, 2)
    log = Forgetful(house)
    house.gatekeeper = Gatekeeper(house.gate, log)
    LOSSES["restarted"](house.gate)
    eventually(lambda: house.gatekeeper.step() and log.lost == 3)  # both claims and the barrier
    log.well = True
    house.rearm(sale)
    assert set(Order.objects.values_list("id", "state")) == {(claim.order_id, "confirmed") for claim in held}
    assert image_of(house, sale).remaining == 2


# --- the switch


def change_incarnation(client: redis.Redis) -> None:
    """As a failover and back: the scripts are still loaded, the replication id is another one."""
    before = fence.incarnation(client)
    client.replicaof("127.0.0.1", "1")
    client.replicaof("NO", "ONE")
    assert fence.incarnation(client) != before


def test_a_gate_that_was_loaded_on_another_incarnation_is_not_opened(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch, opened: list[int]
) -> None:
    sale = open_sale()
    opened.clear()
    LOSSES["wiped"](house.gate)
    once(monkeypatch, fence, "raise_seal", lambda: change_incarnation(house.gate))
    house.rearm(sale)
    assert opened == [epoch_of(sale)], "only the second one"
    assert SaleEvent.objects.filter(sale=sale, action="rearm").count() == 2
    assert attempt(sale, "ann").verdict is Verdict.CLAIMED


@pytest.mark.parametrize("moment", ["raise_seal", "load"])
def test_an_arming_that_another_has_begun_over_is_not_opened(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch, opened: list[int], moment: str
) -> None:
    """The other one has been to the database and not to the gate yet: only the row's epoch tells."""
    sale = open_sale(allotment=3)
    house.append(*take(sale, 1))
    opened.clear()
    LOSSES["wiped"](house.gate)

    def other() -> None:
        assert epochs.begin(Sale.objects.get(pk=sale.pk), epoch_of(sale) + 1, "at that moment", "other")

    once(monkeypatch, fence, moment, other)
    house.rearm(sale)
    assert opened == [epoch_of(sale)], "only the one behind the other"
    assert image_of(house, sale).remaining == 2


def test_who_was_overtaken_before_the_gate_was_shut_leaves_it_alone(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = open_sale()
    LOSSES["wiped"](house.gate)
    other = Gatekeeper(house.gate, house.log)
    once(monkeypatch, fence, "shut", lambda: other._begin(Sale.objects.get(pk=sale.pk), "a second look"))
    house.gatekeeper.look()
    [taken_over] = other._under_way
    assert taken_over.epoch == epoch_of(sale) == gate_module.epoch(house.gate, sale.id)
    assert not house.gatekeeper._under_way


def test_an_epoch_is_above_that_of_the_gate(open_sale: OpenSale, house: House) -> None:
    """A failover lost the arming in the database, and its clock was ahead of ours by an hour."""
    sale = open_sale()
    ahead = sale.epoch + 3_600_000
    house.gate.hset(pool_keys(sale.id).gate, "epoch", ahead)
    house.rearm(sale)
    assert epoch_of(sale) == image_of(house, sale).epoch > ahead


def test_an_epoch_is_above_that_of_the_sale(open_sale: OpenSale, house: House) -> None:
    """Redis is wiped, and the clock has been set back since the last arming."""
    sale = open_sale()
    ahead = sale.epoch + 3_600_000
    Sale.objects.filter(pk=sale.pk).update(epoch=ahead)
    house.gate.flushall()
    house.rearm(sale)
    assert epoch_of(sale) == image_of(house, sale).epoch > ahead


def test_a_gate_that_follows_does_not_overtake_an_operator(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database says open and the gate is paused; we have read that when the operator pauses (I7)."""
    sale = open_sale()
    house.gate.hset(pool_keys(sale.id).gate, "state", "paused")
    state = epochs.state

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(epochs, "state", state)
        read = state(*arguments)
        arming.pause(Sale.objects.get(pk=sale.pk), actor="test")
        return read

    monkeypatch.setattr(epochs, "state", overtaken)
    house.gatekeeper.look()
    assert epochs.state is state, "the gatekeeper has asked"
    assert image_of(house, sale).state == "paused"
    assert attempt(sale, "ann").verdict is Verdict.PAUSED


def test_pause_tells_the_gate_again_when_the_database_has_moved(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its two words to the gate a rearming asks the database, and opens."""
    sale = open_sale()

    def opens_meanwhile() -> None:
        mine = Arming(sale.id, 0, sale.epoch)
        assert fence.switch(house.gate, mine, "open", fence.turn(house.gate, mine) or "") == "switched"

    once(monkeypatch, arming, "_move", opens_meanwhile)
    arming.pause(sale, actor="test")
    assert image_of(house, sale).state == "paused"


# --- what the others see meanwhile


def test_a_sale_is_published_as_fenced_before_its_promises_are_waited_for(
    open_sale: OpenSale, house: House
) -> None:
    sale = open_sale()
    LOSSES["restarted"](house.gate)
    house.gatekeeper.look()
    [facts] = directory.published(house.gate, [sale.slug])
    assert facts is not None
    assert (facts.fenced, facts.seal) == (True, "")


async def at_the_door(
    state: dict[str, Any], method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, str]:
    """One request to the API in this process. Returns the status, and the problem if there is one."""
    headers |= {"host": "testserver", "authorization": f"Bearer {mint('ann')}"}
    scope: Any = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "state": state,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await ShopDoor()(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]).get("type", "").rpartition("#")[2]


@pytest.mark.parametrize("loss", LOSSES)
async def test_buyers_are_told_to_ask_again_while_a_gate_is_armed(
    open_sale: OpenSale, house: House, loss: str
) -> None:
    """I5: no refusal for the owner of a promise who repeats the key, and never "no such order"."""
    sale = open_sale()

    async def visit() -> list[tuple[int, str]]:
        """The same key, and an order that nobody knows: asked of a web process that has just started."""
        turnstile, database = Turnstile(), Database()
        state = {
            "turnstile": turnstile,
            "log": Acknowledgements(house.log),
            "standings": Standings(turnstile, database),
            "identity": Identity(),
        }
        place = {"idempotency_key": "k", "content_type": "application/json", "accept": "application/json"}
        try:
            return [
                await at_the_door(
                    state, "POST", f"/api/v1/sales/{sale.slug}/orders", b'{"quantity":1}', **place
                ),
                await at_the_door(state, "GET", f"/api/v1/orders/{uuid4()}"),
            ]
        finally:
            await turnstile.close()
            database.close()

    away = [(503, "temporarily-unavailable")] * 2
    assert await visit() == [(202, ""), (404, "order-not-found")]
    LOSSES[loss](house.gate)
    assert await visit() == away
    house.gatekeeper.look()
    assert await visit() == away, "the same while it is being armed"


def test_a_closing_sale_is_not_closed_by_a_gate_that_has_fallen(open_sale: OpenSale, house: House) -> None:
    """Old data came back with Redis: it holds nothing, and claims it has forgotten are in the log."""
    sale = open_sale(allotment=3)
    arming.pause(sale, actor="test")
    house.gate.hset(pool_keys(sale.id).gate, "state", "closed")
    Sale.objects.filter(pk=sale.pk).update(state="closing")
    LOSSES["restarted"](house.gate)
    assert finish_closing(house.gate) == 0
    house.rearm(sale)
    assert finish_closing(house.gate) == 1


def test_a_sale_that_cannot_be_armed_is_tried_again_after_growing_pauses(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    sale = open_sale()
    begun = SaleEvent.objects.filter(sale=sale, action="rearm")
    LOSSES["wiped"](house.gate)
    shut = fence.shut

    def full(*arguments: Any) -> bool:
        raise redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")

    monkeypatch.setattr(fence, "shut", full)
    for tries, pause in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], 1):
        house.gatekeeper.look()
        assert begun.count() == tries
        clock.now += pause - 0.001
        house.gatekeeper.look()
        assert begun.count() == tries, "not before the pause is over"
        clock.now += 0.002
    monkeypatch.setattr(fence, "shut", shut)
    monkeypatch.setattr(gatekeeper, "time", time)
    house.gatekeeper._pauses.update(dict.fromkeys(house.gatekeeper._pauses, gatekeeper._Pause(0.0, 30.0)))
    house.rearm(sale)
    assert not house.gatekeeper._pauses, "the next time it begins with a short one"


# --- what the order book says of epochs


def test_the_book_is_not_read_in_front_of_the_barrier(open_sale: OpenSale, house: House) -> None:
    sale = open_sale(limit_per_customer=3)
    one, other = take(sale, 2, quantity=2)
    house.append(one, other, cancel_of(other))
    house.fulfill(lambda: Order.objects.filter(state="cancelled").exists())
    for passed in (0, sale.epoch - 1):
        epochs.move_to({(sale.id, 0): passed})
        with pytest.raises(epochs.NotPassed):
            next(epochs.known(sale.id, 0, sale.epoch))
    epochs.move_to({(sale.id, 0): sale.epoch})
    found = {known.order_id: known.letter for [known] in epochs.known(sale.id, 0, sale.epoch, size=1)}
    assert found == {one.order_id: ClaimLetter.SETTLED, other.order_id: ClaimLetter.RELEASED}


def test_a_book_that_has_forgotten_the_barrier_is_no_end_of_the_gatekeeper(
    open_sale: OpenSale, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover of PostgreSQL between the two questions: the sale begins again, and the others go on."""
    sale = open_sale(allotment=3)
    house.append(*take(sale, 2))
    LOSSES["wiped"](house.gate)
    first: list[int] = []

    def forget() -> None:
        first.append(epoch_of(sale))
        epochs.Barrier.objects.filter(sale_id=sale.id).update(epoch=0)

    once(monkeypatch, epochs, "known", forget)
    house.rearm(sale)
    assert epoch_of(sale) > first[0]
    assert (image_of(house, sale).remaining, image_of(house, sale).settled) == (1, 2)


def test_a_sale_has_a_state_under_its_own_epoch_only(open_sale: OpenSale) -> None:
    sale = open_sale()
    assert [epochs.state(sale.id, sale.epoch + step) for step in (-1, 0, 1)] == [None, "open", None]
