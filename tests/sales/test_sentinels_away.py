"""Some or all of the Sentinels are away, or refuse to answer."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis

from sales import gate, sentinels
from sales.gate import GateUnreachable
from sales.turnstile import Turnstile
from tests.running_site import free_port
from tests.sentinel import SentinelCluster


async def test_dead_sentinels_are_passed_over(
    cluster: SentinelCluster, impatient: Callable[[str], redis.Redis], settings: Any
) -> None:
    """The first of three is frozen, then not there at all: nobody waits for it for long."""
    patience = settings.FLUXGATE.gate_timeout_ms / 1000
    frozen = cluster.sentinels[0]
    cluster.stop(frozen)
    try:
        for url in (cluster.url, cluster.url.replace(f":{frozen}", f":{free_port()}")):
            turnstile = Turnstile(url)
            await turnstile.ping()
            await turnstile.close()
            began = time.monotonic()
            with impatient(url) as client:
                assert client.ping()
            assert time.monotonic() - began < patience
    finally:
        cluster.go_on(frozen)


async def test_without_any_sentinel_nobody_new_finds_the_gate(
    cluster: SentinelCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And frozen ones cost no more than a frozen gate does. Who is connected already goes on."""
    connected = Turnstile()
    await connected.connect()
    for sentinel in cluster.sentinels:
        cluster.stop(sentinel)
    try:
        await connected.ping()
        monkeypatch.setattr(sentinels, "LOOK_SECONDS", 0)
        await connected.ping()
        await connected.close()
        turnstile = Turnstile()
        began = time.monotonic()
        with pytest.raises(GateUnreachable, match=r"no Sentinel|no answer within"):
            await turnstile.ping()
        assert time.monotonic() - began < 1
        await turnstile.close()
        began = time.monotonic()
        with gate.connect() as client, pytest.raises(GateUnreachable, match="no Sentinel"):
            gate.epoch(client, uuid4())
        assert time.monotonic() - began < 1
    finally:
        for sentinel in cluster.sentinels:
            cluster.go_on(sentinel)


async def test_what_a_sentinel_refuses_is_said(cluster: SentinelCluster) -> None:
    for wrong, said in (("/gate?", "/door?"), "No such master"), (("=the-sentinels", "=x"), "invalid"):
        with gate.connect(cluster.url.replace(*wrong)) as client, pytest.raises(GateUnreachable, match=said):
            gate.epoch(client, uuid4())
        turnstile = Turnstile(cluster.url.replace(*wrong))
        with pytest.raises(GateUnreachable, match=said):
            await turnstile.ping()
        await turnstile.close()
