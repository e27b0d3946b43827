"""The line without JavaScript: what the page says in each state, to somebody with a ticket and without."""

from functools import partial
from typing import Any

import pytest

from sales import arming
from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.test_tickets import line, room, ticket, turn, wait_in_line
from waitingroom import tickets
from waitingroom.models import Room

__all__ = ["room"]


def page(room: Site, sale: Sale, shown: str = "") -> str:
    answer = room.get(f"/line/{sale.slug}" + (f"?ticket={shown}" if shown else ""))
    assert answer.status_code == 200, answer.text
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    return answer.text


def test_from_before_the_opening_to_the_turn_and_past_it(room: Site) -> None:
    sale = wait_in_line(room, opens_in=4, turn_seconds=3)
    mine = ticket(room, sale, "ann")["ticket"]
    assert "Before the opening" in page(room, sale, mine)
    turn(room, sale, "ann")
    eventually(lambda: "It is your turn" in page(room, sale, mine))
    eventually(lambda: "Your turn is over" in page(room, sale, mine))


def test_those_who_wait_are_told_how_many_are_ahead(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0, message="Back <b>at</b> noon.")
    held = [ticket(room, sale, f"buyer-{n}")["ticket"] for n in range(3)]
    for shown, words in zip(held, ["0 people are", "1 person is", "2 people are"], strict=True):
        told = partial(
            lambda shown, words: f"{words} in front of you." in page(room, sale, shown), shown, words
        )
        eventually(told)
    assert "Back &lt;b&gt;at&lt;/b&gt; noon." in page(room, sale)
    assert "Your ticket is number 2." in page(room, sale, held[2])


def test_the_states_of_the_sale(room: Site) -> None:
    sale = wait_in_line(room, allotment=20)
    arming.pause(sale, actor="test")
    eventually(lambda: "The line stands still" in page(room, sale))
    Room.objects.filter(sale=sale).update(passes=True)
    eventually(lambda: "There is no line" in page(room, sale))
    Room.objects.filter(sale=sale).update(passes=False)
    eventually(lambda: line(room, sale).json()["state"] == "paused")
    arming.close(sale, actor="test")
    eventually(lambda: "This sale is closed" in page(room, sale))
    assert room.get("/line/none-such").status_code == 404


@pytest.mark.parametrize("shown", ["x", "a:b:c", "%00", "x" * 3000, "another sale"])
def test_a_ticket_that_is_not_of_this_line_says_nothing(room: Site, shown: str) -> None:
    sale = wait_in_line(room, turn_rate=0)
    if shown == "another sale":
        shown = tickets.sign("elsewhere", "0" * 32, 0)
    assert "in front of you" not in page(room, sale, shown)


def test_the_page_asks_again_by_itself(room: Site) -> None:
    sale: Any = wait_in_line(room, turn_rate=0)
    refresh = '<meta http-equiv="refresh"'
    assert f'{refresh} content="15">' in page(room, sale)
    still = room.get(f"/line/{sale.slug}?still=1")
    assert (still.status_code, refresh in still.text) == (200, False)
