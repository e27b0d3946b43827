"""Operators at work while the sale runs."""

import threading
import time

from tests.chaos import history
from tests.chaos.registry import row
from tests.chaos.scenario import Scenario


@row("stock-changes", "operators: 60 changes of stock from three desks at once, mid-sale", seconds=12)
def stock_changes(chaos: Scenario) -> None:
    from django.db import connection

    from sales import arming
    from sales.models import Product

    chaos.sell(600, rate=120)
    chaos.until_promised(40)
    refused = []

    def desk(delta: int) -> None:
        for _ in range(20):
            try:
                arming.change_stock(Product.objects.get(), delta, actor="chaos", reason="delivery")
            except arming.Refused:
                refused.append(delta)
        connection.close()

    desks = [threading.Thread(target=desk, args=(delta,)) for delta in (7, 3, -4)]
    for each in desks:
        each.start()
    for each in desks:
        each.join()
    stock = Product.objects.values_list("stock", flat=True).get()
    wanted = 20 * (7 + 3 - 4) - sum(refused)
    chaos.expect(stock == wanted, f"stock is {stock} after changes that add up to {wanted}")


@row("pause-and-resume", "operators: pause and resume five times under load", seconds=16)
def pause_and_resume(chaos: Scenario) -> None:
    chaos.sell(2500, rate=25)
    pauses = []
    for _ in range(5):
        chaos.until_promised(15)
        chaos.operator("pause")
        paused = time.monotonic()
        chaos.during(0.4)
        pauses.append((paused, time.monotonic()))
        chaos.operator("resume")
        chaos.selling_again()
    fresh = [
        said for span in pauses for said in chaos.buyers.history.between(*span)
        if said.kind in (history.QUEUED, history.HELD) and not said.replayed and said.at < span[1]
    ]  # fmt: skip
    chaos.expect(not fresh, f"I7: {len(fresh)} units granted after pause had returned")


@row("clocks", "clocks: web and gatekeeper an hour ahead, then behind; gate emptied each time", seconds=34)
def clocks(chaos: Scenario) -> None:
    """Redis alone says the time. Its own clock cannot be moved here, but in test_gate_model.py."""
    chaos.site.environment |= chaos.broken("hour-ahead")
    chaos.site.start()
    chaos.sell(1500, rate=40, start=False, opens_in=3)
    opens = time.monotonic() + chaos.sale.opens_at.timestamp() - time.time()
    chaos.until_promised(20)
    early = [said for said in chaos.buyers.history.between(0, opens) if said.at < opens and said.order_id]
    chaos.expect(not early, f"{len(early)} units granted before the window")
    _empty(chaos)
    chaos.site.environment |= chaos.broken("hour-behind")
    old, chaos.site.web = chaos.site.web, chaos.site.start_web()
    old.end()
    for gatekeeper in chaos.site.named("run_gatekeeper"):
        gatekeeper.kill()
    chaos.site.start_gatekeeper()
    _empty(chaos)


def _empty(chaos: Scenario) -> None:
    chaos.until_promised(20)
    with chaos.ground.gate_client() as client:
        client.flushall()
    chaos.selling_again()
