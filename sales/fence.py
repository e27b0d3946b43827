"""The fence: a gate sells only on the very Redis, and under the very arming, it was built for.

Redis forgets loaded scripts on a restart and does not copy them to replicas, while old data may
survive both. So each arming writes its epoch into the text of the claim script, which gives it a
SHA of its own: the seal. NOSCRIPT then means another incarnation, and whoever meets it fails
closed. A failover and back finds the old script still loaded; the replication id differs then.

Building a gate is the same work for a first arming and for one after a loss: `shut`, `build`,
`load` what the order book has, `raise_seal`, `switch`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID

import redis

from sales import directory
from sales.directory import GATED
from sales.gate import ClaimLetter, PoolKeys, pool_keys, reaching, script, to_ms
from sales.models import Sale, SaleState

Switched = Literal["switched", "stale", "arming", "closed", "turned"]

GATE_STATE: dict[str, str] = {state: state for state in GATED} | {SaleState.CLOSING: "closed"}


class Known(NamedTuple):
    """An order of the order book, as the gate remembers it."""

    order_id: UUID
    letter: ClaimLetter
    quantity: int
    claimed_at_ms: int
    epoch: int
    customer: str


class Arming(NamedTuple):
    """One arming of one pool."""

    sale_id: UUID
    pool: int
    epoch: int

    @property
    def keys(self) -> PoolKeys:
        return pool_keys(self.sale_id, self.pool)


def incarnation(client: redis.Redis) -> str:
    """The replication id (hex) of the Redis that answers. Raises GateUnreachable."""
    with reaching():
        information: Any = client.info("replication")
    return str(information["master_replid"])


def seal(keys: PoolKeys, epoch: int, incarnation: str) -> tuple[str, str]:
    """The claim script of one arming and its SHA-1, the name under which Redis keeps it.

    The pool stands in the text as well: two sales armed in the same millisecond share the epoch.
    """
    if not (incarnation.isalnum() and incarnation.isascii()):
        raise ValueError(f"not a replication id: {incarnation!r}")
    text = script("claim")
    for constant, value in (("GATE", keys.gate), ("EPOCH", epoch), ("INCARNATION", incarnation)):
        text = text.replace(f"@{constant}@", str(value))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def fallen(client: redis.Redis, sales: Sequence[Sale]) -> list[tuple[Sale, str]]:
    """Those of these sales whose gate does not stand, each with the reason. Raises GateUnreachable."""
    if not sales:
        return []
    now = incarnation(client)
    told = directory.published(client, [sale.slug for sale in sales])
    with reaching():
        loaded: Any = client.script_exists(*(facts.seal if facts else "" for facts in told))
        pipeline = client.pipeline(transaction=False)
        for sale in sales:
            pipeline.hmget(pool_keys(sale.id).gate, ["epoch", "state"])
        gates = pipeline.execute()
    found = []
    for sale, facts, is_loaded, (epoch, state) in zip(sales, told, loaded, gates, strict=True):
        reason = ""
        if facts is None or epoch is None:
            reason = "Redis has lost the gate"
        elif facts.fenced or state == "arming":
            reason = "an arming has not ended"
        elif not is_loaded:
            reason = "Redis has restarted, or another server has taken over"
        elif facts.incarnation != now:
            reason = "another server has been in charge meanwhile"
        elif not int(epoch) == facts.epoch == sale.epoch:
            reason = f"epochs differ: gate {epoch}, directory {facts.epoch}, sale {sale.epoch}"
        if reason:
            found.append((sale, reason))
    return found


def differing(client: redis.Redis, sales: Sequence[Sale]) -> list[Sale]:
    """Those whose gate is in another state than the sale, and can follow it. Raises GateUnreachable."""
    with reaching():
        pipeline = client.pipeline(transaction=False)
        for sale in sales:
            pipeline.hget(pool_keys(sale.id).gate, "state")
        states = pipeline.execute()
    return [
        sale
        for sale, state in zip(sales, states, strict=True)
        if state not in (GATE_STATE[sale.state], "arming", "closed", None)
    ]


def shut(client: redis.Redis, arming: Arming) -> bool:
    """Nothing is claimed from here on. False: a later arming has been here. Raises GateUnreachable."""
    with reaching():
        return client.eval(script("fence"), 1, arming.keys.gate, arming.epoch) == "fenced"


def build(client: redis.Redis, sale: Sale, arming: Arming) -> bool:
    """Builds the gate, empty of claims and still shut. False: a later arming has been here."""
    fields = {
        "opens_at": to_ms(sale.opens_at),
        "closes_at": to_ms(sale.closes_at),
        "limit": sale.limit_per_customer,
        "rate": sale.admission_rate,
        "admission_required": int(sale.admission_required),
    }
    flat = [item for pair in fields.items() for item in pair]
    with reaching():
        reply = client.eval(script("arm"), 4, *arming.keys, arming.epoch, sale.allotment, sale.burst, *flat)
    return reply == "armed"


def load(client: redis.Redis, arming: Arming, orders: Iterable[Known]) -> bool:
    """Puts orders into the gate that has been built. False: a later arming has been here."""
    arguments: list[Any] = []
    for order in orders:
        arguments += (
            str(order.order_id),
            order.letter,
            order.quantity,
            order.claimed_at_ms,
            order.epoch,
            order.customer,
        )
    with reaching():
        reply = client.eval(script("load"), 3, *arming.keys[:3], arming.epoch, *arguments)
    return reply == "loaded"


def raise_seal(client: redis.Redis, arming: Arming, incarnation: str) -> str:
    """Loads the sealed script and returns its SHA. Raises GateUnreachable."""
    text, sha = seal(arming.keys, arming.epoch, incarnation)
    with reaching():
        client.script_load(text)
    return sha


def turn(client: redis.Redis, arming: Arming) -> str | None:
    """The number of the gate's last switch, None without a gate. Read it before deciding on one."""
    with reaching():
        found: Any = client.hget(arming.keys.gate, "turn")
    return None if found is None else str(found)


def switch(
    client: redis.Redis, arming: Arming, state: str, turn: str = "", *, building: bool = False
) -> Switched:
    """Opens, pauses or closes the gate; `building` from the arming that has built it. See switch.lua."""
    with reaching():
        reply: Any = client.eval(
            script("switch"), 1, arming.keys.gate, arming.epoch, state, turn, "arming" if building else ""
        )
    return reply


def stop(client: redis.Redis, sale_id: UUID, pool: int, state: str) -> Switched:
    """Pauses or closes whichever gate stands: one whose epoch PostgreSQL has lost sells like any other."""
    with reaching():
        reply: Any = client.eval(script("switch"), 1, pool_keys(sale_id, pool).gate, "", state, "", "")
    return reply
