"""The two instances of Redis: the gate, which must keep everything, and the cache, which need not."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import redis
from django.conf import settings
from django.db.models import F, Sum
from redis.backoff import NoBackoff
from redis.retry import Retry

from orders.doctor.finding import Finding, Level, line
from sales import fence, gate
from sales.directory import GATED
from sales.models import Sale

_gate = partial(Finding, "gate")
_cache = partial(Finding, "cache")
OLDEST = 7  # scripts with flags, and everything that is tested
# What a granted unit takes in the gate: 213 measured, and a table that grows is there twice meanwhile.
BYTES_PER_CLAIM = 400


def examine_gate() -> Iterator[Finding]:
    with closing(gate.connect()) as client:
        try:
            information: dict[str, Any] = client.info("everything")
        except redis.RedisError as error:
            yield _gate(
                Level.FAIL, f"does not answer: {line(error)}", "check FLUXGATE_GATE_URL and the server"
            )
            return
        yield _version(information)
        yield _role(information)
        configured = _configured(client)
        yield from _persistence(information, configured)
        yield _policy(information)
        yield _memory(information)
        yield _alone(information)
        yield from _fences(client)


def examine_cache() -> Iterator[Finding]:
    with closing(_cache_client()) as client:
        try:
            information: dict[str, Any] = client.info("everything")
        except redis.RedisError as error:
            hint = "pages are slower without it, nothing else; check FLUXGATE_CACHE_URL"
            yield _cache(Level.WARN, f"does not answer: {line(error)}", hint)
            return
    policy = information.get("maxmemory_policy", "")
    if information.get("maxmemory") and policy == "noeviction":
        text = "maxmemory-policy is noeviction: a full cache refuses instead of forgetting"
        yield _cache(Level.WARN, text, "set maxmemory-policy allkeys-lru")
    else:
        yield _cache(Level.OK, f"{_name(information)} answers, maxmemory-policy {policy or 'not told'}")


def _cache_client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.FLUXGATE.cache_url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


def _configured(client: redis.Redis) -> dict[str, str]:
    """Empty where the server does not let us ask, as hosted ones do not."""
    try:
        answer: Any = client.config_get("appendfsync", "min-replicas-to-write")
    except redis.ResponseError:
        return {}
    return dict(answer)


def _name(information: dict[str, Any]) -> str:
    if information.get("server_name") == "valkey":
        return f"Valkey {information.get('valkey_version')}"
    return f"Redis {information.get('redis_version')}"


def _version(information: dict[str, Any]) -> Finding:
    if int(str(information.get("redis_version", "0")).split(".")[0]) < OLDEST:
        return _gate(Level.FAIL, f"{_name(information)} is too old", f"Redis {OLDEST}.0 or newer, or Valkey")
    return _gate(Level.OK, f"{_name(information)} answers")


def _role(information: dict[str, Any]) -> Finding:
    if information.get("role") != "master":
        hint = "point FLUXGATE_GATE_URL at the primary"
        return _gate(Level.FAIL, f"is a {information.get('role')}: it takes no claims", hint)
    replicas = int(information.get("connected_slaves", 0))
    if not replicas:
        return _gate(Level.OK, "no replica: a lost machine is followed by arming from the order book")
    if not information.get("min_slaves_good_slaves"):
        hint = "a split may grant units on both sides, which are refused later: set min-replicas-to-write 1"
        return _gate(Level.WARN, f"{replicas} replicas, min-replicas-to-write is not set", hint)
    return _gate(Level.OK, f"{replicas} replicas, min-replicas-to-write is set")


def _persistence(information: dict[str, Any], configured: dict[str, str]) -> Iterator[Finding]:
    if (
        information.get("aof_last_write_status") == "err"
        or information.get("rdb_last_bgsave_status") == "err"
    ):
        yield _gate(
            Level.FAIL, "could not write its file: it may refuse claims", "look at its disk and its log"
        )
    if not information.get("aof_enabled"):
        hint = "set appendonly yes: without it a restart forgets held claims, and the gate is armed anew"
        yield _gate(Level.WARN, "appendonly is no", hint)
        return
    policy = configured.get("appendfsync")
    if policy is None:
        yield _gate(Level.WARN, "appendonly yes, appendfsync not told", "everysec or always is wanted")
    elif policy == "no":
        hint = "set appendfsync everysec: a crash of the machine loses what the system had not written yet"
        yield _gate(Level.WARN, "appendonly yes, appendfsync no", hint)
    else:
        yield _gate(Level.OK, f"appendonly yes, appendfsync {policy}")


def _policy(information: dict[str, Any]) -> Finding:
    policy = information.get("maxmemory_policy", "not told")
    if policy == "noeviction":
        return _gate(Level.OK, "maxmemory-policy noeviction")
    hint = "set maxmemory-policy noeviction: an evicted claim is a unit granted and forgotten"
    return _gate(Level.FAIL, f"maxmemory-policy is {policy}", hint)


def _memory(information: dict[str, Any]) -> Finding:
    used, limit = int(information["used_memory"]), int(information.get("maxmemory") or 0)
    megabytes = f"{used / 2**20:.0f} MiB used"
    if not limit:
        return _gate(Level.OK, f"{megabytes}, no maxmemory: the machine is the limit")
    text = f"{megabytes} of {limit / 2**20:.0f} MiB"
    hint = "give it more memory before the sale: a full gate refuses every new order"
    coming = _units_to_come() * BYTES_PER_CLAIM
    if used > 0.95 * limit:
        return _gate(Level.FAIL, text, hint)
    if used + coming > 0.9 * limit:
        return _gate(Level.WARN, f"{text}, and {coming / 2**20:.0f} MiB more when everything is sold", hint)
    return _gate(Level.OK, text)


def _units_to_come() -> int:
    left = Sale.objects.filter(state__in=GATED).aggregate(units=Sum(F("allotment") - F("sold")))["units"]
    return int(left or 0)


def _alone(information: dict[str, Any]) -> Finding:
    """By what the servers say of themselves: two addresses may lead to one of them."""
    try:
        with closing(_cache_client()) as client:
            other: dict[str, Any] = client.info("server")
    except redis.RedisError:
        return _gate(Level.WARN, "whether the cache is another instance is not known: it does not answer")
    if other.get("run_id") == information.get("run_id"):
        hint = "clearing the cache is FLUSHDB, and its eviction drops claims: give the cache its own instance"
        return _gate(Level.FAIL, "gate and cache are one instance", hint)
    return _gate(Level.OK, "the cache is another instance")


def _fences(client: redis.Redis) -> Iterator[Finding]:
    sales = list(Sale.objects.filter(state__in=GATED))
    fallen = fence.fallen(client, sales)
    for sale, reason in fallen:
        hint = "run_gatekeeper arms it again within seconds; if it does not, look at its log"
        yield _gate(Level.FAIL, f"the gate of {sale.slug} does not stand: {reason}", hint)
    if not sales:
        yield _gate(Level.OK, "no sale is armed")
    elif len(fallen) < len(sales):
        yield _gate(
            Level.OK, f"{len(sales) - len(fallen)} of {len(sales)} armed sales have a gate that stands"
        )
