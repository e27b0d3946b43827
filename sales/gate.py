"""The gate's words: keys, scripts, verdicts, and the synchronous calls of operators and consumers.

The Lua under `sales/lua/` decides; this module spells its keys and arguments. The web
processes take units through `sales.turnstile`; everything else about the gate is here.
All keys of a pool share one hash tag, so that Redis Cluster can carry them.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from sales import redis_urls

_UNIX = datetime.fromtimestamp(0, UTC)
POOL = 0  # a sale has one pool until it outgrows a machine
_LUA = Path(__file__).parent / "lua"
_CHUNK = 1000
Id = TypeVar("Id", UUID, str)


class Verdict(enum.StrEnum):
    """The gate's one-word answers. A test holds them against the header of claim.lua."""

    CLAIMED = "claimed"
    REPLAYED = "replayed"
    KEY_REUSED = "key_reused"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    PAUSED = "paused"
    ADMISSION_REQUIRED = "admission_required"
    BUSY = "busy"
    LIMIT_REACHED = "limit_reached"
    SOLD_OUT = "sold_out"


_VERDICTS = {str(verdict): verdict for verdict in Verdict}  # calling the enum costs ten times a look-up


class ClaimLetter(enum.StrEnum):
    """The first letter of a claim in the gate."""

    HELD = "h"
    QUEUED = "q"
    SETTLED = "s"
    RELEASED = "r"


class Attempt(NamedTuple):
    """`order_id` is the canonical spelling of a UUID."""

    order_id: str
    customer: str
    quantity: int
    admitted: bool = False


class Answer(NamedTuple):
    """A verdict and its details as claim.lua lists them; `now` is the gate's clock in Unix ms."""

    verdict: Verdict
    first: str
    second: str
    now: int


class GateUnreachable(Exception):
    """Redis did not answer in time. Whether a unit was taken is unknown: ask again with the same key."""


class Fenced(Exception):
    """This is not the incarnation of Redis that was armed: nothing was decided, nothing taken."""


class Held(NamedTuple):
    order_id: UUID
    customer: str
    quantity: int
    claimed_at: datetime
    epoch: int


class Image(NamedTuple):
    """The gate of one pool, in units. I2: loaded = remaining + held + queued + settled."""

    epoch: int
    state: str
    loaded: int
    remaining: int
    held: int
    queued: int
    settled: int
    released: int


class GateClaim(NamedTuple):
    """One claim as the gate knows it."""

    letter: ClaimLetter
    quantity: int
    claimed_at: datetime
    epoch: int
    customer: str


class PoolKeys(NamedTuple):
    """The four keys of a pool, in the order in which every script names them."""

    gate: str
    claims: str
    customers: str
    pending: str


def pool_keys(sale_id: UUID, pool: int = 0) -> PoolKeys:
    tag = f"fluxgate:{{{sale_id}:{pool}}}"
    return PoolKeys(f"{tag}:gate", f"{tag}:claims", f"{tag}:customers", f"{tag}:pending")


def script(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text()


@lru_cache(maxsize=256)  # a crowd's orders share their milliseconds
def from_ms(milliseconds: int | str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def to_ms(moment: datetime) -> int:
    return (moment - _UNIX) // timedelta(milliseconds=1)  # in whole numbers: a replay repeats it exactly


def connection_options() -> dict[str, Any]:
    """Of every client of the gate, sync or async: no retries (redis-py's default is ten), short timeouts."""
    seconds = settings.FLUXGATE.gate_timeout_ms / 1000
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }


def connect(url: str | None = None) -> redis.Redis:
    """A synchronous client for operators, commands and the consumer. Connects on first use."""
    options = connection_options()
    # A settle of a whole batch takes longer than one claim, and nobody waits for it on a phone.
    options["socket_timeout"] = max(2.0, options["socket_timeout"])
    return redis_urls.sync_client(url or settings.FLUXGATE.gate_url, **options)


@contextmanager
def reaching() -> Iterator[None]:
    """Translates every failure of the connection into GateUnreachable. A scripting error stays one."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise GateUnreachable(f"the gate's Redis does not answer: {error}") from error


def claim_arguments(attempts: Iterable[Attempt]) -> list[str | int]:
    """As claim.lua lists them."""
    arguments: list[str | int] = []
    for order_id, customer, quantity, admitted in attempts:
        arguments += (order_id, customer, quantity, "1" if admitted else "0")
    return arguments


def claim_answers(reply: Sequence[Any]) -> list[Answer]:
    now = int(reply[0])
    return [
        Answer(_VERDICTS[reply[i]], str(reply[i + 1]), str(reply[i + 2]), now)
        for i in range(1, len(reply), 3)
    ]


def settle_arguments(epoch: int | str, letter: ClaimLetter, order_ids: Iterable[UUID | str]) -> list[str]:
    return [str(epoch), letter, *msgspec.to_builtins(list(order_ids))]  # `str` of a UUID takes 1.7 µs


def _move(
    client: redis.Redis,
    sale_id: UUID,
    pool: int,
    epoch: int | str,
    letter: ClaimLetter,
    order_ids: Iterable[UUID],
) -> int:
    keys = pool_keys(sale_id, pool)
    with reaching():
        moved: Any = client.eval(
            script("settle"),
            3,
            keys.gate,
            keys.claims,
            keys.pending,
            *settle_arguments(epoch, letter, order_ids),
        )
    return int(moved)


def mark_queued(client: redis.Redis, sale_id: UUID, pool: int, epoch: int, order_ids: Iterable[UUID]) -> int:
    """held -> queued, after the log's acknowledgement of claims of this epoch. Returns how many moved."""
    return _move(client, sale_id, pool, epoch, ClaimLetter.QUEUED, order_ids)


def settle(client: redis.Redis, sale_id: UUID, pool: int, order_ids: Iterable[UUID]) -> int:
    """held | queued -> settled, after the order book's commit. Returns how many moved."""
    return _move(client, sale_id, pool, "", ClaimLetter.SETTLED, order_ids)


def release(client: redis.Redis, sale_id: UUID, pool: int, order_ids: Iterable[UUID]) -> int:
    """Gives units back, each order's once. Returns how many were released. Raises GateUnreachable."""
    with reaching():
        released: Any = client.eval(script("release"), 4, *pool_keys(sale_id, pool), *map(str, order_ids))
    return int(released)


def remove(client: redis.Redis, sale_id: UUID) -> None:
    """Deletes all that the gate's Redis keeps of a sale, its line included. Raises GateUnreachable."""
    with reaching():
        keys = list(client.scan_iter(match=f"fluxgate:{{{sale_id}:*", count=1000))
        if keys:
            client.unlink(*keys)


def held(
    client: redis.Redis, sale_id: UUID, pool: int, older_than_seconds: float, limit: int = 500
) -> list[Held]:
    """Claims that have been held for longer than this on the gate's clock, oldest first.

    A claim from the future counts as old: the clock has been set back since, and must not make it wait.
    """
    keys = pool_keys(sale_id, pool)
    with reaching():
        seconds, micros = client.time()
        now = int(seconds * 1000 + micros / 1000)
        before = now - int(older_than_seconds * 1000)
        ids: Any = client.zrange(keys.pending, "-inf", before, byscore=True, offset=0, num=limit)
        if len(ids) < limit:
            later: Any = client.zrange(
                keys.pending, now + 1000, "+inf", byscore=True, offset=0, num=limit - len(ids)
            )
            ids = ids + later
    return _held(client, keys, ids)


def all_held(client: redis.Redis, sale_id: UUID, pool: int) -> list[Held]:
    """Every claim that is held, oldest first. Raises GateUnreachable."""
    keys = pool_keys(sale_id, pool)
    with reaching():
        ids: Any = client.zrange(keys.pending, 0, -1)
    return [found for chunk in chunks(ids) for found in _held(client, keys, chunk)]


def _held(client: redis.Redis, keys: PoolKeys, ids: Sequence[str]) -> list[Held]:
    with reaching():
        values: Any = client.hmget(keys.claims, list(ids)) if ids else []
    found = []
    for order_id, value in zip(ids, values, strict=True):
        if value is not None:
            claim = parse_claim(value)
            found.append(Held(UUID(order_id), claim.customer, claim.quantity, claim.claimed_at, claim.epoch))
    return found


def chunks(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    """The ids in lists short enough for one call: a longer one keeps the gate from deciding meanwhile."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def parse_claim(value: str) -> GateClaim:
    """Reads `<letter><quantity>:<claimed_at ms>:<epoch>:<customer>`, as claim.lua writes it."""
    head, claimed_at, epoch, customer = value.split(":", 3)
    return GateClaim(ClaimLetter(head[0]), int(head[1:]), from_ms(claimed_at), int(epoch), customer)


def epoch(client: redis.Redis, sale_id: UUID, pool: int = 0) -> int:
    """The epoch of the gate that stands, 0 without one. Raises GateUnreachable."""
    with reaching():
        known: Any = client.hget(pool_keys(sale_id, pool).gate, "epoch")
    return int(known or 0)


def require_admission(client: redis.Redis, sale_id: UUID, required: bool, pool: int = 0) -> bool:
    """Whether buyers need an admission from now on. True: that is new. Raises GateUnreachable."""
    with reaching():
        reply = client.eval(script("admission"), 1, pool_keys(sale_id, pool).gate, str(int(required)))
    return reply == "changed"


def image(client: redis.Redis, sale_id: UUID, pool: int = 0) -> Image | None:
    """The running image of a pool, or None when the gate holds none. Raises GateUnreachable."""
    with reaching():
        values: Any = client.hmget(pool_keys(sale_id, pool).gate, list(Image._fields))
    if None in values:  # also a gate that was lost and has been fenced: it has an epoch and no units yet
        return None
    epoch, state, *units = values
    return Image(int(epoch), state, *map(int, units))
