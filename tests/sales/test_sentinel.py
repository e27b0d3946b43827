"""The gate behind Sentinels, on real servers: a failover is followed, and nothing is sold twice.

That the gate is armed again and sells on: tests/orders/test_failover.py.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import redis

from sales import fence, gate, sentinels
from sales.directory import Facts, published
from sales.fence import Arming, incarnation
from sales.gate import Attempt, Fenced, GateUnreachable, Verdict
from sales.models import Sale
from sales.turnstile import Turnstile
from tests.running_site import eventually
from tests.sentinel import SentinelCluster

pytestmark = [pytest.mark.django_db(transaction=True)]

FOLLOWED_SECONDS = 1.0  # after Sentinel's decision


@pytest.fixture
def client(cluster: SentinelCluster, impatient: Callable[[str], redis.Redis]) -> Iterator[redis.Redis]:
    """A client as the sale's panel has it, connected before anything happens."""
    opened = impatient(cluster.url)
    assert opened.ping()
    yield opened
    opened.close()


def port_of(client: redis.Redis) -> int:
    """The port of the server that answers this client."""
    information: Any = client.info("server")
    return int(information["tcp_port"])


def new_attempt() -> Attempt:
    return Attempt(str(uuid4()), f"customer-{uuid4().hex[:8]}", 1)


async def known(turnstile: Turnstile, sale: Sale) -> Facts:
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    return facts


def take(sale: Sale) -> None:
    """One unit, by a process of its own."""

    async def ask() -> None:
        turnstile = Turnstile()
        try:
            answer = await turnstile.attempt(await known(turnstile, sale), new_attempt())
            assert answer.verdict is Verdict.CLAIMED
        finally:
            await turnstile.close()

    asyncio.run(ask())


def followed(client: redis.Redis, port: int) -> float:
    """Seconds until the client's calls reach the server on this port, and their answers are its own."""
    began = time.monotonic()

    def asked() -> bool:
        with suppress(GateUnreachable), gate.reaching():
            return port_of(client) == port
        return False

    eventually(asked, 5)
    return time.monotonic() - began


async def soon(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the turnstile answers as soon as it has found the new master."""
    deadline = time.monotonic() + FOLLOWED_SECONDS
    while True:
        try:
            return await call()
        except GateUnreachable:
            assert time.monotonic() < deadline, "the turnstile has not followed"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("end", ["killed", "frozen"])
async def test_a_lost_master_is_followed_and_its_sale_stays_fenced(
    open_sale: Callable[..., Sale],
    cluster: SentinelCluster,
    impatient: Callable[[str], redis.Redis],
    end: str,
) -> None:
    client, turnstile = impatient(cluster.url), Turnstile()
    await turnstile.connect()
    sale = await asyncio.to_thread(open_sale)
    facts = await known(turnstile, sale)
    first = new_attempt()
    assert (await turnstile.attempt(facts, first)).verdict is Verdict.CLAIMED
    assert gate.epoch(client, sale.id) == facts.epoch
    eventually(lambda: replicated(cluster, sale, remaining=9))

    old = cluster.kill_master() if end == "killed" else cluster.stop_master()
    failures = []
    deciding = asyncio.ensure_future(asyncio.to_thread(cluster.wait_for_failover))
    while not deciding.done():
        began = time.monotonic()
        with pytest.raises((GateUnreachable, Fenced)) as refused:
            await turnstile.attempt(facts, new_attempt())
        failures.append((time.monotonic() - began, refused.type))
        await asyncio.sleep(0.02)
    new = deciding.result()
    assert new != old
    assert failures[0][1] is GateUnreachable, "fail closed while nobody is in charge"
    assert max(seconds for seconds, _ in failures) < 1, "and fast: the timeout is 250 ms"

    with pytest.raises(Fenced):  # never armed there: not sold
        await soon(lambda: turnstile.attempt(facts, new_attempt()))
    assert followed(client, new) < FOLLOWED_SECONDS
    assert await soon(lambda: turnstile.units_remaining([facts])) == [9], "what was replicated is there"
    image = gate.image(client, sale.id)
    assert image is not None
    assert (image.remaining, image.held) == (9, 1), "and nothing was taken"
    [(_, reason)] = fence.fallen(client, [sale])
    assert "another server has taken over" in reason

    if end == "killed":
        cluster.restart_old()
    else:
        cluster.continue_stopped()
    cluster.wait_for_replica()
    assert port_of(client) == new
    with pytest.raises(Fenced):
        await turnstile.attempt(facts, new_attempt())
    await turnstile.close()
    client.close()


def replicated(cluster: SentinelCluster, sale: Sale, remaining: int) -> bool:
    [replica] = set(cluster.gates) - {cluster.master_port()}
    with cluster.client(replica) as direct:
        return bool(direct.hget(gate.pool_keys(sale.id).gate, "remaining") == str(remaining))


def lose_a_claim(cluster: SentinelCluster, sale: Sale) -> None:
    """One unit is sold by the master alone, and Sentinel promotes the replica that never heard of it."""
    replica = cluster.stop_replica()
    take(sale)
    cluster.stop_master()
    cluster.go_on(replica)
    cluster.wait_for_failover()


def claim_by(client: redis.Redis, sale: Sale, seal: str) -> str:
    """The verdict of one attempt by the script with this SHA."""
    attempt = new_attempt()
    arguments = (str(attempt.order_id), attempt.customer, 1, "0")
    reply: Any = client.evalsha(seal, 4, *gate.pool_keys(sale.id), *arguments)
    return str(reply[1])


def test_a_client_that_loads_the_script_again_sells_a_unit_twice(
    open_sale: Callable[..., Sale], cluster: SentinelCluster, client: redis.Redis
) -> None:
    """The broken twin follows as we do, and takes NOSCRIPT for a cache miss."""
    sale = open_sale(allotment=1)
    lose_a_claim(cluster, sale)
    followed(client, cluster.master_port())
    [facts] = published(client, [sale.slug])
    assert facts is not None
    with pytest.raises(redis.exceptions.NoScriptError):
        claim_by(client, sale, facts.seal)
    text, _ = fence.seal(gate.pool_keys(sale.id), facts.epoch, facts.incarnation)
    client.script_load(text)
    with pytest.raises(redis.ResponseError, match="FENCED incarnation"):
        claim_by(client, sale, facts.seal)
    twin = fence.raise_seal(client, Arming(sale.id, 0, facts.epoch), incarnation(client))
    assert claim_by(client, sale, twin) == "claimed", "the only unit, sold a second time"


def test_a_failover_and_back_stays_fenced(
    open_sale: Callable[..., Sale], cluster: SentinelCluster, client: redis.Redis
) -> None:
    """The script is still loaded there. Its broken twin does not look at the replication id."""
    sale = open_sale(allotment=1)
    first = cluster.master_port()
    [facts] = published(client, [sale.slug])
    assert facts is not None
    text, _ = fence.seal(gate.pool_keys(sale.id), facts.epoch, facts.incarnation)
    assert text.count(" ~= INCARNATION then") == 1
    twin: Any = client.script_load(text.replace(" ~= INCARNATION then", " == '' then"))
    lose_a_claim(cluster, sale)
    cluster.continue_stopped()
    cluster.wait_for_replica()
    cluster.fail_over()
    assert cluster.wait_for_failover() == first
    followed(client, first)
    assert client.script_exists(facts.seal, twin) == [True, True]

    with pytest.raises(redis.ResponseError, match="FENCED incarnation"):
        claim_by(client, sale, facts.seal)
    assert claim_by(client, sale, twin) == "claimed", "the only unit, sold a second time"


@pytest.mark.parametrize("asks", [True, False])
async def test_a_master_that_stood_still_is_not_used_again(
    open_sale: Callable[..., Sale],
    cluster: SentinelCluster,
    impatient: Callable[[str], redis.Redis],
    monkeypatch: pytest.MonkeyPatch,
    asks: bool,
) -> None:
    """It goes on as the master it was until a Sentinel tells it. The broken twin does not ask whether its
    connection leads to the master, and sells there; a gatekeeper like it would never arm the new one."""
    if not asks:
        monkeypatch.setattr(sentinels, "LOOK_SECONDS", float("inf"))
    sale = await asyncio.to_thread(open_sale)
    client, turnstile = impatient(cluster.url), Turnstile()
    await turnstile.connect()
    facts = await known(turnstile, sale)
    assert not fence.fallen(client, [sale])
    old = cluster.stop_master()
    with cluster.client(old) as stood_still:
        new = await asyncio.to_thread(cluster.wait_for_failover)
        cluster.continue_stopped()
        eventually(stood_still.ping)
        if asks:
            with pytest.raises(Fenced):
                await turnstile.attempt(facts, new_attempt())
            assert port_of(client) == new
            assert fence.fallen(client, [sale])
        else:
            assert (await turnstile.attempt(facts, new_attempt())).verdict is Verdict.CLAIMED
            assert not fence.fallen(client, [sale])
    await turnstile.close()
    client.close()


async def test_a_demoted_master_is_left(open_sale: Callable[..., Sale], cluster: SentinelCluster) -> None:
    """By somebody's hand, so that no Sentinel ends its connections: READONLY is all that tells."""
    sale = await asyncio.to_thread(open_sale)
    client, turnstile = gate.connect(), Turnstile()
    await turnstile.connect()
    facts = await known(turnstile, sale)
    old = cluster.master_port()
    assert port_of(client) == old
    [new] = set(cluster.gates) - {old}
    with cluster.client(old) as direct:
        direct.replicaof("127.0.0.1", new)
    with pytest.raises(GateUnreachable, match="now a slave"):
        gate.release(client, sale.id, 0, [uuid4()])
    with pytest.raises(GateUnreachable, match=r"not the master|no Sentinel names"):
        gate.release(client, sale.id, 0, [uuid4()])
    with pytest.raises(GateUnreachable):
        await turnstile.attempt(facts, new_attempt())
    cluster._left = old
    assert await asyncio.to_thread(cluster.wait_for_failover) == new
    assert followed(client, new) < FOLLOWED_SECONDS
    assert gate.release(client, sale.id, 0, [uuid4()]) == 0
    with pytest.raises(Fenced):
        await soon(lambda: turnstile.attempt(facts, new_attempt()))
    await turnstile.close()
    client.close()


async def test_a_master_without_its_replica_takes_no_unit(
    open_sale: Callable[..., Sale], cluster: SentinelCluster
) -> None:
    """`min-replicas-to-write`: what nobody else has heard of may be lost by a failover."""
    sale = await asyncio.to_thread(open_sale)
    turnstile = Turnstile()
    facts = await known(turnstile, sale)
    with cluster.client(cluster.master_port()) as master:
        master.config_set("min-replicas-max-lag", 1, "min-replicas-to-write", 1)
        replica = cluster.stop_replica()
        try:

            def alone() -> bool:
                information: Any = master.info("replication")
                return bool(information["min_slaves_good_slaves"] == 0)

            eventually(alone)
            with pytest.raises(GateUnreachable, match="NOREPLICAS"):
                await turnstile.attempt(facts, new_attempt())
            assert master.hget(gate.pool_keys(sale.id).gate, "remaining") == "10"
        finally:
            cluster.go_on(replica)
            master.config_set("min-replicas-to-write", 0)
    await turnstile.close()
