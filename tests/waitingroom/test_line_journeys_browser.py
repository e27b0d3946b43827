"""What people do to a page in line, by accident or of necessity: one ticket, one order, and the truth."""

import re
from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from orders.models import Order
from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.standing import join, line, queue_up, stands, ticket_of, win
from tests.waitingroom.visitor import ORDERS, PAGES, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]

OFFLINE_MS = 10_000
SLOW = {"turn_rate": 1}
WRONG_CLOCK = """
    const Right = Date;
    globalThis.Date = class extends Right {
        constructor(...given) { super(...(given.length ? given : [Date.now()])); }
        static now() { return Right.now() + HOURS * 3_600_000; }
    };
"""


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with somebody who writes the orders down, and somebody who keeps the lines."""
    site.consumer()
    site.gatekeeper()
    return site


@pytest.fixture
def queued(shop: Site) -> Callable[..., Sale]:
    return partial(queue_up, shop)


@pytest.fixture
def one_order(shop: Site) -> Callable[[Sale, str], None]:
    """Holds that a sale has this one order and no other."""

    def hold(sale: Sale, order: str) -> None:
        eventually(lambda: shop.confirmed(sale) == 1)
        assert [str(each.id) for each in Order.objects.filter(sale=sale)] == [order]

    return hold


def buy_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Buy for")


def lose_the_answer(route: Route) -> None:
    assert route.fetch().status == 202
    route.abort()


def test_a_reload_in_the_turn_keeps_the_turn_and_the_order(
    queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(limit=3)
    stands(visitor, sale)
    visitor.sees("It is your turn")
    visitor.page.reload()
    visitor.sees("It is your turn")
    assert visitor.orders_sent == []

    # In the middle of buying, too: the order is placed, but nobody has heard of it.
    visitor.page.route(ORDERS, lose_the_answer)
    buy_button(visitor.page).click()
    expect(visitor.page.get_by_text("The shop could not be reached. We keep trying")).to_be_visible()
    visitor.page.reload()
    visitor.sees("It is your turn")
    expect(visitor.page.get_by_text("Your last try got no answer.")).to_be_visible()
    visitor.page.unroute(ORDERS)
    buy_button(visitor.page).click()
    one_order(sale, visitor.arrives("order")["order"])
    assert len(visitor.keys_sent()) == 1


def test_who_goes_back_after_buying_is_led_to_the_order(
    queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued()
    stands(visitor, sale)
    buy_button(visitor.page).click()
    order = visitor.arrives("order")["order"]
    visitor.sees("Confirmed")

    visitor.page.go_back()
    visitor.arrives("room")
    visitor.sees("It is your turn")
    note = visitor.page.get_by_text("You have placed an order in this sale.")
    expect(note).to_be_visible()
    assert len(visitor.orders_sent) == 1
    buy_button(visitor.page).click()
    expect(visitor.page.get_by_text("You have yours already.")).to_be_visible()
    visitor.does_not_scroll_sideways()
    visitor.photographs("room-bought")
    note.get_by_role("link", name="See your order").click()
    assert visitor.arrives("order")["order"] == order
    one_order(sale, order)


def test_a_double_click_in_the_turn_is_one_order(
    queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(limit=3)
    stands(visitor, sale)
    buy_button(visitor.page).dblclick()
    one_order(sale, visitor.arrives("order")["order"])
    assert len(visitor.orders_sent) == 1


def test_two_tabs_are_one_ticket_and_one_order(
    shop: Site, queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(opens_in=12, limit=3)
    stands(visitor, sale)
    ticket = ticket_of(visitor)
    other = visitor.context.new_page()
    other.goto(visitor.page.url)
    expect(other.locator("[data-number]")).to_have_text(ticket)
    assert eventually(lambda: line(shop, sale)["tickets"] == 1)

    # Both press before either has heard of an order.
    held: list[Route] = []
    visitor.context.route(ORDERS, lambda route: held.append(route))
    for page in (visitor.page, other):
        expect(buy_button(page)).to_have_attribute("aria-disabled", "false")
        buy_button(page).click()
        expect(page.get_by_text("Asking the shop…")).to_be_visible()
    for route in held:
        route.continue_()
    order = visitor.arrives("order")["order"]
    other.wait_for_url(f"**order={order}**")
    assert len(held) == 2
    assert len(visitor.keys_sent()) == 1
    one_order(sale, order)


def test_a_lost_network_costs_no_place(queued: Callable[..., Sale], visitor: Visitor) -> None:
    sale = queued(people=90, room=SLOW, allotment=500)
    stands(visitor, sale)
    visitor.sees("You are in line")
    ticket = ticket_of(visitor)
    visitor.context.set_offline(True)
    expect(visitor.page.get_by_text("The shop could not be reached just now.")).to_be_visible()
    visitor.page.wait_for_timeout(OFFLINE_MS)
    visitor.sees("You are in line")  # what was known still holds, and goes on by itself
    visitor.context.set_offline(False)
    expect(visitor.page.get_by_text("The shop could not be reached just now.")).to_be_hidden()
    assert ticket_of(visitor) == ticket


def test_a_network_lost_while_buying_costs_no_order(
    queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(limit=3)
    stands(visitor, sale)
    visitor.sees("It is your turn")
    visitor.context.set_offline(True)
    buy_button(visitor.page).click()
    expect(visitor.page.get_by_text("The shop could not be reached. We keep trying")).to_be_visible()
    visitor.page.wait_for_timeout(OFFLINE_MS)
    visitor.sees("It is your turn")
    visitor.context.set_offline(False)
    one_order(sale, visitor.arrives("order")["order"])
    assert len(visitor.keys_sent()) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_changes_nothing(
    queued: Callable[..., Sale], visitor: Visitor, hours: int, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(opens_in=12, room={"turn_seconds": 60})
    visitor.context.add_init_script(WRONG_CLOCK.replace("HOURS", str(hours)))
    stands(visitor, sale)
    visitor.sees("You are here in time")
    expect(visitor.page.locator("[data-eta]")).to_have_text(re.compile(r"^00:[01]\d$"))
    visitor.sees("It is your turn")
    expect(visitor.page.locator("[data-eta]")).to_have_text(re.compile(r"^00:[45]\d$"))
    buy_button(visitor.page).click()
    one_order(sale, visitor.arrives("order")["order"])


def test_without_javascript_the_way_is_shown_and_nothing_is_pretended(
    queued: Callable[..., Sale], visit: Callable[..., Visitor]
) -> None:
    sale = queued(opens_in=3_000)
    visitor = visit(PHONE, java_script_enabled=False)
    visitor.finds(sale).locator("noscript a").click()
    expect(visitor.page.get_by_role("heading", name="Before the opening")).to_be_visible()
    visitor.finds(sale).get_by_role("link", name="Join the line").click()
    visitor.arrives("room")
    for name in ("room", "countdown", "order", "draw"):
        page = visitor.goes_to(f"{PAGES}/{name}.html?sale={sale.slug}")
        expect(page.locator("noscript .note")).to_contain_text("needs JavaScript")
        shown = page.locator("main").inner_text()
        assert not re.search(r"One moment|Looking up|null|undefined", shown), shown
        assert page.locator("main").get_by_role("button").count() == 0
        visitor.does_not_scroll_sideways()
        visitor.photographs(f"noscript-{name}")
    page = visitor.goes_to(f"{PAGES}/room.html?sale={sale.slug}")
    expect(page.locator("noscript .note")).to_contain_text("cannot take a place in the line for you")
    page.locator("noscript").get_by_role("link", name="store front").click()
    expect(page.get_by_role("heading", name="Small numbers, sold fairly")).to_be_visible()


def test_with_the_keyboard_alone(
    queued: Callable[..., Sale], visitor: Visitor, one_order: Callable[[Sale, str], None]
) -> None:
    sale = queued(limit=3)
    tabs_to(visitor.page, visitor.finds(sale).get_by_role("link", name="Join the line"))
    visitor.page.keyboard.press("Enter")
    visitor.arrives("room")
    expect(visitor.page.locator("[data-heading]")).to_be_focused()
    visitor.sees("It is your turn")
    tabs_to(visitor.page, visitor.page.get_by_label("Quantity"))
    visitor.page.keyboard.press("ArrowUp")
    tabs_to(visitor.page, visitor.page.get_by_role("button", name="Buy for €39.80"))
    visitor.page.keyboard.press("Enter")
    one_order(sale, visitor.arrives("order")["order"])
    visitor.sees("Confirmed")
    assert Order.objects.get(sale=sale).quantity == 2


def tabs_to(page: Page, target: Locator) -> None:
    expect(target).to_be_visible()
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("target => target === document.activeElement"):
            return
    raise AssertionError("the key Tab does not lead there")


def test_who_comes_too_late_is_told_before_and_after(
    shop: Site, queued: Callable[..., Sale], visitor: Visitor
) -> None:
    sale = queued(room=SLOW | {"turn_seconds": 600}, allotment=3, limit=3)
    win(shop, sale, "faster", 1)
    join(shop, sale, 60)
    stands(visitor, sale)
    visitor.sees("You are in line")
    expect(visitor.page.locator("[data-hope]")).to_have_text(
        "Honestly: unless units come back, none will be left when your turn comes. 2 units are left."
    )
    visitor.photographs("room-hopeless")
    win(shop, sale, "faster", 2)
    visitor.sees("Sold out")
    expect(visitor.page.get_by_text("Every unit has been bought.")).to_be_visible()
    assert visitor.orders_sent == []


def test_who_loses_the_last_unit_in_the_turn_is_told_so(
    shop: Site, queued: Callable[..., Sale], visitor: Visitor
) -> None:
    sale = queued(allotment=1)
    stands(visitor, sale)
    visitor.sees("It is your turn")
    # The page must still believe that there is a unit when Buy is pressed.
    visitor.page.route("**/line", lambda route: route.abort())
    win(shop, sale, "faster")
    buy_button(visitor.page).click()
    expect(
        visitor.page.get_by_text("Sold out. Every unit has been bought. Nothing was ordered for you.")
    ).to_be_visible()
    visitor.page.unroute("**/line")
    visitor.sees("Sold out")
    expect(visitor.page.get_by_role("link", name="See all sales")).to_be_visible()
    visitor.photographs("room-loser")
    assert Order.objects.filter(sale=sale).count() == 1
