"""The gate's words: keys, scripts, verdicts, and the synchronous calls of operators and consumers.

The Lua under `sales/lua/` decides; this module spells its keys and arguments. The web
processes take units through `sales.turnstile`; everything else about the gate is here.
All keys of a pool share one hash tag, so that Redis Cluster can carry them.
"""

import enum
import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

DIRECTORY = "fluxgate:directory"  # hash: slug -> Facts as JSON; absent altogether when Redis was wiped
_LUA = Path(__file__).parent / "lua"


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


class ClaimLetter(enum.StrEnum):
    """The first letter of a claim in the gate."""

    HELD = "h"
    QUEUED = "q"
    SETTLED = "s"
    RELEASED = "r"


class GateUnreachable(Exception):
    """Redis did not answer in time. Whether a unit was taken is unknown: ask again with the same key."""


class Fenced(Exception):
    """This is not the incarnation of Redis that was armed: nothing was decided, nothing taken."""


class Facts(msgspec.Struct, frozen=True):
    """What a web process must know of a sale without asking PostgreSQL. Times are Unix ms.

    `seal` is the SHA of the armed claim script, empty while the sale is not armed.
    """

    sale_id: UUID
    slug: str
    product_id: int
    unit_price: str
    currency: str
    opens_at: int
    closes_at: int
    pool: int = 0
    partition: int = 0
    epoch: int = 0
    seal: str = ""


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


def seal(keys: PoolKeys, epoch: int, incarnation: str) -> tuple[str, str]:
    """The claim script of one arming and its SHA-1, the name under which Redis keeps it.

    The pool stands in the text as well: two sales armed in the same millisecond share the epoch.
    `incarnation` is the replication id (hex) of the Redis that is being armed.
    """
    if not (incarnation.isalnum() and incarnation.isascii()):
        raise ValueError(f"not a replication id: {incarnation!r}")
    text = script("claim")
    for constant, value in (("GATE", keys.gate), ("EPOCH", epoch), ("INCARNATION", incarnation)):
        text = text.replace(f"@{constant}@", str(value))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def from_ms(milliseconds: int | str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def to_ms(moment: datetime) -> int:
    return math.floor(moment.timestamp() * 1000)  # down: the last moment of year 9999 must stay in it


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
    return redis.Redis.from_url(url or settings.FLUXGATE.gate_url, **options)


@contextmanager
def reaching() -> Iterator[None]:
    """Translates every failure of the connection into GateUnreachable. A scripting error stays one."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise GateUnreachable(f"the gate's Redis does not answer: {error}") from error


def settle_arguments(epoch: int, letter: ClaimLetter, order_ids: Iterable[UUID]) -> list[str]:
    return [str(epoch), letter, *map(str, order_ids)]


def _move(
    client: redis.Redis, sale_id: UUID, pool: int, epoch: int, letter: ClaimLetter, order_ids: Iterable[UUID]
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
    """held -> queued, after the log's acknowledgement. Returns how many moved."""
    return _move(client, sale_id, pool, epoch, ClaimLetter.QUEUED, order_ids)


def settle(client: redis.Redis, sale_id: UUID, pool: int, epoch: int, order_ids: Iterable[UUID]) -> int:
    """held | queued -> settled, after the order book's commit. Returns how many moved."""
    return _move(client, sale_id, pool, epoch, ClaimLetter.SETTLED, order_ids)


def release(client: redis.Redis, sale_id: UUID, pool: int, epoch: int, order_ids: Iterable[UUID]) -> int:
    """Gives units back, each order's once. Returns how many were released. Raises GateUnreachable."""
    with reaching():
        released: Any = client.eval(
            script("release"), 4, *pool_keys(sale_id, pool), str(epoch), *map(str, order_ids)
        )
    return int(released)


def held(
    client: redis.Redis, sale_id: UUID, pool: int, older_than_seconds: float, limit: int = 500
) -> list[Held]:
    """Claims that have been held for longer than this on the gate's clock, oldest first."""
    keys = pool_keys(sale_id, pool)
    with reaching():
        seconds, micros = client.time()
        before = int(seconds * 1000 + micros / 1000 - older_than_seconds * 1000)
        ids: Any = client.zrange(keys.pending, "-inf", before, byscore=True, offset=0, num=limit)
        values: Any = client.hmget(keys.claims, ids) if ids else []
    found = []
    for order_id, value in zip(ids, values, strict=True):
        if value is not None:
            claim = parse_claim(value)
            found.append(Held(UUID(order_id), claim.customer, claim.quantity, claim.claimed_at, claim.epoch))
    return found


def parse_claim(value: str) -> GateClaim:
    """Reads `<letter><quantity>:<claimed_at ms>:<epoch>:<customer>`, as claim.lua writes it."""
    head, claimed_at, epoch, customer = value.split(":", 3)
    return GateClaim(ClaimLetter(head[0]), int(head[1:]), from_ms(claimed_at), int(epoch), customer)


def is_sealed(client: redis.Redis, slug: str) -> bool:
    """Whether the sealed script of the sale is still loaded: without it the fence is down, and nothing sells.

    Raises GateUnreachable.
    """
    with reaching():
        published: Any = client.hget(DIRECTORY, slug)
        if published is None:
            return False
        sha = msgspec.json.decode(published, type=Facts).seal
        loaded: Any = client.script_exists(sha) if sha else [False]
    return bool(loaded[0])


def image(client: redis.Redis, sale_id: UUID, pool: int = 0) -> Image | None:
    """The running image of a pool, or None when the gate holds none. Raises GateUnreachable."""
    with reaching():
        values: Any = client.hmget(pool_keys(sale_id, pool).gate, list(Image._fields))
    if values[0] is None:
        return None
    epoch, state, *units = values
    return Image(int(epoch), state, *map(int, units))
