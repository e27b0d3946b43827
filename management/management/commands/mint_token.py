"""`manage.py mint_token CUSTOMER`: a buyer's token, as the shop would issue it. Off in production."""

import time
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sales.identity import mint
from waitingroom.admission import admit


class Command(BaseCommand):
    help = "Print a buyer's token for trying out the API. Off in production: there the shop issues them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("customer", help="the customer's id, 1 to 255 printable characters")
        parser.add_argument("--minutes", type=int, default=60, help="lifetime of the token (default 60)")
        parser.add_argument(
            "--admission", metavar="SALE", help="print an admission to this sale instead of a token"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        customer, minutes = options["customer"], options["minutes"]
        if not (0 < len(customer) <= 255 and customer.isprintable()):
            raise CommandError("a customer id has 1 to 255 printable characters")
        if not 0 < minutes <= 60 * 24:
            raise CommandError("--minutes is between 1 and 1440")
        try:
            token = mint(customer, lifetime=timedelta(minutes=minutes))
        except ValueError as error:
            raise CommandError(str(error)) from None
        if options["admission"] is not None:
            token = admit(options["admission"], customer, until=time.time() + minutes * 60)
        self.stdout.write(token)
