"""Contract: the same commands on the twin of Redis and on the real one give the same replies."""

import random
import re
import time
from typing import Any
from uuid import UUID

import pytest
import redis

from sales.fence import seal
from sales.gate import PoolKeys, pool_keys, script
from tests.simulation.redis_clients import Direct
from tests.simulation.redis_twin import Node

_MOMENT = re.compile(r"1[6-9]\d{8}(\d{3})?")  # Unix seconds or milliseconds of this decade


def _twin(gate: redis.Redis) -> Direct:
    replication_id = gate.info("replication")["master_replid"]
    return Direct(Node("twin", time.time, replication_id))


def _both(gate: redis.Redis, twin: Direct, *command: Any) -> None:
    """Sends a command to both, and compares the replies, or what they refuse with."""
    replies = []
    for client in (gate, twin):
        try:
            reply: Any = client.execute_command(*command)
        except redis.RedisError as error:
            # Servers word their own refusals as they like; ours are part of the protocol.
            reply = (type(error).__name__, str(error) if str(error).startswith("FENCED") else "")
        replies.append(_comparable(reply))
    assert replies[0] == replies[1], command


def _comparable(reply: Any) -> Any:
    if isinstance(reply, str | int):
        return _MOMENT.sub("T", str(reply))
    if isinstance(reply, list | tuple):
        return [_comparable(item) for item in reply]
    if isinstance(reply, dict):  # the tokens count milliseconds, which differ
        return {name: _comparable(value) for name, value in sorted(reply.items()) if name != "tokens"}
    return reply


def _plain(rng: random.Random) -> tuple[Any, ...]:
    key = rng.choice(["twin:a", "twin:b", "twin:c"])
    field, other = rng.choice("xyz"), rng.choice("xyz")
    number = rng.randint(-5, 5)
    return rng.choice(
        [
            ("HSET", key, field, number),
            ("HSET", key, field, number, other, "text"),
            ("HSETNX", key, field, number),
            ("HGET", key, field),
            ("HMGET", key, field, other),
            ("HGETALL", key),
            ("HDEL", key, field, other),
            ("HINCRBY", key, field, number),
            ("HLEN", key),
            ("HEXISTS", key, field),
            ("HVALS", key),
            ("EXISTS", key, "twin:a"),
            ("DEL", key, "twin:none"),
            ("ZADD", key, number, field, 2.5, other),
            ("ZRANGE", key, "-inf", number, "BYSCORE", "LIMIT", 0, 2),
            ("ZRANGE", key, 0, -1),
            ("ZREM", key, field),
            ("ZCARD", key),
            ("ZSCORE", key, field),
            ("SCRIPT EXISTS", "0" * 40),
            ("EVALSHA", "0" * 40, 0),
            ("EVAL", "return redis.call('HMGET', KEYS[1], 'x', 'q')", 1, key),
            ("EVAL", "return { 1, 2.9, 'three', false, 'never' }", 0),
            ("EVAL", "return redis.error_reply('FENCED gate')", 0),
            ("EVAL", "return redis.status_reply('well')", 0),
            ("EVAL", "return redis.call('HINCRBY', KEYS[1], 'x', ARGV[1])", 1, key, number),
            ("EVAL", "redis.call('HSET', KEYS[1], 'y', 0.5); return 'well'", 1, key),
            ("EVAL", "return 7 == 7", 0),
            ("EVAL", "return redis.call('EXISTS', KEYS[1]) == 2", 1, key),
        ]
    )  # fmt: skip


def _scripted(rng: random.Random, keys: PoolKeys, sha: str) -> tuple[Any, ...]:
    """A call of a shipped script, often a wrong one."""
    ids = [str(UUID(int=number)) for number in range(12)]
    letter, of = rng.choice("qs"), rng.choice(["", 5])
    some = rng.sample(ids, 3)
    epoch = rng.choice([1, 5, 5, 5, 9])
    attempts = [
        word
        for order in some
        for word in (order, f"buyer-{rng.randint(0, 4)}", rng.randint(1, 2), rng.choice("01"))
    ]
    orders = [
        word for order in some for word in (order, rng.choice("sr"), 1, 1_700_000_000_000, 3, "buyer-x")
    ]
    fields = ("opens_at", 0, "closes_at", 99_999_999_999_999, "limit", 3, "rate", 1, "admission_required", 0)
    return rng.choice(
        [
            *[("EVALSHA", sha, 4, *keys, *attempts)] * 8,
            *[("EVAL", script("settle"), 3, *keys[:2], keys[3], of, letter, *some)] * 4,
            *[("EVAL", script("release"), 4, *keys, *some)] * 2,
            *[("EVAL", script("load"), 3, *keys[:3], epoch, *orders)] * 2,
            *[
                ("EVAL", script("switch"), 1, keys.gate, rng.choice([5, 5, ""]), state, turn, building)
                for state in ("open", "open", "paused")
                for turn in ("", "", "2")
                for building in ("", "arming")
            ],
            ("EVAL", script("fence"), 1, keys.gate, rng.choice([3, 5, 5])),
            *[("EVAL", script("arm"), 4, *keys, 5, 7, 1000, *fields)] * 2,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_plain_commands(gate: redis.Redis, seed: int) -> None:
    rng = random.Random(seed)
    twin = _twin(gate)
    gate.delete("twin:a", "twin:b", "twin:c")
    for _ in range(150):
        _both(gate, twin, *_plain(rng))
    for key in ("twin:a", "twin:b", "twin:c"):
        assert gate.exists(key) == twin.exists(key)


@pytest.mark.parametrize("seed", range(12))
def test_every_shipped_script(gate: redis.Redis, seed: int) -> None:
    rng = random.Random(seed)
    twin = _twin(gate)
    sale_id = UUID(int=rng.getrandbits(128))
    keys = pool_keys(sale_id)
    text, sha = seal(keys, 5, gate.info("replication")["master_replid"])
    for client in (gate, twin):
        assert client.script_load(text) == sha
    for _ in range(120):
        _both(gate, twin, *_scripted(rng, keys, sha))
        for client in (gate, twin):  # the 51 ms after units came back end for one sooner than for the other
            if client.hget(keys.gate, "back_at") is not None:
                client.hset(keys.gate, "back_at", 1)
        for key in keys[:3]:
            _both(gate, twin, "HGETALL", key)
        _both(gate, twin, "ZRANGE", keys.pending, 0, -1)


def test_a_node_that_restarts_has_no_scripts_and_another_name(gate: redis.Redis) -> None:
    """What the fence stands on; the kill tests show the same of real servers."""
    node = Node("twin", time.time, "a" * 40)
    client = Direct(node)
    sha = client.script_load("return 1")
    client.hset("key", "field", "value")
    node.replay(node.journal)
    assert client.hget("key", "field") == "value"
    assert client.evalsha(sha, 0) == 1  # replaying alone is what a replica does
    node.scripts = {}
    with pytest.raises(redis.exceptions.NoScriptError):
        client.evalsha(sha, 0)
