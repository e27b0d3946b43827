"""`manage.py demo`: a whole flash sale, end to end, on real servers."""

import sys
from argparse import SUPPRESS
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from management.demo import day, ground, stopping
from management.demo.herd import CrowdBroken
from management.demo.options import Unusable, add_arguments, read
from management.demo.processes import Broken
from management.demo.selling import TookTooLong
from management.embedded import StackError
from sales.arming import Refused
from sales.gate import GateUnreachable
from sales.topic import TopicUnavailable

_KEPT_WIDTH = 110  # of output that goes into a file


class Command(BaseCommand):
    help = (
        "Start the servers, the site and a crowd of buyers over HTTP; sell out; compare the books. Ends with "
        "0 only when they are balanced and every unit that was wanted is sold."
    )
    requires_system_checks: list[str] = []  # the servers they may ask for are started by this command

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Without the usage, which fills a screen, a mistake is one line.
        return super().create_parser(prog_name, subcommand, usage=SUPPRESS, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)
        parser.add_argument(
            "--on-stack", choices=["ours", "found"], help=SUPPRESS
        )  # of management.demo.ground

    def handle(self, *args: Any, **values: Any) -> None:
        try:
            try:
                stopping.listen()  # here, because a signal may have been waiting for it
                options = read(values)
                console = _console()
                if values["on_stack"] is None:
                    ground.begin_again(options, sys.argv[2:], console)
                balanced = day.hold(options, console).balanced
            finally:
                stopping.ignore()
                if values["on_stack"] == "ours":
                    ground.end_stack(values["root"])
        except stopping.Stopped:
            self.stderr.write("Stopped, and everything that was started is ended.")
            raise SystemExit(130) from None  # as a shell says it of Ctrl-C
        except (
            Unusable, StackError, Broken, CrowdBroken, TookTooLong, Refused, GateUnreachable,
            TopicUnavailable,
        ) as error:  # fmt: skip
            raise CommandError(str(error)) from None
        if not balanced:
            raise SystemExit(1)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _KEPT_WIDTH
    return console
