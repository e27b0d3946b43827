"""`manage.py ensure_topics`: the topic of the log, made once."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sales.topic import TopicUnavailable, ensure_topic


class Command(BaseCommand):
    help = "Create the topic of the log where it is not there. Repeating it changes nothing."
    requires_system_checks: list[str] = []  # it runs before the rest of the house stands

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(ensure_topic())
        except TopicUnavailable as error:
            raise CommandError(str(error)) from None
