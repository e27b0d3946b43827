"""The live numbers of one sale: its gate beside its row in the order book."""

from contextlib import closing
from typing import Any

import redis
from django.conf import settings
from django.utils import timezone

from sales import fence, gate, redis_urls
from sales.models import Sale, SaleState

# Before arming and after settling the gate holds nothing of the sale: nobody needs to ask it.
WITH_GATE = frozenset({SaleState.ARMING, *fence.GATED})


def live(sale: Sale) -> dict[str, Any]:
    """What gate and order book say, in units. Costs a few short round trips to the gate and no query.

    `gate` is None when the gate holds nothing of the sale; `reachable` is False when it did not
    answer in time (then `gate` is None as well); `sealed` is False when the fence is down.
    `balanced` is I2 of one moment: loaded = remaining + held + queued + settled. `claims` is how many
    the gate has of this sale, whatever became of them, at `clock`, its own in Unix ms.
    """
    image, sealed, reachable = None, True, True
    claims, clock = None, None
    if sale.state in WITH_GATE:
        try:
            # A page refreshed every two seconds waits as short as a buyer does, not as an arming does.
            client = redis_urls.sync_client(settings.FLUXGATE.gate_url, **gate.connection_options())
            with closing(client):
                image = gate.image(client, sale.pk)
                claims, clock = _claims(client, sale)
                sealed = image is None or not fence.fallen(client, [sale])
        except (gate.GateUnreachable, redis.RedisError):
            reachable, image, claims, clock = False, None, None, None
    return {
        "state": sale.state,
        "label": sale.get_state_display(),
        "epoch": sale.epoch,
        "allotment": sale.allotment,
        "sold": sale.sold,
        "reachable": reachable,
        "sealed": sealed,
        "gate": image._asdict() if image else None,
        "claims": claims,
        "clock": clock,
        "balanced": (
            image.loaded == image.remaining + image.held + image.queued + image.settled if image else None
        ),
        "at": timezone.now().isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _claims(client: redis.Redis, sale: Sale) -> tuple[int, int]:
    with gate.reaching():
        pipeline = client.pipeline(transaction=False)
        pipeline.hlen(gate.pool_keys(sale.pk).claims)
        pipeline.time()
        claims, (seconds, micros) = pipeline.execute()
    return int(claims), int(seconds) * 1000 + int(micros) // 1000
