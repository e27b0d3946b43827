"""The ends of sales: closed when the last claim has been written down; settled, without a gate for good."""

import redis

from orders import book
from sales import arming, directory, fence, gate
from sales.models import Sale, SaleState


def finish_closing(client: redis.Redis) -> int:
    """closing -> closed for every sale whose gate holds nothing unwritten. Returns how many; never raises
    for a server that is away: it is asked again."""
    finished = 0
    try:
        closing = list(Sale.objects.filter(state=SaleState.CLOSING))
        fallen = {sale.id for sale, _ in fence.fallen(client, closing)}
        for sale in closing:
            image = None if sale.id in fallen else gate.image(client, sale.id)
            if image is not None and not image.held and not image.queued:
                arming.close(sale, actor="gatekeeper")
                finished += 1
    except book.AWAY:
        book.disconnect()
    except (gate.GateUnreachable, redis.RedisError, arming.Refused):
        pass
    return finished


def finish_settling(client: redis.Redis) -> int:
    """Withdraws settled sales whose gate a Redis has brought back that lost its last moments. Returns how
    many; never raises for a server that is away: it is asked again.

    Nobody else would: the fence watches sales that have a gate.
    """
    found = 0
    try:
        settled = list(directory.public_sales().filter(state=SaleState.SETTLED))
        told = directory.published(client, [sale.slug for sale in settled])
        for sale, facts in zip(settled, told, strict=True):
            if facts is None or not facts.over:
                arming.withdraw(client, sale)
                found += 1
    except book.AWAY:
        book.disconnect()
    except (gate.GateUnreachable, redis.RedisError):
        pass
    return found
