"""`manage.py reset_second_factor USER`: for a lost phone. The next sign-in enrols a new one."""

from typing import Any

import structlog
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django_otp import devices_for_user

logger = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Forget somebody's authenticator and recovery codes; their next sign-in sets up new ones."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="the name they sign in with")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        name = options["user"]
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"there is no user {name}")
        devices = list(devices_for_user(user, confirmed=None))
        for device in devices:
            device.delete()
        logger.warning("second factor reset", user=name)
        self.stdout.write(
            f"{name} sets up a new second factor at the next sign-in"
            if devices
            else f"{name} had no second factor"
        )
