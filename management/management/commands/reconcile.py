"""`manage.py reconcile`: one balance per sale over the three books, and the repairs of what differs."""

import json
import time
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from rich.console import Console
from rich.table import Table

from orders import repair
from orders.balance import Balance
from orders.gatekeeper import Gatekeeper
from orders.leadership import Leadership
from orders.log import KafkaLog, Log
from orders.reconciliation import read
from orders.repair import Repair
from sales import fence, gate
from sales.directory import GATED
from sales.models import Sale

# A repair that has not helped so often does not help.
PASSES = 3
# How long a gate is waited for: the promise, and fulfillment of what stands before the barrier.
REARMED_SECONDS = 30.0


class Command(BaseCommand):
    help = "Compare gate, log and order book, sale by sale. Ends with 0 only when everything is balanced."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sale", metavar="SLUG", help="only this sale; otherwise every sale ever armed")
        parser.add_argument("--json", action="store_true", help="for machines")
        parser.add_argument(
            "--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for what is under way"
        )
        parser.add_argument(
            "--fix",
            action="store_true",
            help="repair what differs: append claims without a row again, give units of refused and "
            "cancelled orders back, wind a position beyond the end of the log back, arm a gate again",
        )
        parser.add_argument(
            "--read-again",
            action="store_true",
            help="with --fix: wind the positions back to the beginning of the log, wherever they lie",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["read_again"] and not options["fix"]:
            raise CommandError("--read-again goes with --fix")
        client = gate.connect()
        log = KafkaLog() if options["fix"] else None
        try:
            sales = _sales(options["sale"])
            balances, repairs = _run(client, log, sales, options["wait"], options["read_again"])
        except gate.GateUnreachable as error:
            raise CommandError(str(error)) from None
        except redis.RedisError as error:
            raise CommandError(f"the gate's Redis refuses: {error}") from None
        except (OperationalError, InterfaceError) as error:
            raise CommandError(f"PostgreSQL does not answer: {str(error).splitlines()[0]}") from None
        finally:
            if log is not None:
                log.close()
            client.close()
        balanced = _balanced(balances)
        if options["json"]:
            report: dict[str, Any] = {"balanced": balanced, "sales": [found.as_json() for found in balances]}
            if options["fix"]:
                report["repairs"] = [done._asdict() for done in repairs]
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._show(balances, repairs)
        if not balanced:
            raise SystemExit(1)

    def _show(self, balances: list[Balance], repairs: list[Repair]) -> None:
        console = Console(file=self.stdout)  # type: ignore[arg-type]  # it writes; rich asks for no more
        if not balances:
            console.print("No sale has been armed yet: there is nothing to compare.")
            return
        for done in repairs:
            console.print(f"{done.sale}: {done.line}", markup=False, soft_wrap=True)
        for found in balances:
            console.print(_table(found))
            for line in found.differences:
                console.print(f"  differs: {line}", style="red", markup=False)
            for line in found.under_way:
                console.print(f"  under way: {line}", style="yellow", markup=False)
        console.print(", ".join(f"{found.sale}: {found.verdict}" for found in balances), markup=False)


def _run(
    client: redis.Redis, log: Log | None, sales: list[Sale], wait: float, read_again: bool
) -> tuple[list[Balance], list[Repair]]:
    deadline = time.monotonic() + wait
    repairs: list[Repair] = []
    if read_again:
        wound = (repair.wind_back(sale, always=True) for sale in sales)
        repairs += [done for done in wound if done is not None]
    balances = read(client, sales)
    passes = 0 if log is None else PASSES
    while not _balanced(balances):
        if log is not None and passes:
            fixed = _fix(client, log, sales, balances, max(wait, REARMED_SECONDS))
            repairs += fixed
            passes -= any(each.times for each in fixed)
            balances = read(client, sales)
        if time.monotonic() >= deadline or _balanced(balances):
            break
        time.sleep(0.2)
        balances = read(client, sales)
    return balances, repairs


def _balanced(balances: list[Balance]) -> bool:
    return all(found.verdict == "balanced" for found in balances)


def _fix(
    client: redis.Redis, log: Log, sales: list[Sale], balances: list[Balance], seconds: float
) -> list[Repair]:
    done: list[Repair] = []
    for sale, found in zip(sales, balances, strict=True):
        if found.verdict != "balanced":
            done += repair.put_right(client, log, sale, found)
    gated = [sale for sale in sales if sale.state in GATED]
    if fence.fallen(client, gated):
        leadership, gatekeeper = Leadership(), Gatekeeper(client, log)
        try:
            # Where another gatekeeper leads it does the work, and we wait for it.
            done += repair.rearm(client, gated, lambda: leadership.held() and gatekeeper.step(), seconds)
        finally:
            leadership.close()
    return done


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
    image, log, book, claims = found.gate, found.log, found.book, found.claims
    table.add_row("gate", _line(image._asdict(), skip=("epoch", "state")) if image else "holds nothing")
    if claims is not None:
        compared = f"{claims.compared} compared with their rows"
        table.add_row("claims", compared if claims.complete else f"{compared}, not all")
    unread = "not known" if log.unread is None else str(log.unread)
    table.add_row("log", f"unread {unread} records, parked {log.parked} records")
    table.add_row("order book", _line(book._asdict()))
    return table


def _line(counts: dict[str, Any], skip: tuple[str, ...] = ()) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in counts.items() if name not in skip)
