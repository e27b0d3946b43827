"""`manage.py ensure_roles`: the groups Viewer, Operator and Manager, with the permissions of this release."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from management.roles import PermissionMissing, ensure_roles


class Command(BaseCommand):
    help = "Make the groups Viewer, Operator and Manager, or bring their permissions up to date."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write("\n".join(ensure_roles()))
        except PermissionMissing as error:
            raise CommandError(str(error)) from None
