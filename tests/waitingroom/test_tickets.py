"""The line over HTTP: tickets, turns, admissions, and what everybody in line is told."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import requests

from sales import arming
from sales.gate import connect
from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site, eventually
from waitingroom import draw, tickets
from waitingroom.admission import admit
from waitingroom.line import line_keys
from waitingroom.models import Room

SETTINGS = ("beacon_name", "turn_rate", "turn_seconds", "message", "steers", "least_rate", "most_rate")
# Two seconds by design; in CI the kill tests run beside this one on the same two cores.
TOLD_SECONDS = 5.0


@pytest.fixture(scope="module")
def room(site: Site) -> Site:
    """The site with a keeper of the lines, and somebody who writes the orders down."""
    site.gatekeeper()
    site.consumer()
    arming.close(wait_in_line(site), actor="test")  # the keeper works: what follows may be about time
    return site


@pytest.fixture
def far_rows(room: Site) -> Iterator[None]:
    yield
    arming_left = Sale.objects.filter(admission_required=True, state__in=["open", "paused", "armed"])
    for sale in arming_left:  # the keeper of later tests has nothing to do with them
        arming.close(sale, actor="test")


pytestmark = pytest.mark.usefixtures("far_rows")


def wait_in_line(room: Site, **facts: Any) -> Sale:
    """A sale whose line is published. `turn_rate` and `turn_seconds` are the room's."""
    settings = {name: facts.pop(name) for name in SETTINGS if name in facts}
    sale = room.sell(admission_required=True, open_now=False, **facts)
    Room.objects.update_or_create(sale=sale, defaults=settings)
    arming.open_sale(sale, actor="test")
    eventually(lambda: line(room, sale, check=False).status_code == 200)
    return sale


def line(room: Site, sale: Sale, *, check: bool = True) -> requests.Response:
    answer = room.get(f"/api/v1/sales/{sale.slug}/line")
    assert not check or answer.status_code == 200, answer.text
    return answer


def rate(room: Site, sale: Sale) -> float | None:
    """Turns per second, as the line is told."""
    segments = line(room, sale).json()["segments"]
    return segments[-1]["rate"] if segments else None


def ask(room: Site, sale: Sale, customer: str, shown: str | None = None) -> requests.Response:
    return requests.post(
        f"{room.url}/api/v1/sales/{sale.slug}/tickets",
        json={"ticket": shown} if shown else {},
        headers={"Authorization": f"Bearer {mint(customer)}"},
        timeout=30,
    )


def ticket(room: Site, sale: Sale, customer: str, shown: str | None = None) -> dict[str, Any]:
    answer = ask(room, sale, customer, shown)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def tag_of(sale: Sale, customer: str) -> str:
    return draw.tag(bytes(Room.objects.get(sale=sale).salt), customer)


def turn(room: Site, sale: Sale, customer: str) -> dict[str, Any]:
    """The ticket in its turn, waited for."""
    found: dict[str, Any] = eventually(
        lambda: (body := ticket(room, sale, customer))["state"] == "your_turn" and body
    )
    return found


def test_a_turn_leads_to_an_order(room: Site) -> None:
    sale = wait_in_line(room)
    refusal = room.buy(sale.slug, "ann")
    assert refusal.json()["type"] == "/problems#admission-required"
    mine = turn(room, sale, "ann")
    assert mine["turn_at"] <= mine["server_time"] < mine["turn_ends_at"]
    bought = room.buy(sale.slug, "ann", **{"Fluxgate-Admission": mine["admission"]})
    assert bought.status_code == 202, bought.text
    stolen = room.buy(sale.slug, "bob", **{"Fluxgate-Admission": mine["admission"]})
    assert stolen.json()["type"] == "/problems#admission-invalid"


def test_one_ticket_per_customer_whatever_device(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0)
    first = ticket(room, sale, "ann")
    assert [ticket(room, sale, "ann")["number"] for _ in range(3)] == [first["number"]] * 3
    assert ticket(room, sale, "bob")["number"] == first["number"] + 1
    assert (
        ticket(room, sale, "ann", tickets.sign(sale.slug, tag_of(sale, "ann"), 99))["number"]
        == first["number"]
    )
    eventually(lambda: line(room, sale).json()["tickets"] == 2, TOLD_SECONDS)


def test_the_draw_among_those_who_came_early(room: Site) -> None:
    sale = wait_in_line(room, opens_in=6, turn_rate=1000)
    early = [f"early-{n}" for n in range(20)]
    numbers = [ticket(room, sale, customer)["number"] for customer in early]
    before = line(room, sale).json()
    assert numbers == list(range(20))
    assert (before["state"], before["draw"]["secret"], before["draw"]["entries"]) == ("prequeue", None, None)
    late = eventually(lambda: (body := ticket(room, sale, "late"))["place"] is not None and body)
    told = eventually(lambda: (body := line(room, sale).json())["draw"]["seed"] and body)["draw"]
    # What was promised before is what was used, and the list is the one everybody can check.
    assert (
        told["commitment"] == before["draw"]["commitment"] == draw.commitment(bytes.fromhex(told["secret"]))
    )
    listed = Room.objects.get(sale=sale)
    assert draw.digest(listed.entries) == told["digest"]
    if late["number"] >= told["entries"]:
        assert late["place"] == late["number"]
    seed = draw.seed(bytes.fromhex(told["secret"]), told["digest"])
    assert told["seed"] == seed.hex()
    places = [turn(room, sale, customer)["place"] for customer in early]
    assert places == [draw.place(seed, number, told["entries"]) for number in numbers]
    tags = listed.entries.splitlines()
    assert [tags.index(draw.tag(bytes(listed.salt), customer)) for customer in early] == numbers


def test_a_draw_waits_for_the_beacon_that_was_announced(room: Site) -> None:
    sale = wait_in_line(room, opens_in=4, beacon_name="The lottery numbers of the day")
    mine = ticket(room, sale, "ann")
    assert line(room, sale).json()["draw"]["beacon_name"] == "The lottery numbers of the day"
    told = eventually(lambda: (body := line(room, sale).json())["draw"]["secret"] and body)
    assert (told["draw"]["entries"], told["draw"]["seed"], rate(room, sale)) == (1, None, None)
    assert ticket(room, sale, "ann")["place"] is None
    Room.objects.filter(sale=sale).update(beacon="4 8 15 16 23 42")
    turn(room, sale, "ann")
    drawn = eventually(lambda: (told := line(room, sale).json()["draw"])["seed"] and told)
    seed = draw.seed(bytes.fromhex(drawn["secret"]), drawn["digest"], "4 8 15 16 23 42")
    assert drawn["seed"] == seed.hex()
    assert ticket(room, sale, "ann")["number"] == mine["number"]


def test_a_missed_turn_goes_to_the_end(room: Site) -> None:
    sale = wait_in_line(room, turn_seconds=1)
    first = turn(room, sale, "ann")
    ticket(room, sale, "bob")
    again = eventually(lambda: (body := ticket(room, sale, "ann"))["missed"] and body)
    assert again["number"] > first["number"]
    late = room.buy(sale.slug, "ann", **{"Fluxgate-Admission": first["admission"]})
    assert late.json()["type"] == "/problems#admission-required"


def test_the_whole_line_is_told(room: Site) -> None:
    sale = wait_in_line(room)
    eventually(lambda: rate(room, sale) == 50)
    arming.pause(sale, actor="test")
    eventually(lambda: line(room, sale).json()["state"] == "paused", TOLD_SECONDS)
    Room.objects.filter(sale=sale).update(message="Back at noon.")
    eventually(lambda: line(room, sale).json()["message"] == "Back at noon.", TOLD_SECONDS)
    eventually(lambda: rate(room, sale) == 0, TOLD_SECONDS)
    arming.resume(sale, actor="test")
    eventually(lambda: line(room, sale).json()["state"] == "waiting", TOLD_SECONDS)
    eventually(lambda: rate(room, sale) == 50, TOLD_SECONDS)
    arming.close(sale, actor="test")
    eventually(lambda: line(room, sale).json()["state"] == "closed", TOLD_SECONDS)
    eventually(lambda: ask(room, sale, "bob").json().get("type") == "/problems#sale-closed", TOLD_SECONDS)
    reasons = list(Room.objects.get(sale=sale).paces.values_list("reason", flat=True))
    assert reasons[:3] == ["as set by the operator", "the sale is paused", "as set by the operator"]


def test_two_web_processes_tell_one_line(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0)
    other = room.another_web()
    other.wait("/readyz")
    path = f"/api/v1/sales/{sale.slug}/line"

    def everywhere(state: str) -> bool:
        return all(web.get(path).json()["state"] == state for web in (room, other))

    mine = ticket(room, sale, "ann")
    asked = requests.post(
        f"{other.url}/api/v1/sales/{sale.slug}/tickets",
        json={},
        headers={"Authorization": f"Bearer {mint('ann')}"},
        timeout=30,
    )
    assert asked.json()["number"] == mine["number"]
    eventually(lambda: everywhere("waiting"), TOLD_SECONDS)
    arming.pause(sale, actor="test")
    eventually(lambda: everywhere("paused"), TOLD_SECONDS)
    arming.resume(sale, actor="test")
    eventually(lambda: everywhere("waiting"), TOLD_SECONDS)


def test_units_that_come_back_reach_those_who_wait(room: Site) -> None:
    sale = wait_in_line(room, allotment=1)
    winner = turn(room, sale, "ann")
    order = room.buy(sale.slug, "ann", **{"Fluxgate-Admission": winner["admission"]}).json()["order_id"]
    eventually(lambda: line(room, sale).json()["state"] == "sold_out", TOLD_SECONDS)
    eventually(lambda: rate(room, sale) == 0, TOLD_SECONDS)
    ticket(room, sale, "bob")
    eventually(lambda: ticket(room, sale, "bob")["state"] == "waiting", TOLD_SECONDS)
    room_before = requests.post(
        f"{room.url}/api/v1/orders/{order}/cancel",
        headers={"Authorization": f"Bearer {mint('ann')}"},
        timeout=30,
    )
    assert room_before.status_code in (200, 202)
    with connect() as client:
        gate = f"fluxgate:{{{sale.id}:0}}:gate"
        eventually(lambda: client.hget(gate, "remaining") == "1")
    eventually(lambda: line(room, sale).json()["state"] == "waiting", TOLD_SECONDS)
    mine = turn(room, sale, "bob")
    bought = room.buy(sale.slug, "bob", **{"Fluxgate-Admission": mine["admission"]})
    assert bought.status_code == 202, bought.text


def test_abandoned_turns_leave_units_to_those_behind(room: Site) -> None:
    sale = wait_in_line(room, allotment=3, turn_rate=20, turn_seconds=1)
    for n in range(30):
        ticket(room, sale, f"gone-{n}")
    for n in range(3):

        def buys(customer: str = f"stays-{n}") -> bool:  # a turn of a second may be over before
            admission = turn(room, sale, customer)["admission"]
            return room.buy(sale.slug, customer, **{"Fluxgate-Admission": admission}).status_code == 202

        eventually(buys)
    eventually(lambda: line(room, sale).json()["units_left"] == "none")


def test_the_operator_lets_everybody_pass_and_not(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0, allotment=1000)
    Room.objects.filter(sale=sale).update(passes=True)
    eventually(lambda: line(room, sale).json()["state"] == "off", TOLD_SECONDS)
    assert room.buy(sale.slug, "ann").status_code == 202
    Room.objects.filter(sale=sale).update(passes=False)
    refused = "/problems#admission-required"
    eventually(lambda: room.buy(sale.slug, uuid4().hex).json().get("type") == refused, TOLD_SECONDS)
    eventually(lambda: line(room, sale).json()["state"] == "waiting", TOLD_SECONDS)


def test_unused_turns_make_the_line_faster_and_the_reason_is_written_down(room: Site) -> None:
    sale = wait_in_line(
        room, allotment=1000, turn_rate=10, turn_seconds=1, steers=True, least_rate=5, most_rate=12
    )
    for n in range(150):  # nobody of them buys ...
        ticket(room, sale, f"idle-{n}")

    def is_faster() -> bool:  # ... but now and then somebody with an admission of the shop's own
        admission = admit(sale.slug, customer := uuid4().hex, until=time.time() + 60)
        assert room.buy(sale.slug, customer, **{"Fluxgate-Admission": admission}).status_code == 202
        time.sleep(0.5)
        return rate(room, sale) == 12

    eventually(is_faster)
    reasons = list(Room.objects.get(sale=sale).paces.values_list("reason", flat=True))
    assert reasons[0] == "as set by the operator, who lets the engine steer"
    assert "turns were used" in reasons[-1]
    Room.objects.filter(sale=sale).update(steers=False, turn_rate=0)
    eventually(lambda: rate(room, sale) == 0, TOLD_SECONDS)


def test_what_redis_has_lost_comes_back_and_nobody_jumps_the_line(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0)
    held = [ticket(room, sale, f"buyer-{n}") for n in range(5)]
    eventually(lambda: Room.objects.get(sale=sale).handed > 5)
    with connect() as client:
        client.delete(*line_keys(sale.id))
    eventually(lambda: ask(room, sale, "new").status_code == 200)
    assert ticket(room, sale, "new")["number"] > 5  # without a ticket: behind everybody
    again = ticket(room, sale, "buyer-3", held[3]["ticket"])
    assert again["number"] == held[3]["number"]
    assert ticket(room, sale, "buyer-4")["number"] > 5  # who leaves the ticket at home gains nothing
    stolen = ticket(room, sale, "thief", held[0]["ticket"])
    assert stolen["number"] > 5


def test_numbers_lost_before_the_opening_are_not_handed_out_again(room: Site) -> None:
    sale = wait_in_line(room, opens_in=8)
    held = {f"early-{n}": ticket(room, sale, f"early-{n}") for n in range(3)}
    eventually(lambda: Room.objects.get(sale=sale).handed > 3, 3)
    with connect() as client:
        client.delete(*line_keys(sale.id))
    eventually(lambda: ask(room, sale, "later-0").status_code == 200)
    later = {f"later-{n}": ticket(room, sale, f"later-{n}") for n in range(3)}
    shown = {name: ticket(room, sale, name, mine["ticket"]) for name, mine in held.items()}
    numbers = [each["number"] for each in [*shown.values(), *later.values()]]
    assert len(set(numbers)) == 6
    eventually(lambda: line(room, sale).json()["draw"]["seed"])
    places = [turn(room, sale, name)["place"] for name in [*shown, *later]]
    assert len(set(places)) == 6
    listed = Room.objects.get(sale=sale).entries.splitlines()
    assert [listed[number] for number in numbers] == [tag_of(sale, name) for name in [*shown, *later]]


def test_a_line_whose_gate_is_armed_again_is_not_said_to_be_none(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0)
    with connect() as client:
        client.hdel(f"fluxgate:{{{sale.id}:0}}:gate", "admission_required")  # as fence.lua leaves it
    eventually(lambda: line(room, sale, check=False).status_code == 503, TOLD_SECONDS)
    eventually(lambda: ask(room, sale, "ann").status_code == 503, TOLD_SECONDS)


def test_the_line_costs_a_304_when_nothing_changes(room: Site) -> None:
    sale = wait_in_line(room, turn_rate=0)
    first = line(room, sale)
    assert first.headers["Cache-Control"] == "public, max-age=1"
    path = f"/api/v1/sales/{sale.slug}/line"
    again = room.get(path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    ticket(room, sale, "ann")
    eventually(lambda: room.get(path, **{"If-None-Match": first.headers["ETag"]}).status_code == 200)


@pytest.mark.parametrize(
    "body", [b"{", b'{"ticket": 3}', b'{"place": 1}', b"[]", b'{"ticket": "%s"}' % (b"x" * 1025)]
)
def test_a_wrong_body_takes_no_place(room: Site, body: bytes) -> None:
    sale = wait_in_line(room, turn_rate=0)
    answer = requests.post(
        f"{room.url}/api/v1/sales/{sale.slug}/tickets",
        data=body,
        headers={"Authorization": f"Bearer {mint('ann')}", "Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert line(room, sale).json()["tickets"] == 0


@pytest.mark.parametrize("shown", ["", "nonsense", "a:b:c", "é" * 50, "x" * 1024])
def test_a_forged_ticket_is_worth_nothing(room: Site, shown: str) -> None:
    sale = wait_in_line(room, turn_rate=0)
    assert ticket(room, sale, "ann", shown)["number"] == 0


def test_a_sale_without_a_line(room: Site) -> None:
    sale = room.sell()
    told = line(room, sale).json()
    assert (told["state"], told["segments"], told["draw"]) == ("off", [], None)
    assert ask(room, sale, "ann").json()["type"] == "/problems#no-waiting-room"
    assert room.get("/api/v1/sales/none-such/line").status_code == 404
    assert (
        requests.post(f"{room.url}/api/v1/sales/{sale.slug}/tickets", json={}, timeout=30).status_code == 401
    )
