"""Buying by hand: a real site, a real Chromium, from the store front to the order book."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from orders.models import Order
from sales import arming
from tests.running_site import Site, eventually
from tests.waitingroom.visitor import ORDERS, PAGES, Visitor, crowding

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100)]

UUID4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def test_from_the_store_front_to_a_confirmed_order(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(allotment=5, limit=3)
    card = visitor.finds(sale)
    card.get_by_role("button", name="One more").click()
    card.get_by_role("button", name="Buy for €39.80").click()

    named = visitor.arrives("order")
    visitor.sees("Confirmed")
    order = Order.objects.get(sale=sale)
    assert (named["order"], named["sale"]) == (str(order.id), sale.slug)
    assert (order.quantity, order.state) == (2, "confirmed")
    for name, words in {
        "order-id": str(order.id),
        "quantity": "2",
        "price": "€19.90",
        "total": "€39.80",
        "sale-name": f"{sale.product.name} · {sale.name}",
    }.items():
        expect(visitor.page.locator(f"[data-{name}]")).to_have_text(words)
    visitor.page.reload()  # the order is there for as long as its address is
    visitor.sees("Confirmed")


def test_with_the_keyboard_alone(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(limit=4)
    card = visitor.finds(sale)
    card.get_by_label("Quantity of").focus()
    visitor.page.keyboard.press("ArrowUp")
    visitor.page.keyboard.press("Tab")
    expect(card.get_by_role("button", name="Buy for €39.80")).to_be_focused()
    visitor.page.keyboard.press("Enter")

    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert Order.objects.get(sale=sale).quantity == 2


def test_a_double_click_is_one_order(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(limit=5)
    visitor.finds(sale).get_by_role("button", name="Buy for").dblclick()

    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.keys_sent()) == 1
    assert shop.confirmed(sale) == 1


def test_a_lost_answer_and_a_reload_lead_to_the_same_order(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(limit=5)

    def lose_the_answer(route: Route) -> None:
        assert route.fetch().status == 202
        route.abort()

    visitor.page.route(ORDERS, lose_the_answer)
    card = visitor.buys(sale)
    expect(card.get_by_text("The shop could not be reached.")).to_be_visible()
    visitor.page.reload()
    expect(card.get_by_text("Your last try got no answer.")).to_be_visible()
    visitor.page.unroute(ORDERS)
    card.get_by_role("button", name="Buy for").click()

    named = visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.keys_sent()) == 1
    assert [str(order.id) for order in Order.objects.filter(sale=sale)] == [named["order"]]


def test_a_new_purchase_has_a_new_key(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(limit=5)
    visitor.buys(sale)
    visitor.arrives("order")
    visitor.buys(sale)
    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.keys_sent()) == 2
    assert eventually(lambda: shop.confirmed(sale) == 2)


def test_a_browser_without_random_uuids_makes_keys_of_the_same_form(shop: Site, visitor: Visitor) -> None:
    """crypto.randomUUID is missing on plain http:// to another machine."""
    visitor.context.add_init_script("delete Crypto.prototype.randomUUID")
    visitor.buys(shop.sell())
    visitor.arrives("order")
    assert all(UUID4.match(key) for key in visitor.keys_sent())


def test_an_expired_token_is_replaced_once(shop: Site, visitor: Visitor) -> None:
    visitor.context.add_init_script(
        "localStorage.getItem('fluxgate.token') ?? localStorage.setItem('fluxgate.token', 'stale')"
    )
    visitor.buys(shop.sell())
    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert visitor.orders_sent[0].headers["authorization"] == "Bearer stale"
    assert len(visitor.orders_sent) == 2


def test_without_a_shop_to_sign_in_at_the_page_says_so(shop: Site, visitor: Visitor) -> None:
    visitor.page.route("**/demo/token", lambda route: route.fulfill(status=404))
    card = visitor.buys(shop.sell())
    expect(card.get_by_text("Sign in at the shop, then come back")).to_be_visible()
    assert visitor.orders_sent == []


def test_sold_out_is_said(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(allotment=1)
    # The card must still believe that there are units when Buy is pressed.
    visitor.page.route("**/api/v1/sales", lambda route: route.abort())
    card = visitor.finds(sale)
    assert shop.buy(sale.slug, "faster").status_code == 202
    card.get_by_role("button", name="Buy for").click()
    expect(card.get_by_text("Sold out. Every unit has been bought.")).to_be_visible()

    visitor.page.unroute("**/api/v1/sales")
    visitor.page.reload()
    expect(card.get_by_text("Sold out", exact=True)).to_be_visible()
    expect(card.get_by_role("button", name="Buy for")).to_be_hidden()
    assert shop.confirmed(sale) == 1


def test_who_has_reached_the_limit_is_led_to_the_order(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(limit=1)
    visitor.buys(sale)
    first = visitor.arrives("order")["order"]
    visitor.buys(sale).get_by_role("link", name="See your order").click()
    assert visitor.arrives("order")["order"] == first


def test_a_paused_sale_is_waited_for_with_the_same_key(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell()
    arming.pause(sale, actor="test")
    card = visitor.buys(sale)
    expect(card.get_by_text("The shop has paused this sale.")).to_be_visible()
    arming.resume(sale, actor="test")
    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.keys_sent()) == 1


def test_trying_can_be_stopped(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell()
    arming.pause(sale, actor="test")
    card = visitor.buys(sale)
    card.get_by_role("button", name="Stop trying").click()
    expect(card.get_by_text("Stopped.")).to_be_visible()
    expect(card.get_by_role("button", name="Buy for")).to_be_focused()
    arming.resume(sale, actor="test")
    card.get_by_role("button", name="Buy for").click()
    visitor.arrives("order")
    assert len(visitor.keys_sent()) == 1


def test_too_busy_leads_to_the_room_and_out_again(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(allotment=50, limit=50, admission_rate=1, burst=1)
    visitor.context.route(ORDERS, crowding(shop, sale, attempts=3))
    visitor.buys(sale)

    assert visitor.arrives("room") == {"sale": sale.slug, "quantity": "1"}
    visitor.sees("You are in the waiting room")
    visitor.page.reload()
    visitor.sees("You are in the waiting room")
    visitor.arrives("order")
    visitor.sees("Confirmed")
    assert len(visitor.orders_sent) >= 4
    assert len(visitor.keys_sent()) == 1


def test_the_room_tells_of_a_pause_and_of_the_end(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(allotment=50, limit=50, admission_rate=1, burst=1)
    visitor.context.route(ORDERS, crowding(shop, sale, attempts=1))
    arming.pause(sale, actor="test")
    page = visitor.goes_to(f"{PAGES}/room.html?sale={sale.slug}&quantity=2")
    # An address alone buys nothing.
    visitor.sees("The waiting room")
    assert visitor.orders_sent == []

    arming.resume(sale, actor="test")
    page.get_by_role("button", name="Buy, and wait if need be").click()
    visitor.sees("You are in the waiting room")
    arming.pause(sale, actor="test")
    visitor.sees("The shop has paused this sale")
    arming.close(sale, actor="test")
    visitor.sees("This sale is closed")
    expect(page.get_by_role("link", name="See all sales")).to_be_visible()
    assert len(visitor.keys_sent()) == 1


def test_who_leaves_the_room_is_not_asked_for_any_more(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(allotment=50, limit=50, admission_rate=1, burst=1)
    visitor.context.route(ORDERS, crowding(shop, sale, attempts=1000))
    visitor.buys(sale)
    visitor.arrives("room")
    visitor.page.get_by_role("link", name="Leave the waiting room").click()
    expect(visitor.page.get_by_role("heading", name="Small numbers, sold fairly")).to_be_visible()

    sent = len(visitor.orders_sent)
    visitor.goes_to(f"{PAGES}/room.html?sale={sale.slug}&quantity=1")
    visitor.sees("The waiting room")
    assert len(visitor.orders_sent) == sent


def test_the_countdown_opens_by_itself(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(opens_in=8)
    card = visitor.finds(sale)
    expect(card.get_by_role("button", name="Buy for")).to_be_hidden()
    card.get_by_role("link", name="Open the countdown").click()

    visitor.arrives("countdown")
    expect(visitor.page.get_by_role("timer")).to_be_visible()
    visitor.page.get_by_role("button", name="Buy for €19.90").click()
    visitor.arrives("order")
    visitor.sees("Confirmed")


def test_the_store_front_opens_by_itself(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(opens_in=6)
    visitor.buys(sale)  # the button appears when it is time
    visitor.arrives("order")
    visitor.sees("Confirmed")


def test_a_sale_that_the_operator_opens_late_opens_late(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell(open_now=False)
    visitor.goes_to(f"{PAGES}/countdown.html?sale={sale.slug}")
    visitor.sees("Opening any moment now")
    expect(visitor.page.get_by_role("button", name="Buy for")).to_be_hidden()
    arming.open_sale(sale, actor="test")
    visitor.page.get_by_role("button", name="Buy for").click()
    visitor.arrives("order")


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_is_the_servers(shop: Site, visit: Callable[..., Visitor], hours: int) -> None:
    sale = shop.sell(opens_in=600)
    visitor = visit()
    visitor.context.add_init_script(f"const right = Date.now; Date.now = () => right() + {hours * 3_600_000}")
    visitor.goes_to(f"{PAGES}/countdown.html?sale={sale.slug}")
    minutes = visitor.page.get_by_role("timer").locator("b").first
    expect(minutes).to_have_text(re.compile("^09$"))
    expect(visitor.page.get_by_role("timer").locator("b")).to_have_count(2)
