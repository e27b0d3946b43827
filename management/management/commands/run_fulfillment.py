"""`manage.py run_fulfillment`: the consumer and the sweeper, until SIGTERM."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from prometheus_client import start_http_server

from orders.consumer import Consumer, LogShorter
from orders.fulfillment import POISON_IN_A_ROW, Poisoned
from orders.log import KafkaLog
from orders.sweeper import Sweeper
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
        parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve /metrics there")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = _stop_on_signal()
        if options["metrics_port"] is not None:
            if not 1 <= options["metrics_port"] <= 65535:
                raise CommandError("--metrics-port is between 1 and 65535")
            try:
                # Its own default is every interface of the machine.
                start_http_server(options["metrics_port"], addr=settings.FLUXGATE.metrics_host)
            except OSError as error:
                raise CommandError(f"metrics port {options['metrics_port']}: {error.strerror}") from None
        try:
            check_topic()
            self._run(stop, options["drain"], None if options["park_all"] else POISON_IN_A_ROW)
        except (TopicUnavailable, LogShorter, Poisoned) as error:
            raise CommandError(str(error)) from None
        except KafkaException as error:
            raise CommandError(f"the consumer cannot go on: {error.args[0].str()}") from None

    def _run(self, stop: threading.Event, drain: bool, poison_in_a_row: int | None) -> None:
        client = gate.connect()
        log = KafkaLog()
        consumer = Consumer(client, poison_in_a_row=poison_in_a_row)
        sweeper = Sweeper(client, log)
        try:
            while not stop.is_set():
                consumer.step()
                sweeper.step()
                if drain and consumer.drained():
                    break
        finally:
            consumer.close()  # first of all: the others take its partitions over meanwhile
            log.close()
            client.close()


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
