"""From the countdown to the last row: watch, and kill a consumer where that is wanted."""

import time

import redis

from management.demo.herd import Herd
from management.demo.messages import Said
from management.demo.progress import Progress
from management.demo.report import Kill
from management.demo.site import Site
from management.demo.watching import Moment, look
from sales.models import Sale

_TICK_SECONDS = 0.1
# While a consumer is to be killed at its first rows: a fast one writes them all within a second.
_CLOSE_TICK_SECONDS = 0.02
# After the last answer: a killed consumer's partitions come back after its session timeout.
_WRITTEN_SECONDS = 60.0
# After the patience of the crowd, which bounds its work by itself.
_OVERTIME_SECONDS = 60.0


class TookTooLong(Exception):
    """The crowd is still waiting for answers, long after its patience should have ended."""


def sell(
    site: Site,
    client: redis.Redis,
    sale: Sale,
    herd: Herd,
    progress: Progress,
    *,
    patience_seconds: float,
    kill: bool,
) -> tuple[Said, Kill | None]:
    """Returns when every click has its last answer and every granted unit its row, or that took too long.

    `patience_seconds` is the crowd's, from the opening. Raises TookTooLong, processes.Broken,
    herd.CrowdBroken and gate.GateUnreachable.
    """
    opens_at = sale.opens_at.timestamp()
    killer = _Killer(site, sale) if kill else None
    herd.go(opens_at)
    answered_at: float | None = None
    while True:
        site.check()
        said = herd.said()
        moment = look(client, sale, time.time() - opens_at, said.answers, said.waiting)
        progress.show(moment)
        if killer:
            killer.step(moment)
        if said.outcomes is not None:
            answered_at = answered_at or moment.seconds
            written = moment.under_way == 0 and moment.sold == moment.granted
            if written or moment.seconds - answered_at > _WRITTEN_SECONDS:
                return said, killer.done() if killer else None
        elif moment.seconds > patience_seconds + _OVERTIME_SECONDS:
            raise TookTooLong(
                f"{said.waiting:,} clicks have no answer {moment.seconds:.0f} s after the opening"
            )
        time.sleep(_CLOSE_TICK_SECONDS if killer and killer.waits else _TICK_SECONDS)


class _Killer:
    """kill -9 to the consumer at work, once; another one is started at once, as a supervisor does."""

    def __init__(self, site: Site, sale: Sale) -> None:
        self._site = site
        self._sale = sale
        self._consumer = ""
        self._at = 0.0
        self._rows = 0
        self._seen, self._row_at = 0, 0.0  # the last row, and when it was seen
        self._standstill: float | None = None

    @property
    def waits(self) -> bool:
        return not self._consumer

    def step(self, moment: Moment) -> None:
        if self.waits:
            if moment.sold and (name := self._site.kill_working_consumer()):
                self._consumer, self._at, self._row_at = name, moment.seconds, moment.seconds
                # Read again: it has written on until it was gone.
                self._rows = self._seen = Sale.objects.values_list("sold", flat=True).get(pk=self._sale.pk)
                self._site.start_consumer()
        elif moment.sold > self._seen:
            # Not the first one alone: PostgreSQL still commits what had been sent to it before the kill.
            self._standstill = max(self._standstill or 0.0, moment.seconds - self._row_at)
            self._seen, self._row_at = moment.sold, moment.seconds

    def done(self) -> Kill | None:
        """What was done; None when there was nobody to kill, because none of ours wrote anything."""
        if self.waits:
            return None
        return Kill(self._consumer, self._at, self._rows, self._standstill)
