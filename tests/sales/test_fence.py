"""Each rule of the fence by itself: what an overtaken arming may not do, and what counts as fallen.

The days of test_gate_model.py meet the same rules in disorder; here each has a test that says its name.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from sales import arming, directory, fence
from sales import gate as gate_module
from sales.directory import Facts
from sales.fence import Arming, Known
from sales.gate import ClaimLetter, Fenced, pool_keys
from sales.models import Sale
from sales.turnstile import Turnstile
from tests.orders.records import take

pytestmark = pytest.mark.django_db(transaction=True)
OpenSale = Callable[..., Sale]


def arming_of(sale: Sale, older: int = 0) -> Arming:
    return Arming(sale.id, 0, sale.epoch - older)


def an_order() -> Known:
    return Known(uuid4(), ClaimLetter.SETTLED, 1, 1_800_000_000_000, 1, "ann")


@pytest.fixture
def standing(open_sale: OpenSale, gate: redis.Redis) -> Callable[[Sale], dict[str, Any]]:
    """Everything the gate of a sale holds."""

    def read(sale: Sale) -> dict[str, Any]:
        keys = pool_keys(sale.id)
        held: Any = [gate.hgetall(keys.gate), gate.hgetall(keys.claims), gate.hgetall(keys.customers)]
        return {"gate": held[0], "claims": held[1], "customers": held[2]}

    return read


STALE: dict[str, Callable[[redis.Redis, Sale], object]] = {
    "an older arming shuts": lambda gate, sale: fence.shut(gate, arming_of(sale, older=1)),
    "an older arming builds": lambda gate, sale: fence.build(gate, sale, arming_of(sale, older=1)),
    "its own arming builds once more": lambda gate, sale: fence.build(gate, sale, arming_of(sale)),
    "an older arming loads": lambda gate, sale: fence.load(gate, arming_of(sale, older=1), [an_order()]),
    "its own arming loads once more": lambda gate, sale: fence.load(gate, arming_of(sale), [an_order()]),
    "an older arming switches": lambda gate, sale: (
        fence.switch(gate, arming_of(sale, older=1), "paused") != "stale"
    ),
}


@pytest.mark.parametrize("attempted", STALE)
def test_a_gate_in_use_is_not_touched_by(
    open_sale: OpenSale, gate: redis.Redis, standing: Callable[[Sale], dict[str, Any]], attempted: str
) -> None:
    sale = open_sale()
    take(sale, 1)
    before = standing(sale)
    assert not STALE[attempted](gate, sale)
    assert standing(sale) == before


@pytest.mark.parametrize("attempted", ["shut", "build", "load", "switch"])
def test_a_gate_that_is_being_armed_is_not_touched_by_an_older_arming(
    open_sale: OpenSale, gate: redis.Redis, standing: Callable[[Sale], dict[str, Any]], attempted: str
) -> None:
    sale = open_sale()
    newer = arming_of(sale)._replace(epoch=sale.epoch + 1)
    assert fence.shut(gate, newer)
    assert fence.build(gate, sale, newer)
    before = standing(sale)
    older = arming_of(sale)
    told: dict[str, Callable[[], object]] = {
        "shut": lambda: fence.shut(gate, older),
        "build": lambda: fence.build(gate, sale, older),
        "load": lambda: fence.load(gate, older, [an_order()]),
        "switch": lambda: fence.switch(gate, older, "open", building=True) != "stale",
    }
    assert not told[attempted]()
    assert standing(sale) == before
    assert fence.load(gate, newer, [an_order()]), "the newer one goes on"
    assert fence.switch(gate, newer, "open", building=True) == "switched"


def test_nothing_is_loaded_into_a_gate_that_is_gone(open_sale: OpenSale, gate: redis.Redis) -> None:
    sale = open_sale()
    gate.delete(*pool_keys(sale.id))
    assert not fence.load(gate, arming_of(sale), [an_order()])
    assert not gate.exists(*pool_keys(sale.id))


def test_an_arming_may_begin_its_building_again(open_sale: OpenSale, gate: redis.Redis) -> None:
    sale = open_sale()
    newer = arming_of(sale)._replace(epoch=sale.epoch + 1)
    assert fence.shut(gate, newer)
    for _ in range(2):
        assert fence.build(gate, sale, newer)
        order = an_order()
        for _ in range(2):
            assert fence.load(gate, newer, [order]), "an order that is loaded twice counts once"
    image = gate_module.image(gate, sale.id)
    assert image is not None
    assert (image.remaining, image.settled) == (9, 1)


@pytest.mark.parametrize("who", ["an operator of this epoch", "an operator of another epoch"])
def test_a_stop_while_the_gate_is_armed_moves_the_turn(
    open_sale: OpenSale, gate: redis.Redis, who: str
) -> None:
    """The arming has asked the database before: with the turn it had seen it must not open any more."""
    sale = open_sale()
    newer = arming_of(sale)._replace(epoch=sale.epoch + 1)
    assert fence.shut(gate, newer)
    assert fence.build(gate, sale, newer)
    turn = fence.turn(gate, newer)
    assert turn is not None
    if who == "an operator of this epoch":
        assert fence.switch(gate, newer, "paused") == "arming"
    else:
        assert fence.stop(gate, sale.id, 0, "paused") == "arming"
    assert fence.switch(gate, newer, "open", turn, building=True) == "turned"


@pytest.mark.parametrize(("step", "left"), [("pause", "paused"), ("close", "closed")])
@pytest.mark.parametrize("lost", [-1, 1])
def test_a_stop_is_obeyed_by_a_gate_whose_epoch_the_database_does_not_have(
    open_sale: OpenSale, gate: redis.Redis, step: str, left: str, lost: int
) -> None:
    sale = open_sale()
    Sale.objects.filter(pk=sale.pk).update(epoch=sale.epoch + lost)
    getattr(arming, step)(sale, actor="test")
    image = gate_module.image(gate, sale.id)
    assert image is not None
    assert image.state == left


def told(gate: redis.Redis, sale: Sale) -> Facts:
    [facts] = directory.published(gate, [sale.slug])
    assert facts is not None
    return facts


def retell(gate: redis.Redis, sale: Sale, **changed: Any) -> None:
    changed_facts = msgspec.structs.replace(told(gate, sale), **changed)
    gate.hset(directory.DIRECTORY, sale.slug, msgspec.json.encode(changed_facts).decode())


def lose_the_directory(gate: redis.Redis, sale: Sale) -> None:
    gate.hdel(directory.DIRECTORY, sale.slug)


FALLEN: dict[str, tuple[str, Callable[[redis.Redis, Sale], object]]] = {
    "the gate is gone": ("lost", lambda gate, sale: gate.delete(*pool_keys(sale.id))),
    "the directory is gone": ("lost", lose_the_directory),
    "published as fenced": ("not ended", lambda gate, sale: retell(gate, sale, fenced=True)),
    "being built": ("not ended", lambda gate, sale: gate.hset(pool_keys(sale.id).gate, "state", "arming")),
    "the script is gone": ("restarted", lambda gate, sale: gate.script_flush()),
    "another server was in charge": (
        "another server",
        lambda gate, sale: retell(gate, sale, incarnation="0" * 40),
    ),
    "the gate has another epoch": (
        "differ",
        lambda gate, sale: gate.hincrby(pool_keys(sale.id).gate, "epoch", 1),
    ),
    "the directory has another epoch": ("differ", lambda gate, sale: retell(gate, sale, epoch=1)),
    "the sale has another epoch": (
        "differ",
        lambda gate, sale: Sale.objects.filter(pk=sale.pk).update(epoch=sale.epoch + 1),
    ),
}


@pytest.mark.parametrize("what", FALLEN)
def test_a_gate_has_fallen_when(open_sale: OpenSale, gate: redis.Redis, what: str) -> None:
    sale, other = open_sale(), open_sale()
    assert fence.fallen(gate, [sale, other]) == []
    reason, fell = FALLEN[what]
    fell(gate, sale)
    found = fence.fallen(gate, [Sale.objects.get(pk=sale.pk)])
    assert [(which.pk, reason in why) for which, why in found] == [(sale.pk, True)], found


def cannot_tell(gate: redis.Redis, sale: Sale, facts: Facts, what: str) -> list[Facts]:
    """The facts a web process has after something fell."""
    match what:
        case "the script is gone":
            gate.script_flush()
        case "the gate has another epoch":
            gate.hincrby(pool_keys(sale.id).gate, "epoch", 1)
        case "the gate is gone":
            gate.delete(*pool_keys(sale.id))
        case "another server was in charge":
            return [msgspec.structs.replace(facts, incarnation="0" * 40)]
        case "published as fenced":
            return [msgspec.structs.replace(facts, fenced=True, seal="")]
        case "no sale is known":
            return []
    return [facts]


@pytest.mark.parametrize(
    "what",
    [
        "the script is gone",
        "the gate has another epoch",
        "the gate is gone",
        "another server was in charge",
        "published as fenced",
        "no sale is known",
    ],
)
async def test_nobody_is_told_that_an_order_does_not_exist_when(
    open_sale: OpenSale, gate: redis.Redis, turnstile: Turnstile, what: str
) -> None:
    """Each loss alone: nobody can know then whether the gate had granted it."""
    sale, other = open_sale(), open_sale()
    facts, others = told(gate, sale), told(gate, other)
    assert await turnstile.claim_of(uuid4(), [others, facts]) is None
    among = cannot_tell(gate, sale, facts, what)
    with pytest.raises(Fenced):
        await turnstile.claim_of(uuid4(), [*among, others] if among else among)


def test_a_claim_from_the_future_counts_as_late(open_sale: OpenSale, gate: redis.Redis) -> None:
    """The server's clock was set back by an hour; the sweeper must not wait for it to come round."""
    sale = open_sale()
    young, ahead, old = (claim.order_id for claim in take(sale, 3))
    now, _ = gate.time()
    pending: dict[UUID, int] = {young: now * 1000, ahead: (now + 3600) * 1000, old: (now - 3600) * 1000}
    gate.zadd(pool_keys(sale.id).pending, {str(order): score for order, score in pending.items()})
    late = gate_module.held(gate, sale.id, 0, older_than_seconds=600)
    assert [held.order_id for held in late] == [old, ahead]
    assert [held.order_id for held in gate_module.held(gate, sale.id, 0, 600, limit=1)] == [old]
