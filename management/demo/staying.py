"""`--stay`: the site is left running, with something to buy by hand."""

import time
from datetime import timedelta

from django.utils import timezone
from rich.console import Console

from management.demo import shop
from management.demo.site import Site
from management.demo.stopping import Stopped
from sales.models import Sale

_SOON = timedelta(minutes=1)
_LOOK_SECONDS = 0.5


def stay(console: Console, site: Site, sales: list[Sale]) -> None:
    """Returns after Ctrl-C. Adds its sales to `sales`. Raises processes.Broken and sales.arming.Refused."""
    started = timezone.now().replace(microsecond=0)
    sales.append(
        shop.open_sale(
            shop.new_slug("now"),
            name="First print run",
            product="Letterpress calendar",
            description="Twelve plates from the hand press, numbered. Two per customer.",
            opens_at=started,
            units=120,
            limit=2,
            price="34.00",
        )
    )
    sales.append(
        shop.open_sale(
            shop.new_slug("soon"),
            name="Evening edition",
            product="Walnut desk lamp",
            description="Turned from one piece of wood, with a dimmer. One per customer.",
            opens_at=started + _SOON,
            units=25,
            limit=1,
            price="149.00",
        )
    )
    sales.append(
        shop.open_sale(
            shop.new_slug("line"),
            name="By lot",
            product="Porcelain moon jar",
            description="Thrown by one potter, glazed by another. With a waiting room: join the line.",
            opens_at=started + 2 * _SOON,
            units=12,
            limit=1,
            price="480.00",
            room={"turn_rate": 1, "message": "The jars are packed by hand and leave on Monday."},
        )
    )
    now, soon, line = sales[-3:]
    console.print(
        f"to buy      “{now.name}” now, “{soon.name}” from {soon.opens_at:%H:%M:%S} UTC, in a minute"
    )
    console.print(f"in line     “{line.name}” from {line.opens_at:%H:%M:%S} UTC, drawn by lot")
    console.print("Everything is left running. Ctrl-C ends it.")
    try:
        while True:
            site.check()
            time.sleep(_LOOK_SECONDS)
    except Stopped:
        console.print("ending ...")
