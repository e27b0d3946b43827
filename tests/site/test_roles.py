"""Who may do what: every address of the admin, posted to by everybody who may not, and the three roles.

The addresses come from the URL resolver. One that nobody has thought about fails the first test.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.core import serializers
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import URLPattern, reverse
from django.views.generic import RedirectView

from management.roles import MANAGER, ROLES, SHOWN, ensure_roles
from orders.models import Order, ParkedRecord, Position
from sales.gate import image
from sales.models import Product, Sale, SaleEvent
from tests.desk import EVERYTHING, draft, sale_in, sign_in
from waitingroom.models import Brand, Room

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]

# Each may do what those before it may.
RANKS = ("anonymous", "staff", "Viewer", "Operator", "Manager", "superuser", "nobody")

# Of each model: who may add, change and delete. `nobody`: not even a superuser.
FORMS = {
    "sales_saleevent": ("nobody", "nobody", "nobody"),
    "sales_sale": ("Manager", "Manager", "Manager"),
    "sales_product": ("Manager", "Manager", "Manager"),
    "waitingroom_brand": ("nobody", "Manager", "Manager"),  # there is one already
    "waitingroom_room": ("Manager", "Operator", "nobody"),
    "orders_order": ("nobody", "nobody", "nobody"),
    "orders_position": ("nobody", "nobody", "nobody"),
    "orders_parkedrecord": ("nobody", "nobody", "nobody"),
    "auth_user": ("superuser", "superuser", "superuser"),
    "auth_group": ("superuser", "superuser", "superuser"),
}
WHO = {
    "login": "anonymous",
    "logout": "anonymous",
    **dict.fromkeys(
        ("index", "search", "password_change", "password_change_done", "jsi18n", "app_list"), "staff"
    ),
    "autocomplete": "staff",  # asks for the permissions of what is looked for
    "view_on_site": "staff",  # nothing here has a page of its own
    **{f"orders_{name}": "Viewer" for name in ("balance", "live", "live_numbers", "preflight", "report")},
    "auth_user_password_change": "superuser",
    "sales_product_import": "Manager",
    "sales_product_process_import": "Manager",
}
# The pages of the order book about a sale: the state that the sale must have.
OF_A_SALE = {
    "orders_balance": "draft",
    "orders_live": "armed",
    "orders_live_numbers": "armed",
    "orders_preflight": "draft",
    "orders_report": "armed",
}
# What changes something by one POST with a reason: who may, and the state that a sale must have.
STEPS = {
    "sales_sale_schedule_step": ("Manager", "draft"),
    "sales_sale_arm_step": ("Manager", "draft"),
    "sales_sale_open_step": ("Operator", "armed"),
    "sales_sale_pause_step": ("Operator", "open"),
    "sales_sale_resume_step": ("Operator", "paused"),
    "sales_sale_close_step": ("Manager", "open"),
    "sales_sale_settle_step": ("Manager", "closed"),
    "sales_product_change_stock": ("Manager", ""),
    "orders_parkedrecord_replay_step": ("Operator", ""),
    "orders_parkedrecord_drop_step": ("Manager", ""),
}


def patterns() -> Iterator[tuple[str, URLPattern]]:
    """Each page of the admin by its name; a page without one by its path."""

    def walk(found: Any, path: str = "") -> Iterator[tuple[str, URLPattern]]:
        for each in found:
            if isinstance(each, URLPattern):
                yield each.name or path + str(each.pattern), each
            else:
                yield from walk(each.url_patterns, path + str(each.pattern))

    yield from walk(admin.site.urls[0])


PAGES = dict(patterns())


def least() -> dict[str, str]:
    """The lowest rank that an address does not turn away."""
    found = WHO | {name: rank for name, (rank, _) in STEPS.items()}
    for model, ranks in FORMS.items():
        found |= {f"{model}_changelist": "Viewer", f"{model}_history": "Viewer"}
        found |= {
            f"{model}_{page}": rank for page, rank in zip(("add", "change", "delete"), ranks, strict=True)
        }
    for page in ("changelist", "history"):
        found |= {f"auth_{model}_{page}": "superuser" for model in ("user", "group")}
    found["orders_parkedrecord_changelist"] = "Operator"  # a POST to it is an action
    return found


LEAST = least()
# Nobody gets further: Django's redirect of `<id>/`, and what it says to an address that is not there.
ELSEWHERE = {
    name
    for name, pattern in PAGES.items()
    if getattr(pattern.callback, "view_class", None) is RedirectView or name == "(?P<url>.*)$"
}


def test_somebody_has_decided_who_may_post_to_each_address() -> None:
    assert len(PAGES) > 60
    assert set(PAGES) - ELSEWHERE == set(LEAST), "say in this file who may post to it"


@pytest.fixture
def people(db: None) -> dict[str, Client]:
    """Somebody of each rank, signed in."""
    ensure_roles()
    found = {"anonymous": Client(), "staff": sign_in(), "superuser": sign_in(EVERYTHING)}
    for role in ROLES:
        found[role] = member(role)
    return found


def member(role: str) -> Client:
    client = sign_in(name=f"{role.lower()}-{uuid4().hex[:6]}")
    User.objects.get(pk=client.session["_auth_user_id"]).groups.add(Group.objects.get(name=role))
    return client


@pytest.fixture
def everything(gate: redis.Redis) -> Callable[[], Any]:
    """All that a page could change, in both books."""
    models = [model for app in (*SHOWN, "auth", "admin") for model in apps.get_app_config(app).get_models()]

    def look() -> Any:
        rows = [serializers.serialize("json", model._default_manager.order_by("pk")) for model in models]
        return rows, [image(gate, pk) for pk in Sale.objects.values_list("pk", flat=True)]

    return look


def subject(name: str) -> Any:
    """A new row of the kind that this page is about, in a state in which the page could change it."""
    state = STEPS.get(name, ("", ""))[1] or "draft"
    if name.startswith("sales_saleevent"):
        return SaleEvent.objects.create(actor="x", action="draft")
    if name.startswith("sales_product"):
        return Product.objects.create(sku=uuid4().hex, name="A product")
    if name.startswith("waitingroom_room"):
        return Room.objects.create(sale=draft())
    if name.startswith("waitingroom_brand"):
        return Brand.objects.get_or_create()[0]
    if name.startswith("orders_position"):
        return Position.objects.create(topic=uuid4().hex, partition=0, next_offset=1)
    if name.startswith("orders_parkedrecord"):
        return ParkedRecord.objects.create(
            topic="orders", partition=0, offset=ParkedRecord.objects.count(), key=b"k", value=b"v", cause="c"
        )
    if name.startswith("orders_order"):
        sale = draft()
        return Order.objects.create(
            id=uuid4(), sale=sale, customer="ann", quantity=1, unit_price=1, currency="EUR",
            state="confirmed", epoch=1, claimed_at=sale.opens_at,
        )  # fmt: skip
    if name.startswith("auth_user"):
        return User.objects.create(username=f"victim-{uuid4().hex[:6]}")
    if name.startswith("auth_group"):
        return Group.objects.create(name=uuid4().hex)
    return sale_in(state)


def address(name: str, row: Any) -> str:
    if name in OF_A_SALE:
        row = sale_in(OF_A_SALE[name])
    wanted = PAGES[name].pattern.converters
    values = {"app_label": "sales", "content_type_id": "1"}
    parameters = {part: values.get(part, row.pk) for part in wanted}
    if name == "app_list":
        parameters = {"app_label": "sales"}
    return reverse(f"admin:{name}", kwargs=parameters)


def forged() -> dict[str, Any]:
    return {"reason": "forged", "delta": "5", "once": str(uuid4()), "post": "yes", "action": "drop_selected"}


@pytest.mark.parametrize("name", sorted(set(LEAST) - {"login", "logout"}))
def test_who_may_not_is_turned_away_and_nothing_changes(
    name: str, people: dict[str, Client], everything: Callable[[], Any]
) -> None:
    there = address(name, subject(name))
    before = everything()
    for rank, client in people.items():
        if RANKS.index(rank) < RANKS.index(LEAST[name]):
            answer = client.post(there, forged())
            if rank == "anonymous":
                assert (answer.status_code, answer.url.partition("?")[0]) == (302, reverse("admin:login"))  # type: ignore[attr-defined]
            else:
                assert answer.status_code == 403, rank
            assert everything() == before, rank


@pytest.mark.parametrize("name", sorted(set(LEAST) - {"login", "logout", "orders_parkedrecord_changelist"}))
def test_who_may_is_let_in(name: str, people: dict[str, Client], everything: Callable[[], Any]) -> None:
    for rank, client in people.items():
        if RANKS.index(rank) >= RANKS.index(LEAST[name]):
            there = address(name, subject(name))
            before = everything()
            assert client.post(there, forged()).status_code != 403, rank
            if name in STEPS:
                assert everything() != before, f"{rank}: this test would not see the step taken"
            elif LEAST[name] == "Viewer":
                assert everything() == before


@pytest.mark.parametrize(
    ("role", "replays", "drops"),
    [("Viewer", False, False), ("Operator", True, False), ("Manager", True, True)],
)
def test_the_list_of_parked_records_does_what_each_role_may(
    people: dict[str, Client], everything: Callable[[], Any], role: str, replays: bool, drops: bool
) -> None:
    there = reverse("admin:orders_parkedrecord_changelist")
    for action, allowed in (("replay_selected", replays), ("drop_selected", drops)):
        record = subject("orders_parkedrecord")
        before = everything()
        for given in ([action], ["", action]):
            asked = {"action": given, "_selected_action": [record.pk], "index": "0", "reason": "because"}
            answer = people[role].post(there, asked)
            assert answer.status_code == (403 if not allowed else answer.status_code)
            assert allowed or everything() == before
        assert (everything() != before) is allowed


def test_an_operator_sets_the_pace_and_the_message_and_nothing_else(people: dict[str, Client]) -> None:
    room = Room.objects.create(sale=draft())
    there = reverse("admin:waitingroom_room_change", args=[room.pk])
    wishes = {
        "turn_rate": 7, "message": "Soon.", "steers": "on", "least_rate": 2, "most_rate": 9,
        "turn_seconds": 33, "passes": "on", "beacon_name": "A lottery",
        "paces-TOTAL_FORMS": 0, "paces-INITIAL_FORMS": 0,
    }  # fmt: skip
    assert people["Operator"].post(there, wishes).status_code == 302
    room.refresh_from_db()
    assert (room.turn_rate, room.message, room.steers, room.least_rate) == (7, "Soon.", True, 2)
    assert (room.turn_seconds, room.passes, room.beacon_name) == (120, False, "")
    assert people["Manager"].post(there, wishes).status_code == 302
    room.refresh_from_db()
    assert (room.turn_seconds, room.passes, room.beacon_name) == (33, True, "A lottery")


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        ("Viewer", set()),
        ("Operator", {"pause"}),
        ("Manager", {"pause", "close"}),
        ("superuser", {"pause", "close"}),
    ],
)
def test_only_the_steps_that_one_may_take_are_shown(
    people: dict[str, Client], role: str, shown: set[str]
) -> None:
    sale = sale_in("open")
    for there in (reverse("admin:sales_sale_change", args=[sale.pk]), reverse("admin:sales_sale_changelist")):
        text = people[role].get(there).content.decode()
        assert sale.name in text
        verbs = ("schedule", "arm", "open", "pause", "resume", "close")
        found = {verb for verb in verbs if reverse(f"admin:sales_sale_{verb}_step", args=[sale.pk]) in text}
        assert found == shown


@pytest.mark.parametrize("role", ROLES)
def test_every_role_sees_every_page_but_the_accounts(people: dict[str, Client], role: str) -> None:
    for name in LEAST:
        if name.endswith(("_changelist", "_history")) or name in (
            "index",
            *OF_A_SALE,
        ):
            answer = people[role].get(address(name, subject(name)))
            assert answer.status_code == (403 if name.startswith("auth_") else 200), name


# The groups


def test_the_roles_are_made_once_and_brought_up_to_date(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("ensure_roles")
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Viewer: made",
        "Operator: made",
        "Manager: made",
    ]
    operator = Group.objects.get(name="Operator")
    user = User.objects.create(username="olivia")
    user.groups.add(operator)
    operator.permissions.add(Permission.objects.get(codename="add_user"))
    operator.permissions.remove(Permission.objects.get(codename="pause_sale"))
    call_command("ensure_roles")
    assert [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Viewer: unchanged",
        "Operator: changed",
        "Manager: unchanged",
    ]
    user = User.objects.get(pk=user.pk)
    assert user.has_perm("sales.pause_sale")
    assert not user.has_perm("auth.add_user")
    assert set(user.groups.all()) == {operator}


def test_a_database_that_is_behind_is_told_to_migrate(db: None) -> None:
    Permission.objects.get(codename="settle_sale").delete()
    with pytest.raises(CommandError, match=r"no permission sales\.settle_sale: run `manage\.py migrate`"):
        call_command("ensure_roles")
    assert not Group.objects.exists()


def test_no_permission_of_ours_is_left_out_of_the_roles() -> None:
    """One that is declared and given to nobody would be a step that only superusers can take."""
    ours = {
        f"{app}.{codename}"
        for app in SHOWN
        for model in apps.get_app_config(app).get_models()
        for codename, _ in model._meta.permissions
    }
    assert "sales.pause_sale" in ours
    assert ours <= MANAGER
    assert not any(name.startswith("auth.") for permissions in ROLES.values() for name in permissions)
