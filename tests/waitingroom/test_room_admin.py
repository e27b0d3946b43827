"""The waiting room in the admin: what the operator sets, who may, and that it is written down."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from sales.models import Sale, SaleEvent
from tests.desk import EVERYTHING, draft, sign_in
from waitingroom.admin.rooms import RoomAdmin
from waitingroom.models import Room

pytestmark = pytest.mark.django_db


@pytest.fixture
def sale() -> Sale:
    made = draft(admission_required=True)
    Sale.objects.filter(pk=made.pk).update(state="open")
    made.refresh_from_db()
    return made


@pytest.fixture
def room(sale: Sale) -> Room:
    return Room.objects.create(sale=sale)


def save(client: Client, room: Room, **changed: Any) -> Any:
    """Saves the form as a browser would that has loaded the page and changed these fields."""
    page = reverse("admin:waitingroom_room_change", args=[room.pk])
    form = client.get(page).context["adminform"].form
    given = {name: form.initial.get(name) for name in form.fields} | changed
    inline = {"paces-TOTAL_FORMS": 0, "paces-INITIAL_FORMS": 0}
    data = {name: value for name, value in given.items() if value not in (None, False)} | inline
    return client.post(page, data, follow=True)


def test_what_is_set_is_written_down(room: Room) -> None:
    answer = save(sign_in(EVERYTHING, name="olivia"), room, turn_rate=7, message="Back at noon.")
    assert answer.redirect_chain, answer.context["adminform"].form.errors
    room.refresh_from_db()
    assert (room.turn_rate, room.message) == (7, "Back at noon.")
    event = SaleEvent.objects.get(action="waiting_room")
    assert (event.sale, event.actor) == (room.sale, "olivia")
    assert event.detail == {
        "before": {"turn_rate": 50, "message": ""},
        "after": {"turn_rate": 7, "message": "Back at noon."},
    }


def test_saving_does_not_undo_a_draw_that_was_frozen_meanwhile(room: Room) -> None:
    client = sign_in(EVERYTHING)
    client.get(reverse("admin:waitingroom_room_change", args=[room.pk]))
    Room.objects.update(entries="a\n", entered=1, digest="ab")
    save(client, room, turn_rate=7)
    assert Room.objects.values_list("entries", "entered", "digest", "turn_rate").get() == ("a\n", 1, "ab", 7)


@pytest.mark.parametrize(
    "changed",
    [
        {"turn_rate": -1},
        {"turn_seconds": 0},
        {"least_rate": 9, "most_rate": 8},
        {"most_rate": 10**9},
        {"message": "x" * 281},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_words(room: Room, changed: dict[str, Any]) -> None:
    answer = save(sign_in(EVERYTHING), room, **changed)
    assert not answer.redirect_chain
    assert answer.context["adminform"].form.errors
    assert not SaleEvent.objects.filter(action="waiting_room").exists()


def test_who_may_only_look_sees_and_changes_nothing(room: Room) -> None:
    viewer = sign_in("waitingroom.view_room")
    page = reverse("admin:waitingroom_room_change", args=[room.pk])
    assert viewer.get(page).status_code == 200
    assert viewer.post(page, {"turn_rate": 1}).status_code == 403
    assert sign_in().get(page).status_code == 403


def test_the_secret_of_the_draw_is_on_no_page(room: Room) -> None:
    client = sign_in(EVERYTHING)
    for page in ("admin:waitingroom_room_changelist", "admin:waitingroom_room_change"):
        arguments = [room.pk] if page.endswith("change") else []
        text = client.get(reverse(page, args=arguments)).content.decode()
        assert bytes(room.secret).hex() not in text
        assert bytes(room.salt).hex() not in text
    assert room.commitment in text


def test_a_room_cannot_be_taken_away(room: Room) -> None:
    page = reverse("admin:waitingroom_room_delete", args=[room.pk])
    assert sign_in(EVERYTHING).post(page, {"post": "yes"}).status_code == 403


def test_a_beacon_is_announced_before_and_gets_its_value_once_behind(room: Room) -> None:
    client = sign_in(EVERYTHING)
    save(client, room, beacon_name="The lottery", beacon="too early")
    room.refresh_from_db()
    assert (room.beacon_name, room.beacon, room.is_drawn) == ("The lottery", "", False)
    Room.objects.update(entered=0, entries="", digest="ab")
    save(client, room, beacon_name="Another", beacon="4 8 15")
    room.refresh_from_db()
    assert (room.beacon_name, room.beacon, room.is_drawn) == ("The lottery", "4 8 15", True)
    save(client, room, beacon="16 23 42")
    room.refresh_from_db()
    assert room.beacon == "4 8 15"


@pytest.mark.parametrize("name", ["beacon_name", "beacon"])
def test_a_page_from_before_cannot_change_a_draw_that_has_begun(room: Room, name: str) -> None:
    assert not RoomAdmin._announced(room, "beacon", "early")
    Room.objects.update(beacon_name="y")
    assert not RoomAdmin._announced(room, "beacon_name", "")  # announced is announced
    Room.objects.update(entered=1, beacon="x", beacon_name="y")
    assert not RoomAdmin._announced(room, name, "changed")
    assert Room.objects.values_list("beacon_name", "beacon").get() == ("y", "x")
