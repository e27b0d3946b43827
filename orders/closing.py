"""Closing sales: a sale is closed when the last of its claims has been written down."""

import redis

from orders import book
from sales import arming, fence, gate
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
