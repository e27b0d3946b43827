"""Who may do what in the admin: three groups, each with all that the one before it may do.

Accounts are in none of them: users and groups stay with the superusers.
"""

from django.contrib.auth.models import Group, Permission
from django.db import transaction

SHOWN = ("sales", "waitingroom", "orders")  # the apps of which everybody sees everything

OPERATOR = frozenset(
    {
        "sales.open_sale",
        "sales.pause_sale",
        "sales.resume_sale",
        "waitingroom.change_room",  # the pace and the message; the rest of a room is for who may add one
        "orders.change_parkedrecord",  # to replay it
    }
)
MANAGER = OPERATOR | {
    "sales.add_product",
    "sales.change_product",
    "sales.delete_product",
    "sales.change_stock",
    "sales.add_sale",
    "sales.change_sale",
    "sales.delete_sale",
    "sales.schedule_sale",
    "sales.arm_sale",
    "sales.close_sale",
    "sales.settle_sale",
    "waitingroom.add_room",
    "waitingroom.add_brand",
    "waitingroom.change_brand",
    "waitingroom.delete_brand",
    "orders.delete_parkedrecord",  # to drop it; the row stays
}
ROLES: dict[str, frozenset[str]] = {"Viewer": frozenset(), "Operator": OPERATOR, "Manager": MANAGER}


class PermissionMissing(Exception):
    """The database does not know a permission yet. The text is one line for the operator."""


def ensure_roles() -> list[str]:
    """Makes the groups and gives each exactly its permissions; one line a group.

    Who is in a group stays in it. Raises PermissionMissing, and has changed nothing then.
    """
    named = {
        f"{permission.content_type.app_label}.{permission.codename}": permission
        for permission in Permission.objects.filter(content_type__app_label__in=SHOWN).select_related(
            "content_type"
        )
    }
    views = {name for name in named if name.partition(".")[2].startswith("view_")}
    if missing := sorted(MANAGER - set(named)):
        raise PermissionMissing(f"the database has no permission {missing[0]}: run `manage.py migrate`")
    lines = []
    with transaction.atomic():
        for role, permissions in ROLES.items():
            group, made = Group.objects.get_or_create(name=role)
            wanted = [named[name] for name in sorted(views | permissions)]
            before = set(group.permissions.all())
            group.permissions.set(wanted)
            verb = "made" if made else "changed" if before != set(wanted) else "unchanged"
            lines.append(f"{role}: {verb}, {len(wanted)} permissions")
    return lines
