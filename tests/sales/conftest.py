"""Fixtures of the tests of the gate behind Sentinels."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sales import gate, redis_urls
from tests.sentinel import SentinelCluster


@pytest.fixture
def cluster(settings: Any) -> Iterator[SentinelCluster]:
    """Where this test's gate is."""
    servers = SentinelCluster()
    servers.start()
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"gate_url": servers.url})
    yield servers
    servers.close()


@pytest.fixture
def impatient() -> Callable[[str], redis.Redis]:
    """Makes clients whose calls wait as long as a buyer's; those of `gate.connect` wait two seconds."""

    def make(url: str) -> redis.Redis:
        return redis_urls.sync_client(url, **gate.connection_options())

    return make
