"""`manage.py parked`: what fulfillment could not use; put it through, or let it go."""

import getpass
import json
from argparse import ArgumentParser
from base64 import b64encode
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError
from rich.console import Console
from rich.table import Table

from orders import parking
from orders.models import ParkedRecord, ParkedState
from sales import gate

REASON = 500  # characters
LIMIT = 100  # records that a list shows where nobody says otherwise


class Command(BaseCommand):
    help = (
        "Records that fulfillment could not use. `replay` fulfils them again, each exactly once; `drop` "
        "gives them up for a reason. Neither deletes anything."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True)
        show = steps.add_parser("list", help="what is parked, the oldest of the log first")
        show.add_argument("--json", action="store_true", help="for machines, with key, value and headers")
        show.add_argument("--state", choices=ParkedState.values, default=ParkedState.PARKED.value)
        show.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"at most N ({LIMIT})")
        replay = steps.add_parser("replay", help="fulfil them again, in the order of the log")
        replay.add_argument("--all", action="store_true", help="everything that is parked")
        replay.add_argument("--reason", default="", metavar="TEXT")
        drop = steps.add_parser("drop", help="give them up")
        drop.add_argument("--reason", required=True, metavar="TEXT")
        for chosen in (replay, drop):
            chosen.add_argument("ids", nargs="*", metavar="ID", help="as `parked list` shows it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["step"] == "list":
                self._list(options["state"], options["limit"], options["json"])
            elif options["step"] == "replay":
                self._replay(options["ids"], options["all"], _reason(options["reason"]))
            else:
                self._drop(options["ids"], _reason(options["reason"]))
        except (OperationalError, InterfaceError) as error:
            raise CommandError(f"PostgreSQL does not answer: {str(error).splitlines()[0]}") from None

    def _list(self, state: str, limit: int, as_json: bool) -> None:
        found = ParkedRecord.objects.filter(state=state)
        count, shown = found.count(), in_log_order(found)[: max(0, limit)]
        if as_json:
            records = [_as_json(record) for record in shown]
            self.stdout.write(json.dumps({"state": state, "count": count, "records": records}, indent=2))
            return
        if not count:
            self.stdout.write(f"Nothing is {state}.")
            return
        table = Table(box=None, pad_edge=False)
        table.add_column("id", justify="right", no_wrap=True)
        table.add_column("record", no_wrap=True)
        table.add_column("tried", justify="right")
        table.add_column("last tried")
        table.add_column("cause")
        for record in shown:
            table.add_row(
                str(record.pk),
                str(record),
                str(record.attempts),
                record.tried_at.isoformat(" ", "seconds"),
                record.cause,
            )
        console = Console(file=self.stdout, markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]
        console.print(table)
        if count > limit:
            console.print(f"… and {count - limit} more: --limit shows them")

    def _replay(self, ids: list[str], everything: bool, reason: str) -> None:
        if everything and ids:
            raise CommandError("either ids or --all")
        if everything:
            records = list(in_log_order(ParkedRecord.objects.filter(state=ParkedState.PARKED)))
        else:
            records = _records(ids)
        left = untold = 0
        with closing(gate.connect()) as client:
            for record in records:
                try:
                    done = parking.replay(record.pk, client=client, actor=_actor(), reason=reason)
                except parking.StillUnusable as error:
                    left += 1
                    self.stdout.write(f"{record.pk}: {record} is still parked: {error}")
                except parking.Refused as error:
                    left += 1
                    self.stdout.write(f"{record.pk}: {record}: {error}")
                else:
                    untold += not done.told
                    self.stdout.write(f"{record.pk}: {record} replayed: {done.line}")
        if left:
            raise CommandError(f"{left} of {len(records)} were not replayed")
        if untold:
            raise CommandError(f"the gate was not told of {untold}: replay them again when it answers")
        self.stdout.write(f"{len(records)} replayed")

    def _drop(self, ids: list[str], reason: str) -> None:
        records, refused = _records(ids), 0
        for record in records:
            try:
                parking.drop(record.pk, actor=_actor(), reason=reason)
            except parking.Refused as error:
                refused += 1
                self.stdout.write(f"{record.pk}: {record}: {error}")
            else:
                self.stdout.write(f"{record.pk}: {record} dropped")
        if refused:
            raise CommandError(f"{refused} of {len(records)} were not dropped")


def in_log_order(records: Any) -> Any:
    """As the log had them: where a claim and its cancel are both parked, the first one goes first."""
    return records.order_by("topic", "incarnation", "partition", "offset")


def _records(ids: Iterable[str]) -> list[ParkedRecord]:
    """The records of these ids in log order. Raises CommandError before anything is done."""
    wanted = set()
    for text in ids:
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise CommandError(f"{text!r} is not an id: `manage.py parked list` shows them")
        wanted.add(int(text))
    if not wanted:
        raise CommandError("which records? `manage.py parked list` shows their ids")
    records = list(in_log_order(ParkedRecord.objects.filter(pk__in=wanted)))
    if missing := sorted(wanted - {record.pk for record in records}):
        raise CommandError(f"there is no parked record {', '.join(map(str, missing))}: nothing was done")
    return records


def _actor() -> str:
    """Who types, as far as the machine knows."""
    try:
        return f"{getpass.getuser()[:100]} (shell)"
    except (OSError, KeyError):  # no account in this container
        return "shell"


def _as_json(record: ParkedRecord) -> dict[str, Any]:
    events = record.events.values("at", "step", "actor", "reason", "outcome")
    return {
        "id": record.pk,
        "topic": record.topic,
        "incarnation": record.incarnation,
        "partition": record.partition,
        "offset": record.offset,
        "state": record.state,
        "cause": record.cause,
        "attempts": record.attempts,
        "parked_at": record.parked_at.isoformat(),
        "last_tried_at": record.tried_at.isoformat(),
        "key": _text(bytes(record.key)),
        "value": _text(bytes(record.value)),
        "headers": record.headers,
        "events": [event | {"at": event["at"].isoformat()} for event in events],
    }


def _text(payload: bytes) -> str | dict[str, str]:
    """As it is, or in base64 where it is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(payload).decode()}


def _reason(text: str) -> str:
    if len(text) > REASON:
        raise CommandError(f"a reason has at most {REASON} characters")
    return text.encode(errors="replace").decode()  # what the shell could not read is no reason to end
