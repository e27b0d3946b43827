"""Orders that wait in the log: granted by the real gate, in the wire format, not written down yet."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec
from confluent_kafka import Producer

from bench.errors import Unfit

if TYPE_CHECKING:
    from orders.claims import Record
    from sales.models import Sale

_ATTEMPTS = 120  # in one call of the gate
_PATIENCE_SECONDS = 120.0


def fill(sales: Mapping[str, int]) -> int:
    """So many orders of each open sale, each by a buyer of its own. Returns how many that are."""
    from sales import gate
    from sales.models import Sale

    with gate.connect() as client:
        return append(
            record
            for slug, orders in sales.items()
            for record in granted(client, Sale.objects.get(slug=slug), orders)
        )


def granted(client: Any, sale: "Sale", orders: int) -> Iterator["Record"]:
    """Records of claims that the gate has granted and knows as queued."""
    from orders import claims
    from sales import directory, gate
    from sales.topic import partition_of

    [facts] = directory.published(client, [sale.slug])
    assert facts is not None
    keys, partition = gate.pool_keys(sale.id), partition_of(sale.id)
    for first in range(0, orders, _ATTEMPTS):
        customers = [f"early-{number}" for number in range(first, min(first + _ATTEMPTS, orders))]
        ids = {UUID(str(claims.order_id(sale.id, each, "early"))): each for each in customers}
        words = [word for order_id, each in ids.items() for word in (str(order_id), each, 1, "0")]
        reply: Any = client.evalsha(facts.seal, len(keys), *keys, *words)
        if set(reply[1::3]) != {"claimed"}:
            raise Unfit(f"the gate did not grant everything: {reply[1::3][:3]}")
        gate.mark_queued(client, sale.id, 0, sale.epoch, list(ids))
        for (order_id, customer), at in zip(ids.items(), reply[2::3], strict=True):
            yield claims.encode(_claim(sale, order_id, customer, gate.from_ms(at)), partition)


def append(records: Iterable["Record"]) -> int:
    """All of them, acknowledged. Returns how many. Raises Unfit."""
    from django.conf import settings

    producer, topic, count = _producer(), settings.FLUXGATE.kafka_topic, 0
    for record in records:
        producer.produce(
            topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=record.headers,  # type: ignore[arg-type]  # its list type is invariant
        )
        producer.poll(0)
        count += 1
    _flush(producer)
    return count


def fill_reference(sales: Mapping[str, int]) -> int:
    """The same for the reference's worker, as its service would append them."""
    from django.conf import settings

    producer, count = _producer(), 0
    topic = settings.FLUXGATE.kafka_topic
    for slug, orders in sales.items():
        for number in range(orders):
            order = {
                "order_id": str(uuid4()),
                "sale": slug,
                "user_id": f"early-{number}",
                "quantity": 1,
                "at": 1_700_000_000_000,
            }
            producer.produce(topic, value=msgspec.json.encode(order), key=slug.encode())
            count += 1
            producer.poll(0)
    _flush(producer)
    return count


def _claim(sale: "Sale", order_id: UUID, customer: str, claimed_at: datetime) -> Any:
    from orders.claims import Claim

    return Claim(
        v=1, order_id=order_id, sale_id=sale.id, product_id=sale.product_id, user_id=customer, quantity=1,
        unit_price=Decimal("19.90"), currency=sale.currency, pool=0, epoch=sale.epoch, claimed_at=claimed_at,
    )  # fmt: skip


def _producer() -> Producer:
    from sales.topic import client_config

    return Producer(
        {
            **client_config(),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 2_000_000,
        }
    )


def _flush(producer: Producer) -> None:
    if left := producer.flush(_PATIENCE_SECONDS):
        raise Unfit(f"the log has not acknowledged {left} records after {_PATIENCE_SECONDS:g} s")
