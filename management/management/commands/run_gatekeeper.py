"""`manage.py run_gatekeeper`: arms fallen gates again and sweeps held claims, until SIGTERM."""

import threading
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError, CommandParser

from management.process import add_metrics_port, serve_metrics, stop_on_signal
from orders import book
from orders.balance_metrics import BalanceMetrics
from orders.closing import finish_closing, finish_settling
from orders.gatekeeper import Gatekeeper
from orders.leadership import Leadership
from orders.log import KafkaLog
from orders.sweeper import Sweeper
from sales import gate
from sales.topic import TopicUnavailable, check_topic
from waitingroom import metrics as line_metrics
from waitingroom.keeping import Keeper

TURN_SECONDS = 0.1
STANDBY_SECONDS = 1.0
logger = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = (
        "Arm gates again that have fallen, and append claims again that stayed held. Several may run: one "
        "works, the others stand by. SIGTERM finishes the step."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_metrics_port(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        stop = stop_on_signal()
        serve_metrics(options["metrics_port"])
        try:
            check_topic()
        except TopicUnavailable as error:
            raise CommandError(str(error)) from None
        self._run(stop)

    def _run(self, stop: threading.Event) -> None:
        client, log, leadership = gate.connect(), KafkaLog(), Leadership()
        gatekeeper, sweeper = Gatekeeper(client, log), Sweeper(client, log)
        balance, keeper = BalanceMetrics(client), Keeper(client, log.available)
        leads = False
        try:
            while not stop.is_set():
                led, leads = leads, leadership.held()
                if leads != led:
                    logger.info("gatekeeper leads" if leads else "gatekeeper stands by")
                if leads:
                    gatekeeper.step()
                    sweeper.step()
                    keeper.step()
                    finish_closing(client)
                    finish_settling(client)
                    balance.step()
                elif led:
                    gatekeeper.forget()
                    balance.forget()
                    line_metrics.forget()
                stop.wait(TURN_SECONDS if leads else STANDBY_SECONDS)
        finally:
            log.close()
            client.close()
            leadership.close()
            book.disconnect()
