"""`manage.py reset_second_factor USER`: for a lost phone. The next sign-in enrols a new one."""

from importlib import import_module
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.models import Session
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone
from django_otp import devices_for_user

logger = structlog.get_logger(__name__)


def _sign_out(user_id: Any) -> None:
    """Ends every session of this user: who holds the lost device would else be led to set up a new one."""
    sessions = import_module(settings.SESSION_ENGINE).SessionStore
    for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        if session.get_decoded().get(SESSION_KEY) == str(user_id):
            sessions(session.session_key).delete()  # also from the cache


class Command(BaseCommand):
    help = "Forget somebody's authenticator and recovery codes and sign them out; they set up new ones then."

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
        _sign_out(user.pk)
        logger.warning("second factor reset", user=name)
        self.stdout.write(
            f"{name} sets up a new second factor at the next sign-in"
            if devices
            else f"{name} had no second factor"
        )
