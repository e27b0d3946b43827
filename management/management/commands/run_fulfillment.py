"""`manage.py run_fulfillment`: claims into orders, until SIGTERM."""

import gc
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from django.core.management.base import BaseCommand, CommandError, CommandParser

from management.process import add_metrics_port, serve_metrics, stop_on_signal
from orders.consumer import Consumer, LogShorter
from orders.fulfillment import POISON_IN_A_ROW, Poisoned
from orders.health_file import STALE_SECONDS, HealthFile
from sales import gate
from sales.topic import TopicUnavailable, check_topic

# A drain that gets no further for so long gives up: whoever waits for its end wants an answer.
STUCK_SECONDS = 60.0
# A PostgreSQL that is frozen answers never, and the step that asks it does not return: then the process
# ends where it stands, as by a kill, which loses nothing.
FROZEN_SECONDS = 15.0


class Command(BaseCommand):
    help = (
        "Turn claims into orders. Several may run and share the partitions. SIGTERM finishes the batch and "
        "leaves the group; a second one kills."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drain",
            action="store_true",
            help="end when the partitions assigned to this process are fulfilled up to the end of the log, "
            "with several consumers each its own; "
            f"gives up after {STUCK_SECONDS:.0f} s in which nothing moves",
        )
        parser.add_argument(
            "--park-all",
            action="store_true",
            help=f"keep parking where {POISON_IN_A_ROW} records in a row cannot be used, not stopping",
        )
        parser.add_argument(
            "--health-file",
            type=Path,
            metavar="PATH",
            help="write there once a second, as one line of JSON, what it is doing; "
            f"older than {STALE_SECONDS} s means that it hangs",
        )
        add_metrics_port(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        stop = stop_on_signal()
        serve_metrics(options["metrics_port"])
        try:
            check_topic()
            poison_in_a_row = None if options["park_all"] else POISON_IN_A_ROW
            self._run(stop, options["drain"], poison_in_a_row, options["health_file"])
        except (TopicUnavailable, LogShorter, Poisoned) as error:
            raise CommandError(str(error)) from None
        except KafkaException as error:
            raise CommandError(f"the consumer cannot go on: {error.args[0].str()}") from None

    def _run(
        self,
        stop: threading.Event,
        drain: bool,
        poison_in_a_row: int | None,
        health_file: Path | None = None,
    ) -> None:
        with ExitStack() as opened:
            health = _health(opened, health_file)
            client = gate.connect()
            opened.callback(client.close)
            consumer = Consumer(client, poison_in_a_row=poison_in_a_row)
            opened.callback(consumer.close)  # first of all: the others take its partitions over meanwhile
            if drain:
                opened.callback(_end_when_frozen(self, consumer).set)
            # Orders leave nothing for the collector; it took a tenth of the time to find that out.
            gc.collect()
            gc.freeze()
            gc.set_threshold(100_000, 50, 50)
            while not stop.is_set():
                consumer.step()
                if health:
                    health.say(consumer.standing.as_json)
                if drain and consumer.drained():
                    break
                if drain and _still_for(consumer) > STUCK_SECONDS:
                    raise CommandError(_stuck(consumer))


def _health(opened: ExitStack, path: Path | None) -> HealthFile | None:
    if path is None:
        return None
    try:
        return opened.enter_context(HealthFile(path))
    except OSError as error:
        raise CommandError(f"health file {path}: {error.strerror}") from None


def _still_for(consumer: Consumer) -> float:
    return time.monotonic() - consumer.standing.moved_at


def _stuck(consumer: Consumer) -> str:
    trouble = consumer.standing.trouble or "nobody has said why"
    return f"nothing has moved for {STUCK_SECONDS:.0f} s, the drain gives up. The last trouble: {trouble}"


def _end_when_frozen(command: BaseCommand, consumer: Consumer) -> threading.Event:
    """Ends the process from beside the loop when a step does not return. Set the event to call it off."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            if _still_for(consumer) > STUCK_SECONDS + FROZEN_SECONDS:
                command.stderr.write(f"CommandError: {_stuck(consumer)}")
                command.stderr.flush()
                os._exit(1)

    threading.Thread(target=watch, name="frozen", daemon=True).start()
    return ended
