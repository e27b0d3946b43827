"""`manage.py stack up|status|down`: real servers for development, without Docker and without root."""

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from management.embedded import JARS, ROOT, Stack, StackError

IN_MEMORY = (
    "The broker is Tansu and keeps its log in memory: records that no consumer has read end with it, and "
    "its next start gets a new, empty topic. `stack up --kafka apache` keeps them."
)


class Command(BaseCommand):
    help = "Start, show or end the embedded servers: PostgreSQL, Valkey (gate and cache), a Kafka broker."
    requires_system_checks: list[str] = []  # they may ask for the very servers that this command starts

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        up = actions.add_parser("up", help="start what does not run, and write stack.env")
        up.add_argument("--kafka", choices=["tansu", "apache"], default="tansu")
        up.add_argument("--brokers", type=int, choices=[1, 3], default=1, help="3 with --kafka apache only")
        up.add_argument(
            "--port",
            type=_port,
            action="append",
            default=[],
            metavar="SERVER=PORT",
            help="e.g. postgres=5432",
        )
        up.add_argument("--jars", type=Path, default=JARS, help="where Apache Kafka is fetched to, once")
        status = actions.add_parser("status", help="show the servers")
        down = actions.add_parser("down", help="end the servers and keep their data")
        down.add_argument("--wipe", action="store_true", help="delete their data as well")
        for action in (up, status, down):
            action.add_argument(
                "--root", type=Path, default=ROOT, help="folder of data, logs and stack.env (.fluxgate)"
            )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, options["action"])(options)
        except StackError as error:
            raise CommandError(str(error)) from None

    def up(self, options: dict[str, Any]) -> None:
        stack = Stack(options["root"], options["jars"])
        stack.up(options["kafka"], options["brokers"], dict(options["port"]))
        self.status(options)

    def status(self, options: dict[str, Any]) -> None:
        rows = Stack(options["root"]).status()
        for row in rows:
            self.stdout.write(f"{row.server:<9} {row.state:<14} {row.address:<16} {row.pid or ''}".rstrip())
        if not rows:
            self.stdout.write(f"No servers in {options['root']}: `manage.py stack up` starts them.")
        elif any(row.server == "kafka" for row in rows):
            self.stdout.write(IN_MEMORY)

    def down(self, options: dict[str, Any]) -> None:
        Stack(options["root"]).down(wipe=options["wipe"])


def _port(text: str) -> tuple[str, int]:
    label, _, number = text.partition("=")
    if not label or not number.isdigit() or not 0 < int(number) < 65536:
        raise ArgumentTypeError(f"{text!r} is not SERVER=PORT")
    return label, int(number)
