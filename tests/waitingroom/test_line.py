"""Standing in line by hand: a real site, a real Chromium, from the draw to the order book."""

import random
import re
from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import expect

from sales import arming
from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.standing import join, line, queue_up, stands, ticket_of
from tests.waitingroom.visitor import PAGES, PHONE, Visitor
from waitingroom.models import Room
from waitingroom.schedule import Segment, number_at, turn_at

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with somebody who writes the orders down, and somebody who keeps the lines."""
    site.consumer()
    site.gatekeeper()
    return site


@pytest.fixture
def queued(shop: Site) -> Callable[..., Sale]:
    return partial(queue_up, shop)


def test_from_the_draw_to_a_confirmed_order(
    shop: Site, queued: Callable[..., Sale], visitor: Visitor
) -> None:
    sale = queued(opens_in=8, limit=3)
    stands(visitor, sale)
    visitor.sees("You are here in time")
    expect(visitor.page.locator("[data-eta]")).to_have_text(re.compile(r"^00:0\d$"))
    assert eventually(lambda: line(shop, sale)["tickets"] == 1)  # what it shows may be half a second old

    visitor.sees("It is your turn")
    expect(visitor.page.locator("[data-heading]")).to_be_focused()
    expect(visitor.page.locator("[data-eta]")).to_have_text(re.compile(r"^0[12]:\d\d$"))
    assert visitor.orders_sent == []  # waiting buys nothing
    visitor.page.get_by_role("button", name="One more").click()
    visitor.page.get_by_role("button", name="Buy for €39.80").click()

    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert visitor.orders_sent[0].headers["fluxgate-admission"]
    assert len(visitor.orders_sent) == 1
    assert shop.confirmed(sale) == 1


def test_from_the_store_front_through_the_line(queued: Callable[..., Sale], visitor: Visitor) -> None:
    sale = queued(limit=3)
    card = visitor.finds(sale)
    expect(card.get_by_role("button", name="Buy for")).to_be_hidden()
    expect(card.get_by_role("link", name="Open the countdown")).to_be_hidden()
    card.get_by_role("link", name="Join the line").click()
    assert visitor.arrives("room") == {"sale": sale.slug}
    visitor.sees("It is your turn")
    visitor.page.get_by_role("button", name="Buy for").click()
    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.keys_sent()) == 1


def test_the_line_is_joined_before_the_opening(
    shop: Site, queued: Callable[..., Sale], visitor: Visitor
) -> None:
    sale = queued(opens_in=3_000, open_now=False)
    card = visitor.finds(sale)
    expect(card.get_by_role("link", name="Join the line")).to_be_visible()
    card.get_by_role("link", name="Open the countdown").click()
    visitor.arrives("countdown")
    expect(visitor.page.get_by_role("timer")).to_be_visible()
    expect(visitor.page.get_by_text("You can join the line now.")).to_be_visible()
    visitor.page.get_by_role("link", name="Join the line").click()
    assert visitor.arrives("room") == {"sale": sale.slug}
    visitor.sees("You are here in time")
    assert eventually(lambda: line(shop, sale)["tickets"] == 1)

    # The room notes the promise, for the page that compares it after the draw.
    visitor.page.get_by_role("link", name="How the draw can be checked").click()
    assert visitor.arrives("draw") == {"sale": sale.slug}
    note = visitor.page.evaluate(f"JSON.parse(localStorage.getItem('fluxgate.commitment.{sale.slug}'))")
    assert note["commitment"] == line(shop, sale)["draw"]["commitment"]
    expect(visitor.page.get_by_text("This browser has noted it as well")).to_be_visible()


def test_the_countdown_leads_into_the_line(shop: Site, queued: Callable[..., Sale], visitor: Visitor) -> None:
    sale = queued(opens_in=6)
    visitor.goes_to(f"{PAGES}/countdown.html?sale={sale.slug}")
    expect(visitor.page.get_by_role("link", name="Join the line")).to_be_visible()
    visitor.page.locator("[data-phase=selling]").wait_for()
    expect(visitor.page.get_by_role("button", name="Buy for")).to_be_hidden()
    visitor.page.get_by_role("link", name="Join the line").click()
    visitor.arrives("room")
    visitor.sees("It is your turn")


def test_what_the_operator_says_and_does_is_told(
    shop: Site, queued: Callable[..., Sale], visit: Callable[..., Visitor]
) -> None:
    visitor = visit(PHONE)
    sale = queued(people=90, room={"turn_rate": 1}, allotment=500)
    stands(visitor, sale)
    visitor.sees("You are in line")
    page = visitor.page
    expect(page.locator("[data-ahead]")).to_have_text(re.compile(r"^about \d\d people$"))
    expect(page.locator("[data-eta]")).to_have_text(
        re.compile(r"^in 1 to 2 minutes$|^in less than a minute$")
    )
    expect(page.locator("[data-hope]")).to_have_text(
        "There will likely be a unit for you. About 500 units are left."
    )
    expect(page.locator("[data-message-box]")).to_be_hidden()

    words = "<b>Tea</b> is served & free."
    Room.objects.filter(sale=sale).update(message=words)
    expect(page.locator("[data-message]")).to_have_text(words)
    visitor.does_not_scroll_sideways()
    visitor.photographs("room-line")

    arming.pause(sale, actor="test")
    visitor.sees("The shop has paused this sale")
    arming.resume(sale, actor="test")
    visitor.sees("You are in line")
    arming.close(sale, actor="test")
    visitor.sees("This sale is closed")
    assert visitor.orders_sent == []


def test_a_reload_keeps_the_place(queued: Callable[..., Sale], visit: Callable[..., Visitor]) -> None:
    sale = queued(people=90, room={"turn_rate": 1}, allotment=500)
    visitor, other = visit(), visit()
    stands(visitor, sale)
    ticket = ticket_of(visitor)
    stands(other, sale)
    assert ticket_of(other) != ticket

    visitor.page.reload()
    assert ticket_of(visitor) == ticket
    # The shop remembers the customer as well as the browser does the ticket.
    visitor.page.evaluate(f"localStorage.removeItem('fluxgate.ticket.{sale.slug}')")
    visitor.page.reload()
    assert ticket_of(visitor) == ticket


def test_who_misses_a_turn_goes_to_the_end(shop: Site, queued: Callable[..., Sale], visitor: Visitor) -> None:
    sale = queued(room={"turn_rate": 1, "turn_seconds": 12}, allotment=500)
    stands(visitor, sale)
    visitor.sees("It is your turn")
    join(shop, sale, 60)
    visitor.sees("Your turn went by")
    expect(visitor.page.get_by_role("button", name="Buy for")).to_be_hidden()
    expect(visitor.page.locator("[data-ahead]")).to_have_text(re.compile(r"^about [3-6]\d people$"))


def test_sold_out_is_told_to_the_line(
    shop: Site, queued: Callable[..., Sale], visit: Callable[..., Visitor]
) -> None:
    sale = queued(room={"turn_rate": 1}, allotment=1)
    winner = visit()
    stands(winner, sale)
    winner.sees("It is your turn")
    join(shop, sale, 60)
    visitor = visit()
    stands(visitor, sale)
    visitor.sees("You are in line")
    winner.page.get_by_role("button", name="Buy for").click()
    winner.arrives("order")
    visitor.sees("Sold out")
    expect(visitor.page.get_by_role("link", name="See all sales")).to_be_visible()


def test_the_page_computes_what_the_server_computes(visitor: Visitor) -> None:
    page = visitor.goes_to(f"{PAGES}/room.html")
    chance = random.Random(1)
    start = 1_700_000_000_000
    cases = []
    for _ in range(300):
        segments = [Segment(start, 0.0, chance.choice([0, 0.5, 1, 7, 50]))]
        for _ in range(chance.randrange(4)):
            since = segments[-1].from_time + chance.randrange(1, 100_000)
            segments.append(Segment(since, number_at(segments, since), chance.choice([0, 0.5, 1, 7, 50])))
        cases.append(
            (
                segments[chance.randrange(len(segments)) :],
                chance.randrange(2000),
                start + chance.randrange(300_000),
            )
        )
    told = page.evaluate(
        """async (cases) => {
            const { numberAt, turnAt } = await import("/static/waitingroom/line.js");
            const iso = (ms) => new Date(ms).toISOString();
            return cases.map(([segments, place, now]) => {
                const schedule = segments.map(
                    ([at, from_number, rate]) => ({ from_time: iso(at), from_number, rate }),
                );
                return [turnAt(schedule, place), numberAt(schedule, now)];
            });
        }""",
        [
            ([(each.from_time, each.from_number, each.rate) for each in segments], place, now)
            for segments, place, now in cases
        ],
    )
    for (segments, place, now), (turn, number) in zip(cases, told, strict=True):
        assert turn == turn_at(segments, place)
        assert number == pytest.approx(number_at(segments, now))
