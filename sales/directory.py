"""The gate's directory: what the web processes know of every public sale without asking PostgreSQL.

It lives in the gate's Redis and is lost with it. Whoever publishes into an empty one publishes
every public sale first: a directory with holes would answer 404 for a sale that exists.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import redis
from django.db.models import Q, QuerySet
from django.utils import timezone

from sales import topic
from sales.gate import reaching, to_ms
from sales.models import Sale, SaleState

DIRECTORY = "fluxgate:directory"  # hash: slug -> Facts as JSON; absent altogether when Redis was wiped

# From arming on a sale has a gate: to sell, and later to tell buyers what they bought.
GATED = (SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED, SaleState.CLOSING, SaleState.CLOSED)

# How long a settled sale's keys are known at least, after its window and its settling.
KEPT_SETTLED = timedelta(days=30)


class Facts(msgspec.Struct, frozen=True):
    """What a web process must know of a sale. Times are Unix ms.

    `seal` is the SHA of the armed claim script, empty while the sale is not armed; `incarnation`
    is the replication id of the Redis it was armed on. `fenced` says that the gate is being armed
    again: nothing can be decided, and nobody can say that an order does not exist. `over`: the sale is
    settled, it has no gate any more, and the order book alone knows what became of it.
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
    incarnation: str = ""
    fenced: bool = False
    over: bool = False


def facts(sale: Sale) -> Facts:
    """The sale's facts without its seal."""
    return Facts(
        sale_id=sale.id,
        slug=sale.slug,
        product_id=sale.product_id,
        unit_price=str(sale.unit_price),
        currency=sale.currency,
        opens_at=to_ms(sale.opens_at),
        closes_at=to_ms(sale.closes_at),
        partition=topic.partition_of(sale.id),
        over=sale.state == SaleState.SETTLED,
    )


def public_sales() -> QuerySet[Sale]:
    """Every sale the web processes must know of."""
    past = timezone.now() - KEPT_SETTLED
    forgotten = Q(state=SaleState.SETTLED, closes_at__lt=past, updated_at__lt=past)
    return Sale.objects.exclude(Q(state=SaleState.DRAFT) | forgotten)


def publish(client: redis.Redis, sale: Sale, public: Iterable[Sale], **sealed: Any) -> None:
    """Tells the web processes of a sale, and of those of the `public` ones that are missing, all at once.

    `sealed` are the fields arming adds to the facts. Raises GateUnreachable.
    """
    with reaching():
        pipeline = _restoring(client, public)
        pipeline.hset(DIRECTORY, sale.slug, _encode(msgspec.structs.replace(facts(sale), **sealed)))
        pipeline.execute()


def forget(client: redis.Redis) -> None:
    """Takes the sales out that were settled long ago. Raises GateUnreachable."""
    with reaching():
        values: Any = client.hvals(DIRECTORY)
        over = {told.slug for told in map(decode, values) if told.over}
        kept = public_sales().filter(slug__in=over).values_list("slug", flat=True)
        if gone := over.difference(kept):
            client.hdel(DIRECTORY, *gone)


def exists(client: redis.Redis) -> bool:
    """False: Redis was wiped, or no sale has ever been public. Raises GateUnreachable."""
    with reaching():
        return bool(client.exists(DIRECTORY))


def restore(client: redis.Redis, public: Iterable[Sale]) -> None:
    """Publishes those of these sales that are missing, all at once. Raises GateUnreachable."""
    with reaching():
        _restoring(client, public).execute()


def _restoring(client: redis.Redis, public: Iterable[Sale]) -> Any:
    """One that has been armed before is published as fenced: its gate was lost with the directory."""
    pipeline = client.pipeline(transaction=True)
    for sale in public:
        missing = msgspec.structs.replace(facts(sale), fenced=sale.state in GATED)
        pipeline.hsetnx(DIRECTORY, sale.slug, _encode(missing))
    return pipeline


def published(client: redis.Redis, slugs: Iterable[str]) -> list[Facts | None]:
    """What the web processes are told of these sales. Raises GateUnreachable."""
    wanted = list(slugs)
    if not wanted:
        return []
    with reaching():
        values: Any = client.hmget(DIRECTORY, wanted)
    return [None if value is None else decode(value) for value in values]


def decode(value: str) -> Facts:
    return msgspec.json.decode(value, type=Facts)


def _encode(told: Facts) -> str:
    return msgspec.json.encode(told).decode()
