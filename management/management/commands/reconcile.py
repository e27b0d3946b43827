"""`manage.py reconcile`: one balance per sale over the three books."""

import json
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError
from rich.console import Console
from rich.table import Table

from orders.reconciliation import Balance, read
from sales import gate
from sales.models import Sale


class Command(BaseCommand):
    help = "Compare gate, log and order book, sale by sale. Ends with 0 only when everything is balanced."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sale", metavar="SLUG", help="only this sale; otherwise every sale ever armed")
        parser.add_argument("--json", action="store_true", help="for machines")
        parser.add_argument(
            "--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for what is under way"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        client = gate.connect()
        deadline = time.monotonic() + options["wait"]
        try:
            sales = _sales(options["sale"])
            balances = read(client, sales)
            while time.monotonic() < deadline and any(found.verdict != "balanced" for found in balances):
                time.sleep(0.2)
                balances = read(client, sales)
        except gate.GateUnreachable as error:
            raise CommandError(str(error)) from None
        except OperationalError as error:
            raise CommandError(f"PostgreSQL does not answer: {str(error).splitlines()[0]}") from None
        finally:
            client.close()
        balanced = all(found.verdict == "balanced" for found in balances)
        if options["json"]:
            report = {"balanced": balanced, "sales": [found.as_json() for found in balances]}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._show(balances)
        if not balanced:
            raise SystemExit(1)

    def _show(self, balances: list[Balance]) -> None:
        console = Console(file=self.stdout)  # type: ignore[arg-type]  # it writes; rich asks for no more
        if not balances:
            console.print("No sale has been armed yet: there is nothing to compare.")
            return
        for found in balances:
            console.print(_table(found))
            for line in found.differences:
                console.print(f"  differs: {line}", style="red", markup=False)
            for line in found.under_way:
                console.print(f"  under way: {line}", style="yellow", markup=False)
        console.print(", ".join(f"{found.sale}: {found.verdict}" for found in balances), markup=False)


def _sales(slug: str | None) -> list[Sale]:
    if slug is None:
        return list(Sale.objects.filter(epoch__gt=0).order_by("opens_at", "slug"))
    try:
        return [Sale.objects.get(slug=slug)]
    except Sale.DoesNotExist:
        raise CommandError(f"there is no sale {slug!r}") from None


def _table(found: Balance) -> Table:
    """Three books, one row each: what it counts, in units where it does not say otherwise."""
    table = Table(
        title=f"{found.sale} ({found.state}): {found.verdict}", title_justify="left", show_header=False
    )
    image, log, book = found.gate, found.log, found.book
    table.add_row("gate", _line(image._asdict(), skip=("epoch", "state")) if image else "holds nothing")
    unread = "not known" if log.unread is None else str(log.unread)
    table.add_row("log", f"unread {unread} records, parked {log.parked} records")
    table.add_row("order book", _line(book._asdict()))
    return table


def _line(counts: dict[str, Any], skip: tuple[str, ...] = ()) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in counts.items() if name not in skip)
