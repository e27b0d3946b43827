"""`manage.py verify_draw SALE`: recomputes a draw from what the shop publishes, as any stranger could."""

import json
from argparse import ArgumentParser
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from django.core.management.base import BaseCommand, CommandError

from waitingroom import draw

SECONDS = 30


class Command(BaseCommand):
    help = (
        "Check a draw by what the site publishes: the secret against the commitment, the list of entries "
        "against its digest, the seed against both. Asks nothing but the public API."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("sale", help="the sale's key")
        parser.add_argument(
            "--url", default="http://127.0.0.1:8000", help="of the site (default %(default)s)"
        )
        parser.add_argument("--number", type=int, metavar="N", help="also tell the place of this ticket")
        parser.add_argument(
            "--commitment", metavar="HEX", help="as you saw it before the opening (default: as told now)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        site = options["url"].rstrip("/")
        if not site.startswith(("http://", "https://")):
            raise CommandError("--url begins with http:// or https://")
        address = f"{site}/api/v1/sales/{quote(options['sale'], safe='')}"
        drawn = json.loads(_get(f"{address}/line"))["draw"]
        if drawn is None or drawn["seed"] is None:
            raise CommandError(f"the draw of {options['sale']} has not been made")
        entries = _get(f"{address}/entries")
        wrong = draw.objection(
            options["commitment"] or drawn["commitment"],
            entries,
            drawn["entries"],
            drawn["digest"],
            drawn["secret"],
            drawn["seed"],
            drawn["beacon"],
        )
        if wrong:
            raise CommandError(f"the draw does not hold: {wrong}")
        self.stdout.write(f"The draw of {drawn['entries']:,} entries holds, by seed {drawn['seed']}.")
        if options["number"] is not None:
            try:
                place = draw.place(bytes.fromhex(drawn["seed"]), options["number"], drawn["entries"])
            except ValueError as error:
                raise CommandError(str(error)) from None
            self.stdout.write(f"Number {options['number']} has place {place}, counted from 0.")


def _get(address: str) -> str:
    try:
        with urlopen(address, timeout=SECONDS) as answer:  # noqa: S310  # http or https, see handle
            text: str = answer.read().decode()
            return text
    except HTTPError as error:
        raise CommandError(f"{address} answers {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise CommandError(f"the site does not answer: {error}") from None
