"""`manage.py run_fulfillment`: claims into orders, until SIGTERM."""

import threading
from typing import Any

from confluent_kafka import KafkaException
from django.core.management.base import BaseCommand, CommandError, CommandParser

from management.process import add_metrics_port, serve_metrics, stop_on_signal
from orders.consumer import Consumer, LogShorter
from orders.fulfillment import POISON_IN_A_ROW, Poisoned
from sales import gate
from sales.topic import TopicUnavailable, check_topic


class Command(BaseCommand):
    help = (
        "Turn claims into orders. Several may run and share the partitions. SIGTERM finishes the batch and "
        "leaves the group; a second one kills."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drain",
            action="store_true",
            help="end when the partitions assigned to this process are fulfilled up to the end of the log; "
            "with several consumers each drains its own",
        )
        parser.add_argument(
            "--park-all",
            action="store_true",
            help=f"keep parking where {POISON_IN_A_ROW} records in a row cannot be used, not stopping",
        )
        add_metrics_port(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        stop = stop_on_signal()
        serve_metrics(options["metrics_port"])
        try:
            check_topic()
            self._run(stop, options["drain"], None if options["park_all"] else POISON_IN_A_ROW)
        except (TopicUnavailable, LogShorter, Poisoned) as error:
            raise CommandError(str(error)) from None
        except KafkaException as error:
            raise CommandError(f"the consumer cannot go on: {error.args[0].str()}") from None

    def _run(self, stop: threading.Event, drain: bool, poison_in_a_row: int | None) -> None:
        client = gate.connect()
        consumer = Consumer(client, poison_in_a_row=poison_in_a_row)
        try:
            while not stop.is_set():
                consumer.step()
                if drain and consumer.drained():
                    break
        finally:
            consumer.close()  # first of all: the others take its partitions over meanwhile
            client.close()
