"""`manage.py report SALE`: what became of a sale; `--verify FILE` checks a report that was passed on."""

import csv
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.report import Unverified, report, rows, verify
from sales.models import Sale


class Command(BaseCommand):
    help = "Print what became of a sale; or check that a report was made here and has not been changed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("sale", nargs="?", help="the sale's key")
        what.add_argument("--verify", metavar="FILE", type=Path, help="a report as JSON")
        parser.add_argument("--csv", action="store_true", help="section, name, value instead of JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verify"]:
            self._verify(options["verify"])
            return
        sale = Sale.objects.select_related("product").filter(slug=options["sale"]).first()
        if sale is None:
            raise CommandError(f"there is no sale “{options['sale']}”")
        try:
            told = report(sale)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if options["csv"]:
            table = csv.writer(self.stdout, lineterminator="\n")
            table.writerow(("section", "name", "value"))
            table.writerows(rows(told))
        else:
            self.stdout.write(json.dumps(told, indent=2, ensure_ascii=False))

    def _verify(self, file: Path) -> None:
        try:
            told = verify(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from None
        except Unverified as error:
            raise CommandError(f"{file} does not hold: {error}") from None
        key, made_at = told["sale"]["key"], told["made_at"]
        self.stdout.write(f"The report of {key}, made at {made_at}, is ours and unchanged.")
