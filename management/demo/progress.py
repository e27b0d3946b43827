"""The sale as it runs: a live picture on a terminal, a line now and then where the output is kept."""

from types import TracebackType

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from management.demo.watching import Moment

_LINE_EVERY_SECONDS = 1.0


class Progress:
    """Use it in a `with`, and `show` it each new moment."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._due = float("-inf")

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        if self._live:
            self._live.update(_picture(moment), refresh=True)
        elif moment.seconds >= self._due:
            self._due = moment.seconds + _LINE_EVERY_SECONDS
            self._console.print(_line(moment), soft_wrap=True)


def _picture(moment: Moment) -> RenderableType:
    if moment.seconds < 0:
        return f"[bold]opens in {-moment.seconds:.1f} s[/]"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", min_width=15)
    table.add_column()
    table.add_row("since the opening", f"{moment.seconds:.1f} s")
    of = f"of {moment.allotment:,}"
    table.add_row("granted", f"{moment.granted:,} {of}", _bar(moment.granted, moment.allotment, "cyan"))
    table.add_row("in PostgreSQL", f"{moment.sold:,} {of}", _bar(moment.sold, moment.allotment, "green"))
    table.add_row("backlog", f"{moment.under_way:,}", _bar(moment.under_way, moment.allotment, "yellow"))
    for kind, count in sorted(moment.answers.items()):  # by name: rows that change places cannot be read
        table.add_row(kind.replace("-", " "), f"{count:,}")
    table.add_row("still waiting", f"{moment.waiting:,}")
    return table


def _bar(part: int, whole: int, color: str) -> Bar:
    return Bar(size=max(1, whole), begin=0, end=min(part, whole), width=40, color=color)


def _line(moment: Moment) -> str:
    if moment.seconds < 0:
        return f"  opens in {-moment.seconds:.0f} s"
    answers = ", ".join(
        f"{count:,} {kind.replace('-', ' ')}" for kind, count in sorted(moment.answers.items())
    )
    return (
        f"  {moment.seconds:4.1f} s: {moment.granted:,} granted, {moment.sold:,} of {moment.allotment:,} in "
        f"PostgreSQL, backlog {moment.under_way:,}; {answers or 'no answers yet'}; {moment.waiting:,} waiting"
    )
