"""The order of events of a demo: from empty shelves to the last row, and what came of it."""

import json
import math
import secrets
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import redis
from django.core.management import call_command
from django.db.models import Max
from rich.console import Console

from management.demo import shop, stopping
from management.demo.descriptors import raise_limit
from management.demo.herd import Herd
from management.demo.messages import Orders
from management.demo.options import Options, Unusable
from management.demo.plan import Click, plan
from management.demo.progress import Progress
from management.demo.report import Report, Written, judge
from management.demo.selling import sell
from management.demo.site import Site
from management.demo.staying import stay
from management.demo.table import render
from management.demo.watching import records_fulfilled
from management.roles import ensure_roles
from orders.models import Order, OrderState
from orders.reconciliation import read
from sales import gate, topic
from sales.identity import mint
from sales.models import Sale

_ANSWER_SECONDS = 20.0  # after which a buyer gives a request up, and repeats it
_PATIENCE_SECONDS = 45.0  # for whoever is asked to come back


def hold(options: Options, console: Console) -> Report:
    """Runs it all on the stack of the settings, and ends all that it has started but the stack.

    Raises options.Unusable, processes.Broken, herd.CrowdBroken, selling.TookTooLong,
    sales.arming.Refused, topic.TopicUnavailable and gate.GateUnreachable.
    """
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    sales: list[Sale] = []
    with ExitStack() as ending:
        topic.ensure_topic()
        call_command("migrate", verbosity=0)
        ensure_roles()
        console.print("database    migrated; the site is starting")
        connections = _connections(options, console)
        site = Site(options, options.root / "logs")
        ending.callback(_end, site, sales, console)
        site.start(options.consumers)
        password = shop.admin_account()
        client = gate.connect()
        ending.callback(client.close)
        console.print(
            f"site        {site.url} ({options.workers} web processes, {options.consumers} consumers)"
        )
        report = _sale_day(options, console, site, client, sales, connections, seed)
        console.print(render(report))
        if options.json:
            options.json.write_text(json.dumps(report.as_json(), indent=2, default=str) + "\n")
        _addresses(console, site, password)
        if options.stay:
            stay(console, site, sales)
        else:
            console.print(
                "They end now. `STAY=1 make demo` leaves them running, with sales to buy in by hand."
            )
    return report


def _sale_day(
    options: Options,
    console: Console,
    site: Site,
    client: redis.Redis,
    sales: list[Sale],
    connections: int,
    seed: int,
) -> Report:
    clicks = plan(options.buyers, options.double_clicks, options.greedy, options.limit, options.seconds, seed)
    slug = shop.new_slug("opening")
    patience = options.seconds + options.admitted_after(len(clicks)) + _PATIENCE_SECONDS
    with Herd(_orders(options, site, slug, clicks, connections, patience, seed)) as herd:
        herd.wait_until_ready()
        console.print(
            f"crowd       {options.buyers:,} buyers with {len(clicks):,} clicks in {options.seconds:g} s, "
            f"on {connections:,} connections"
        )
        sale = _opening(options, slug)
        sales.append(sale)
        before = records_fulfilled(sale)
        console.print(f"sale        {slug}: {options.units:,} units, {options.limit} per customer")
        with Progress(console) as progress:
            said, kill = sell(
                site, client, sale, herd, progress, patience_seconds=patience, kill=options.kill_consumer
            )
    [balance] = read(client, [sale])
    assert said.outcomes is not None
    return judge(
        clicks=clicks,
        limit=options.limit,
        seed=seed,
        answers=said.answers,
        crowd_late=said.late,
        outcomes=said.outcomes,
        written=_written(sale),
        records=records_fulfilled(sale) - before + (balance.log.unread or 0),
        balance=balance,
        kill=kill,
        kill_wanted=options.kill_consumer,
    )


def _opening(options: Options, slug: str) -> Sale:
    return shop.open_sale(
        slug,
        name="Opening day",
        product="Copper espresso machine",
        description="A numbered run, sold in one go.",
        # A whole second, because the gate counts whole milliseconds and the crowd must not be early.
        opens_at=datetime.fromtimestamp(math.ceil(time.time() + options.countdown), UTC),
        units=options.units,
        limit=options.limit,
        price="349.00",
        rate=options.rate,
        burst=options.burst,
    )


def _orders(
    options: Options,
    site: Site,
    slug: str,
    clicks: list[Click],
    connections: int,
    patience: float,
    seed: int,
) -> list[Orders]:
    """What each crowd process is to send. Clicks of one buyer go to several of them."""
    try:
        tokens = {buyer: mint(f"{slug}-buyer-{buyer}") for buyer in range(options.buyers)}
    except ValueError as error:
        raise Unusable(f"the buyers get no tokens: {error}") from None
    parts = [clicks[number :: options.crowds] for number in range(options.crowds)]
    return [
        Orders(
            host=site.host,
            port=site.port,
            path=f"/api/v1/sales/{slug}/orders",
            knock="/api/v1/sales",
            tokens={click.buyer: tokens[click.buyer] for click in part},
            clicks=part,
            connections=max(1, connections // options.crowds),
            answer_seconds=_ANSWER_SECONDS,
            patience_seconds=patience,
            seed=seed + number,
        )
        for number, part in enumerate(parts)
    ]


def _written(sale: Sale) -> Written:
    confirmed = Order.objects.filter(sale=sale, state=OrderState.CONFIRMED)
    last = confirmed.aggregate(granted=Max("claimed_at"), written=Max("written_at"))

    def after(moment: datetime | None) -> float | None:
        return (moment - sale.opens_at).total_seconds() if moment else None

    ids = frozenset(str(order_id) for order_id in confirmed.values_list("id", flat=True))
    return Written(ids, after(last["granted"]), after(last["written"]))


def _connections(options: Options, console: Console) -> int:
    fit = raise_limit()
    if fit < options.connections:
        console.print(f"Open files are limited here (ulimit -n): the crowd shares {fit} connections.")
    return min(fit, options.connections)


def _addresses(console: Console, site: Site, password: str) -> None:
    console.print(f"store front {site.url}/")
    console.print(f"admin       {site.url}/admin/ (user {shop.ADMIN}, password {password})", markup=False)
    console.print(f"API page    {site.url}/api/v1/docs")


def _end(site: Site, sales: list[Sale], console: Console) -> None:
    stopping.ignore()
    shop.close(sales)
    for name in site.end():
        console.print(f"{name} did not end by itself and was killed")
